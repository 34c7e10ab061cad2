"""A service is waited for until it serves: a fault may end that wait, and nothing else may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftmodel import services
from ftmodel.errors import HarnessError
from ftmodel.targets.real import backing
from ftmodel.targets.real.backing import Backing
from ftmodel.targets.real.ports import Ports

NATS = next(service for service in services.SERVICES if service.name == "nats")
GREETING = b'INFO {"jetstream":true}\r\n'


@dataclass
class Life:
    process: Any = field(default_factory=lambda: SimpleNamespace(alive=True, exit="signal 9"))
    frozen: bool = False
    hit: bool = False


@pytest.fixture
def backed(tmp_path: Path) -> Iterator[Backing]:
    ports = Ports()
    yield Backing((NATS,), {"nats": Path("nats-server")}, ports, tmp_path)
    ports.close()


@asynccontextmanager
async def serving(backed: Backing) -> AsyncIterator[None]:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, services.LOOPBACK, backed.ports["nats"]):
        yield


def waited(backed: Backing, life: Life, then: Callable[[], None] = lambda: None, *, serves: bool = False) -> bool:
    """Wait for the service; meanwhile do something, and have it serve if it is to."""

    async def both() -> bool:
        waiting = asyncio.create_task(backed.until_serving("nats", life, Path("nats.log")))
        await asyncio.sleep(2 * backing.LOOK_EVERY_S)
        then()
        if not serves:
            return await waiting
        async with serving(backed):
            return await waiting

    return asyncio.run(both())


def test_it_is_waited_for_until_it_serves(backed: Backing) -> None:
    assert waited(backed, Life(), serves=True)


def ended(life: Life) -> None:
    life.process.alive = False


def test_one_that_a_fault_ends_while_it_starts_is_no_failure_of_the_tester(backed: Backing) -> None:
    life = Life(hit=True)
    assert not waited(backed, life, lambda: ended(life))


def test_one_that_ends_by_itself_is(backed: Backing) -> None:
    life = Life()
    with pytest.raises(HarnessError, match=r"nats ended while it was starting \(signal 9\); see nats.log"):
        waited(backed, life, lambda: ended(life))


def test_one_that_does_not_serve_in_time_is_too(backed: Backing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backing, "SERVE_BOUND_S", 0.05)
    with pytest.raises(HarnessError, match=r"nats did not serve 0.05 s after its start; see nats.log"):
        waited(backed, Life(hit=True))


def test_the_time_in_which_it_is_frozen_does_not_count(backed: Backing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backing, "SERVE_BOUND_S", backing.LOOK_EVERY_S / 4)
    assert waited(backed, Life(frozen=True), serves=True)
