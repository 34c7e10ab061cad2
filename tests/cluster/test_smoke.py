"""The random machine on a real cluster, a little of it: the whole way from a seed to a verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.cluster

SEED = "20"


def _run(store: Path, sut_python: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [
        sys.executable, "-m", "ftmodel", "run", "--sut-python", str(sut_python), "--store", str(store), "--json",
        "--seed", SEED, *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode in (0, 1), done.stderr
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return done.returncode, row


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def ran(store: Path, sut_python: Path) -> tuple[int, dict[str, Any]]:
    return _run(store, sut_python, "--profile", "ci")


def test_a_run_ends_with_a_verdict_that_fits_its_exit_code(ran: tuple[int, dict[str, Any]]) -> None:
    code, row = ran
    assert row["verdict"] == {0: "holds", 1: "violated"}[code]
    assert row["doubts"] == []
    assert row["examples"] == 10


def test_every_fault_was_verified_and_faults_of_several_kinds_were_made(ran: tuple[int, dict[str, Any]]) -> None:
    faults = ran[1]["faults"]
    assert len(faults) >= 2
    assert all(counts["made"] == counts["verified"] for counts in faults.values())


def test_every_invariant_was_decided_or_says_why_not(ran: tuple[int, dict[str, Any]]) -> None:
    invariants = ran[1]["invariants"]
    for name in (
        "L1",
        "L2",
        "L3",
        "P1",
        "P2",
        "P3",
        "P5",
        "T1",
        "T2",
        "M1",
        "A2",
        "A5",
        "C2",
        "C4",
        "R1",
        "R3",
        "R5",
        "O1",
        "O2",
        "O3",
        "H1",
        "H2",
        "H3",
        "H4",
    ):
        assert invariants[name]["evaluated"] > 0, name


def test_every_violation_is_a_documented_finding(ran: tuple[int, dict[str, Any]], documented: frozenset[str]) -> None:
    assert {violation["signature"] for violation in ran[1]["violations"]} <= documented


def test_the_stored_histories_are_judged_again_alike(ran: tuple[int, dict[str, Any]], store: Path) -> None:
    command = [sys.executable, "-m", "ftmodel", "recheck", str(store), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    again = json.loads(done.stdout.splitlines()[-1])
    for key in ("verdict", "requests", "duty", "invariants", "migrations", "aborts"):
        assert again[key] == ran[1][key], key


def test_the_same_seed_draws_the_same_plans_whatever_the_timing(
    ran: tuple[int, dict[str, Any]], store: Path, sut_python: Path, tmp_path: Path
) -> None:
    _run(tmp_path, sut_python, "--examples", "4", "--steps", "20")
    first = sorted(store.glob("*-run/examples/0*/plan.json"))
    again = sorted(tmp_path.glob("*-run/examples/0*/plan.json"))
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in first[: len(again)]]
