"""Reads the log of each process by offset, and takes the lines that the dialect understands as events."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ftmodel.history import Interval, LogLine
from ftmodel.systems import Pattern
from ftmodel.targets.logs import Reader
from ftmodel.targets.real.clock import Clock

READ_BYTES: Final = 4 << 20
"""At most so much of one log at a time: the tester's memory is bounded whatever a process writes."""
LOG_BYTES: Final = 256 << 20
"""A log longer than this is read no further; its example is then unknown."""


class LogFile:
    """One process's log, followed from its first line."""

    def __init__(self, path: Path, title: str, patterns: tuple[Pattern, ...], clock: Clock) -> None:
        self.path = path
        self.title = title
        self.overflowed = False
        self._reader = Reader(title, patterns, clock.of_wall)
        self._clock = clock
        self._offset = 0
        self._rest = b""
        self._read_s = clock.now()

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
        read = Interval(before_s, self._read_s)
        return [line for raw in lines for line in self._reader.take(raw.decode("utf-8", errors="replace"), read)]
