"""A lane: a process that plays rounds on clusters of its own and tells, in JSON lines, what became of each example.

It reads one line of `Setup`, then orders: a round a line, and the end of its work as `null`. When its orders end before
that, the soak is gone: the lane ends at once, and the wardens of its clusters clear up after it, as after any death of
the tester. Where a lane runs is no business of its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from pydantic import TypeAdapter

from ftmodel import planfile, runner, topology
from ftmodel.errors import FtmodelError, StoreError
from ftmodel.lanes import Collected, Drawing, Lanes
from ftmodel.runner import SCRIPTED, Examples, Outcome, Rules
from ftmodel.session import Proof, Session
from ftmodel.soak import rounds
from ftmodel.soak.measures import measure
from ftmodel.soak.rounds import Round
from ftmodel.soak.totals import counted
from ftmodel.steps import FAULTS, Plan, Step
from ftmodel.store import Run
from ftmodel.targets.simulated import Planted, catalogue
from ftmodel.topology import Topology

TELL_EVERY_S: Final = 1.0
"""So often the steps are told that were done since."""
Opener = Callable[[Plan], Drawing | None]
Draw = Callable[[Opener, Round, Topology, Sequence[int]], None]
"""Draws a round's plans, given the system's timeouts in ms (`ftmodel.strategies.generate`)."""
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a lane needs to know before its first round. Texts and numbers alone: it may go to another machine."""

    name: str
    folder: str
    """The soak's: what the lane keeps lies below it."""
    topologies: tuple[str, ...]
    """Each the text of a TOML file."""
    python: str | None = None
    cold_start: bool = False
    width: int = 1
    """Examples at once."""
    defects: str | None = None
    """A file of defects, to be planted in simulated clusters instead of ours."""
    defect: str | None = None
    """Those of them that are planted: ID[:P], separated by commas."""
    sim_seed: int = 0


_SETUP: Final[TypeAdapter[Setup]] = TypeAdapter(Setup)


def planted(defects: str | None, defect: str | None) -> tuple[Planted, ...]:
    """The defects that are named, of the file or of ours. Raises UsageError."""
    if defect is None:
        return ()
    return catalogue.planted(defect, catalogue.load(Path(defects)) if defects is not None else catalogue.ours())


class Folder(Run):
    """Where a lane keeps things: examples among those of the other lanes, the rest in a folder of its own."""

    def __init__(self, soak: Path, lane: str) -> None:
        super().__init__(soak / "lanes" / lane)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._soak = Run(soak)
        self._lane = lane

    def example(self, name: str) -> Path:
        """Make the folder of an example. Each lane has a control and a calibration of its own."""
        return self._soak.example(f"{name}-lane-{self._lane}" if name.startswith(SCRIPTED) else name)


class Told(Examples):
    """Tells what became of an example instead of keeping it, and when a round is over."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(Telling(tell), Rules(measure=measure))
        self._tell = tell
        self._left: Counter[int] = Counter()

    def add(self, outcome: Outcome) -> Outcome:
        """An example has come to its end."""
        self._tell(row_of(outcome))
        if not outcome.scripted:
            self.ended(round_of(outcome.name))
        return outcome

    def begun(self, number: int) -> None:
        """One more thing of this round is to end before the round is over."""
        with self.lock:
            self._left[number] += 1

    def ended(self, number: int) -> None:
        """One of them has."""
        with self.lock:
            self._left[number] -= 1
            over = not self._left[number]
            if over:
                del self._left[number]
        if over:
            self._tell({"is": "round-over", "round": number})


class Telling:
    """A watcher that tells, every now and then, how many steps were done since."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._told_s = time.monotonic()

    def began(self, what: str) -> None:
        """A stage begins."""
        self._tell({"is": "began", "what": what})

    def stepped(self, step: Step) -> None:
        """A step was done, or armed."""
        with self._lock:
            self._counts["steps"] += 1
            self._counts["faults"] += step.kind in FAULTS
            if time.monotonic() < self._told_s + TELL_EVERY_S:
                return
            counts, self._counts, self._told_s = dict(self._counts), Counter(), time.monotonic()
        self._tell({"is": "stepped", **counts})

    def ended(self, outcome: Outcome) -> None:
        """Told by `Told`."""


def round_of(example: str) -> int:
    """The number of the round that an example is of."""
    return int(example.partition("-")[0])


def row_of(outcome: Outcome) -> dict[str, Any]:
    """What is told of an example."""
    judged = outcome.judgement
    return {
        "is": "example",
        "name": outcome.folder.name,
        "round": 0 if outcome.scripted else round_of(outcome.name),
        "topology": outcome.plan.topology,
        "verdict": outcome.value,
        "doubt": outcome.failure or "; ".join(judged.doubts if judged and not outcome.scripted else ()),
        "version": outcome.setting.version if outcome.setting else "",
        "seconds": round(outcome.seconds, 3),
        "folder": str(outcome.folder),
        "plan": planfile.dump(outcome.plan),
        "counts": counted(judged, outcome.measures) if judged else {},
        "usage": outcome.measures.get("usage", []),
        "findings": [
            {"signature": finding.signature, "subject": finding.subject, "message": finding.message}
            for finding in (judged.findings if judged else ())
        ],
    }


class Lane:
    """Plays the rounds that it is told to, one after the other; the examples of one run beside those of the next."""

    def __init__(self, setup: Setup, folder: Path, draw: Draw, tell: Tell) -> None:
        self._setup = setup
        self._run = Folder(folder, setup.name)
        self._draw = draw
        self._tell = tell
        self._examples = Told(tell)
        self._tops = {top.name: top for top in (topology.parse(text) for text in setup.topologies)}
        self._proofs: dict[str, Proof] = {}

    def play(self, orders: Iterator[dict[str, Any] | None]) -> None:
        """Play until `null`. Raises UsageError or HarnessError; nothing of a cluster is left in any case."""
        setup = self._setup
        with Session(
            list(self._tops.values()), self._run, python=Path(setup.python) if setup.python else None,
            cold_start=setup.cold_start, planted=planted(setup.defects, setup.defect), sim_seed=setup.sim_seed,
        ) as session:  # fmt: skip
            self._tell({
                "is": "ready", "pid": os.getpid(), "system": session.system.name, "version": session.version,
                "versions": session.versions, "scratch": str(getattr(session, "scratch", "")),
            })  # fmt: skip
            with Lanes(session, self._examples, width=setup.width) as lanes:
                for order in orders:
                    if order is None:
                        break
                    self._round(session, lanes, rounds.of_json(order))
                    self._tell({"is": "wants"})
                self._tell({"is": "began", "what": "the last ones"})
        self._tell({"is": "over", "left_over": session.left_over})

    def _round(self, session: Session, lanes: Lanes, this: Round) -> None:
        top = self._tops[this.topology]
        proof = self._proven(session, top)
        self._examples.begun(this.number)
        plans = self._plans(session, top, this)
        self._examples.watcher.began(f"playing round {this.number}")
        for index, plan in enumerate(plans, start=1):
            self._examples.begun(this.number)
            lanes.start(this.named(index), top, plan, proof)
        lanes.begin()
        self._examples.ended(this.number)

    def _proven(self, session: Session, top: Topology) -> Proof:
        """What control and calibration prove of the topology here, run when it is first played."""
        if top.name not in self._proofs:
            self._examples.watcher.began(f"proving {top.name}")
            self._proofs[top.name] = runner.prove(session, top, self._examples)
        return self._proofs[top.name]

    def _plans(self, session: Session, top: Topology, this: Round) -> Sequence[Plan]:
        if this.plans:
            return this.plans
        self._examples.watcher.began(f"drawing round {this.number}")
        kept = Collected(top, this.examples + 1)
        self._draw(kept, this, top, session.promises(top).timeouts_ms())
        plans = kept.plans[1:]  # the first one has the plainest steps, whatever the seed
        return [rounds.joined(plans)] if this.source == "lasting" else plans


def serve(draw: Draw) -> int:
    """Be a lane: orders come on stdin, what is told goes to stdout. Returns the exit code."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anybody else prints is not for the soak
    telling = threading.Lock()

    def tell(row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=True)
        with telling:
            try:
                told.write(line + "\n")
                told.flush()
            except BrokenPipeError:
                leave()

    lines = sys.stdin
    setup: Setup = _SETUP.validate_json(lines.readline())
    orders: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read, args=(lines, orders), daemon=True, name="orders").start()
    try:
        Lane(setup, Path(setup.folder), draw, tell).play(iter(orders.get, object()))
    except FtmodelError as error:
        kind = "store" if isinstance(error, StoreError) else "lane"
        tell({"is": "failed", "what": kind, "message": str(error)})
        return 1
    return 0


def leave() -> None:
    """The soak is gone: end at once. The warden sees it, and clears up."""
    os._exit(1)


def _read(lines: IO[str], orders: queue.Queue[dict[str, Any] | None]) -> None:
    for line in lines:
        orders.put(json.loads(line))
    leave()


def line_of(setup: Setup) -> str:
    """The first line for a lane."""
    return json.dumps(dataclasses.asdict(setup))
