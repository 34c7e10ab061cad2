"""Takes an answer's bytes apart into the items that a client received."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from ftmodel.history import Item

_EMPTY = Item("empty")


class Stream:
    """A stream of server-sent events, fed with the bytes of each read."""

    def __init__(self, request_id: str, model: str) -> None:
        self._id = request_id
        self._model = model
        self._rest = b""
        self._error_next = False

    def feed(self, data: bytes) -> tuple[Item, ...]:
        """The items that these bytes complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return tuple(item for line in lines for item in self._line(line.rstrip(b"\r")))

    def end(self) -> tuple[Item, ...]:
        """What is left when the body has ended: a line without its end is malformed."""
        rest = [Item("malformed", self._rest.decode("utf-8", "replace"))] if self._rest.strip() else []
        return (*self._event_ends(), *rest)

    def _event_ends(self) -> Iterator[Item]:
        """An empty line ends an event: an error event that said nothing more is an error all the same."""
        if self._error_next:
            self._error_next = False
            yield Item("error")

    def _line(self, line: bytes) -> Iterator[Item]:
        if not line:
            yield from self._event_ends()
            return
        text = line.decode("utf-8", "replace")
        if text.startswith(":"):  # a comment: keeps the connection alive, or tells the error beside an event
            if self._error_next:
                self._error_next = False
                yield Item("error", text[1:].strip())
            return
        if text.startswith("event:"):
            self._error_next = text[6:].strip() == "error"
            return
        if not text.startswith("data:"):
            yield Item("malformed", text)
            return
        data = text[5:].strip()
        if data == "[DONE]":
            yield Item("done")
            return
        if self._error_next:
            self._error_next = False
            yield Item("error", data)
            return
        yield from chunk(data, self._id, self._model)


def chunk(text: str, request_id: str, model: str) -> Iterator[Item]:
    """The items of one chunk, or of the one body of an answer that is not streamed.

    An id or a model that is not the request's own is told with each item.
    """
    try:
        row = json.loads(text)
    except ValueError:
        yield Item("malformed", text)
        return
    if not isinstance(row, dict):
        yield Item("malformed", text)
        return
    if row.get("error") is not None or ("choices" not in row and ("message" in row or "code" in row)):
        yield Item("error", _error(row))
        return
    answer_id, named = str(row.get("id", "")), str(row.get("model", ""))
    foreign = _Foreign(answer_id if not answer_id.endswith(request_id) else "", named if named != model else "")
    try:
        said = tuple(_said(row))
    except (AttributeError, TypeError, ValueError):  # JSON, but of another shape
        yield Item("malformed", text)
        return
    for item in said or (_EMPTY,):
        yield replace(item, answer_id=foreign.id, model=foreign.model) if any(foreign) else item


class _Foreign(NamedTuple):
    id: str
    model: str


def _said(row: dict[str, Any]) -> Iterator[Item]:
    for choice in row.get("choices") or ():
        yield from _choice(choice)
    usage = row.get("usage")
    if isinstance(usage, dict):
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        yield Item("usage", "" if prompt is None else str(int(prompt)), count=int(completion or 0))


def _choice(choice: dict[str, Any]) -> Iterator[Item]:
    index = int(choice.get("index") or 0)
    part = choice.get("delta") or choice.get("message") or {}
    text = choice.get("text") or part.get("content")
    if text:
        if not isinstance(text, str):
            raise TypeError(text)
        yield Item("text", text, index)
    reason = choice.get("finish_reason")
    if reason:
        yield Item("finish", str(reason), index)


def _error(row: dict[str, Any]) -> str:
    inner = row.get("error")
    message = inner.get("message") if isinstance(inner, dict) else inner or row.get("message")
    return str(message)[:300]
