"""Defects of workers and frontends: placement, routing, joining, health, draining, identities."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from planting import Base, Mutate, Mutation, at, inserted, line, lines, moved, replaced, sampled

from ftmodel.engines.counting.worker import text
from ftmodel.history import (
    Event,
    Identified,
    Item,
    Listed,
    LogLine,
    Promise,
    Received,
    RequestEnded,
    Setting,
    Told,
)
from ftmodel.invariants.duty import most_moves
from ftmodel.invariants.outages import upset
from ftmodel.invariants.placement import beginnings
from ftmodel.invariants.records import Incarnation, Request

# --- placement --------------------------------------------------------------------------------------------------


def _beside(base: Base, title: str) -> str | None:
    """Another worker that nothing ever touched."""
    return next((w.title for w in base.processes("worker") if w.title != title and w.answered), None)


def _calm_ones(base: Base) -> Iterator[tuple[Request, str, str]]:
    """Whole answers of an untouched worker, and another such worker that was there as well."""
    for request in base.whole():
        title = base.calm(request)
        other = _beside(base, title) if title else None
        if title is None or other is None or not most_moves(base.ledger, request) or request.usage is None:
            continue
        started_s = base.ledger.processes[other].started.at.after_s
        if started_s < request.sent.at.before_s and not base.ledger.moves.get(request.sent.id):
            yield request, title, other


def _further(base: Base, request: Request, other: str, from_s: float, end_s: float) -> list[LogLine]:
    """What is logged when it goes on elsewhere."""
    begun = dataclasses.replace(line(other, "begun", from_s, request), fields={})
    end = line(other, "ended" if base.ledger.setting.engine_ids else "finished", end_s, request)
    return [line(request.sent.frontend, "migrating", from_s - 0.002, request), begun, end]


def moved_without_cause(base: Base) -> list[Event] | None:
    for request, title, other in _calm_ones(base):
        begun = lines(base, title, "begun", request)
        ends = lines(base, title, "ended", request) + lines(base, title, "finished", request)
        if len(begun) != 1 or not ends or not request.over or base.touched_prefills(request):
            continue
        half_s = (begun[0].at.after_s + ends[-1].at.before_s) / 2
        events = base.events
        for old in ends:
            meaning = "failed" if old.meaning == "ended" else old.meaning
            events = replaced(events, old, dataclasses.replace(old, at=at(half_s), meaning=meaning))
        return inserted(events, *_further(base, request, other, half_s + 0.01, ends[-1].at.after_s))
    return None


def two_at_once(base: Base) -> list[Event] | None:
    if not base.ledger.setting.engine_ids:
        return None
    for request, title, other in _calm_ones(base):
        begun, ends = lines(base, title, "begun", request), lines(base, title, "ended", request)
        if len(begun) == len(ends) == 1 and ends[0].at.before_s - begun[0].at.after_s > 2.5:
            return inserted(base.events, *_further(base, request, other, begun[0].at.after_s + 0.1, ends[0].at.after_s))
    return None


def _migrated(base: Base) -> Iterator[tuple[Request, list[LogLine]]]:
    for request in base.clean():
        begun = beginnings(base.ledger, request)
        if request.whole and len({old.title for old in begun}) > 1 and base.ledger.moves.get(request.sent.id):
            yield request, begun


def moved_though_guided(base: Base) -> list[Event] | None:
    for request, _ in _migrated(base):
        if most_moves(base.ledger, request):
            return replaced(base.events, request.sent, dataclasses.replace(request.sent, guided=True))
    return None


def moved_though_long(base: Base) -> list[Event] | None:
    for request, begun in _migrated(base):
        position = begun[-1].fields.get("position", 1)
        if most_moves(base.ledger, request) and position:
            fields = {**begun[-1].fields, "position": position, "prompt_tokens": 1_000_001}
            events = replaced(base.events, begun[-1], dataclasses.replace(begun[-1], fields=fields))
            return _promising(events, max_length=1_000_000)
    return None


def _promising(events: list[Event], **changes: Any) -> list[Event]:
    setting = events[0]
    assert isinstance(setting, Setting)
    promise: Promise = dataclasses.replace(setting.promise, **changes)
    return [dataclasses.replace(setting, promise=promise), *events[1:]]


def answered_by_nobody(base: Base) -> list[Event] | None:
    """The error of a stream that its only worker's death broke, replaced by the rest of the answer."""
    setting = base.ledger.setting
    for request in base.clean():
        begun = beginnings(base.ledger, request)
        if most_moves(base.ledger, request) or request.error is None or len(begun) != 1 or not request.choices:
            continue
        worker = base.ledger.processes[begun[0].title]
        had_s = worker.died.after_s - begun[0].at.before_s if worker.died else 1e9
        if had_s > 0.4 * request.sent.max_tokens * setting.pace_min_s:
            continue
        said = "".join(i.value for e in _bursts(base, request) for i in e.items if i.what == "text")
        whole = text(request.sent.key.encode(), 0, request.sent.max_tokens) if setting.exact_text else ""
        rest = whole[len(said) :] or " abc" * (request.sent.max_tokens - len(said) // 4)
        burst = next(e for e in _bursts(base, request) if any(i.what == "error" for i in e.items))
        items = (Item("text", rest), Item("finish", "length"), Item("done"))
        events = replaced(base.events, burst, dataclasses.replace(burst, items=items))
        return counted_whole(events, request)
    return None


def counted_whole(events: list[Event], request: Request) -> list[Event]:
    """The frontend's counters, with this failed request as a success."""
    end_s = request.over.before_s if request.over else 0.0
    events = sampled(events, request.sent.frontend, "success", lambda value: value + 1, end_s)
    return sampled(events, request.sent.frontend, "failed", lambda value: max(0.0, value - 1), end_s)


def _bursts(base: Base, request: Request) -> list[Received]:
    return [e for e in base.events if isinstance(e, Received) and e.request == request.name]


# --- routing ----------------------------------------------------------------------------------------------------


def _chosen_late(base: Base, from_s: float, until_s: float) -> Iterator[LogLine]:
    for lines_ in base.ledger.selected.values():
        for old in lines_:
            request = base.ledger.by_id.get(old.id)
            clean = request is not None and request.name not in base.found and request.whole
            if clean and from_s < old.at.before_s and old.at.after_s < until_s and base.ledger.untouched(old.title):
                yield old


def chosen_though_dead(base: Base) -> list[Event] | None:
    for worker in base.ledger.workers:
        if worker.died is not None and worker.identity:
            for old in _chosen_late(base, worker.died.after_s + 15.1, base.rest_s):
                return replaced(base.events, old, _choosing(old, worker))
    return None


def chosen_though_draining(base: Base) -> list[Event] | None:
    for worker, stop_s, end_s in _drains(base):
        for old in _chosen_late(base, stop_s + 13, end_s):
            return replaced(base.events, old, _choosing(old, worker))
    return None


def _choosing(old: LogLine, worker: Incarnation) -> LogLine:
    return dataclasses.replace(old, fields={**old.fields, "worker_id": int(worker.identity)})


def _drains(base: Base) -> Iterator[tuple[Incarnation, float, float]]:
    """The workers that were asked to stop, when, and up to when they lived."""
    for worker in base.ledger.workers:
        if [fault.fault for fault in worker.faults] == ["stop-worker"] and worker.identity:
            end_s = worker.exited.at.before_s if worker.exited else base.rest_s
            yield worker, worker.faults[0].at.after_s, end_s


def attempt_in_vain(base: Base) -> list[Event] | None:
    for request in base.whole():
        ledger, sent = base.ledger, request.sent
        dead = [w for w in ledger.workers if w.died and w.died.after_s + 15.1 < sent.at.before_s]
        others = [w for w in ledger.workers if w not in dead and w.started.at.before_s < ledger.life(request).after_s]
        known = [w.answered.get(sent.frontend) for w in others if ledger.untouched(w.title)]
        ready = all(answered is not None and answered.surely_before(sent.at) for answered in known)
        if dead and known and ready and len(known) == len(others) and most_moves(ledger, request):
            return inserted(base.events, line(sent.frontend, "retrying", sent.at.after_s + 0.001, request))
    return None


def takes_work(base: Base) -> list[Event] | None:
    for worker, stop_s, end_s in _drains(base):
        for request in base.whole():
            title = base.calm(request)
            if title and request.over and stop_s + 13 < request.sent.at.before_s and request.over.after_s < end_s:
                events = [_on(e, request, title, worker.title) for e in base.events]
                chosen = base.ledger.selected.get(request.sent.id, [])
                return replaced(events, chosen[0], _choosing(chosen[0], worker)) if chosen else events
    return None


def _on(event: Event, request: Request, title: str, other: str) -> Event:
    mine = isinstance(event, LogLine) and event.id == request.sent.id and event.title == title
    return dataclasses.replace(event, title=other) if mine and isinstance(event, LogLine) else event


def drops_work(base: Base) -> list[Event] | None:
    for worker, stop_s, _ in _drains(base):
        for request in base.whole():
            here = base.ledger.generations.get(request.sent.id, {}).keys() == {worker.title}
            late = [e for e in _bursts(base, request) if e.at.before_s > stop_s + 0.1]
            if not here or most_moves(base.ledger, request) or len(late) < 3 or not request.sent.stream:
                continue
            error = dataclasses.replace(late[0], items=(Item("error", "the worker is gone"), Item("done")))
            events = [e for e in replaced(base.events, late[0], error) if not any(e is old for old in late[1:])]
            end_s = late[0].at.after_s
            ends = [e for e in base.events if isinstance(e, RequestEnded) and e.request == request.name]
            events = replaced(events, ends[0])
            events = inserted(events, dataclasses.replace(ends[0], at=at(end_s + 0.002)))
            was_s = request.over.before_s if request.over else end_s
            events = sampled(events, request.sent.frontend, "success", lambda value: max(0.0, value - 1), was_s)
            events = sampled(events, request.sent.frontend, "failed", lambda value: value + 1, end_s)
            return _promising(events, grace_s=900.0)
    return None


def still_listed(base: Base) -> list[Event] | None:
    if base.found:
        return None
    bound_s = base.ledger.setting.bounds.leave_bound_s
    for worker, stop_s, end_s in _drains(base):
        from_s = stop_s + bound_s
        late = [e for e in base.events if isinstance(e, Listed) and from_s < e.at.before_s and e.at.after_s < end_s]
        if late:
            return replaced(base.events, late[0], dataclasses.replace(late[0], titles=(*late[0].titles, worker.title)))
    return None


def never_exits(base: Base) -> list[Event] | None:
    if base.found:
        return None
    for worker, _, end_s in _drains(base):
        if worker.exited is not None and end_s + 25 < base.rest_s:
            return inserted(replaced(base.events, worker.exited), moved(worker.exited, 20.0))
    return None


# --- joining and identities -------------------------------------------------------------------------------------


def never_listed(base: Base) -> list[Event] | None:
    """A worker that says that it is ready and answers, but that no list shows."""
    if base.found:
        return None
    for worker in base.processes("worker"):
        told = [t for t in worker.told if t.health == 200]
        excused = upset(base.ledger, worker.started.at.before_s, worker.started.at.after_s + 20)
        if told and told[0].at.after_s + 15 < base.rest_s and not excused:
            return [
                dataclasses.replace(e, titles=tuple(title for title in e.titles if title != worker.title))
                if isinstance(e, Listed)
                else e
                for e in base.events
            ]
    return None


def without_model(base: Base) -> list[Event] | None:
    for frontend in base.processes("frontend"):
        view = base.ledger.views.get(frontend.title)
        from_s = base.rest_s - 13
        polls = list(view.since(from_s - 15)) if view else []
        always = [w for w in base.processes("worker") if view and polls and all(view.shows(i, w.title) for i in polls)]
        if always and polls and view and view.befores_s[polls[0]] < from_s - 14:
            return [
                dataclasses.replace(e, models=False)
                if isinstance(e, Listed) and e.frontend == frontend.title and e.at.before_s > from_s
                else e
                for e in base.events
            ]
    return None


def passed_over(base: Base) -> list[Event] | None:
    """All that one worker was given from some time on went to another."""
    for frontend in base.processes("frontend"):
        for worker in base.processes("worker"):
            other, listed = _beside(base, worker.title), worker.listed.get(frontend.title)
            if other is None or listed is None:
                continue
            mine = [r for r in base.whole() if r.sent.frontend == frontend.title]
            late = [r for r in mine if r.sent.at.before_s > listed.after_s + 10]
            if len(late) < 20 or not any(base.calm(r) == worker.title for r in late):
                continue
            events = base.events
            for request in late:
                events = [_on(e, request, worker.title, other) for e in events]
            return events
    return None


def two_owners(base: Base) -> list[Event] | None:
    known = [w for w in base.processes("worker") if w.identity]
    for event in base.events:
        if len(known) > 1 and isinstance(event, Identified) and event.title == known[1].title:
            return replaced(base.events, event, dataclasses.replace(event, identity=known[0].identity))
    return None


def stranger(base: Base) -> list[Event] | None:
    if not all(worker.identity for worker in base.ledger.workers):
        return None
    for frontend in base.processes("frontend"):
        polls = [e for e in base.events if isinstance(e, Listed) and e.frontend == frontend.title]
        late = [e for e in polls if base.ledger.belongs(e)]
        if late:
            return replaced(base.events, late[-1], dataclasses.replace(late[-1], strangers=("4711",)))
    return None


# --- health -----------------------------------------------------------------------------------------------------


def lies(role: str, ask: str) -> Mutate:
    """A process that is ready tells the contrary, for long."""

    def mutate(base: Base) -> list[Event] | None:
        for process in base.processes(role):
            from_s = base.rest_s - 10
            if process.told and process.told[0].at.before_s < from_s - 10:
                return _telling(base, process, from_s, base.rest_s, **{ask: 503})
        return None

    return mutate


def lies_draining(ask: str, status: int, after_s: float, until_s: float) -> Mutate:
    """A frontend that drains tells something else than is promised."""

    def mutate(base: Base) -> list[Event] | None:
        for process in base.ledger.frontends:
            stops = [fault for fault in process.faults if fault.fault == "stop-frontend"]
            open_ = [r for r in base.ledger.requests.values() if stops and r.begun and _kept(r, process, stops[0].at)]
            if open_:
                stop_s = stops[0].at.after_s
                return _telling(base, process, stop_s + after_s, stop_s + until_s, **{ask: status})
        return None

    return mutate


def _kept(request: Request, process: Incarnation, stop: Any) -> bool:
    mine = request.sent.frontend == process.title and request.sent.at.surely_before(stop)
    return mine and request.over is not None and request.over.before_s > stop.after_s + 9


def _telling(base: Base, process: Incarnation, from_s: float, until_s: float, **statuses: int) -> list[Event]:
    return [
        dataclasses.replace(e, **statuses)  # type: ignore[arg-type]
        if isinstance(e, Told) and e.title == process.title and from_s < e.at.before_s and e.at.after_s < until_s
        else e
        for e in base.events
    ]


MUTATIONS = (
    Mutation("moved from a worker that nothing touched", "M2/without-cause", moved_without_cause),
    Mutation("moved though it must not migrate", "M3/second-worker", moved_though_guided),
    Mutation("moved though it had grown too long", "M3/beyond-length", moved_though_long),
    Mutation("answered though its only worker died", "M3/answered", answered_by_nobody),
    Mutation("two workers generate at once", "M4/two-at-once", two_at_once),
    Mutation("a dead worker is chosen", "C1/dead", chosen_though_dead),
    Mutation("a draining worker is chosen", "C1/draining", chosen_though_draining),
    Mutation("an attempt fails though all are well", "C1/failed-attempt", attempt_in_vain),
    Mutation("a ready worker is never listed", "C2/not-listed", never_listed),
    Mutation("the model is not listed", "C2/no-model", without_model),
    Mutation("a worker is passed over", "C2/no-traffic", passed_over),
    *(
        Mutation(f"a ready {role} lies on {ask}", f"C4/{role}-{ask}", lies(role, ask))
        for role in ("frontend", "worker")
        for ask in ("health", "live")
    ),
    Mutation("a draining frontend is healthy", "C4/health-draining", lies_draining("health", 200, 7.2, 100.0)),
    Mutation("a draining frontend is not live", "C4/live-draining", lies_draining("live", 503, 0.0, 4.9)),
    Mutation("a draining worker is still listed", "C5/still-listed", still_listed),
    Mutation("a draining worker takes work", "C5/takes-work", takes_work),
    Mutation("a draining worker drops work", "C5/drops-work", drops_work),
    Mutation("a drained worker stays", "C5/never-exits", never_exits),
    Mutation("two workers own one id", "C6/two-owners", two_owners),
    Mutation("an id that nobody owns is listed", "C6/stranger", stranger),
)
