"""The common fold: one pass over the events, from which every invariant reads.

It costs the same per event however long the history is. Events may be learned of late (a log is read after a request
has ended), so what depends on several sources is decided at rest; what comes later than the `rest` mark belongs to the
closing of the cluster and is left out, except for what was left over.
"""

from __future__ import annotations

import bisect
import math
from typing import Any, Final

from ftmodel.history import (
    Answered,
    ClientClosed,
    EngineErred,
    Event,
    Exited,
    FaultMade,
    Identified,
    Interval,
    Item,
    Listed,
    LogLine,
    Mark,
    ReaderPaused,
    Received,
    RequestEnded,
    RequestSent,
    ResponseBegun,
    Sample,
    Setting,
    Stall,
    Started,
    StepDone,
    Told,
)
from ftmodel.invariants.crowds import Crowds
from ftmodel.invariants.records import Choice, Generation, Incarnation, Moves, Request, View
from ftmodel.invariants.texts import twin_of

_ANSWERS: Final = frozenset(
    {"response-begun", "received", "request-ended", "client-closed", "reader-paused", "engine-erred"}
)
_ENGINE_MEANINGS: Final = frozenset({"begun", "ended", "aborted", "failed", "finished", "signalled"})


class Ledger:
    """What happened, by subject. `settled` turns true at rest: from then on nothing changes."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.settled = False
        self.requests: dict[str, Request] = {}
        self.by_id: dict[str, Request] = {}
        self.processes: dict[str, Incarnation] = {}
        self.generations: dict[str, dict[str, Generation]] = {}
        """By request id, then by title: on workers that answer, whoever read the prompt."""
        self.prefilled: dict[str, dict[str, Generation]] = {}
        """The same on prefill workers."""
        self.served: dict[str, dict[str, Generation]] = {}
        """All of them, by title, then by request id."""
        self.views: dict[str, View] = {}
        self.kills: dict[str, int] = {}
        self.moves: dict[str, Moves] = {}
        """By request id."""
        self.anonymous_moves: dict[str, int] = {}
        """Lines of a frontend that tell of a move without saying whose."""
        self.selected: dict[str, list[LogLine]] = {}
        """By request id: the frontend's lines that tell which worker it chose."""
        self.marks: dict[str, Mark] = {}
        self.deeds: list[StepDone] = []
        """The steps that were done."""
        self.last_sample: dict[str, Sample] = {}
        self.baseline: dict[str, Sample] = {}
        """The last sample of a process before the first request was sent."""
        self.memo: dict[Any, Any] = {}
        """What was computed at rest and need not be twice."""
        self._stalls: list[Interval] = []
        self._first_sent: Interval | None = None
        self._seen_s = 0.0

    def is_guided(self, request: Request) -> bool:
        """True if a grammar shapes the answer: it may end by itself, and a token may have less text than others."""
        return request.sent.guided and self.setting.guides

    # --- the fold -----------------------------------------------------------------------------------------------

    def belongs(self, event: Event) -> bool:
        """False for what happened while the cluster was being closed, and for answers to what was never sent."""
        if event.kind in _ANSWERS and event.request not in self.requests:  # type: ignore[union-attr]
            return False
        rest = self.marks.get("rest")
        return rest is None or event.kind in ("mark", "left-over") or event.at.after_s <= rest.at.after_s

    def see(self, event: Event) -> None:
        """Take one event."""
        self._seen_s = max(self._seen_s, event.at.after_s)
        match event:
            case Received():
                self._received(event)
            case LogLine():
                self._logged(event)
            case Sample():
                self._sampled(event)
            case Listed():
                self._listed(event)
            case RequestSent():
                self._first_sent = self._first_sent or event.at
                self.requests[event.request] = self.by_id[event.id] = Request(event)
            case ResponseBegun() | RequestEnded() | ClientClosed() | ReaderPaused() | EngineErred():
                self._answered(event)
            case Mark():
                self.marks[event.stage] = event
            case Stall():
                self._stalls.append(event.at)
            case StepDone():
                self.deeds.append(event)
            case Started():
                self.processes[event.title] = Incarnation(event)
            case FaultMade() | Exited() | Answered() | Told() | Identified():
                self._befell(event)
            case _:
                pass

    def _answered(self, event: ResponseBegun | RequestEnded | ClientClosed | ReaderPaused | EngineErred) -> None:
        request = self.requests[event.request]
        match event:
            case ResponseBegun():
                request.begun = event
            case ReaderPaused():
                request.pauses.append(event.at)
            case EngineErred():
                request.erred = event
            case _:
                self._over(event)

    def _befell(self, event: FaultMade | Exited | Answered | Told | Identified) -> None:
        process = self.processes.get(event.title)
        if process is None:
            return
        match event:
            case FaultMade():
                process.faults.append(event)
            case Exited():
                process.exited = event
            case Told():
                process.told.append(event)
            case Identified():
                process.identity = event.identity
            case Answered():
                process.answered.setdefault(event.frontend, event.at)

    def _received(self, event: Received) -> None:
        request = self.requests[event.request]
        for item in event.items:
            match item.what:
                case "text" | "finish":
                    self._said(request, item)
                case "done":
                    request.dones += 1
                case "error":
                    request.error = request.error or item.value or "error"
                case "usage":
                    request.usage = (int(item.value) if item.value else None, item.count)
                case "malformed":
                    request.malformed = request.malformed or item.value
                case _:
                    pass
        first = request.choices.get(0)
        if first is not None and first.chars > (request.said[-1][1] if request.said else 0):
            request.said.append((event.at.after_s, first.chars))

    def _said(self, request: Request, item: Item) -> None:
        choice = request.choices.get(item.choice)
        if choice is None:
            exact = self.setting.exact_text
            twin = twin_of(request.sent, item.choice) if exact else None
            choice = request.choices[item.choice] = Choice(twin=twin)
        if choice.finish is not None:
            choice.beyond = True
            return  # two finishes, or text after the finish: P1 tells that
        if item.what == "finish":
            choice.finish = item.value
        elif item.value:
            choice.texts += 1
            choice.chars += len(item.value)
            if choice.twin is not None:
                choice.twin.take(item.value)

    def _over(self, event: RequestEnded | ClientClosed) -> None:
        request = self.requests[event.request]
        if isinstance(event, RequestEnded):
            if request.closed is None:
                request.ended = event
        elif request.ended is None:
            request.closed = event
        else:
            request.closed_after_end = True

    def _logged(self, line: LogLine) -> None:
        if line.meaning in _ENGINE_MEANINGS and line.id:
            titles = (self.prefilled if self.prefills(line.title) else self.generations).setdefault(line.id, {})
            generation = titles.get(line.title)
            if generation is None:
                generation = titles[line.title] = Generation()
                self.served.setdefault(line.title, {})[line.id] = generation
            getattr(generation, line.meaning).append(line)
        elif line.meaning == "kill":
            self.kills[line.title] = self.kills.get(line.title, 0) + 1
        elif line.meaning in ("migrating", "retrying"):
            if line.id:
                self.moves.setdefault(line.id, Moves()).lines.append(line)
            else:
                self.anonymous_moves[line.title] = self.anonymous_moves.get(line.title, 0) + 1
        elif line.meaning == "selected" and line.id:
            self.selected.setdefault(line.id, []).append(line)
        elif line.meaning == "armed-death" and line.title in self.processes:
            self.processes[line.title].exit_ordered = True
        elif line.meaning == "given-up" and line.id:
            self.moves.setdefault(line.id, Moves()).given_up.append(line)

    def _sampled(self, sample: Sample) -> None:
        self.last_sample[sample.title] = sample
        if self._first_sent is None or sample.at.surely_before(self._first_sent):
            self.baseline[sample.title] = sample
        if "running" in sample.values and sample.title in self.processes:
            self.processes[sample.title].running.append(sample)

    def _listed(self, event: Listed) -> None:
        view = self.views.setdefault(event.frontend, View())
        view.add(event.at, frozenset(event.titles), clear=not event.strangers)
        if event.models:
            for title in event.titles:
                if title in self.processes:
                    self.processes[title].listed.setdefault(event.frontend, event.at)

    # --- what follows from it -----------------------------------------------------------------------------------

    @property
    def rest_s(self) -> float:
        """The earliest time of the rest, or of the last event where the example never came to rest."""
        rest = self.marks.get("rest")
        return rest.at.before_s if rest else self._seen_s

    @property
    def workers(self) -> list[Incarnation]:
        """Every life of a worker that answers, dead ones included."""
        return [process for process in self.processes.values() if process.started.role == "worker"]

    @property
    def prefill_workers(self) -> list[Incarnation]:
        """Every life of a prefill worker, dead ones included."""
        return [process for process in self.processes.values() if process.started.role == "prefill"]

    @property
    def all_workers(self) -> list[Incarnation]:
        """Every life of a worker of either role, dead ones included."""
        return self.workers + self.prefill_workers

    def prefills(self, title: str) -> bool:
        """True for a prefill worker."""
        process = self.processes.get(title)
        return process is not None and process.started.role == "prefill"

    @property
    def frontends(self) -> list[Incarnation]:
        """Every life of a frontend, dead ones included."""
        return [process for process in self.processes.values() if process.started.role == "frontend"]

    @property
    def services(self) -> list[Incarnation]:
        """Every life of a service that the cluster stands on."""
        return [process for process in self.processes.values() if process.started.role == "service"]

    def placed(self, id_: str, title: str) -> dict[str, Generation]:
        """By title: the generations of a request id on workers of the role of this one."""
        return (self.prefilled if self.prefills(title) else self.generations).get(id_, {})

    def life(self, request: Request) -> Interval:
        """From the sending to the end, or to the rest: every moment that could belong to it."""
        over = request.over
        return Interval(request.sent.at.before_s, over.after_s if over else max(self.rest_s, self._seen_s))

    def touched_from_s(self, title: str) -> float:
        """The first moment when this process could have been touched. An unknown one always was: no duty rests on it."""
        process = self.processes.get(title)
        return process.touched_from_s if process else -math.inf

    def untouched(self, title: str) -> bool:
        """True if nothing can have touched this process up to the rest."""
        return self.touched_from_s(title) == math.inf

    def counted(self, title: str, name: str) -> float | None:
        """How much a counter of this process rose since before the first request; None if it is not exported.

        A process counts from 0, so without a sample before the first request nothing is taken off.
        """
        last, first = self.last_sample.get(title), self.baseline.get(title)
        if last is None or name not in last.values:
            return None
        return last.values[name] - (first.values.get(name, 0.0) if first else 0.0)

    def stalled(self, from_s: float, bound_s: float) -> bool:
        """True if the tester slept through so much of [from_s, from_s + bound_s] that the bound proves little."""
        return self.stalled_s(from_s, from_s + bound_s) > self.setting.bounds.stall_share * bound_s

    def stalled_s(self, from_s: float, to_s: float) -> float:
        """Seconds of stall in between."""
        return self._stalled_until(to_s) - self._stalled_until(from_s)

    def _stalled_until(self, to_s: float) -> float:
        """Seconds of stall up to this time; several that overlap count once."""
        key = ("stalls", len(self._stalls))
        if key not in self.memo:
            self.memo[key] = _united(self._stalls)
        starts, ends, sums = self.memo[key]
        i: int = bisect.bisect_right(starts, to_s) - 1
        if i < 0:
            return 0.0
        total: float = sums[i] + min(ends[i], to_s) - starts[i]
        return total

    @property
    def crowds(self) -> Crowds:
        """Who is open at the same time. Only valid at rest."""
        if "crowds" not in self.memo:
            lives = [(request, self.life(request)) for request in self.requests.values()]
            self.memo["crowds"] = Crowds(self.setting, lives)
        crowds: Crowds = self.memo["crowds"]
        return crowds

    def crowd(self, request: Request) -> int:
        """The most requests that could be open at the same time in this one's life, it included. Only valid at rest."""
        return self.crowds.most(self.life(request))

    def has_room(self, request: Request) -> bool:
        """True if any worker surely had a slot and KV blocks for this request all the time. Only valid at rest."""
        return self.crowds.has_room(self.life(request))

    def work_s(self, request: Request) -> float:
        """Four times what generating the answer takes, queueing for a slot or KV blocks included, and its client's pauses.

        And what reading the prompt takes, where prefill workers do that.
        """
        life = self.life(request)
        queues = self.may_queue(request, life.before_s, life.after_s)
        answer_s = self.crowds.wait_s(life) if queues else self.crowds.own_s(request)
        return answer_s + request.paused_s + self.reading_s(request)

    def may_queue(self, request: Request, from_s: float, to_s: float) -> bool:
        """True if it may have waited for a slot or for KV blocks then: there was no room for all, and engines had some wait.

        That they say of themselves: if they tell that none waits, it is not for that. Only valid at rest.
        """
        if self.has_room(request):
            return False
        told = [
            sample.values["waiting"]
            for worker in self.all_workers
            for sample in worker.running
            if "waiting" in sample.values and sample.at.could_overlap(from_s, to_s)
        ]
        return not told or max(told) > 0

    def may_wait_for_stalled(self, request: Request) -> bool:
        """True if what it may have waited for can be held by one that the engine was told to stall."""
        life = self.life(request)
        return self.crowds.has_stalled(life) and self.may_queue(request, life.before_s, life.after_s)

    def reading_s(self, request: Request) -> float:
        """What its prompt can take to be read once, all others before it; 0 where the workers that answer read it."""
        return self.setting.first_token_s * self.crowd(request) if self.setting.prefill_workers else 0.0


def _united(stalls: list[Interval]) -> tuple[list[float], list[float], list[float]]:
    """Starts and ends of the united stalls, and the seconds before each."""
    starts: list[float] = []
    ends: list[float] = []
    for stall in sorted(stalls, key=lambda at: at.before_s):
        if ends and stall.before_s <= ends[-1]:
            ends[-1] = max(ends[-1], stall.after_s)
        else:
            starts.append(stall.before_s)
            ends.append(stall.after_s)
    sums = [0.0]
    for start, end in zip(starts, ends, strict=True):
        sums.append(sums[-1] + end - start)
    return starts, ends, sums[:-1]
