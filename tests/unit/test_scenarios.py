"""The classic scenarios go by their names, are selected as in the original, and know only what is documented."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ftmodel import known

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "tests" / "scenarios"
EVERYWHERE = ("aggregated", "etcd-nats", "counting", "vllm")
OVER_SERVICES = ("[etcd-nats]", "[disaggregated]", "[slow-prefill]")


def collected(*arguments: str) -> set[str]:
    """The tests below tests/scenarios that a command line selects, e.g. "test_x.py::test_y[vllm]"."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", str(SCENARIOS), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "::" in line]
    return {line.removeprefix("tests/scenarios/") for line in lines}


@pytest.fixture(scope="module")
def every() -> set[str]:
    return collected()


@pytest.fixture(scope="module")
def on_vllm() -> set[str]:
    return collected("-m", "e2e and vllm")


@pytest.mark.parametrize(
    "name", ["test_request_migration.py::test_request_migration_vllm", "test_request_cancellation.py::test_request_cancellation_vllm"]
)  # fmt: skip
def test_the_classic_ones_are_selected_on_vllm_and_run_on_mockers_else(
    name: str, on_vllm: set[str], every: set[str]
) -> None:
    assert f"{name}[vllm]" in on_vllm
    assert {test for test in every if test.startswith(f"{name}[")} == {f"{name}[{place}]" for place in EVERYWHERE}


def test_each_is_end_to_end_and_what_needs_services_says_so(on_vllm: set[str], every: set[str]) -> None:
    assert collected("-m", "e2e and real") == every
    assert collected("-m", "services") == {
        name for name in every if name.endswith(OVER_SERVICES) or name.endswith("-etcd-nats]")
    }
    assert on_vllm == {name for name in every if "vllm]" in name}


def test_what_they_know_is_what_the_example_project_knows() -> None:
    documented = known.load(ROOT / "examples" / "own_suite" / "known_issues.toml")
    assert set(known.load(SCENARIOS / "known_issues.toml")) <= set(documented)
