"""Reads the log of each process by offset, and takes the lines that the dialect understands as events."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from ftmodel.history import Interval, LogLine
from ftmodel.systems import Pattern
from ftmodel.targets.real.clock import Clock

READ_BYTES: Final = 4 << 20
"""At most so much of one log at a time: the tester's memory is bounded whatever a process writes."""
LOG_BYTES: Final = 256 << 20
"""A log longer than this is read no further; its example is then unknown."""
STAMP_S: Final = 0.002
"""A line is stamped when it is made: so far may that be from the deed."""
SKEW_S: Final = 0.050
"""A stamp further than this from where it can lie was taken from a clock that was set: it is not believed."""


class LogFile:
    """One process's log, followed from its first line. A line belongs to this process and example for ever."""

    def __init__(self, path: Path, title: str, patterns: tuple[Pattern, ...], clock: Clock) -> None:
        self.path = path
        self.title = title
        self.overflowed = False
        self._patterns = patterns
        self._needles = tuple(pattern.text for pattern in patterns)
        self._clock = clock
        self._offset = 0
        self._rest = b""
        self._line = 0
        self._read_s = clock.now()
        self._said: dict[str, set[str]] = {}
        """By request id: the meanings of its lines since it begun last."""

    def poll(self) -> list[LogLine]:
        """The events of the lines that came since the last call."""
        if self._offset > LOG_BYTES:
            self.overflowed = True
            return []
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                new = file.read(READ_BYTES)
        except FileNotFoundError:
            return []
        before_s, self._read_s = self._read_s, self._clock.now()
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        found: list[LogLine] = []
        for raw in lines:
            self._line += 1
            text = raw.decode("utf-8", errors="replace")
            if any(needle in text for needle in self._needles):
                found += self._understood(text, Interval(before_s, self._read_s))
        return found

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
                        title=self.title,
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
            stamp_s = self._clock.of_wall(datetime.fromisoformat(str(row["time"])).timestamp())
        except (KeyError, ValueError):
            return read
        if not -SKEW_S <= stamp_s <= read.after_s + SKEW_S:  # before the example, or after the reading
            return read
        return Interval(min(stamp_s, read.after_s) - STAMP_S, min(stamp_s + STAMP_S, read.after_s))


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
