"""A process inside a worker is killed, and nothing else; where there is none, the step is void and says why."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from ftmodel import engines
from ftmodel.history import Event, FaultMade, Interval
from ftmodel.targets.real import warden
from ftmodel.targets.real.armed import Orders
from ftmodel.targets.real.clock import Clock
from ftmodel.targets.real.faults import Faults, VoidError
from ftmodel.targets.real.processes import Descendant

WORKER = """
import ctypes, os, time
if os.fork() == 0:
    ctypes.CDLL(None).prctl(15, b"VLLM::EngineCore")
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, b"VLLM::Worker")
    time.sleep(60)
time.sleep(60)
"""


@pytest.fixture
def pid() -> Iterator[int]:
    """A process that looks like a worker of vLLM: an engine below it, and a rank below that."""
    process = subprocess.Popen([sys.executable, "-c", WORKER], start_new_session=True)
    end_s = time.monotonic() + 20
    while {"VLLM::EngineCor", "VLLM::Worker"} - {row.command for row in rows()} and time.monotonic() < end_s:
        time.sleep(0.02)
    yield process.pid
    os.killpg(process.pid, 9)
    process.wait()


def rows() -> list[Descendant]:
    names = Descendant.__dataclass_fields__
    return [Descendant(**{name: getattr(stat, name) for name in names}) for stat in warden.descendants(os.getpid())]


async def below() -> list[Descendant]:
    return rows()


def faults(folder: Path, engine: str, told: list[Event]) -> Faults:
    cluster: Any = SimpleNamespace(
        engine=engines.find(engine), ground=SimpleNamespace(warden=SimpleNamespace(descendants=below))
    )
    return Faults(cluster, Clock(), Orders(folder), told.append)


def killed(folder: Path, pid: int, part: str, engine: str = "vllm") -> tuple[str, list[Event]]:
    told: list[Event] = []

    async def kill() -> str:
        life: Any = SimpleNamespace(title="w1", process=SimpleNamespace(pid=pid), busy=asyncio.Lock(), hit=False)
        subject = await faults(folder, engine, told).kill_engine("s1", life, part)
        assert life.hit
        return subject

    return asyncio.run(kill()), told


@pytest.mark.parametrize(("part", "name"), [("engine", "VLLM::EngineCor"), ("rank", "VLLM::Worker")])
def test_the_process_that_is_meant_dies_and_the_others_live(tmp_path: Path, pid: int, part: str, name: str) -> None:
    before = {row.command: row.pid for row in rows() if row.session == pid}
    subject, told = killed(tmp_path, pid, part)
    assert subject == f"w1 {name} {before[name]}"
    assert [(event.fault, event.title, event.verified) for event in told if isinstance(event, FaultMade)] == [
        ("kill-engine", "w1", True)
    ]
    alive = {p.pid for p in psutil.Process(pid).children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE} | {pid}
    assert before[name] not in alive
    assert pid in alive


def test_a_stop_signals_the_process_that_was_started_and_none_below_it(tmp_path: Path, pid: int) -> None:
    told: list[Event] = []
    signalled: list[tuple[int, bool]] = []

    async def take(_process: object, signum: int, *, group: bool) -> Interval:
        signalled.append((signum, group))
        return Interval(0.0, 0.0)

    async def stop() -> None:
        made = faults(tmp_path, "vllm", told)
        made._warden.signal = take  # type: ignore[method-assign]
        process = SimpleNamespace(pid=pid)
        life: Any = SimpleNamespace(
            title="w1", role="worker", process=process, busy=asyncio.Lock(), hit=False, frozen=False, alive=True
        )
        await made.stop("s1", life)

    asyncio.run(stop())
    assert signalled == [(signal.SIGTERM, False)]


def test_an_engine_without_processes_of_its_own_makes_the_step_void(tmp_path: Path, pid: int) -> None:
    with pytest.raises(VoidError, match="a worker of the mocker engine has no rank process of its own"):
        killed(tmp_path, pid, "rank", engine="mocker")


def test_a_worker_whose_engine_is_gone_already_makes_the_step_void(tmp_path: Path, pid: int) -> None:
    killed(tmp_path, pid, "engine")
    with pytest.raises(VoidError, match="w1 has no engine process now"):
        killed(tmp_path, pid, "engine")
