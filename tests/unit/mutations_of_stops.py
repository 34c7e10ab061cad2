"""Defects of stop strings and recoveries, and of compared runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

from mutations_of_requests import failing
from planting import Base, Mutate, Mutation, bursts, delayed_rest, inserted, moved, replaced

from ftmodel.engines.counting.worker import text
from ftmodel.history import Event, LogLine
from ftmodel.invariants.duty import completion
from ftmodel.invariants.migration import redispatches
from ftmodel.invariants.records import Request

# --- stop strings -----------------------------------------------------------------------------------------------


def stopped(edit: Callable[[Request, str], str], *, exact: bool | None = None) -> Mutate:
    """A change of the last text of an answer that its stop string ended."""

    def mutate(base: Base) -> list[Event] | None:
        if exact is not None and base.ledger.setting.exact_text != exact:
            return None
        for request in base.whole():
            if not request.sent.stop or request.choices[0].finish != "stop":
                continue
            burst = [b for b in bursts(base.events, request) if any(i.what == "text" for i in b.items)][-1]
            item = next(i for i in burst.items if i.what == "text")
            new = dataclasses.replace(item, value=edit(request, item.value))
            items = tuple(new if i is item else i for i in burst.items)
            return replaced(base.events, burst, dataclasses.replace(burst, items=items))
        return None

    return mutate


def leaked(request: Request, value: str) -> str:
    return value + request.sent.stop[0]


def past(request: Request, value: str) -> str:
    """The stop string and what the engine says behind it."""
    twin, stop = request.choices[0].twin, request.sent.stop[0]
    if twin is None or twin.stops_at is None:
        return f"{value}{stop}bc"
    end = twin.stops_at + len(stop)
    return value + stop + text(twin.key, 0, twin.max_tokens)[end : end + 2]


# --- recovery ---------------------------------------------------------------------------------------------------


def slow(base: Base) -> list[Event] | None:
    """All that a request has after its migration comes later than the bound."""
    bounds = base.ledger.setting.bounds
    for request, from_s in _recovered(base):
        t = completion(base.ledger, request).t
        by_s = (len(t) + 1) * bounds.detect_bound_s + 2
        if by_s > bounds.hang_bound_s:
            continue
        late = [
            e
            for e in base.events
            if e.at.after_s > from_s
            and (getattr(e, "request", "") == request.name or (isinstance(e, LogLine) and e.id == request.sent.id))
        ]
        rest = [e for e in base.events if not any(e is other for other in late)]
        delayed = delayed_rest(base, rest, max(e.at.after_s for e in late) + by_s + 3)
        return inserted(delayed, *(moved(e, by_s) for e in late))
    return None


def _recovered(base: Base) -> Iterator[tuple[Request, float]]:
    """Streams that a killed worker lost in their midst, and when; nothing else was ever touched in their lives."""
    for request in base.whole():
        if not redispatches(base.ledger, request) or not base.owed("must", request):
            continue
        generations = base.ledger.generations.get(request.sent.id, {})
        killed = [base.ledger.processes[title].died for title, g in generations.items() if g.begun]
        at_s = max((died.after_s for died in killed if died is not None), default=0.0)
        workers = [worker for worker in base.ledger.workers if worker.touches]
        calm = all(worker.touched_from_s <= at_s for worker in workers)
        if calm and len(request.said) > 1 and request.said[0][0] < at_s < request.said[-1][0]:
            yield request, at_s


# --- compared runs ----------------------------------------------------------------------------------------------


def compared(variant: Literal["without-faults", "one-more-worker"]) -> Mutate:
    """A request that must complete though the plan was changed is told of a failure instead."""

    def mutate(base: Base) -> list[Event] | None:
        if base.ledger.setting.variant != variant:
            return None
        return failing(500, "eof", compared=True)(base)

    return mutate


MUTATIONS = (
    Mutation("the stop string is told", "T4/leaked", stopped(leaked)),
    Mutation(
        "a part of the stop string is told", "T4/leaked", stopped(lambda r, v: v + r.sent.stop[0][:1], exact=True)
    ),
    Mutation("the stop string does not stop", "T4/past-stop", stopped(past)),
    Mutation("what was withheld is lost", "T4/withheld-lost", stopped(lambda _, v: v[:-1], exact=True)),
    Mutation("a migration takes long", "T5/slow-recovery", slow),
    Mutation("a request fails without faults", "X1/failed", compared("without-faults")),
    Mutation("a request fails with one more worker", "X2/pass-became-failure", compared("one-more-worker")),
)
