"""Defects of the cluster: migration, cancellation, lists, gauges, processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

from planting import (
    Base,
    Mutate,
    at,
    bursts,
    delayed_rest,
    inserted,
    line,
    lines,
    moved,
    replaced,
    sampled,
)

from ftmodel.history import (
    Event,
    Exited,
    LeftOver,
    Listed,
    LogLine,
    Sample,
)
from ftmodel.invariants import duty as duties
from ftmodel.invariants.cancellation import must_aborts
from ftmodel.invariants.outages import upset
from ftmodel.invariants.records import Incarnation

# --- migration --------------------------------------------------------------------------------------------------


def over_limit(base: Base) -> list[Event] | None:
    for request in base.clean():
        moves = base.ledger.moves.get(request.sent.id)
        if moves is None or not moves.migrating:
            continue
        first = moves.migrating[0]
        more = duties.limit_of(base.ledger, request) + 2 - len(moves.lines)
        return inserted(base.events, *(moved(first, -0.0001 * i) for i in range(1, more + 1)))
    return None


def migrations_overcounted(base: Base) -> list[Event] | None:
    return _raised(base, "migrations", 1 + sum(4 + duties.limit_of(base.ledger, r) for r in base.clean()))


def _raised(base: Base, name: str, by: float) -> list[Event] | None:
    for frontend in base.processes("frontend"):
        if name in base.ledger.last_sample[frontend.title].values:
            last = base.ledger.last_sample[frontend.title]
            return sampled(base.events, frontend.title, name, lambda value: value + by, last.at.after_s)
    return None


def begun_after_cancel(base: Base) -> list[Event] | None:
    for request, title in base.must_abort():
        late_s = request.left_at.after_s + base.ledger.setting.bounds.abort_bound_s + 0.5
        again = [line(title, "begun", late_s, request), line(title, "aborted", late_s + 0.01, request)]
        if not base.ledger.setting.engine_ids:
            again.pop()
        return inserted(delayed_rest(base, base.events, late_s + 5), *again)
    return None


def migrating_after_cancel(base: Base) -> list[Event] | None:
    for request in base.clean():
        if request.closed is not None and not base.ledger.moves.get(request.sent.id):
            late_s = request.left_at.after_s + base.ledger.setting.bounds.abort_bound_s + 0.5
            late = line(request.sent.frontend, "migrating", late_s, request)
            return inserted(delayed_rest(base, base.events, late_s + 1), late)
    return None


def unlogged(base: Base) -> list[Event] | None:
    for request in base.clean():
        titles = base.ledger.generations.get(request.sent.id, {})
        begun = sum(bool(generation.begun) for generation in titles.values())
        if begun > 1 and request.told_all and base.ledger.moves.get(request.sent.id):
            moves = ("migrating", "retrying")
            return [
                e
                for e in base.events
                if not (isinstance(e, LogLine) and e.id == request.sent.id and e.meaning in moves)
            ]
    return None


def logged_without(base: Base) -> list[Event] | None:
    for request in base.whole():
        movable = duties.limit_of(base.ledger, request) and not base.touched_prefills(request)
        if base.calm(request) and movable and not base.ledger.moves.get(request.sent.id):
            own = bursts(base.events, request)
            if len(own) > 4:
                return inserted(
                    base.events, line(request.sent.frontend, "migrating", own[3].at.after_s + 0.0001, request)
                )
    return None


# --- cancellation -----------------------------------------------------------------------------------------------


def abort_missing(base: Base) -> list[Event] | None:
    for request, title in base.must_abort():
        for old in lines(base, title, "aborted", request):
            return delayed_rest(base, replaced(base.events, old), request.left_at.after_s + 4)
    return None


def abort_late(base: Base) -> list[Event] | None:
    return _end_late(base, "aborted")


def ran_on(base: Base) -> list[Event] | None:
    return _end_late(base, "ended")


def _end_late(base: Base, meaning: str) -> list[Event] | None:
    for request, title in base.must_abort():
        late_s = request.left_at.after_s + base.ledger.setting.bounds.abort_bound_s + 0.5
        for old in lines(base, title, "aborted", request):
            events = delayed_rest(base, replaced(base.events, old), late_s + 1)
            return inserted(events, line(title, meaning, late_s, request))
    return None


def no_kill(base: Base) -> list[Event] | None:
    if base.ledger.setting.engine_ids:
        return None  # the worker's abort shows that it was told
    lefts = [request.left_at.after_s for request, _ in base.must_abort()]
    events = [e for e in base.events if not (isinstance(e, LogLine) and e.meaning in ("kill", "signalled"))]
    return delayed_rest(base, events, max(lefts) + 4) if lefts else None


def frontend_overcounts(base: Base) -> list[Event] | None:
    cancels = sum(request.closed is not None for request in base.ledger.requests.values())
    changed = _raised(base, "cancellations", cancels + 1)
    return changed and late_sample(base, changed)


def late_sample(base: Base, events: list[Event]) -> list[Event]:
    """Rest delayed, and the last samples told once more shortly before it."""
    ends = [request.over.after_s for request in base.ledger.requests.values() if request.over]
    rest_s = max(base.rest_s, max(ends) + base.ledger.setting.bounds.rest_bound_s + 1)
    last = {e.title: e for e in events if isinstance(e, Sample) and base.ledger.belongs(e)}
    living = [e for title, e in last.items() if base.ledger.processes[title].exited is None]
    return inserted(delayed_rest(base, events, rest_s), *(dataclasses.replace(e, at=at(rest_s - 0.05)) for e in living))


def worker_counts(by: Callable[[float, int], float]) -> Mutate:
    """The cancellation counter of a worker that owes an abort, by an engine without ids."""

    def mutate(base: Base) -> list[Event] | None:
        if base.ledger.setting.engine_ids:
            return None
        for request, title in base.must_abort():
            begun = len(base.ledger.served[title])
            values = base.ledger.last_sample[title].values
            if base.ledger.untouched(title) and "cancellations" in values:
                # From the beginning on, or from the cancel on if there are more then: a counter never falls.
                from_s = request.left_at.after_s if by(0, begun) else 0.0
                changed = sampled(base.events, title, "cancellations", partial(_swapped, by, begun), from_s)
                return late_sample(base, changed)
        return None

    return mutate


def _swapped(by: Callable[[float, int], float], begun: int, value: float) -> float:
    return by(value, begun)


def uncancelled(base: Base) -> list[Event] | None:
    lefts = [request.left_at for request in base.clean() if request.closed is not None]
    for old in _ordinary_ends(base):
        if not any(left.could_overlap(old.at.before_s - 3, old.at.after_s + 3) for left in lefts):
            return replaced(base.events, old, dataclasses.replace(old, meaning="aborted"))
    return None


def more_ended(base: Base) -> list[Event] | None:
    for old in _ordinary_ends(base):
        return inserted(base.events, moved(old, 0.001))
    return None


def end_missing(base: Base) -> list[Event] | None:
    for old in _ordinary_ends(base):
        end_s = base.ledger.by_id[old.id].over.after_s  # type: ignore[union-attr]
        return delayed_rest(base, replaced(base.events, old), end_s + 4)
    return None


def _ordinary_ends(base: Base) -> Iterator[LogLine]:
    if base.ledger.setting.engine_ids:
        for request in base.whole(streamed=False):
            title = base.calm(request)
            if title is not None:
                yield from lines(base, title, "ended", request)


def abort_twice(base: Base) -> list[Event] | None:
    for request, title in base.must_abort():
        for old in lines(base, title, "aborted", request):
            return inserted(base.events, moved(old, 0.001))
    return None


def abort_elsewhere(base: Base) -> list[Event] | None:
    for request, title in base.must_abort():
        others = (w.title for w in base.ledger.workers if w.title != title and base.ledger.untouched(w.title))
        for other in others:
            if base.ledger.setting.engine_ids:
                return inserted(base.events, line(other, "aborted", request.left_at.after_s + 0.01, request))
    return None


def still_running(base: Base) -> list[Event] | None:
    """The gauge goes on to count a request whose abort was logged."""
    for request, title in base.must_abort():
        if base.ledger.untouched(title) and base.ledger.processes[title].running:
            changed = sampled(base.events, title, "running", lambda value: value + 1, request.left_at.before_s)
            return late_sample(base, changed)
    return None


def unfinished(base: Base) -> list[Event] | None:
    """A left request that owed no abort, for it was nearly done, has no end at all."""
    musts = {request.name for request, _ in must_aborts(base.ledger)}
    for request in base.clean():
        title = base.calm(request)
        if request.closed is None or request.name in musts or title is None or not base.ledger.setting.engine_ids:
            continue
        ends = lines(base, title, "aborted", request) + lines(base, title, "ended", request)
        if len(ends) == 1:
            return delayed_rest(base, replaced(base.events, ends[0]), request.left_at.after_s + 4)
    return None


# --- cluster and resources --------------------------------------------------------------------------------------


def ghost(base: Base) -> list[Event] | None:
    bound_s = base.ledger.setting.bounds.list_bound_s
    for worker in base.ledger.workers:
        if worker.died is None or not worker.listed:
            continue
        late = [
            e
            for e in base.events
            if isinstance(e, Listed) and base.ledger.belongs(e) and e.at.before_s > worker.died.after_s + bound_s
        ]
        if late:
            shown = dataclasses.replace(late[-1], titles=(*late[-1].titles, worker.title))
            return replaced(base.events, late[-1], shown)
    return None


def missing(base: Base) -> list[Event] | None:
    bound_s = base.ledger.setting.bounds.list_bound_s
    for worker in base.ledger.workers:
        if not base.ledger.untouched(worker.title) or not worker.listed or not worker.answered:
            continue
        late = (e for e in base.events if isinstance(e, Listed) and base.ledger.belongs(e))
        for event in late:
            listed = worker.listed.get(event.frontend)
            if listed is None or event.at.before_s <= listed.after_s + bound_s:
                continue
            if upset(base.ledger, event.at.before_s, event.at.after_s):
                continue
            if not event.strangers and worker.title in event.titles:
                titles = tuple(title for title in event.titles if title != worker.title)
                return replaced(base.events, event, dataclasses.replace(event, titles=titles))
    return None


def leak(role: str, name: str) -> Mutate:
    """A gauge that does not come back to 0 after the last end, though it had been at 0 before."""

    def mutate(base: Base) -> list[Event] | None:
        ends = [request.over for request in base.ledger.requests.values()]
        if None in ends or not ends:
            return None
        last_s = max(end.after_s for end in ends if end)
        for process in base.processes(role):
            sample = base.ledger.last_sample.get(process.title)
            if sample is not None and name in sample.values and _was_calm(base, process, last_s):
                return late_sample(base, sampled(base.events, process.title, name, lambda _value: 1.0, last_s))
        return None

    return mutate


def _was_calm(base: Base, process: Incarnation, last_s: float) -> bool:
    """Its running gauge came down between its last cancel and the last end, so that a leak is no cancel's."""
    left = [r.left_at.after_s for r, title in must_aborts(base.ledger) if title == process.title]
    calm = (s for s in process.running if s.values["running"] == 0 and max(left, default=0) < s.at.before_s < last_s)
    return not left or next(calm, None) is not None


def orphan(base: Base) -> list[Event] | None:
    for worker in base.ledger.workers:
        left = LeftOver(at=at(base.rest_s + 0.4), of=worker.title, pids=(4711,), by="VLLM::EngineCore")
        return inserted(base.events, left)
    return None


def cries(meaning: str, role: str) -> Mutate:
    """A line that no process may write."""

    def mutate(base: Base) -> list[Event] | None:
        erred = [request.erred.title for request in base.ledger.requests.values() if request.erred]
        for process in base.processes(role):
            if process.title not in erred:
                return inserted(base.events, line(process.title, meaning, base.rest_s - 0.1))
        return None

    return mutate


def exits(base: Base) -> list[Event] | None:
    for process in base.processes("worker"):
        if process.listed:
            rest_s = base.ledger.marks["rest"].at.before_s
            new = Exited(at=at(rest_s - 0.01), title=process.title, code=1, signal=None)
            closing = [e for e in base.events if isinstance(e, Exited) and e.title == process.title]
            return inserted([e for e in base.events if not any(e is other for other in closing)], new)
    return None


def overcounted_success(base: Base) -> list[Event] | None:
    first = next((frontend.title for frontend in base.processes("frontend")), None)
    mine = [request for request in base.ledger.requests.values() if request.sent.frontend == first]
    failed = sum(request.ended is not None and not request.whole for request in mine)
    cancelled = sum(request.closed is not None for request in mine)
    return _raised(base, "success", cancelled + 1) if failed else None
