"""Synthetic histories of a small cluster: what a recorded one holds, by a few lines that tell the story.

Times are seconds of the example. Polls of the list and samples of the metrics are made from the story when it is told.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ftmodel.bounds import Bounds
from ftmodel.engines.counting.worker import text
from ftmodel.history import (
    Answered,
    ClientClosed,
    Event,
    Exited,
    FaultMade,
    Identified,
    Interval,
    Item,
    Listed,
    LogLine,
    Mark,
    Promise,
    Received,
    RequestEnded,
    RequestSent,
    ResponseBegun,
    Sample,
    Setting,
    Started,
    StepDone,
    Told,
)

FRONTEND = "frontend-1"
PACE_S = 0.006
UNCOUNTED = ("malformed-json", "negative-max-tokens")
"""What is wrong in a way that is seen before anything is counted."""
PROVEN = ("aborted", "begun", "ended", "finished", "given-up", "kill", "migrating", "retrying", "selected")
BURST = 7


def moment(at_s: float, width_s: float = 0.002) -> Interval:
    """An interval that ends at this time."""
    return Interval(at_s - width_s, at_s)


@dataclass
class Life:
    """One life of a process: when it was there and listed, and how many requests it has at a time."""

    title: str
    role: Literal["frontend", "worker", "prefill"]
    from_s: float
    until_s: float = math.inf
    listed_s: float = math.inf
    unlisted_s: float = math.inf
    open: list[tuple[float, float]] = field(default_factory=list)
    cancelled: list[float] = field(default_factory=list)
    ends: list[tuple[float, float, bool]] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    outcomes: list[tuple[float, str, str]] = field(default_factory=list)
    """Of a frontend: when a request was over, how it is counted (nothing: not at all), and its kind."""
    moves: list[float] = field(default_factory=list)
    stopped_s: float = math.inf
    identity: str = ""


class Ask:
    """One request, told in the order of its time."""

    def __init__(self, story: Story, name: str, at_s: float, max_tokens: int, **how: object) -> None:
        self.story = story
        self.name = name
        self.id = f"00000000-{name}"
        self.frontend = str(how.get("frontend", FRONTEND))
        self.key = f"request {name} {self.id[:8]}:"
        self.tokens = 0
        self.shown = 0
        self.max_tokens = max_tokens
        self.stream = bool(how.get("stream", True))
        self.api = str(how.get("api", "completion"))
        self.wrong = str(how.get("wrong", ""))
        self.prompt_tokens = 40_000 if self.wrong == "prompt-too-long" else 40
        self.sent_s = at_s
        self.answering = False
        self.serving: tuple[str, float] | None = None
        story.asks.append(self)
        if self.wrong not in UNCOUNTED:
            story.lives[self.frontend].sent.append(at_s)
        asked = {key: value for key, value in how.items() if key not in ("stream", "frontend", "probe")}
        sent = RequestSent(
            at=moment(at_s),
            request=name,
            id=self.id,
            frontend=self.frontend,
            api=self.api,  # type: ignore[arg-type]
            stream=self.stream,
            prompt_tokens=self.prompt_tokens,
            max_tokens=max_tokens,
            n=int(how.get("n", 1)),  # type: ignore[call-overload]
            key=self.key,
            stop=how.get("stop", ()),  # type: ignore[arg-type]
            usage=bool(how.get("usage", False)),
            wrong=self.wrong,
            probe=bool(how.get("probe", False)),
        )
        story.push(dataclasses.replace(sent, **asked))  # type: ignore[arg-type]

    def begin(self, title: str, at_s: float) -> Ask:
        """It arrives at a worker."""
        self.serving = (title, at_s)
        self.choose(title, at_s - 0.003)
        exact = {"position": self.tokens, "max_tokens": self.max_tokens - self.tokens} if self.story.exact else {}
        self.story.log(title, "begun", at_s, self.id, **exact)
        return self

    def prefill(self, title: str, at_s: float, until_s: float = math.inf, how: str = "finished") -> Ask:
        """A prefill worker has its prompt, and reads it until then; it may die with it (`died`), or be told of a cancel."""
        self.choose(title, at_s - 0.003)
        self.story.log(title, "begun", at_s, self.id)
        self.story.lives[title].open.append((at_s, until_s))
        if how != "died" and until_s < math.inf:
            self.story.log(title, how, until_s, self.id)
            self.story.lives[title].cancelled += [until_s] if how == "aborted" else []
        return self

    def choose(self, title: str, at_s: float) -> Ask:
        """The frontend chooses a worker."""
        self.story.log(self.frontend, "selected", at_s, self.id, worker_id=int(self.story.lives[title].identity))
        return self

    def stop(self, how: str, at_s: float) -> Ask:
        """It ends at the worker; an engine without ids only says that it is over."""
        assert self.serving is not None
        title, from_s = self.serving
        self.story.lives[title].open.append((from_s, at_s))
        self.serving = None
        if how != "died":
            self.story.log(title, how if self.story.exact else "finished", at_s, self.id)
            if how == "aborted":
                self.story.lives[title].cancelled.append(at_s)
        return self

    def move(self, meaning: str, at_s: float) -> Ask:
        """The frontend migrates it, retries it, or gives it up."""
        self.story.log(self.frontend, meaning, at_s, self.id)
        self.story.lives[self.frontend].moves.append(at_s)
        return self

    def head(self, at_s: float, status: int = 200) -> Ask:
        """The answer's head."""
        self.answering = True
        self.story.push(ResponseBegun(at=moment(at_s), request=self.name, status=status))
        return self

    def read(self, at_s: float, *items: Item) -> Ask:
        """A burst."""
        self.story.push(Received(at=moment(at_s), request=self.name, items=items))
        return self

    def run(self, count: int, at_s: float) -> float:
        """Stream so many tokens from this time on; returns the time of the last."""
        if not self.answering:
            self.head(at_s)
        last = self.tokens + count
        while self.tokens < last:
            step = min(BURST, last - self.tokens)
            self.tokens += step
            at_s += step * PACE_S
            said = self.said()
            piece, self.shown = said[self.shown :], len(said)
            if piece:
                self.read(at_s, Item("text", piece))
        return at_s

    def said(self) -> str:
        """The text so far: an unfinished character is withheld."""
        if not self.story.exact:
            return "".join(f" m{i % 26:02d}" for i in range(self.tokens))
        return text(self.key.encode(), 0, self.tokens).rstrip("\ufffd")

    def whole(self, title: str, at_s: float) -> float:
        """Served by one worker from begin to end, read by the first prefill worker, if any; returns the time of the end."""
        if self.story.reader:
            self.prefill(self.story.reader, at_s + 0.002, at_s + 0.003)
        self.begin(title, at_s + 0.004)
        begin_s = at_s + 0.010
        end_s = self.run(self.max_tokens, begin_s) if self.stream else begin_s + self.max_tokens * PACE_S
        self.stop("ended", end_s - 0.001)
        return self.finish(end_s)

    def finish(self, at_s: float, reason: str = "length", tokens: int = 0) -> float:
        """The finish, the usage, [DONE] and the end of the body."""
        usage = Item("usage", str(self.prompt_tokens), count=tokens or self.max_tokens)
        if self.stream:
            self.read(at_s + 0.001, Item("finish", reason), usage)
            self.read(at_s + 0.002, Item("done"))
        else:
            self.tokens = self.max_tokens
            self.head(at_s + 0.001)
            self.read(at_s + 0.001, Item("text", self.said()), Item("finish", reason), usage)
        return self.end("eof", at_s + 0.003, success=True)

    def error(self, at_s: float) -> float:
        """The answer breaks off with an error and [DONE]."""
        self.read(at_s, Item("error", "Stream ended before generation completed"), Item("done"))
        return self.end("eof", at_s + 0.001)

    def refuse(self, at_s: float, status: int) -> float:
        """An error instead of an answer."""
        self.head(at_s, status).read(at_s, Item("error", "no worker"))
        return self.end("eof", at_s + 0.001)

    def end(self, how: Literal["eof", "cut", "refused"], at_s: float, *, success: bool = False) -> float:
        """The end that the client sees."""
        self.story.push(RequestEnded(at=moment(at_s), request=self.name, how=how))
        self.story.lives[self.frontend].ends.append((self.sent_s, at_s, success))
        self._count(at_s, "success" if success else "not_found" if self.wrong == "unknown-model" else "failed")
        return at_s

    def _count(self, at_s: float, outcome: str) -> None:
        outcome = "" if self.wrong in UNCOUNTED else outcome
        kind = f"cancellations_{self.api}_{'stream' if self.stream else 'unary'}"
        self.story.lives[self.frontend].outcomes.append((at_s, outcome, kind))

    def leave(self, at_s: float, *, aborts: bool = True) -> float:
        """The client closes its socket; the frontend signals it, and the worker aborts."""
        self.story.push(ClientClosed(at=moment(at_s), request=self.name, how="close"))
        self.story.push(StepDone(at=moment(at_s), step=f"c-{self.name}", deed="cancel", subject=self.id))
        self.story.log(self.frontend, "kill", at_s + 0.003)
        self.story.lives[self.frontend].cancelled.append(at_s + 0.003)
        self.story.lives[self.frontend].ends.append((self.sent_s, at_s, False))
        self._count(at_s, "cancelled")
        if self.serving and aborts:
            self.stop("aborted", at_s + 0.008)
        return at_s


class Story:
    """A cluster's story. `told` gives the events, in the order in which a tester would learn of them."""

    def __init__(
        self,
        *,
        exact: bool = True,
        limit: int = 3,
        workers: int = 2,
        prefills: int = 0,
        proven: tuple[str, ...] = PROVEN,
    ) -> None:
        self.exact = exact
        self.reader = "p1" if prefills else ""
        """The prefill worker that reads what nothing else is said of."""
        self.events: list[Event] = []
        self.lives: dict[str, Life] = {}
        self.asks: list[Ask] = []
        self.lines = 0
        self.setting = Setting(
            at=Interval(0.0, 0.0),
            system="toy",
            version="1.4.2",
            engine="counting" if exact else "mocker",
            topology="counting" if exact else "aggregated",
            discovery="file",
            request_plane="tcp",
            workers=workers,
            prefill_workers=prefills,
            first_token_s=3.0 if prefills else 0.0,
            prefill_min_s=2.9 if prefills else 0.0,
            promise=Promise(recovery="migrate", limit=limit, shun_s=5.0, broken_stream=("error", "done")),
            bounds=Bounds(),
            patience="long",
            pace_s=PACE_S,
            pace_min_s=0.005,
            slots=256,
            exact_text=exact,
            token_chars=0 if exact else 4,
            engine_ids=exact,
            proven=proven,
        )
        self.start(FRONTEND, 0, 0.01, role="frontend")
        for slot in range(1, workers + 1):
            self.start(f"w{slot}", slot, 0.02)
        for slot in range(1, prefills + 1):
            self.start(f"p{slot}", slot, 0.02, role="prefill")
        for slot in range(1, workers + 1):
            self.join(f"w{slot}", 0.2 + slot / 10)
        for slot in range(1, prefills + 1):
            self.join(f"p{slot}", 0.25 + slot / 10)
        self.push(Mark(at=moment(0.5), stage="ready"))

    def push(self, event: Event) -> None:
        """Add an event."""
        self.events.append(event)

    def log(self, title: str, meaning: str, at_s: float, id_: str = "", **fields: object) -> None:
        """A process writes a line."""
        self.lines += 1
        self.push(LogLine(at=moment(at_s), title=title, meaning=meaning, id=id_, fields=fields, line=self.lines))

    def start(
        self, title: str, slot: int, at_s: float, role: Literal["frontend", "worker", "prefill"] = "worker"
    ) -> None:
        """A process starts."""
        self.lives[title] = Life(title, role, at_s, identity=str(7_000_000_000_000_000_000 + len(self.lives)))
        self.push(Started(at=moment(at_s), title=title, role=role, slot=slot, pid=1000 + len(self.lives)))

    def join(self, title: str, at_s: float, frontend: str = FRONTEND) -> None:
        """It is listed, and answers a probe of the tester's."""
        life = self.lives[title]
        if life.listed_s == math.inf:
            life.listed_s = at_s - 0.05
            self.push(Identified(at=moment(at_s - 0.06), title=title, identity=life.identity))
        name = f"probe-{title}" if frontend == FRONTEND else f"probe-{title}-{frontend}"
        ask = Ask(self, name, at_s, 1, stream=False, probe=True, frontend=frontend)
        if life.role == "prefill":
            ask.prefill(title, at_s + 0.002, at_s + 0.003)
            up = (t for t, other in self.lives.items() if other.role == "worker" and at_s < other.until_s)
            ask.begin(next(up), at_s + 0.004).stop("ended", at_s + 0.015)
            end_s = ask.finish(at_s + 0.016)
        else:
            end_s = ask.whole(title, at_s)
        self.push(Answered(at=moment(end_s), frontend=frontend, title=title))

    def fault(
        self,
        kind: Literal[
            "kill-worker",
            "kill-engine",
            "stop-worker",
            "freeze-worker",
            "thaw-worker",
            "kill-frontend",
            "stop-frontend",
        ],
        title: str,
        at_s: float,
        *,
        verified: bool = True,
    ) -> None:
        """A fault, as the tester notes it."""
        if kind.startswith("stop"):
            self.lives[title].stopped_s = at_s
        self.push(FaultMade(at=moment(at_s), fault=kind, title=title, step=f"s-{title}", verified=verified))
        self.push(StepDone(at=moment(at_s), step=f"s-{title}", deed=kind, subject=title))

    def kill(self, title: str, at_s: float, *, listed_s: float = 10.0) -> None:
        """SIGKILL; its entry in the list lapses so much later."""
        self.fault("kill-worker", title, at_s)
        self.exit(title, at_s, unlisted_s=at_s + listed_s)

    def exit(self, title: str, at_s: float, *, unlisted_s: float) -> None:
        """A process ends."""
        life = self.lives[title]
        life.until_s, life.unlisted_s = at_s, min(life.unlisted_s, unlisted_s)
        self.push(Exited(at=moment(at_s), title=title, code=None, signal=9))

    def mark(self, stage: Literal["steps-done", "heal", "healed", "rest", "closed"], at_s: float) -> None:
        """A stage."""
        self.push(Mark(at=moment(at_s), stage=stage))

    def told(self, rest_s: float) -> list[Event]:
        """All events, with polls and samples up to the rest, and the closing after it."""
        events = [*self.events, Mark(at=moment(rest_s), stage="rest"), Mark(at=moment(rest_s + 0.5), stage="closed")]
        for life in self.lives.values():
            at_s = life.from_s + 0.15
            while at_s < min(rest_s, life.until_s):
                events.append(Sample(at=moment(at_s, 0.004), title=life.title, values=self._values(life, at_s)))
                at_s += 0.5
            if life.until_s == math.inf:
                events.append(Exited(at=moment(rest_s + 0.3), title=life.title, code=None, signal=9))
        at_s = 0.1
        while at_s < rest_s:
            events += self._listed(at_s)
            at_s += 0.25
        at_s = 0.3
        while at_s < rest_s:
            events += self._told(at_s)
            at_s += 1.0
        return [self.setting, *sorted(events, key=lambda event: event.at.after_s)]

    def _listed(self, at_s: float) -> Iterator[Listed]:
        """What the frontends list; one that drains lists nobody."""
        titles = [life.title for life in self.lives.values() if life.listed_s <= at_s < life.unlisted_s]
        for life in self.lives.values():
            if life.role == "frontend" and life.from_s + 0.05 <= at_s < life.until_s:
                ready = at_s < life.stopped_s
                shown = tuple(sorted(titles)) if ready else ()
                yield Listed(at=moment(at_s, 0.004), frontend=life.title, titles=shown, models=ready and bool(shown))

    def _told(self, at_s: float) -> Iterator[Told]:
        """What the processes say of their health: a worker that drains says nothing."""
        for life in self.lives.values():
            if life.from_s + 0.05 <= at_s < life.until_s:
                drains, worker = at_s >= life.stopped_s, life.role != "frontend"
                ready = not worker or at_s >= life.listed_s
                health = (0 if worker else 503) if drains else 200 if ready else 503
                live = 200 if drains and not worker else health
                yield Told(at=moment(at_s, 0.004), title=life.title, health=health, live=live)

    def _values(self, life: Life, at_s: float) -> dict[str, float]:
        routes_by_kv = self.setting.router_mode == "kv"
        if life.role == "frontend":
            inflight = sum(from_s <= at_s < end_s for from_s, end_s, _ in life.ends)
            return {
                "inflight": inflight,
                "queued": 0.0,
                "active": inflight,
                "plane_inflight": inflight,
                "cancellations": sum(cancel_s <= at_s for cancel_s in life.cancelled),
                "migrations": sum(move_s <= at_s for move_s in life.moves),
                "success": sum(success and end_s <= at_s for _, end_s, success in life.ends),
                "started": sum(sent_s <= at_s for sent_s in life.sent),
                "context": 16384 if self.exact else 0,
                "max_seqs": self.setting.slots,
                **_counted([row for row in life.outcomes if row[0] <= at_s]),
                **(dict.fromkeys(("router_blocks", "router_prefill"), inflight) if routes_by_kv else {}),
            }
        running = sum(from_s <= at_s < end_s for from_s, end_s in life.open)
        return {
            "inflight": running,
            "running": running,
            "waiting": 0.0,
            "kv": running / 256,
            "cancellations": sum(cancel_s <= at_s for cancel_s in life.cancelled),
        }


def _counted(outcomes: list[tuple[float, str, str]]) -> dict[str, float]:
    """A frontend's counters by outcome and, of cancels, by kind; one that has no series yet is absent."""
    ways = [way for _, way, _ in outcomes]
    kinds = [kind for _, way, kind in outcomes if way == "cancelled"]
    values = {"failed": len(ways) - ways.count("") - ways.count("success")}
    values |= {way: ways.count(way) for way in ("cancelled", "not_found")} | {kind: kinds.count(kind) for kind in kinds}
    return {name: float(value) for name, value in values.items() if value}


# --- the stories ------------------------------------------------------------------------------------------------


def kill_and_cancel(*, exact: bool) -> list[Event]:
    """A worker is killed under a stream, which migrates; others are cancelled, early and late; then calm."""
    story = Story(exact=exact)
    Ask(story, "r1", 1.0, 50).whole("w2", 1.0)
    Ask(story, "r2", 1.01, 60, stream=False).whole("w2", 1.01)
    moved = Ask(story, "r3", 1.02, 203).begin("w1", 1.024)
    moved.run(61, 1.03)
    Ask(story, "r4", 1.1, 300).whole("w2", 1.1)
    story.kill("w1", 1.45)
    moved.stop("died", 1.45).move("migrating", 1.46).begin("w2", 1.5)
    end_s = moved.run(203 - 61, 1.51)
    moved.stop("ended", end_s - 0.001).finish(end_s)
    left = Ask(story, "r5", 3.5, 900).begin("w2", 3.504)
    left.run(20, 3.51)
    left.leave(3.7)
    late = Ask(story, "r6", 4.0, 30).begin("w2", 4.004)
    late.run(28, 4.01)
    late.leave(4.18)
    Ask(story, "r7", 5.0, 40).whole("w2", 5.0)
    return _calm(story, ("w1", 1))


def drain(*, exact: bool) -> list[Event]:
    """A worker gets SIGTERM with a request that it finishes; another request breaks off, with limit 0."""
    story = Story(exact=exact, limit=0)
    kept = Ask(story, "r1", 1.0, 200).begin("w1", 1.004)
    kept.run(50, 1.01)
    story.fault("stop-worker", "w1", 1.4)
    story.lives["w1"].unlisted_s = 1.45
    end_s = kept.run(150, 1.42)
    kept.stop("ended", end_s - 0.001).finish(end_s)
    story.exit("w1", end_s + 0.1, unlisted_s=1.45)
    Ask(story, "r2", 2.6, 100).whole("w2", 2.6)
    story.start("w1-2", 1, 3.0)
    story.join("w1-2", 3.4)
    broken = Ask(story, "r3", 4.0, 500).begin("w1-2", 4.004)
    broken.run(80, 4.01)
    left = Ask(story, "r4", 4.1, 800).begin("w2", 4.104)
    left.run(30, 4.11)
    story.kill("w1-2", 4.6)
    broken.stop("died", 4.6).error(4.65)
    left.leave(5.0)
    Ask(story, "r5", 19.0, 40).whole("w2", 19.0)
    return _calm(story, ("w1-2", 2))


def outage(*, exact: bool) -> list[Event]:
    """All workers die: a stream breaks, requests are refused; new workers serve again."""
    story = Story(exact=exact)
    broken = Ask(story, "r1", 1.0, 500).begin("w1", 1.004)
    broken.run(80, 1.01)
    story.kill("w2", 1.3)
    story.kill("w1", 1.6)
    broken.stop("died", 1.6).move("migrating", 1.61)
    for at_s in (1.62, 1.63, 1.64):
        broken.move("retrying", at_s)
    story.log(FRONTEND, "given-up", 1.65, broken.id)
    broken.error(1.66)
    Ask(story, "r2", 2.0, 50).refuse(2.01, 503)
    story.start("w1-2", 1, 3.0)
    story.join("w1-2", 3.4)
    Ask(story, "r3", 16.0, 50).whole("w1-2", 16.0)
    return _calm(story, ("w2", 2), ready_s=17.0)


def _calm(story: Story, heals: tuple[str, int], ready_s: float = 20.0) -> list[Event]:
    """The long end of a patient example: as it is, heal, list_bound_s more, rest."""
    title, slot = heals
    story.mark("steps-done", ready_s)
    story.mark("heal", ready_s + 20)
    new = f"{title.partition('-')[0]}-{3 if '-' in title else 2}"
    story.start(new, slot, ready_s + 20)
    story.join(new, ready_s + 20.4)
    story.mark("healed", ready_s + 20.5)
    return story.told(ready_s + 50)


BASES = {
    f"{tell.__name__}-{'counting' if exact else 'mocker'}": tell(exact=exact)
    for tell in (kill_and_cancel, drain, outage)
    for exact in (True, False)
}
"""Every story, by each engine."""
