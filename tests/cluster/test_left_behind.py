"""Whatever moment it is killed at, nothing of a run is left: no process, no listening port, no file in shared places."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.cluster

KILLS = int(os.environ.get("FTMODEL_KILLS", "3"))
"""Of the tester; half as many, rounded up to at most 5, of its warden."""
GONE_BOUND_S = 5.0
BOOT_BOUND_S = 60.0
VLLM_BOOT_BOUND_S = 300.0


@pytest.fixture
def shared() -> Iterator[Path]:
    """The shared folder for temporary files, as the run sees it: its own, so that what is left there is the run's."""
    folder = Path(tempfile.mkdtemp(prefix="lb-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def running(request: pytest.FixtureRequest, tmp_path: Path, shared: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run, of the topology that the test asks for, if it does."""
    asked = getattr(request, "param", None)
    topology = ["--topology", asked] if asked else []
    sut_python: Path = request.getfixturevalue("vllm_python" if asked == "vllm" else "sut_python")
    command = [
        sys.executable,
        "-m",
        "ftmodel",
        "run",
        "--sut-python",
        str(sut_python),
        "--store",
        str(tmp_path / "store"),
        *topology,
    ]
    env = {**os.environ, "TMPDIR": str(shared)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _until(condition: Callable[[], bool], bound_s: float) -> bool:
    end_s = time.monotonic() + bound_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True


def _of_store(store: Path, but: int) -> list[psutil.Process]:
    """Processes whose environment names the store, wherever they are in the tree."""
    needle = f"FTMODEL_STORE={store}".encode()
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != but and needle in Path(f"/proc/{process.pid}/environ").read_bytes():
                found.append(process)
        except OSError:
            continue
    return found


def _ports(processes: list[psutil.Process]) -> set[int]:
    found: set[int] = set()
    for process in processes:
        try:
            found |= {c.laddr.port for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        except psutil.Error:
            continue
    return found


def _listening() -> set[int]:
    return {c.laddr.port for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN}


def _gone(store: Path, pid: int, ports: set[int], shared: Path) -> str:
    """What is left; empty if nothing."""
    left = _of_store(store, pid)
    if left:
        return f"processes {[p.pid for p in left]}"  # their names may be gone with them by now
    if ports & _listening():
        return f"ports {sorted(ports & _listening())}"
    files = sorted(str(path) for path in shared.iterdir())
    return f"files {files}" if files else ""


def _expect_gone(store: Path, pid: int, ports: set[int], shared: Path) -> None:
    assert _until(lambda: not _gone(store, pid, ports, shared), GONE_BOUND_S), _gone(store, pid, ports, shared)


@pytest.mark.parametrize("number", range(KILLS))
def test_the_tester_killed_at_any_moment_leaves_nothing(
    number: int, running: subprocess.Popen[bytes], tmp_path: Path, shared: Path
) -> None:
    store = tmp_path / "store"
    assert _until(lambda: bool(_of_store(store, running.pid)), BOOT_BOUND_S)
    moment_s = time.monotonic() + random.Random(number).uniform(0, 12)
    assert _until(lambda: time.monotonic() > moment_s or running.poll() is not None, BOOT_BOUND_S)
    assert running.poll() is None, "the run was over before it could be killed"
    ports = _ports(_of_store(store, running.pid))
    running.kill()
    running.wait()
    _expect_gone(store, running.pid, ports, shared)


def _programs(processes: list[psutil.Process]) -> set[str]:
    found: set[str] = set()
    for process in processes:
        try:
            found |= {Path(part).name for part in process.cmdline()[:2]}  # a script is named after its interpreter
        except psutil.Error:
            continue
    return found


@pytest.mark.services
@pytest.mark.parametrize("running", ["etcd-nats"], indirect=True)
def test_the_tester_killed_while_services_run_leaves_nothing_of_them(
    running: subprocess.Popen[bytes], tmp_path: Path, shared: Path
) -> None:
    store = tmp_path / "store"
    assert _until(lambda: _programs(_of_store(store, running.pid)) >= {"etcd", "nats-server"}, BOOT_BOUND_S)
    ports = _ports(_of_store(store, running.pid))
    running.kill()
    running.wait()
    _expect_gone(store, running.pid, ports, shared)


@pytest.mark.vllm
@pytest.mark.parametrize("running", ["vllm"], indirect=True)
def test_the_tester_killed_while_vllm_runs_leaves_nothing_of_it(
    running: subprocess.Popen[bytes], tmp_path: Path, shared: Path
) -> None:
    tester = psutil.Process(running.pid)
    assert _until(lambda: "VLLM::EngineCore" in _programs(tester.children(recursive=True)), VLLM_BOOT_BOUND_S)
    of_run = tester.children(recursive=True)  # vLLM's own processes bear new titles, written over their environment
    ports = _ports(of_run)
    running.kill()
    running.wait()
    assert _until(lambda: not any(process.is_running() for process in of_run), GONE_BOUND_S), of_run
    _expect_gone(tmp_path / "store", running.pid, ports, shared)


@pytest.mark.parametrize("number", range(min(5, -(-KILLS // 2))))
def test_the_warden_killed_at_any_moment_leaves_nothing_and_ends_the_run(
    number: int, running: subprocess.Popen[bytes], tmp_path: Path, shared: Path
) -> None:
    store = tmp_path / "store"
    assert _until(lambda: bool(_of_store(store, running.pid)), BOOT_BOUND_S)
    wardens = [child for child in psutil.Process(running.pid).children() if "warden" in " ".join(child.cmdline())]
    assert len(wardens) == 1
    moment_s = time.monotonic() + random.Random(number).uniform(1, 10)
    assert _until(lambda: time.monotonic() > moment_s or running.poll() is not None, BOOT_BOUND_S)
    assert running.poll() is None, "the run was over before its warden could be killed"
    ports = _ports(_of_store(store, running.pid))
    wardens[0].kill()
    _expect_gone(store, running.pid, ports, shared)
    assert running.wait(BOOT_BOUND_S) == 2
