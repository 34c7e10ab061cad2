"""Defects planted into a history: each changes what a defect would change, and names the one finding that is right.

A mutation works on any history, synthetic or recorded, and returns None where there is nothing to plant it into. It
picks its subject from those of which nothing was found before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from ftmodel.engines.counting.worker import text
from ftmodel.history import (
    Event,
    Exited,
    Interval,
    Item,
    LeftOver,
    Listed,
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
from ftmodel.invariants.records import Incarnation, Request
from ftmodel.invariants.resources import GAUGES
from ftmodel.invariants.texts import whole_text


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
        """The requests of which nothing was found."""
        return (request for request in self.ledger.requests.values() if request.name not in self.found)

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
    """The success counter without this request: else the failure would be counted as a success too."""
    end = request.over
    return sampled(
        events, request.sent.frontend, "success", lambda value: max(0.0, value - 1), end.before_s if end else 0.0
    )


def lines(base: Base, title: str, meaning: str, request: Request | None = None) -> list[LogLine]:
    wanted = request.sent.id if request else None
    return [
        e
        for e in base.events
        if isinstance(e, LogLine) and e.title == title and e.meaning == meaning and wanted in (None, e.id)
    ]


def line(title: str, meaning: str, at_s: float, request: Request | None = None) -> LogLine:
    return LogLine(at=at(at_s), title=title, meaning=meaning, id=request.sent.id if request else "", line=9999)


# --- requests ---------------------------------------------------------------------------------------------------


def never_ended(base: Base) -> list[Event] | None:
    for request in base.whole():
        events = [
            e
            for e in base.events
            if not (isinstance(e, RequestEnded) and e.request == request.name)
            and not (isinstance(e, Received) and e.request == request.name and _ends(e))
        ]
        return delayed_rest(base, events, base.rest_s + 200 + base.ledger.work_s(request))
    return None


def _ends(burst: Received) -> bool:
    return any(item.what in ("finish", "done") for item in burst.items)


def failing(status: int | None, how: str, *, streamed: bool = True) -> Mutate:
    """A request that must complete is told of a failure instead."""

    def mutate(base: Base) -> list[Event] | None:
        for request in base.whole(streamed=streamed):
            if not base.owed("must", request) or base.ledger.moves.get(request.sent.id):
                continue
            end_s = request.ended.at.after_s if request.ended else 0.0
            events = unsucceeded(base, without_answer(base.events, request), request)
            new: list[Event] = [RequestEnded(at=at(end_s), request=request.name, how=how)]  # type: ignore[arg-type]
            if status is not None:
                new.append(ResponseBegun(at=at(end_s - 0.002), request=request.name, status=status))
            if how == "eof":
                error = (Item("error", "broken"), *([Item("done")] if status == 200 else []))
                new.append(Received(at=at(end_s - 0.001), request=request.name, items=error))
            return inserted(events, *new)
        return None

    return mutate


def completed_though_impossible(base: Base) -> list[Event] | None:
    for request in base.clean():
        if not base.owed("must_not", request) or request.ended is None or request.sent.n > 1:
            continue
        end_s, sent = max(request.ended.at.after_s, request.sent.at.after_s + 0.01), request.sent
        exact = base.ledger.setting.exact_text
        said = whole_text(sent.key.encode(), sent.max_tokens) if exact else "abcd" * sent.max_tokens
        items = (Item("text", said), Item("finish", "length"), *([Item("done")] if sent.stream else []))
        return inserted(
            sampled(without_answer(base.events, request), sent.frontend, "success", lambda v: v + 1, end_s),
            ResponseBegun(at=at(end_s - 0.002), request=request.name, status=200),
            Received(at=at(end_s - 0.001), request=request.name, items=items),
            RequestEnded(at=at(end_s), request=request.name, how="eof"),
        )
    return None


def hang(base: Base) -> list[Event] | None:
    """A stream that stands still longer than the bound, and then goes on."""
    bound_s = base.ledger.setting.bounds.hang_bound_s + 3
    for request in base.whole():
        own, title = bursts(base.events, request), base.calm(request)
        if len(own) < 4 or title is None or duties.witness_of(base.ledger, request) is None:
            continue
        if any(not base.ledger.untouched(worker.title) for worker in base.ledger.workers if not worker.died):
            continue
        half_s = own[len(own) // 2].at.after_s
        mine = [
            e
            for e in base.events
            if (getattr(e, "request", "") == request.name and e.kind in ("received", "request-ended"))
            or (isinstance(e, LogLine) and e.id == request.sent.id)
        ]
        late = [e for e in mine if e.at.after_s > half_s]
        rest = [e for e in base.events if not any(e is other for other in late)]
        end_s = max(e.at.after_s for e in late) + bound_s
        delayed = delayed_rest(base, rest, end_s + 3)
        gap = duties.known_and_untouched(base.ledger, request.sent.frontend, own[0].at, base.rest_s)
        return inserted(delayed, *(moved(e, bound_s) for e in late)) if gap else None
    return None


# --- grammar ----------------------------------------------------------------------------------------------------


def grammar(edit: Callable[[list[Item]], list[Item] | None]) -> Mutate:
    """A change of one burst of a whole answer."""

    def mutate(base: Base) -> list[Event] | None:
        return next((e for r in base.whole() if (e := edited(base, r, edit)) is not None), None)

    return mutate


def drop(what: str) -> Callable[[list[Item]], list[Item] | None]:
    return lambda items: [i for i in items if i.what != what] if any(i.what == what for i in items) else None


def after(what: str, new: Item) -> Callable[[list[Item]], list[Item] | None]:
    def edit(items: list[Item]) -> list[Item] | None:
        place = next((i for i, item in enumerate(items) if item.what == what), None)
        return None if place is None else [*items[: place + 1], new, *items[place + 1 :]]

    return edit


def empty_200(base: Base) -> list[Event] | None:
    for request in base.whole(streamed=False):
        return [e for e in base.events if not (isinstance(e, Received) and e.request == request.name)]
    return None


def broken(edit: Callable[[list[Item]], list[Item] | None]) -> Mutate:
    """A change of an answer that may fail, and did, with an error in its stream."""

    def mutate(base: Base) -> list[Event] | None:
        for request in base.clean():
            fails = request.status == 200 and request.error is not None and request.sent.stream and request.dones
            if fails and request.ended and not base.owed("must", request):
                return edited(base, request, edit)
        return None

    return mutate


def unstructured(base: Base) -> list[Event] | None:
    for request in base.clean():
        if request.ended and request.status not in (200, None) and request.error and not base.owed("must", request):
            return edited(base, request, lambda items: [Item("malformed", "oops") for _ in items])
    return None


def cut_at_the_end(base: Base) -> list[Event] | None:
    for request in base.whole():
        assert request.ended is not None
        return replaced(base.events, request.ended, dataclasses.replace(request.ended, how="cut"))
    return None


# --- tokens -----------------------------------------------------------------------------------------------------


def said(edit: Callable[[str, int], str], *, exact: bool = True, least: int = 30) -> Mutate:
    """A change of the text in the middle of a whole answer; the edit is given the text of a burst and a token's size."""

    def mutate(base: Base) -> list[Event] | None:
        if base.ledger.setting.exact_text != exact:
            return None
        for request in base.whole(least=least):
            own = [b for b in bursts(base.events, request) if any(i.what == "text" for i in b.items)]
            for burst in own[2:-2]:
                [item] = [i for i in burst.items if i.what == "text"] or [Item("text")]
                size = 4 if item.value.isascii() else 1
                if len(item.value) <= size:
                    continue
                new = dataclasses.replace(item, value=edit(item.value, size))
                items = tuple(new if i is item else i for i in burst.items)
                return replaced(base.events, burst, dataclasses.replace(burst, items=items))
        return None

    return mutate


def foreign(base: Base) -> list[Event] | None:
    """A token of a request that was open at the same time."""
    for request in base.whole(least=30):
        life = base.ledger.life(request)
        for other in base.ledger.requests.values():
            if other is request or not base.ledger.life(other).could_overlap(life.before_s, life.after_s):
                continue
            theirs, ours = whole_text(other.sent.key.encode(), 8), whole_text(request.sent.key.encode(), 999)
            token = theirs[:4] if theirs.isascii() else theirs[:1]
            if token and token not in ours:
                return said(lambda value, size, token=token: value[:size] + token + value[size:])(base)  # type: ignore[misc]
    return None


def tail(edit: Callable[[Request, str], str]) -> Mutate:
    """A change of the last text of a whole answer."""

    def mutate(base: Base) -> list[Event] | None:
        for request in base.whole(least=10):
            texts = [b for b in bursts(base.events, request) if any(i.what == "text" for i in b.items)]
            burst = texts[-1]
            [item] = [i for i in burst.items if i.what == "text"]
            items = [dataclasses.replace(i, value=edit(request, i.value)) if i is item else i for i in burst.items]
            return replaced(base.events, burst, dataclasses.replace(burst, items=tuple(items)))
        return None

    return mutate


def too_long(request: Request, value: str) -> str:
    if value.isascii() and request.choices[0].twin is None:
        return value + value[-4:]
    whole = text(request.sent.key.encode(), 0, request.sent.max_tokens + 24).rstrip("\ufffd")
    return value + whole[len(whole_text(request.sent.key.encode(), request.sent.max_tokens)) :]


def wrong_finish(items: list[Item]) -> list[Item] | None:
    changed = [dataclasses.replace(i, value="stop") if i.what == "finish" else i for i in items]
    return changed if changed != items else None


def wrong_remainder(base: Base) -> list[Event] | None:
    for event in base.events:
        if isinstance(event, LogLine) and event.meaning == "begun" and isinstance(event.fields.get("max_tokens"), int):
            fields = {**event.fields, "max_tokens": event.fields["max_tokens"] + 1}
            return replaced(base.events, event, dataclasses.replace(event, fields=fields))
    return None


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
        if base.calm(request) and duties.limit_of(base.ledger, request) and not base.ledger.moves.get(request.sent.id):
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
    lefts = [request.left_at.after_s for request, _ in base.must_abort()]
    events = [e for e in base.events if not (isinstance(e, LogLine) and e.meaning == "kill")]
    return delayed_rest(base, events, max(lefts) + 4) if lefts else None


def frontend_overcounts(base: Base) -> list[Event] | None:
    cancels = sum(request.closed is not None for request in base.ledger.requests.values())
    changed = _raised(base, "cancellations", cancels + 1)
    return changed and _late_sample(base, changed)


def _late_sample(base: Base, events: list[Event]) -> list[Event]:
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
                from_s = request.left_at.after_s
                changed = sampled(base.events, title, "cancellations", partial(_swapped, by, begun), from_s)
                return _late_sample(base, changed)
        return None

    return mutate


def _swapped(by: Callable[[float, int], float], begun: int, value: float) -> float:
    return by(value, begun)


def uncancelled(base: Base) -> list[Event] | None:
    for old in _ordinary_ends(base):
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
            return _late_sample(base, changed)
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
        from_s = min(listed.after_s for listed in worker.listed.values()) + bound_s
        late = (e for e in base.events if isinstance(e, Listed) and base.ledger.belongs(e) and e.at.before_s > from_s)
        for event in late:
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
                return _late_sample(base, sampled(base.events, process.title, name, lambda _value: 1.0, last_s))
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
        for process in base.processes(role):
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
    failed = sum(request.ended is not None and not request.whole for request in base.ledger.requests.values())
    cancelled = sum(request.closed is not None for request in base.ledger.requests.values())
    return _raised(base, "success", cancelled + 1) if failed else None


# --- the table --------------------------------------------------------------------------------------------------

MUTATIONS = (
    Mutation("a request never ends", "L1/never-ended", never_ended),
    Mutation("a must gets a 500", "L2/status-500", failing(500, "eof")),
    Mutation("a must that is not streamed gets a 503", "L2/status-503", failing(503, "eof", streamed=False)),
    Mutation("a must gets a status that nobody knows", "L2/status-other", failing(418, "eof")),
    Mutation("a must gets an error in its stream", "L2/error-in-stream", failing(200, "eof")),
    Mutation("a must loses its connection", "L2/cut", failing(200, "cut")),
    Mutation("a must is refused a connection", "L2/refused", failing(None, "refused")),
    Mutation("what cannot complete completes", "L2/completed", completed_though_impossible),
    Mutation("a stream stands still", "L3/hang", hang),
    Mutation("[DONE] is cut off", "P1/no-done", grammar(drop("done"))),
    Mutation("the finish is left out", "P1/done-without-finish", grammar(drop("finish"))),
    Mutation("a second finish", "P1/two-finishes", grammar(after("finish", Item("finish", "length")))),
    Mutation("text after the finish", "P1/after-finish", grammar(after("finish", Item("text", "more")))),
    Mutation("text after [DONE]", "P1/after-done", grammar(after("done", Item("text", "more")))),
    Mutation("a second [DONE]", "P1/after-done", grammar(after("done", Item("done")))),
    Mutation("a line that is no event", "P1/malformed", grammar(after("text", Item("malformed", "{")))),
    Mutation("an empty 200", "P1/empty-200", empty_200),
    Mutation("an answer goes on after its error", "P1/after-error", broken(after("error", Item("finish", "length")))),
    Mutation("no [DONE] after an error", "P1/error-without-done", broken(drop("done"))),
    Mutation("an error that is no JSON", "P1/unstructured-error", unstructured),
    Mutation("the connection breaks at the end", "P1/cut", cut_at_the_end),
    Mutation("a token is lost", "T1/lost", said(lambda value, size: value[size:])),
    Mutation("a token is doubled", "T1/doubled", said(lambda value, size: value[:size] + value)),
    Mutation(
        "two tokens are swapped",
        "T1/reordered",
        said(lambda value, size: value[size : 2 * size] + value[:size] + value[2 * size :]),
    ),
    Mutation("a token of another request", "T1/foreign", foreign),
    Mutation("a character that nobody said", "T1/differs", said(lambda value, _size: "@" + value[1:])),
    Mutation("a token is lost, by count", "T2/short", said(lambda value, size: value[size:], exact=False)),
    Mutation("a token is doubled, by count", "T2/long", said(lambda value, size: value[:size] + value, exact=False)),
    Mutation("the last token is lost", "T2/short", tail(lambda _, value: value[: -4 if value.isascii() else -1])),
    Mutation("tokens beyond max_tokens", "T2/long", tail(too_long)),
    Mutation("the wrong finish reason", "T2/finish-reason", grammar(wrong_finish)),
    Mutation("a worker is asked for too much", "T2/wrong-remainder", wrong_remainder),
    Mutation("more migrations than the limit", "M1/over-limit", over_limit),
    Mutation("migrations are overcounted", "M1/counter", migrations_overcounted),
    Mutation("begun after a cancel", "M5/begun-after-cancel", begun_after_cancel),
    Mutation("migrated after a cancel", "M5/migrating-after-cancel", migrating_after_cancel),
    Mutation("a migration is not logged", "M6/unlogged", unlogged),
    Mutation("a migration is logged that was none", "M6/without-migration", logged_without),
    Mutation("the abort is missing", "A1/missing", abort_missing),
    Mutation("the abort comes late", "A1/late", abort_late),
    Mutation("no Kill message", "A1/no-kill", no_kill),
    Mutation("the frontend overcounts cancels", "A1/counter", frontend_overcounts),
    Mutation("a worker counts no cancel", "A1/counter-low", worker_counts(lambda _value, _begun: 0.0)),
    Mutation("a worker counts too many cancels", "A1/counter-high", worker_counts(lambda _value, begun: begun + 1.0)),
    Mutation("an abort that nobody asked for", "A2/uncancelled", uncancelled),
    Mutation("two aborts of one request", "A2/double", abort_twice),
    Mutation("an abort where nothing began", "A2/unknown", abort_elsewhere),
    Mutation("two ends of one request", "A2/more-ended", more_ended),
    Mutation("a request without an end in the log", "A2/never-ended", end_missing),
    Mutation("the engine goes on after a cancel", "A3/ran-on", ran_on),
    Mutation("the gauge goes on after a cancel", "A3/still-running", still_running),
    Mutation("a left request has no end in the log", "A3/still-running", unfinished),
    Mutation("a ghost in the list", "C7/ghost", ghost),
    Mutation("a living worker is not listed", "C7/missing", missing),
    *(
        Mutation(f"{name} of a {role} does not come back", f"R1/{slug}", leak(role, name))
        for role, gauges in GAUGES.items()
        for name, slug in gauges.items()
    ),
    Mutation("a process is left", "R3/orphan", orphan),
    Mutation("a frontend panics", "R5/panic", cries("panic", "frontend")),
    Mutation("a worker writes a traceback", "R5/traceback", cries("traceback", "worker")),
    Mutation("a worker fails an assertion", "R5/assertion", cries("assertion", "worker")),
    Mutation("a worker ends by itself", "R5/exited", exits),
    Mutation("a failure is counted as a success", "O2/failed-as-success", overcounted_success),
)
