"""Defects of answers: requests, grammar, tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from planting import (
    Base,
    Mutate,
    at,
    bursts,
    delayed_rest,
    edited,
    inserted,
    moved,
    recounted,
    replaced,
    unsucceeded,
    without_answer,
)

from ftmodel.engines.counting.worker import text
from ftmodel.history import (
    Event,
    Item,
    LogLine,
    Received,
    RequestEnded,
    ResponseBegun,
)
from ftmodel.invariants import duty as duties
from ftmodel.invariants.records import Request
from ftmodel.invariants.requests import is_compared
from ftmodel.invariants.texts import BROKEN, whole_text

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


def failing(
    status: int | None, how: str, *, streamed: bool = True, compared: bool = False, calm: bool = False
) -> Mutate:
    """A request that must complete is told of a failure instead; one on an untouched worker, if so wanted."""

    def mutate(base: Base) -> list[Event] | None:
        for request in base.whole(streamed=streamed):
            if is_compared(base.ledger.setting, request) != compared:
                continue
            if not base.owed("must", request) or base.ledger.moves.get(request.sent.id):
                continue
            if calm and base.calm(request) is None:
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
        if not base.owed("must_not", request) or request.ended is None or request.sent.n > 1 or request.sent.wrong:
            continue
        end_s, sent = request.ended.at.after_s, request.sent
        exact = base.ledger.setting.exact_text
        said = whole_text(sent.key.encode(), sent.max_tokens) if exact else "abcd" * sent.max_tokens
        usage = Item("usage", str(sent.prompt_tokens), count=sent.max_tokens)
        items = (Item("text", said), Item("finish", "length"), usage, *([Item("done")] if sent.stream else []))
        return inserted(
            recounted(base, without_answer(base.events, request), request, 1),
            ResponseBegun(at=at(end_s), request=request.name, status=200),
            Received(at=at(end_s), request=request.name, items=items),
            RequestEnded(at=at(end_s), request=request.name, how="eof"),
        )
    return None


def hang(base: Base) -> list[Event] | None:
    """A stream that stands still longer than the bound, and then goes on."""
    bound_s = base.ledger.setting.bounds.hang_bound_s + 3 + 6 * base.ledger.setting.first_token_s
    for request in base.whole():
        own, title = bursts(base.events, request), base.calm(request)
        if len(own) < 4 or title is None or duties.witness_of(base.ledger, request) is None:
            continue
        if any(not base.ledger.untouched(worker.title) for worker in base.ledger.workers if not worker.died):
            continue
        if not base.ledger.untouched(request.sent.frontend):
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


def said(edit: Callable[[str, int], str], *, exact: bool = True, least: int = 30, name: str = "") -> Mutate:
    """A change of the text in the middle of a whole answer; the edit is given the text of a burst and a token's size."""

    def mutate(base: Base) -> list[Event] | None:
        if base.ledger.setting.exact_text != exact:
            return None
        for request in base.whole(least=least):
            if name not in ("", request.name):
                continue
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


def tail(edit: Callable[[Request, str], str]) -> Mutate:
    """A change of the last text of a whole answer."""

    def mutate(base: Base) -> list[Event] | None:
        for request in base.whole(least=10):
            texts = [b for b in bursts(base.events, request) if any(i.what == "text" for i in b.items)]
            burst = texts[-1]
            [item] = [i for i in burst.items if i.what == "text"]
            if item.value.endswith(BROKEN):  # max_tokens cut through its last character
                continue
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
