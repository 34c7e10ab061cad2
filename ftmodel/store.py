"""Where runs are kept: a folder per command, a folder per example in it, all that judging again needs."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from ftmodel import history, planfile, topology
from ftmodel.errors import StoreError
from ftmodel.history import Event
from ftmodel.steps import Plan
from ftmodel.topology import Topology

FORMAT: Final = 1
"""Version of the store's layout, told by env.json."""
LEAST_FREE_BYTES: Final = 64 << 20
"""With less room than this a run is not begun: it could not keep what it finds."""


class Run:
    """The folder of one command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, store: Path, name: str) -> Run:
        """Make runs/<time>-<name>/. Raises StoreError if there is no room or no permission."""
        with _told(store):
            store.mkdir(parents=True, exist_ok=True)
            room = os.statvfs(store)
            if room.f_bavail * room.f_frsize < LEAST_FREE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            stamp = time.strftime("%Y%m%d-%H%M%S")
            for attempt in range(1, 1000):
                folder = store / (f"{stamp}-{name}" if attempt == 1 else f"{stamp}-{name}-{attempt}")
                try:
                    folder.mkdir()
                except FileExistsError:
                    continue
                return cls(folder)
        raise StoreError(f"{store}: a thousand runs began in this second; expected fewer")

    def example(self, name: str) -> Path:
        """Make the folder of an example, with its logs folder."""
        folder = self.folder / "examples" / name
        with _told(folder):
            (folder / "logs").mkdir(parents=True, exist_ok=True)
        return folder

    def write_env(self, **facts: Any) -> None:
        """Write env.json: the store's format, this machine, ftmodel's version, and these facts."""
        row = {
            "format": FORMAT,
            "ftmodel": version("ftmodel"),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "command": sys.argv,
            **facts,
        }
        write_json(self.folder / "env.json", row)


def check_format(folder: Path) -> None:
    """Raise StoreError if the run of this folder (or of the example in it) was written by a newer ftmodel."""
    folder = folder.absolute()
    for place in (folder, *folder.parents[:2]):
        env = place / "env.json"
        if env.is_file():
            found = read_json(env).get("format")
            if found != FORMAT:
                raise StoreError(
                    f"{env}: store format {found!r}, expected {FORMAT}: written by another ftmodel;"
                    " try: pip install --upgrade ftmodel"
                )
            return


def examples(path: Path) -> list[Path]:
    """The examples below a store, a run or an example's own folder, in order. Raises StoreError if there are none."""
    if (path / "history.jsonl").is_file():
        found = [path]
    else:
        found = sorted(
            file.parent for file in path.glob("**/history.jsonl") if not is_beside_another(file.parent, path)
        )
    if not found:
        raise StoreError(f"{path}: no example with a history.jsonl in it; expected a run, e.g. runs/<time>-run")
    for folder in found:
        check_format(folder)
    return found


def is_beside_another(example: Path, store: Path) -> bool:
    """True for what was made from an example, in whose folder it lies (`shrink`)."""
    above = example.parents[: len(example.relative_to(store).parts)]
    return any((folder / "history.jsonl").is_file() for folder in above)


def write_example(folder: Path, plan: Plan, top: Topology, events: list[Event]) -> None:
    """Write plan.json, topology.toml and history.jsonl. Raises StoreError."""
    with _told(folder):
        (folder / "topology.toml").write_text(topology.dump(top), encoding="utf-8")
        (folder / "plan.json").write_text(planfile.dump(plan), encoding="utf-8")
        history.write(events, folder / "history.jsonl")


def write_json(path: Path, row: dict[str, Any]) -> None:
    """Write a JSON object. Raises StoreError."""
    with _told(path):
        path.write_text(json.dumps(row, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises StoreError."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: expected a file that a run has written") from None
    except ValueError as error:
        raise StoreError(f"{path}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise StoreError(f"{path}: got {type(row).__name__}, expected a JSON object")
    return row


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"{path}: no space left on the device, expected at least {LEAST_FREE_BYTES >> 20} MiB free;"
                f" try: df -h {path.parent}, or --store DIR on another one"
            ) from None
        raise StoreError(
            f"{path}: {error.strerror}: expected a folder that can be written to; try: --store DIR"
        ) from None
