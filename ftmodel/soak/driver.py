"""The driver: gives rounds to lanes, puts down what they tell, and has what is found confirmed.

It is one thread: lanes' words come to it through a queue, signals as flags. What is told is in the journal before
anything else is done with it, so the driver may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from ftmodel.errors import HarnessError, StoreError
from ftmodel.invariants.situations import SITUATIONS
from ftmodel.soak import rounds
from ftmodel.soak.bugs import Bug
from ftmodel.soak.findings import Findings
from ftmodel.soak.journal import Journal, Played
from ftmodel.soak.keeping import Keeping
from ftmodel.soak.lane import CLOSE
from ftmodel.soak.places import Hand, Place
from ftmodel.soak.rounds import Round
from ftmodel.soak.totals import Totals
from ftmodel.soak.wish import Wish
from ftmodel.store import Run
from ftmodel.targets.real.leftovers import clear, survivors
from ftmodel.targets.real.usage import used

LOOK_EVERY_S: Final = 0.2
DEATHS: Final = 5
"""A lane that dies so often, one time after the other and without having ended an example, is given up, and the soak."""
CLEARED_BOUND_S: Final = 10.0
"""So long after a lane's death its wardens have to clear up; then it is done for them."""
WEIGH_EVERY_S: Final = 10.0
END_SHARE: Final = 0.05
"""Of the time, what is left at its end to what is under way and to confirming: no round begins in it, ..."""
END_MOST_S: Final = 60.0
"""... but in so much of it at most."""
PATIENT_S: Final = 80.0
"""Before that: a patient example is not over sooner."""
LASTING_S: Final = 300.0
"""Likewise a round on a cluster that lasts, by what it has taken."""
STARTING: Final = "starting"
START_BOUND_S: Final = 60.0
"""When no round is given out any more, a lane that has not begun within this time is ended: it may never get a place."""
AHEAD: Final = 1
"""Rounds that a lane is given while it plays one."""


@dataclass(slots=True, kw_only=True)
class LaneState:
    """One lane as the driver knows it."""

    name: str
    hand: Hand
    doing: str = STARTING
    since_s: float = field(default_factory=time.monotonic)
    rounds: list[Round] = field(default_factory=list)
    """Given to it and not over."""
    scratch: str = ""
    idle: bool = False
    """It waits for a round, or for word that there will be none."""
    told_all: bool = False
    """It has said that it has nothing more to tell."""

    def now(self, doing: str) -> None:
        """It does something else."""
        self.doing, self.since_s = doing, time.monotonic()


class Audience(Protocol):
    """Who is told how the soak goes on, from the driver's thread."""

    def said(self, line: str) -> None:
        """A line about what has happened."""

    def looked(self, driver: Driver) -> None:
        """The driver has looked around: several times a second."""


class Driver:
    """One soak's stint: from the begin of one command to its end."""

    def __init__(self, journal: Journal, wish: Wish, place: Place, audience: Audience, keeping: Keeping) -> None:
        self.wish = wish
        self.began_s = time.monotonic()
        self.totals: Totals = journal.totals()
        self.lanes: dict[str, LaneState] = {}
        self.doubts: list[str] = []
        self.stepped: dict[str, int] = {"steps": 0, "faults": 0}
        """Of this stint."""
        self.stopping = ""
        """Why no further round is given out, if so."""
        self.versions: dict[str, Any] = {}
        self._journal = journal
        self._place = place
        self._audience = audience
        self._keeping = keeping
        self._stint = journal.begin_stint()
        self._number = journal.last_round()
        self._given = 0
        self._findings = Findings(journal, wish, audience.said)
        self._weighed_s = float("-inf")
        self._heard: queue.Queue[tuple[str, dict[str, Any] | None]] = queue.Queue()
        self._deaths = 0
        self._lives = 0
        self._looked_s = self.began_s
        self._closed = False
        self._corpus = deque(self._of_corpus())

    @property
    def until_s(self) -> float:
        """On the monotonic clock: when it is over."""
        return self.began_s + self.wish.seconds

    @property
    def last_s(self) -> float:
        """Likewise: when rounds are no longer given out, and what was given out and has not begun is dropped."""
        return self.until_s - min(END_MOST_S, END_SHARE * self.wish.seconds)

    @property
    def bugs(self) -> dict[str, Bug]:
        """By signature: all that was found so far, by earlier stints too."""
        return self._findings.bugs

    @property
    def missing(self) -> list[str]:
        """Situations that were never reached."""
        reached = self.totals.reached
        return [situation.id for situation in SITUATIONS if not reached.get(situation.id)]

    @property
    def round_count(self) -> int:
        """Rounds that were given out so far, by earlier stints too."""
        return self._number

    def run(self) -> None:
        """Soak until the time is over, or `stop` was called.

        Raises StoreError (a full disk), HarnessError (lanes that cannot live) and KeyboardInterrupt; whatever is raised,
        no lane and nothing of a cluster is left.
        """
        how = "stopped"
        try:
            self._findings.mend()
            for _ in range(self.wish.lanes):
                self._start_lane()
            while self.lanes:
                self._look()
            how = "stopped" if self.stopping else "done"
        finally:
            for lane in list(self.lanes.values()):
                lane.hand.kill()
            for lane in list(self.lanes.values()):
                self._clear(lane)
            self._place.close()
            with contextlib.suppress(StoreError):  # of a full disk is told already
                self._journal.end_stint(self._stint, how)

    def stop(self, why: str) -> None:
        """Give out no further round; what is under way comes to its end."""
        if not self.stopping:
            self.stopping = why
            self._audience.said(f"{why}: what is under way comes to its end; Ctrl-C again ends it at once")

    # -- lanes

    def _start_lane(self) -> None:
        self._lives += 1
        name = str(self._lives)
        setup = dataclasses.replace(self.wish.setup, name=name)
        self.lanes[name] = LaneState(name=name, hand=self._place.start(setup, lambda *told: self._heard.put(told)))
        for _ in range(1 + AHEAD):
            self._give(self.lanes[name])

    def _look(self) -> None:
        """Take what was told, for a while at most."""
        with contextlib.suppress(queue.Empty):
            name, row = self._heard.get(timeout=LOOK_EVERY_S)
            lane = self.lanes[name]
            if row is None:
                self._ended(lane)
            else:
                self._told(lane, row)
        self._count()
        self._close()
        self._dismiss()
        self._keeping.look(self._journal)
        self._weigh()
        self._audience.looked(self)

    def _count(self) -> None:
        """The lanes' time since the last look."""
        now_s = time.monotonic()
        self._findings.purse.live(
            (now_s - self._looked_s) * sum(lane.doing != STARTING for lane in self.lanes.values())
        )
        self._looked_s = now_s

    def _close(self) -> None:
        """Once no round is given out any more, have the lanes begin nothing of what they were given."""
        if not self._closed and self.wish.only is None and not self._more():
            self._closed = True
            for lane in self.lanes.values():
                lane.hand.send(CLOSE)

    def _told(self, lane: LaneState, row: dict[str, Any]) -> None:
        match row["is"]:
            case "ready":
                lane.scratch = row["scratch"]
                if not self.versions:
                    Run(self.wish.folder).write_env(profile="soak", seed=self.wish.seed, **row["env"])
                self.versions = {key: row[key] for key in ("system", "version", "versions")}
                lane.now("ready")
            case "began":
                lane.now(row["what"])
            case "stepped":
                for key in self.stepped:
                    self.stepped[key] += row.get(key, 0)
            case "wants":
                self._give(lane)
            case "example":
                self._example(row)
            case "round-over":
                self._round_over(lane, row["round"], "dropped" if row.get("dropped") else "done")
            case "shrunk":
                self._findings.shrunk(row)
            case "over":
                lane.told_all = True
                self.doubts += [f"left behind by lane {lane.name}: {left}" for left in row["left_over"]]
            case "failed":
                self._failed(lane, row)

    def _failed(self, lane: LaneState, row: dict[str, Any]) -> None:
        if row["what"] == "store":
            raise StoreError(row["message"])
        self._audience.said(f"lane {lane.name} failed: {row['message']}")
        lane.now(f"failed: {row['message']}")

    def _ended(self, lane: LaneState) -> None:
        """A lane's process has ended: as it was told to, or its rounds are lost and another takes its place."""
        del self.lanes[lane.name]
        self._clear(lane)
        if lane.told_all:
            return
        for this in lane.rounds:
            self._leave(this, "lost")
        lost = ", ".join(str(this.number) for this in lane.rounds) or "none"
        self._audience.said(f"lane {lane.name} ended before its time; rounds lost: {lost}")
        self._deaths += 1
        if self._deaths >= DEATHS:
            logs = Path(self.wish.setup.folder) / "lanes"
            raise HarnessError(f"{self._deaths} lanes died and not one ended an example ({lane.doing}); see {logs}")
        if self._more():
            self._start_lane()

    def _clear(self, lane: LaneState) -> None:
        """Wait until nothing is left of the clusters of a lane that has ended; see to it, if its wardens do not."""
        if not lane.scratch:
            return
        scratch, until_s = Path(lane.scratch), time.monotonic() + CLEARED_BOUND_S
        while scratch.exists() or survivors(scratch):
            if time.monotonic() > until_s:
                clear(scratch)
                self.doubts.append(f"left behind by lane {lane.name}: {scratch}")
                return
            time.sleep(LOOK_EVERY_S)

    def _weigh(self) -> None:
        """Now and then: what the tester itself uses."""
        if time.monotonic() < self._weighed_s + WEIGH_EVERY_S:
            return
        self._weighed_s = time.monotonic()
        pids = {"driver": os.getpid(), **{f"lane {lane.name}": lane.hand.pid for lane in self.lanes.values()}}
        found = {who: used(pid) for who, pid in pids.items() if pid}
        self._journal.add_testers(self._stint, {who: one for who, one in found.items() if one is not None})

    # -- what is played next

    def _more(self) -> bool:
        """True while rounds are given out."""
        if self.wish.only is not None:
            return self._given == 0
        return not self.stopping and time.monotonic() < self.last_s

    def _give(self, lane: LaneState) -> None:
        this = self._next()
        lane.idle = this is None
        if this is None:
            return
        self._given += 1
        self._journal.begin_round(self._stint, lane.name, this)
        lane.rounds.append(this)
        lane.hand.send(rounds.as_json(this))
        self._audience.said(f"round {this.number} lane {lane.name} {told(this)}")

    def _dismiss(self) -> None:
        """When all rounds are over and no lane has more to do, let them go; first what the last rounds found is confirmed."""
        if not self._more():
            for lane in self.lanes.values():
                if lane.doing == STARTING and time.monotonic() > lane.since_s + START_BOUND_S:
                    lane.hand.kill()
        lanes = [lane for lane in self.lanes.values() if lane.idle]
        for lane in lanes:
            self._give(lane)
        if lanes and all(not lane.rounds for lane in self.lanes.values()):
            for lane in lanes:
                lane.idle = False
                lane.hand.send(None)

    def _next(self) -> Round | None:
        """What a lane is given now; None: nothing any more."""
        number = self._number + 1
        if not self._more():
            late = self.wish.only is not None or bool(self.stopping) or time.monotonic() > self.until_s
            this = None if late else self._findings.next(number, self.until_s)
        elif self.wish.only is not None:
            this = dataclasses.replace(self.wish.only, number=number)
        else:
            this = self._findings.next(number, self.until_s) or self._of_kept(number) or self._drawn(number)
        self._number += this is not None
        return this

    def _drawn(self, number: int) -> Round:
        top = self.wish.topologies[number % len(self.wish.topologies)]
        turn = number // len(self.wish.topologies)
        left_s = self.last_s - time.monotonic()
        lasting = top.target == "real" and left_s > LASTING_S
        if lasting and turn % rounds.LASTING_EVERY == rounds.LASTING_AT:
            return rounds.lasting(number, top, soak_seed=self.wish.seed, steps=self.wish.steps)
        this = rounds.drawn(number, top, soak_seed=self.wish.seed, steps=self.wish.steps, missing=self.missing)
        return dataclasses.replace(this, patient=left_s > PATIENT_S)

    def _of_kept(self, number: int) -> Round | None:
        """Plans that were kept by an earlier soak: replayed first."""
        if not self._corpus:
            return None
        topology, plans = self._corpus.popleft()
        return Round(
            number=number, source="corpus", topology=topology, seed=self.wish.seed, examples=len(plans),
            plans=tuple(plans),
        )  # fmt: skip

    def _of_corpus(self) -> list[tuple[str, list[Any]]]:
        kept = [plan for plan, _ in self._journal.corpus(before=self._stint)]
        found = []
        for top in self.wish.topologies:
            mine = [plan for plan in kept if plan.topology == top.name]
            size = rounds.EXAMPLES
            found += [(top.name, mine[at : at + size]) for at in range(0, len(mine), size)]
        return found

    # -- what became of it

    def _example(self, row: dict[str, Any]) -> None:
        self._deaths = 0
        names = ("name", "round", "topology", "verdict", "doubt", "seconds", "folder", "plan", "counts")
        played = Played(**{name: row[name] for name in names}, findings=tuple(row["findings"]), usage=row["usage"])
        this = next((r for lane in self.lanes.values() for r in lane.rounds if r.number == played.round), None)
        changed = self._findings.changed(this, played, row["version"])
        self._journal.add_example(played, changed)
        for bug in changed:
            self._findings.put(bug)
        if this is not None:
            again = this.source in ("confirm", "shrink")
            if this.source == "confirm":
                self._findings.purse.spend(played.seconds / self.wish.setup.width)
            why = "" if again else self._rare(played)
            self.totals.add(played.counts, played.seconds)
            if why:
                self._journal.keep(self._journal.plan(played.name), why, self._stint)

    def _rare(self, played: Played) -> str:
        """Why the plan is kept: a signature that is new, or a situation that was hardly ever reached."""
        new = [signature for signature in played.signatures if self.bugs[signature].example == played.name]
        if new:
            return new[0]
        reached = self.totals.reached
        return next(
            (name for name in played.counts.get("situations", {}) if reached.get(name, 0) < rounds.RARE), ""
        )  # fmt: skip

    def _round_over(self, lane: LaneState, number: int, state: str) -> None:
        this = next(this for this in lane.rounds if this.number == number)
        lane.rounds.remove(this)
        self._leave(this, state)

    def _leave(self, this: Round, state: str) -> None:
        self._findings.leave(this)
        self._journal.end_round(this.number, state)


def told(this: Round) -> str:
    """A round as a line tells it: all that is needed to run it again."""
    if this.source == "confirm":
        return f"{this.topology} confirms {this.signature}: {len(this.plans)} replays"
    if this.source == "shrink":
        return f"{this.topology} makes {this.signature} smaller: {this.budget_s:.0f} s"
    if this.source == "corpus":
        return f"{this.topology} replays {len(this.plans)} plans that were kept"
    lasts = f" on one cluster, {this.examples} plans in one," if this.source == "lasting" else ""
    return f"{this.topology}{lasts} seed {this.seed} mix {rounds.words(this.mix)}"
