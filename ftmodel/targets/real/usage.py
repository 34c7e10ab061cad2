"""What a process uses, read from /proc: cheap enough to be asked of every process whenever the cluster is quiet."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Of one process, at one moment."""

    memory: int
    """Bytes of its own that are resident: not those of files, which come and go with the machine's cache."""
    fds: int
    sockets: int
    """Of its file descriptors."""
    threads: int
    children: int


def used(pid: int) -> Used | None:
    """What this process uses now; None if it has ended, or is not ours to look at."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            memory, threads = process.memory_info(), process.num_threads()
        links = [_link(PROC / str(pid) / "fd" / name) for name in os.listdir(PROC / str(pid) / "fd")]  # noqa: PTH208
        children = sum(
            len(task.read_text(encoding="ascii").split()) for task in (PROC / str(pid) / "task").glob("*/children")
        )
    except (OSError, psutil.Error):
        return None
    return Used(
        memory=memory.rss - memory.shared,
        fds=len(links),
        sockets=sum(link.startswith("socket:") for link in links),
        threads=threads,
        children=children,
    )


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:  # closed in between
        return ""
