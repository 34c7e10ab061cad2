"""A test whose marker asks for what is not here is skipped, in the doctor's words; no other test is."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftmodel import doctor, needs
from ftmodel.doctor import Check
from ftmodel.targets.real import devices

LACK = Check(name="part", ok=False, found="not found", remedy="pip install part", grade="optional")
THERE = Check(name="part", ok=True, found="there")


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    needs._lack.cache_clear()
    yield
    needs._lack.cache_clear()


@pytest.mark.parametrize(("marker", "part"), needs.PARTS.items())
def test_what_lacks_is_told_with_the_command_that_repairs_it(
    marker: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "look", lambda asked, _python: [THERE, LACK] if asked == part else [THERE])
    assert needs.lacking(["e2e", marker], None) == "part: not found; try: pip install part"
    assert needs.lacking(["e2e", "slow"], None) == ""


def test_what_is_there_lacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "look", lambda _part, _python: [THERE])
    assert needs.lacking(["real", "services", "vllm"], None) == ""


@pytest.mark.parametrize(
    ("gpus", "for_cpu", "marker", "lacks"),
    [(0, False, "gpu_1", True), (0, True, "gpu_1", False), (1, False, "gpu_1", False), (1, False, "gpu_2", True)],
)
def test_a_gpu_is_asked_for_unless_the_engine_was_built_for_a_cpu(
    *, gpus: int, for_cpu: bool, marker: str, lacks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: gpus)
    monkeypatch.setattr(doctor, "is_for_cpu", lambda _python: for_cpu)
    told = needs.lacking([marker], None)
    assert bool(told) == lacks
    assert not lacks or f"gpu: {gpus} here, {marker[-1]} wanted" in told


def test_gpus_are_counted_by_their_devices(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "null"):
        (tmp_path / name).touch()
    assert devices.gpus(tmp_path) == 2
    assert devices.has_gpu(tmp_path)


TESTS = """
import pytest

@pytest.mark.e2e
@pytest.mark.real
@pytest.mark.ftmodel(topology="etcd-nats")
def test_mine(cluster): ...

@pytest.mark.vllm
def test_of_somebody_else(): ...

@pytest.mark.gpu_2
@pytest.mark.slow
@pytest.mark.services
def test_of_no_fixture_of_ours(tmp_path): ...
"""


def test_a_test_that_cannot_run_here_is_skipped_and_one_that_is_not_ours_runs(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / "bin" / "python"
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n", encoding="utf-8")
    (tmp_path / "test_mine.py").write_text(TESTS, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "FTMODEL"))}
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "ftmodel.pytest_plugin", "-p", "no:cacheprovider", "-rs",
            f"--ftmodel-sut-python={python}",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed, 1 skipped" in done.stdout
    assert f"dynamo: no ai-dynamo in {python}; try: " in done.stdout.replace("\n", " ")
