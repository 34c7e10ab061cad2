"""Where a defect can be planted into a history, and ways to change it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ftmodel.history import (
    Event,
    Interval,
    Item,
    LogLine,
    Received,
    RequestEnded,
    ResponseBegun,
    Sample,
)
from ftmodel.invariants import INVARIANTS, Judge, Judgement
from ftmodel.invariants import duty as duties
from ftmodel.invariants.cancellation import must_aborts
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.outages import upset
from ftmodel.invariants.records import Incarnation, Request


@dataclass
class Base:
    """A history, what it shows, and the ledger that says where a defect can be planted."""

    events: list[Event]
    ledger: Ledger
    judgement: Judgement

    @classmethod
    def of(cls, events: list[Event]) -> Base:
        judge = Judge(INVARIANTS)
        for event in events:
            judge.feed(event)
        judgement = judge.result()
        assert judge._ledger is not None
        return cls(events, judge._ledger, judgement)

    @property
    def rest_s(self) -> float:
        return self.ledger.rest_s

    @cached_property
    def found(self) -> set[str]:
        """The subjects of what was found before."""
        return {finding.subject.split()[0] for finding in self.judgement.findings}

    def clean(self) -> Iterator[Request]:
        """The requests of which nothing was found, and that no outage could excuse."""
        for request in self.ledger.requests.values():
            life = self.ledger.life(request)
            if request.name not in self.found and not upset(self.ledger, life.before_s, life.after_s):
                yield request

    def processes(self, role: str) -> Iterator[Incarnation]:
        """The untouched processes of which nothing was found."""
        for process in self.ledger.processes.values():
            if process.started.role == role and not process.touches and process.title not in self.found:
                yield process

    def whole(self, *, streamed: bool = True, least: int = 10) -> Iterator[Request]:
        """Whole answers, streamed ones and long ones if so wanted."""
        return (r for r in self.clean() if r.whole and r.sent.max_tokens >= least and (r.sent.stream or not streamed))

    def owed(self, value: str, request: Request) -> bool:
        return duties.completion(self.ledger, request).value == value

    def calm(self, request: Request) -> str | None:
        """The one worker on which a request began, if nothing touched that to the end."""
        titles = [t for t, g in self.ledger.generations.get(request.sent.id, {}).items() if g.begun]
        return titles[0] if len(titles) == 1 and self.ledger.untouched(titles[0]) else None

    def touched_prefills(self, request: Request) -> bool:
        """True if a prefill worker that may have had its prompt was touched: then it may have to be moved."""
        return bool(duties.touchable(self.ledger, request, self.ledger.prefill_workers))

    def must_abort(self) -> Iterator[tuple[Request, str]]:
        """The cancels that owe an abort, and the workers that owe it, where nothing was found."""
        for request, title in must_aborts(self.ledger):
            if not {request.name, title, request.sent.frontend} & self.found:
                yield request, title


Mutate = Callable[[Base], list[Event] | None]


@dataclass(frozen=True)
class Mutation:
    """A planted defect and the signature under which it must be found, and under no other."""

    name: str
    signature: str
    mutate: Mutate


# --- ways to change a history -----------------------------------------------------------------------------------


def at(at_s: float) -> Interval:
    return Interval(at_s - 0.001, at_s)


def inserted(events: list[Event], *new: Event) -> list[Event]:
    """New events in their places by time; the setting stays the first."""
    return [events[0], *sorted([*events[1:], *new], key=lambda event: event.at.after_s)]


def replaced(events: list[Event], old: Event, *new: Event) -> list[Event]:
    place = next(i for i, event in enumerate(events) if event is old)
    return [*events[:place], *new, *events[place + 1 :]]


def delayed_rest(base: Base, events: list[Event], until_s: float) -> list[Event]:
    """Rest, and all that was told after it, not before this time."""
    rest = base.ledger.marks["rest"]
    by_s = max(0.0, until_s - rest.at.before_s)
    after = [event is rest or event.at.after_s > rest.at.after_s for event in events]
    return inserted([moved(event, by_s) if late else event for event, late in zip(events, after, strict=True)])


def moved(event: Any, by_s: float) -> Any:
    return dataclasses.replace(event, at=Interval(event.at.before_s + by_s, event.at.after_s + by_s))


def without_answer(events: list[Event], request: Request) -> list[Event]:
    mine = (ResponseBegun, Received, RequestEnded)
    return [e for e in events if not (isinstance(e, mine) and e.request == request.name)]


def bursts(events: list[Event], request: Request) -> list[Received]:
    return [e for e in events if isinstance(e, Received) and e.request == request.name]


def edited(
    base: Base, request: Request, edit: Callable[[list[Item]], list[Item] | None], *, last: bool = False
) -> list[Event] | None:
    """The first (or last) burst of a request that the edit changes, changed."""
    own = bursts(base.events, request)
    for burst in reversed(own) if last else own:
        items = edit(list(burst.items))
        if items is not None:
            return replaced(base.events, burst, dataclasses.replace(burst, items=tuple(items)))
    return None


def sampled(
    events: list[Event], title: str, name: str, value: Callable[[float], float], from_s: float = 0.0
) -> list[Event]:
    """A metric of a process changed in every sample that is surely not before this time."""
    return [
        dataclasses.replace(e, values={**e.values, name: value(e.values[name])})
        if isinstance(e, Sample) and e.title == title and name in e.values and e.at.after_s >= from_s
        else e
        for e in events
    ]


def unsucceeded(base: Base, events: list[Event], request: Request) -> list[Event]:
    """The success counter without this request, which is counted as failed instead."""
    return recounted(base, events, request, -1)


def recounted(base: Base, events: list[Event], request: Request, by: int) -> list[Event]:
    """A success more or less, and a failure less or more; each counter still only rises."""
    title, end = request.sent.frontend, request.over
    last, from_s = base.ledger.last_sample[title].values, end.before_s if end else 0.0
    events = _raised(events, title, "success", by, last.get("success", 0.0), from_s)
    return _raised(events, title, "failed", -by, last.get("failed", 0.0), from_s)


def _raised(events: list[Event], title: str, name: str, by: int, last: float, from_s: float) -> list[Event]:
    """A counter one higher from some time on, where all are told, or one lower in the end."""
    if by > 0:
        return [
            dataclasses.replace(e, values={**e.values, name: e.values.get(name, 0.0) + by})
            if isinstance(e, Sample) and e.title == title and e.at.after_s >= from_s and "started" in e.values
            else e
            for e in events
        ]
    return sampled(events, title, name, lambda value: max(0.0, min(value, last + by)))


def lines(base: Base, title: str, meaning: str, request: Request | None = None) -> list[LogLine]:
    wanted = request.sent.id if request else None
    return [
        e
        for e in base.events
        if isinstance(e, LogLine) and e.title == title and e.meaning == meaning and wanted in (None, e.id)
    ]


def line(title: str, meaning: str, at_s: float, request: Request | None = None) -> LogLine:
    return LogLine(at=at(at_s), title=title, meaning=meaning, id=request.sent.id if request else "", line=9999)
