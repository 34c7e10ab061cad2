"""Lanes as actors of a Ray cluster. An actor holds a lane's process on its node, and carries lines, as `Local` does.

Needs the extra `ray`. A lane's folder is one of its node, and goes with it: examples that show something are carried to
the soak's folder as they are told, a finding's example to the lane that makes it smaller, and back.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import io
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ftmodel.errors import UsageError
from ftmodel.soak.lane import Setup
from ftmodel.soak.places import Hand, Heard, LocalHand

ray: Any = importlib.import_module("ray") if importlib.util.find_spec("ray") is not None else None

HEAR_S: Final = 0.5
"""An actor waits so long for something that its lane tells."""
TOLD_MOST: Final = 50
"""Lines that are carried at once."""
SWEEPS: Final = """
import os, shutil, sys
if os.fork():  # what is a child of an actor's process Ray ends with it
    os._exit(0)
sys.stdin.read()
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""
FILES: Final = "files"
"""The key under which a line bears the files of its folder."""


class Holder:
    """What runs as an actor: it holds one lane of its node. With the actor's end the lane's orders end, and so it ends."""

    def __init__(self, setup: Setup) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ftmodel-lane-"))
        self._told: queue.Queue[dict[str, Any] | None] = queue.Queue()
        here = dataclasses.replace(setup, folder=str(self._folder))
        self._sweeper = Sweeper(self._folder)
        self._hand = LocalHand(here, lambda _name, row: self._told.put(row), inherits=(self._sweeper.alive,))

    def send(self, order: dict[str, Any] | None, files: bytes = b"") -> None:
        """Give the lane an order, with the files of the folder that it names."""
        if files and order is not None:
            unpack(files, self._folder / order["folder"])
        self._hand.send(order)

    def kill(self) -> None:
        """End the lane."""
        self._hand.kill()

    def hear(self) -> list[dict[str, Any] | None]:
        """What the lane has told since; None: it has ended, and nothing of it is left here."""
        rows: list[dict[str, Any] | None] = []
        with suppress(queue.Empty):
            rows.append(self._with_files(self._told.get(timeout=HEAR_S)))
            while len(rows) < TOLD_MOST:
                rows.append(self._with_files(self._told.get_nowait()))
        return rows

    def _with_files(self, row: dict[str, Any] | None) -> dict[str, Any] | None:
        """The line with what lies in its folder, if that is worth it; in any case it lies there no longer."""
        if row is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._sweeper.end()
            return None
        folder = row.get("folder")
        if not folder:
            return row
        held = row["is"] == "example" and row["verdict"] == "holds" and not row["findings"]
        if held or not (self._folder / folder).is_dir():
            row = {**row, "folder": ""}
        else:
            row = {**row, FILES: packed(self._folder / folder)}
        shutil.rmtree(self._folder / folder, ignore_errors=True)
        return row


class Sweeper:
    """Has a folder go when the last one has ended who holds `alive`, a descriptor, however that ended."""

    def __init__(self, folder: Path) -> None:
        read, self.alive = os.pipe()
        subprocess.run([sys.executable, "-c", SWEEPS, str(folder)], stdin=read, start_new_session=True, check=True)
        os.close(read)

    def end(self) -> None:
        """Hold it no longer."""
        os.close(self.alive)


def packed(folder: Path) -> bytes:
    """All that lies in a folder."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as pack:
        for path in sorted(folder.rglob("*")):
            pack.write(path, path.relative_to(folder))
    return file.getvalue()


def unpack(files: bytes, folder: Path) -> None:
    """Put it into the place of what lies there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with zipfile.ZipFile(io.BytesIO(files)) as pack:
        pack.extractall(folder)


class Ray:
    """The Ray cluster at this address; each lane asks for so many of its CPUs and GPUs."""

    def __init__(self, address: str = "auto", *, cpus: float = 1.0, gpus: float = 0.0) -> None:
        """Raises UsageError if Ray is not installed, or no cluster answers."""
        if ray is None:
            raise UsageError("--on ray: Ray is not installed; try: pip install 'ftmodel[ray]'")
        self._cpus, self._gpus = cpus, gpus
        self._mine = not ray.is_initialized()
        if self._mine:
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except ConnectionError:
                raise UsageError(
                    f"--on ray: no Ray cluster at {address}, expected one; try: ray start --head"
                ) from None

    def start(self, setup: Setup, heard: Heard) -> Hand:
        """Have Ray start one where there is room; until there is, it waits, and tells nothing."""
        holder = ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_concurrency=3, max_restarts=0)(Holder)
        return RayHand(setup, holder.remote(setup), heard)

    def close(self) -> None:
        """Leave the cluster."""
        if self._mine:
            ray.shutdown()


class RayHand:
    """Holds a lane by its actor."""

    pid = 0

    def __init__(self, setup: Setup, actor: Any, heard: Heard) -> None:
        self._name = setup.name
        self._folder = Path(setup.folder)
        self._actor = actor
        self._heard = heard
        self.listener = threading.Thread(target=self._listen, name=f"lane {setup.name}", daemon=True)
        self.listener.start()

    def send(self, order: dict[str, Any] | None) -> None:
        """Carry the order to the actor; one that has died is told by the end of what it tells."""
        folder = order.get("folder") if order is not None else ""
        files = packed(self._folder / folder) if folder else b""
        self._actor.send.remote(order, files)

    def kill(self) -> None:
        """End the actor, and so the lane."""
        ray.kill(self._actor)

    def _listen(self) -> None:
        try:
            while True:
                for row in ray.get(self._actor.hear.remote()):
                    if row is not None and FILES in row:
                        unpack(row.pop(FILES), self._folder / row["folder"])
                    self._heard(self._name, row)
                    if row is None:
                        return
        except ray.exceptions.RayError:  # the actor has died, or its node
            self._heard(self._name, None)
