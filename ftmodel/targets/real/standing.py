"""Services that stand by themselves: for a test that starts what speaks to them on its own."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ftmodel.services import LOOPBACK, SERVICES, programs_of
from ftmodel.steps import ServiceName
from ftmodel.targets.real.backing import Backing
from ftmodel.targets.real.clock import Loop
from ftmodel.targets.real.leftovers import SCRATCH_MARK, clear
from ftmodel.targets.real.ports import Ports
from ftmodel.targets.real.processes import Launch, Process, Warden


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the services answer."""

    etcd: str
    """E.g. http://127.0.0.1:21001."""
    nats: str
    """E.g. nats://127.0.0.1:21002, with JetStream."""


@dataclass(slots=True, kw_only=True)
class _Life:
    """A service that no fault hits."""

    process: Process
    frozen: bool = False
    hit: bool = False


@contextmanager
def standing(python: Path, logs: Path) -> Iterator[Addresses]:
    """A context: an etcd and a NATS server of one's own, on free ports of loopback; each has answered, with no data yet.

    A warden owns them: they end when the context is left, and if its process is killed. `python` is the interpreter
    beside which their programs are looked for first; their logs come to the folder `logs`. Raises UsageError where a
    program lacks, HarnessError where one does not serve.
    """
    programs = programs_of(SERVICES, python, who="runtime_services")
    with ExitStack() as stack:
        loop = Loop()
        stack.callback(loop.close)
        ports = Ports()
        stack.callback(ports.close)
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_MARK))
        stack.callback(clear, scratch)
        warden = loop.call(
            Warden.start(
                Path(sys.executable), preload=(), distributions=(), scratch=scratch, log=logs / "warden.log",
                env={**os.environ, "HOME": str(scratch), "TMPDIR": str(scratch)},
            )
        )  # fmt: skip
        stack.callback(lambda: loop.call(warden.close(), always=True))
        backing = Backing(SERVICES, programs, ports, scratch)
        loop.call(_serve(warden, backing, scratch, logs))
        yield Addresses(
            etcd=f"http://{LOOPBACK}:{backing.ports['etcd']}", nats=f"nats://{LOOPBACK}:{backing.ports['nats']}"
        )


async def _serve(warden: Warden, backing: Backing, scratch: Path, logs: Path) -> None:
    """Start each service and wait until it answers."""

    async def start(name: ServiceName) -> None:
        log = logs / f"{name}.log"
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(scratch), "TMPDIR": str(scratch)}
        launch = Launch(title=name, how="exec", argv=backing.command(name), env=env, cwd=scratch, log=log)
        await backing.until_serving(name, _Life(process=await warden.spawn(launch)), log)

    await asyncio.gather(*(start(name) for name in backing.services))
