"""Answers: their grammar, their ids, models and choices, and the statuses that tell what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ftmodel.history import Item
from ftmodel.targets.simulated.hooks import Act, Defect, Respond

Items = tuple[Item, ...]
Change = Callable[[Respond, int, Items], tuple[int, Items]]


def _answers(change: Change) -> Act:
    """Changes status and items of the part that ends an answer."""

    def act(at: Respond, normal: Act, status: int, items: Items, ends: bool) -> None:
        if ends:
            status, items = change(at, status, items)
        normal(status, items, ends)

    return act


def _has(items: Items, what: str) -> bool:
    return any(item.what == what for item in items)


def _empty_200(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    return (200, ()) if status >= 500 and not at.call.request.wrong else (status, items)


def _silent_end(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    return status, (Item("done"),) if at.call.status == 200 and _has(items, "error") else items


def _no_done(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    plain = _has(items, "finish") and at.call.request.step.api == "chat"
    return status, tuple(item for item in items if item.what != "done" or not plain)


def _error_without_done(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    return status, tuple(item for item in items if item.what != "done" or not _has(items, "error"))


def _two_finishes(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    twice = [item for item in items for _ in range(2 if item.what == "finish" and at.call.request.step.n > 1 else 1)]
    return status, tuple(twice)


def _after_done(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    return status, (*items, Item("text", "more")) if at.call.request.step.usage and _has(items, "done") else items


def _as_whole(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    """A stream that is given up ends as if it had reached its length."""
    broken = at.call.status == 200 and _has(items, "error")
    return status, (Item("finish", "length"), Item("done")) if broken else items


def _unstructured(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    return status, (Item("malformed", "upstream connect error"),) if status == 503 else items


def _server_blamed(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    return (500 if at.call.request.wrong == "negative-max-tokens" else status), items


def _client_blamed(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    return (400 if status == 503 and not at.call.request.wrong else status), items


def _unsteady(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    if status != 400:
        return status, items
    count = at.cluster.notes["refused"] = at.cluster.notes.get("refused", 0) + 1
    return (422 if count % 2 == 0 else 400), items


def _refused_in_stream(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    late = at.call.request.wrong and at.call.request.step.stream
    return (200, (*items, Item("done"))) if late else (status, items)


def _answers_wrong(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    if at.call.request.wrong != "negative-max-tokens":
        return status, items
    end = (Item("done"),) if at.call.request.step.stream else ()
    return 200, (Item("text", "well"), Item("finish", "length"), *end)


def _empty_list_500(at: Respond, status: int, items: Items) -> tuple[int, Items]:
    return (500 if not at.frontend.listed and status >= 400 and not at.call.request.wrong else status), items


def _foreign_id(at: Respond, normal: Act, status: int, items: Items, ends: bool) -> None:
    moved = at.call.left < at.cluster.limit and at.call.stream is not None
    normal(status, tuple(replace(item, answer_id="another") if moved else item for item in items), ends)


def _foreign_model(at: Respond, normal: Act, status: int, items: Items, ends: bool) -> None:
    usage = at.call.request.step.usage and at.call.request.step.api == "chat"
    normal(status, tuple(replace(item, model="draft") if usage else item for item in items), ends)


def _foreign_choice(at: Respond, normal: Act, status: int, items: Items, ends: bool) -> None:
    several = at.call.request.step.n > 1
    normal(status, tuple(replace(item, choice=item.choice + 1) if several else item for item in items), ends)


ANSWERS: Final = (
    Defect(
        id="empty-200", hook="respond", act=_answers(_empty_200), least_steps=2,
        sentence="A request that no worker could serve gets a 200 with an empty body.",
    ),
    Defect(
        id="done-after-truncation", hook="respond", act=_answers(_silent_end), least_steps=2,
        sentence="A stream that is given up ends with [DONE], without an error and without a finish.",
    ),
    Defect(
        id="truncation-looks-whole", hook="respond", act=_answers(_as_whole), least_steps=2,
        sentence="A stream that is given up ends with finish reason length and [DONE].",
    ),
    Defect(
        id="no-done", hook="respond", act=_answers(_no_done), least_steps=1,
        sentence="A streamed chat ends without [DONE].",
    ),
    Defect(
        id="error-without-done", hook="respond", act=_answers(_error_without_done), least_steps=2,
        sentence="No [DONE] follows the error in a stream.",
    ),
    Defect(
        id="two-finishes", hook="respond", act=_answers(_two_finishes), least_steps=1,
        sentence="With several choices each finish comes twice.",
    ),
    Defect(
        id="text-after-done", hook="respond", act=_answers(_after_done), least_steps=1,
        sentence="With usage in the stream, something follows [DONE].",
    ),
    Defect(
        id="unstructured-error", hook="respond", act=_answers(_unstructured), least_steps=2,
        sentence="The body of a 503 is a bare text.",
    ),
    Defect(
        id="server-blamed", hook="respond", act=_answers(_server_blamed), least_steps=1,
        sentence="A negative max_tokens gets a 500.",
    ),
    Defect(
        id="client-blamed", hook="respond", act=_answers(_client_blamed), least_steps=2,
        sentence="A request whose worker was lost gets a 400.",
    ),
    Defect(
        id="unsteady-status", hook="respond", act=_answers(_unsteady), least_steps=2, hard=True,
        sentence="Every second refusal has another status, whatever its cause.",
    ),
    Defect(
        id="refused-in-stream", hook="respond", act=_answers(_refused_in_stream), least_steps=1,
        sentence="A wrong request that asks for a stream is refused in one, with status 200.",
    ),
    Defect(
        id="answers-what-is-wrong", hook="respond", act=_answers(_answers_wrong), least_steps=1,
        sentence="A request with a negative max_tokens is answered.",
    ),
    Defect(
        id="empty-list-500", hook="respond", act=_answers(_empty_list_500), least_steps=2, hard=True,
        sentence="A frontend that lists no worker says that it failed, not that there is none.",
    ),
    Defect(
        id="foreign-id", hook="respond", act=_foreign_id, least_steps=2,
        sentence="After a migration chunks bear another id.",
    ),
    Defect(
        id="foreign-model", hook="respond", act=_foreign_model, least_steps=1,
        sentence="Chats with usage in the stream bear another model.",
    ),
    Defect(
        id="foreign-choice", hook="respond", act=_foreign_choice, least_steps=1,
        sentence="Choices are counted from 1.",
    ),
)  # fmt: skip
