"""What a cluster may leave behind: processes, found by a variable in their environment, and its scratch folder."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

MARKER: Final = "FTMODEL_SCRATCH"
"""Every process of a cluster carries this variable; its value is the path of the cluster's scratch folder."""
SCRATCH_MARK: Final = "ftm-"
"""How the name of a scratch folder begins. No other folder is ever removed."""
SWEEP_BOUND_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Survivor:
    """A process that carries a cluster's marker."""

    pid: int
    created_s: float
    """Unix time."""
    command: str


def survivors(scratch: Path) -> list[Survivor]:
    """The processes of the cluster with this scratch folder, wherever in the process tree. Zombies do not count."""
    found = []
    for process in _marked(scratch):
        with suppress(psutil.Error), process.oneshot():
            command = " ".join(process.cmdline()).strip() or process.name()
            found.append(Survivor(pid=process.pid, created_s=process.create_time(), command=command))
    return found


def sweep(scratch: Path) -> list[int]:
    """SIGKILL the processes of the cluster with this scratch folder, its warden too, and return their ids. Bounded."""
    killed: set[int] = set()
    end_s = time.monotonic() + SWEEP_BOUND_S
    while (left := _marked(scratch)) and time.monotonic() < end_s:
        for process in left:
            with suppress(psutil.Error):
                process.kill()  # refuses a pid that was reused: psutil compares the creation time
                killed.add(process.pid)
        psutil.wait_procs(left, timeout=0.05)
    return sorted(killed)


def _marked(scratch: Path) -> list[psutil.Process]:
    """The living processes that carry the marker with this path, without the caller."""
    scratch = scratch.absolute()
    found = []
    for pid in psutil.pids():
        if pid == os.getpid() or not _carries(pid, scratch):
            continue
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if _carries(pid, scratch):  # asked again, now that its creation time is held
                found.append(process)
    return found


def _carries(pid: int, scratch: Path) -> bool:
    """True if the environment of a process holds the marker.

    Some programs overwrite the memory of their environment to show a title in `ps`. Such a process is told by its
    working folder, so launch what does this with a folder below the scratch.
    """
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        if b"=" in environment or not environment:
            return f"{MARKER}={scratch}".encode() in environment.split(b"\0")
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(scratch)
    except OSError:
        return False  # gone, or not ours to look at


def clear(scratch: Path) -> None:
    """Kill what a warden left behind and remove its scratch folder."""
    sweep(scratch)
    if scratch.name.startswith(SCRATCH_MARK) and not scratch.is_symlink():
        shutil.rmtree(scratch, ignore_errors=True)
