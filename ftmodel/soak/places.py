"""Where lanes run. A place starts one and carries lines to it and from it; what they say is not its business."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, Protocol

from ftmodel.soak.lane import Setup, line_of

LANE: Final = "ftmodel.cli.lane"
"""The module that is a lane."""
Heard = Callable[[str, dict[str, Any] | None], None]
"""Called from any thread with the lane's name and what it tells; None: it has ended."""


class Hand(Protocol):
    """Holds one lane."""

    def send(self, order: dict[str, Any] | None) -> None:
        """Give it an order; None: there will be no further one. Nothing happens if it has ended."""

    def kill(self) -> None:
        """End it at once."""

    @property
    def pid(self) -> int:
        """Of its process, if that is one of this machine; else 0."""


class Place(Protocol):
    """Starts lanes."""

    def start(self, setup: Setup, heard: Heard) -> Hand:
        """Start a lane. Raises HarnessError if that cannot be."""

    def close(self) -> None:
        """Nothing is started any more; every lane has ended."""


class Local:
    """Lanes are processes of this machine."""

    def start(self, setup: Setup, heard: Heard) -> Hand:
        """Start one, in a session of its own: Ctrl-C is for the soak, which tells its lanes."""
        return LocalHand(setup, heard)

    def close(self) -> None:
        """Nothing is held but the lanes."""


class LocalHand:
    """Holds a lane by its pipes."""

    def __init__(self, setup: Setup, heard: Heard, *, inherits: Sequence[int] = ()) -> None:
        """The lane's process `inherits` these descriptors."""
        self._name = setup.name
        self._heard = heard
        folder = Path(setup.folder) / "lanes" / setup.name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lane.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", LANE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True, pass_fds=inherits, env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._write(line_of(setup))
        threading.Thread(
            target=self._listen, args=(self._process.stdout,), name=f"lane {setup.name}", daemon=True
        ).start()

    @property
    def pid(self) -> int:
        """Of the lane's process."""
        return self._process.pid

    def send(self, order: dict[str, Any] | None) -> None:
        """Write the order into its pipe."""
        self._write(json.dumps(order))

    def kill(self) -> None:
        """SIGKILL: its wardens clear up."""
        self._process.kill()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(
            BrokenPipeError, ValueError
        ):  # it has ended, the pipe with it: that is told by the end of what it tells
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _listen(self, lines: IO[bytes]) -> None:
        for line in lines:
            if line.endswith(b"\n"):  # a lane that was killed may leave half a line
                self._heard(self._name, json.loads(line))
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        lines.close()
        self._heard(self._name, None)
