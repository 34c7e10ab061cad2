"""Understands the lines of one process's log by the dialect: real ones are read from a file, simulated ones from memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from ftmodel.history import Interval, LogLine
from ftmodel.systems import Pattern

STAMP_S: Final = 0.002
"""A line is stamped when it is made: so far may that be from the deed."""
SKEW_S: Final = 0.050
"""A stamp further than this from where it can lie was taken from a clock that was set: it is not believed."""


class Reader:
    """Takes a process's lines in their order. A line belongs to this process and example for ever."""

    def __init__(self, title: str, patterns: tuple[Pattern, ...], of_wall: Callable[[float], float]) -> None:
        """`of_wall` puts a Unix time on the example's clock."""
        self._title = title
        self._patterns = patterns
        self._needles = tuple(pattern.text for pattern in patterns)
        self._of_wall = of_wall
        self._line = 0
        self._said: dict[str, set[str]] = {}
        """By request id: the meanings of its lines since it begun last."""

    def take(self, text: str, read: Interval) -> list[LogLine]:
        """The event of the next line, which came in between; none if the dialect does not know it."""
        self._line += 1
        return self._understood(text, read) if any(needle in text for needle in self._needles) else []

    def _understood(self, text: str, read: Interval) -> list[LogLine]:
        row = _fields(text)
        message = str(row.get("message", ""))
        for pattern in self._patterns:
            if pattern.text in message and _fits(pattern, row):
                id_ = _request_id(pattern, row, message)
                said = self._said.setdefault(id_, set()) if id_ else set()
                if said.intersection(pattern.unless):
                    continue
                if pattern.meaning == "begun":
                    said.clear()
                said.add(pattern.meaning)
                kept = {key: _bare(row[key]) for key in pattern.keep if key in row}
                return [
                    LogLine(
                        at=self._when(row, read),
                        title=self._title,
                        meaning=pattern.meaning,
                        id=id_,
                        fields=kept,
                        line=self._line,
                    )
                ]
        return []

    def _when(self, row: dict[str, Any], read: Interval) -> Interval:
        """The line's own time if it has one that can be believed, else when it was read."""
        try:
            stamp_s = self._of_wall(datetime.fromisoformat(str(row["time"])).timestamp())
        except (KeyError, ValueError):
            return read
        if not -SKEW_S <= stamp_s <= read.after_s + SKEW_S:  # before the example, or after the reading
            return read
        return Interval(min(stamp_s, read.after_s) - STAMP_S, min(stamp_s + STAMP_S, read.after_s))


def spoken(system: tuple[Pattern, ...], engine: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
    """Both dialects. Where the engine does not tell the begin of a request itself, its arrival stands in."""
    tells = any(pattern.meaning == "begun" for pattern in engine)
    if tells:
        return (*engine, *system)
    return (*engine, *(replace(p, meaning="begun") if p.meaning == "arrived" else p for p in system))


def _fields(text: str) -> dict[str, Any]:
    if text.startswith("{"):
        try:
            row = json.loads(text)
        except ValueError:
            return {"message": text}
        if isinstance(row, dict):
            return row
    return {"message": text}


def _fits(pattern: Pattern, row: dict[str, Any]) -> bool:
    if pattern.target and pattern.target not in str(row.get("target", "")):
        return False
    if pattern.also not in str(row.get("message", "")):
        return False
    return all(str(row.get(key)) == value for key, value in (pattern.where or {}).items())


def _request_id(pattern: Pattern, row: dict[str, Any], message: str) -> str:
    if pattern.id_field is None:
        return ""
    if pattern.id_field:
        return str(row.get(pattern.id_field, ""))
    rest = message.partition(pattern.text)[2].split()
    return rest[0] if rest else ""


def _bare(value: Any) -> Any:
    return value if isinstance(value, int | float | bool) else str(value)
