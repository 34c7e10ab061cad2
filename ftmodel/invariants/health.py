"""Health: C4 what processes say of themselves is true."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

from ftmodel.history import FaultMade, Interval, Told
from ftmodel.invariants.base import Finding, Invariant, when
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.outages import upset
from ftmodel.invariants.records import Incarnation, Request

OK: Final = 200
FEWEST: Final = 3
"""So many answers in a row, at least, make a state; one or two may be an accident of the machine."""

Ask = Literal["health", "live"]
ASKS: Final[tuple[Ask, ...]] = ("health", "live")


class HealthIsTrue(Invariant):
    """C4. Documented (health checks, graceful shutdown): a ready worker and a ready frontend say 200 on both endpoints.

    A frontend is ready whoever is listed. While it drains, /health says 503 and /live still 200, until the drain has
    finished or timed out. Nothing is documented of a draining worker. That /v1/models is true is C2's.
    """

    id = "C4"
    sentence = "/health and /live tell the truth of frontends and workers, within detect_bound_s, draining included."
    slugs = frozenset(
        {"frontend-health", "frontend-live", "worker-health", "worker-live", "health-draining", "live-draining"}
    )

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each process while it is surely ready, then each frontend that drains."""
        for process in ledger.processes.values():
            from_s = _ready_from_s(ledger, process)
            for ask in ASKS:
                yield from self._ready(ledger, process, ask, from_s)
            stop = _first_stop(process)
            if stop is not None:
                yield from self._draining_health(ledger, process, stop)
                yield from self._draining_live(ledger, process, stop)

    def _ready(self, ledger: Ledger, process: Incarnation, ask: Ask, from_s: float) -> Iterator[Finding]:
        """A run of wrong answers, longer than the bound, while it was ready and untouched."""
        told = [t for t in process.told if t.at.before_s > from_s and t.at.after_s < process.touched_from_s]
        bound_s = ledger.setting.bounds.detect_bound_s
        self.tally.evaluated += bool(told) and told[-1].at.before_s > from_s + bound_s
        for run in _runs(told, lambda t: getattr(t, ask) != OK):
            first, last = run[0].at, run[-1].at
            if len(run) < FEWEST or last.before_s - first.after_s <= bound_s:
                continue
            if upset(ledger, first.before_s, last.after_s):
                self.tally.unknown += 1
                continue
            if ledger.stalled(first.after_s, last.before_s - first.after_s):
                self.tally.unknown += 1
                continue
            role = "frontend" if process.started.role == "frontend" else "worker"
            yield self.finding(
                f"{role}-{ask}",
                f"{process.title} {ask}",
                f"{process.title} told {_words(run[-1], ask)} for {last.before_s - first.after_s:.1f} s, expected"
                f" {OK}: it was ready and untouched",
                _evidence(run[0], ask),
                _evidence(run[-1], ask),
            )
            return

    def _draining_health(self, ledger: Ledger, process: Incarnation, stop: FaultMade) -> Iterator[Finding]:
        bound_s, over_s = ledger.setting.bounds.detect_bound_s, _next_touch_s(process, stop)
        told = [t for t in process.told if t.at.before_s > stop.at.after_s + bound_s and t.at.after_s < over_s]
        self.tally.evaluated += bool(told)
        for wrong in (t for t in told if t.health == OK):
            if ledger.stalled(stop.at.after_s, bound_s):
                self.tally.unknown += 1
                return
            after_s = wrong.at.before_s - stop.at.after_s
            yield self.finding(
                "health-draining",
                f"{process.title} health-draining",
                f"{process.title} told {_words(wrong, 'health')} {after_s:.1f} s after it was asked to stop,"
                " expected 503",
                f"{process.title}, {when(stop.at)}: {stop.fault}",
                _evidence(wrong, "health"),
            )
            return

    def _draining_live(self, ledger: Ledger, process: Incarnation, stop: FaultMade) -> Iterator[Finding]:
        """One wrong answer is enough: what is draining has been live before."""
        over_s = min(_next_touch_s(process, stop), stop.at.before_s + ledger.setting.promise.frontend_drain_s)
        told = [t for t in process.told if t.at.before_s > stop.at.after_s and t.at.after_s < over_s and t.live]
        if not told:
            return
        kept = [(request, at_s) for request in _admitted(ledger, process, stop.at) if (at_s := _open_until_s(request))]
        judged = [t for t in told if any(t.at.after_s < at_s for _, at_s in kept)]
        self.tally.evaluated += bool(judged)
        for wrong in (t for t in judged if t.live != OK):
            request = next(request for request, at_s in kept if wrong.at.after_s < at_s)
            yield self.finding(
                "live-draining",
                f"{process.title} live-draining",
                f"{process.title} told {_words(wrong, 'live')} while it drained, {request.name} still under way, expected"
                f" {OK}",
                f"{process.title}, {when(stop.at)}: {stop.fault}",
                _evidence(wrong, "live"),
                f"client, {when(request.over) if request.over else 'at rest'}: end of {request.name}",
            )
            return


def _ready_from_s(ledger: Ledger, process: Incarnation) -> float:
    """From when on it surely is ready: it has said so, or answers what only a ready one does, or has had its time."""
    said = (told.at.after_s for told in process.told if told.health == OK)
    boot_s = process.started.at.after_s + ledger.setting.bounds.boot_bound_s
    if process.started.role == "frontend":
        view = ledger.views.get(process.title)
        polls = [after_s for after_s, titles in zip(view.afters_s, view.titles, strict=True) if titles] if view else []
        return min([*said, *polls, boot_s])
    shown = (at.after_s for at in (*process.listed.values(), *process.answered.values()))
    return min([*said, *shown], default=math.inf)  # one that never gets ready is C2's


def _first_stop(process: Incarnation) -> FaultMade | None:
    """The stop of a frontend, if it was verified and the first that was done to it."""
    first = min(process.faults, key=lambda fault: fault.at.before_s, default=None)
    return first if first is not None and first.fault == "stop-frontend" and first.verified else None


def _next_touch_s(process: Incarnation, stop: FaultMade) -> float:
    """What follows the stop: another fault, or the end."""
    others = [fault.at.before_s for fault in process.faults if fault is not stop]
    return min([*others, process.exited.at.before_s if process.exited else math.inf])


def _admitted(ledger: Ledger, process: Incarnation, stop: Interval) -> Iterator[Request]:
    """The requests of this frontend that had surely begun on a worker, or to be answered, before the stop."""
    for request in ledger.requests.values():
        if request.sent.frontend != process.title:
            continue
        answering = request.begun is not None and request.status == OK and request.begun.at.surely_before(stop)
        titles = ledger.generations.get(request.sent.id, {}).values()
        if answering or any(line.at.surely_before(stop) for generation in titles for line in generation.begun):
            yield request


def _open_until_s(request: Request) -> float:
    """Up to when it surely was under way."""
    return request.over.before_s if request.over else math.inf


def _runs(told: list[Told], wrong: Callable[[Told], bool]) -> Iterator[list[Told]]:
    """The longest runs of wrong answers, in their order."""
    run: list[Told] = []
    for answer in sorted(told, key=lambda t: t.at.before_s):
        if wrong(answer):
            run.append(answer)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _words(told: Told, ask: Ask) -> str:
    status = getattr(told, ask)
    return f"{status} on /{ask}" if status else f"nothing on /{ask}"


def _evidence(told: Told, ask: Ask) -> str:
    return f"{told.title}, {when(told.at)}: {_words(told, ask)}"
