"""The services that one cluster stands on: started before its processes, on ports and with data that stay theirs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from ftmodel.errors import HarnessError
from ftmodel.services import LOOPBACK, Service
from ftmodel.steps import ServiceName
from ftmodel.targets.real.ports import Ports
from ftmodel.targets.real.processes import Process

SERVE_BOUND_S: Final = 20.0
"""From the start of a service to its first good answer."""
ASK_BOUND_S: Final = 2.0
LOOK_EVERY_S: Final = 0.020
ANSWER_BYTES: Final = 4096


class Starting(Protocol):
    """A life of a service, and what faults have done to it so far."""

    process: Process
    frozen: bool
    hit: bool


class Backing:
    """Where the services of one cluster are, and how each is started."""

    def __init__(
        self, services: tuple[Service, ...], programs: dict[ServiceName, Path], ports: Ports, folder: Path
    ) -> None:
        self.services = {service.name: service for service in services}
        self.ports: dict[ServiceName, int] = {}
        """Those that clients speak to."""
        self._programs = programs
        self._taken = {service.name: tuple(ports.take() for _ in range(service.ports)) for service in services}
        self._all = ports
        self._folder = folder
        self.ports = {name: taken[0] for name, taken in self._taken.items()}

    def command(self, name: ServiceName) -> tuple[str, ...]:
        """The command line of a service: the same each time, so that it finds its data again."""
        service = self.services[name]
        return str(self._programs[name]), *service.arguments(self._taken[name], self._folder / name)

    async def until_serving(self, name: ServiceName, started: Starting, log: Path) -> bool:
        """Wait until the service answers; False if a fault ended it before that. Frozen, it has its time from the thaw on.

        Raises HarnessError if it ends by itself, or does not answer in time.
        """
        clock = asyncio.get_running_loop()
        by_s = clock.time() + SERVE_BOUND_S
        while started.process.alive:
            if await self._serves(name):
                return True
            if started.frozen:
                by_s = clock.time() + SERVE_BOUND_S
            elif clock.time() > by_s:
                raise HarnessError(f"{name} did not serve {SERVE_BOUND_S:g} s after its start; see {log}")
            await asyncio.sleep(LOOK_EVERY_S)
        if not started.hit:
            raise HarnessError(f"{name} ended while it was starting ({started.process.exit}); see {log}")
        return False

    async def _serves(self, name: ServiceName) -> bool:
        service = self.services[name]
        answer = b""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(ASK_BOUND_S):
                reader, writer = await asyncio.open_connection(LOOPBACK, self.ports[name])
                try:
                    writer.write(service.asks)
                    while piece := await reader.read(ANSWER_BYTES):
                        answer += piece
                        if all(part in answer for part in service.answers):
                            return True
                finally:
                    writer.close()
        return False

    def close(self) -> None:
        """Give the ports back."""
        for taken in self._taken.values():
            for port in taken:
                self._all.give_back(port)
