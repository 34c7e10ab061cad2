"""The fixture `runtime_services`: etcd and NATS that answer, two tests' own, and nothing of them left, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.services]

SUITE = """
import pathlib, socket, sys, time

import httpx

def ports(services):
    return [address.rpartition(":")[2] for address in (services.etcd, services.nats)]

def told(services):
    put = {"key": "YQ==", "value": "Yg=="}
    assert httpx.post(services.etcd + "/v3/kv/put", json=put).status_code == 200
    host, port = services.nats.removeprefix("nats://").split(":")
    with socket.create_connection((host, int(port)), 2) as client:
        assert client.recv(4096).startswith(b"INFO ")

def test_one(runtime_services):
    told(runtime_services)
    pathlib.Path("ports").write_text(" ".join(ports(runtime_services)))

def test_two(runtime_services):
    asked = httpx.post(runtime_services.etcd + "/v3/kv/range", json={"key": "YQ=="}).json()
    assert "kvs" not in asked, asked
    assert not set(ports(runtime_services)) & set(pathlib.Path("ports").read_text().split())

def test_three(runtime_services):
    pathlib.Path("ports").write_text(" ".join(ports(runtime_services)))
    pathlib.Path("up").touch()
    time.sleep(60)
"""
GONE_BOUND_S = 5.0
BOOT_BOUND_S = 60.0


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "ftmodel.pytest_plugin", "test_mine.py", *arguments]


def _env(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "HYPOTHESIS"))}
    (folder / "tmp").mkdir(exist_ok=True)
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TMPDIR": str(folder / "tmp")}


def _listening(folder: Path) -> list[int]:
    """Of the ports that a test noted: those on which somebody still listens."""
    noted = {int(port) for port in (folder / "ports").read_text().split()}
    return [c.laddr.port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port in noted]  # fmt: skip


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (tmp_path / "test_mine.py").write_text(SUITE, encoding="utf-8")
    return tmp_path


def test_each_test_has_services_of_its_own_that_answer(suite: Path) -> None:
    done = subprocess.run(
        _command("-k", "one or two"), cwd=suite, env=_env(suite), capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert _listening(suite) == []
    assert not list((suite / "tmp").glob("ftm-*"))


def test_they_end_with_a_pytest_that_is_killed(suite: Path) -> None:
    with subprocess.Popen(_command("-k", "three"), cwd=suite, env=_env(suite), stdout=subprocess.DEVNULL) as process:
        end_s = time.monotonic() + BOOT_BOUND_S
        while not (suite / "up").exists() and time.monotonic() < end_s:
            time.sleep(0.02)
        assert len(_listening(suite)) == 2
        process.send_signal(signal.SIGKILL)
    end_s = time.monotonic() + GONE_BOUND_S
    while (_listening(suite) or list((suite / "tmp").glob("ftm-*"))) and time.monotonic() < end_s:
        time.sleep(0.02)
    assert _listening(suite) == []
    assert not list((suite / "tmp").glob("ftm-*"))


def test_the_fixture_serves_this_suite_too(runtime_services: object) -> None:
    health = httpx.get(f"{runtime_services.etcd}/health", trust_env=False)  # type: ignore[attr-defined]
    assert health.json()["health"] == "true"
