"""What this machine can run, and the command that repairs each lack."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from ftmodel import topology
from ftmodel.errors import FtmodelError
from ftmodel.session import Proof, Session
from ftmodel.steps import Plan
from ftmodel.store import LEAST_FREE_BYTES, Run
from ftmodel.topology import Topology

LEAST_FILES: Final = 1024
LEAST_MEMORY_BYTES: Final = 2 << 30
ROUNDS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that is there or lacks."""

    name: str
    ok: bool
    found: str
    remedy: str = ""

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def examine(python: Path | None) -> Iterator[Check]:
    """Look at everything, the quick things first; the last boots clusters, forked and cold, and compares them."""
    yield _system()
    yield _files()
    yield _memory()
    yield _room(Path(tempfile.gettempdir()))
    try:
        yield from _cluster((python or Path(sys.executable)).absolute())
    except FtmodelError as error:
        yield Check(name="cluster", ok=False, found=str(error), remedy=_remedy(str(error)))


def _remedy(message: str) -> str:
    return message.rpartition("try: ")[2] if "try: " in message else "ftmodel doctor --sut-python PYTHON"


def _system() -> Check:
    found = f"{sys.platform}, Python {sys.version.split()[0]}, {os.cpu_count()} cores"
    return Check(name="machine", ok=sys.platform == "linux", found=found, remedy="run ftmodel on Linux")


def _files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Check(
        name="open files",
        ok=soft >= LEAST_FILES,
        found=f"{soft} (hard limit {hard})",
        remedy=f"ulimit -n {LEAST_FILES}",
    )


def _memory() -> Check:
    free = psutil.virtual_memory().available
    return Check(
        name="free memory",
        ok=free >= LEAST_MEMORY_BYTES,
        found=f"{free / 2**30:.1f} GiB, at least {LEAST_MEMORY_BYTES >> 30} GiB wanted",
        remedy="end what else is running; see: free -h",
    )


def _room(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    return Check(
        name=f"room in {folder}",
        ok=free >= LEAST_FREE_BYTES,
        found=f"{free / 2**30:.1f} GiB",
        remedy="TMPDIR=/another/folder ftmodel doctor",
    )


def _cluster(python: Path) -> Iterator[Check]:
    top = topology.find("aggregated")
    with tempfile.TemporaryDirectory(prefix="ftmodel-doctor-") as folder:
        run = Run.create(Path(folder), "doctor")
        with Session([top], run, python=python) as session:
            yield Check(name=session.system.name, ok=True, found=f"{session.version} in {python}")
            forked = [_boot(session, top, f"fork-{i}") for i in range(ROUNDS)]
        with Session([top], run, python=python, cold_start=True) as session:
            cold = [_boot(session, top, f"cold-{i}") for i in range(ROUNDS)]
    share = statistics.median(forked) / statistics.median(cold)
    found = (
        f"{share:.2f} of a cold start (median of {ROUNDS}: {statistics.median(forked):.2f} s"
        f" against {statistics.median(cold):.2f} s), frontend and two workers ready"
    )
    yield Check(name="fork", ok=True, found=found)


def _boot(session: Session, top: Topology, name: str) -> float:
    """Seconds from nothing to a cluster whose two workers have each answered a request."""
    folder = session.run.example(name)
    target = session.target(top, Plan(topology=top.name, workers=2), Proof(), folder / "logs")
    before_s = time.monotonic()
    try:
        target.start()
        return time.monotonic() - before_s
    finally:
        target.close()
