"""A plan on two routers: where the release moves streams with both they agree, where it does not X3 says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from ftmodel import planfile
from ftmodel.steps import HolderOf, KillWorker, Plan, Settle, Submit, Token

pytestmark = pytest.mark.cluster

PLAN = Plan(
    topology="aggregated",
    workers=3,
    migration_limit=10,
    steps=(
        Submit(name="r1", max_tokens=200),
        KillWorker(name="s2", worker=HolderOf("r1"), at=Token("r1", 20)),
        Submit(name="r3", at=Token("r1", 5)),
        Settle(name="s4"),
    ),
)
MOVES_WITH_KV = Version("1.5")
"""Of the releases that were looked at: the first that moves a stream with the kv router too (docs/findings.md)."""


@pytest.fixture(scope="module")
def ran(sut_python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("agree")
    (folder / "plan.json").write_text(planfile.dump(PLAN), encoding="utf-8")
    command = [
        sys.executable, "-m", "ftmodel", "agree", str(folder / "plan.json"), "--axis", "router", "--sut-python",
        str(sut_python), "--store", str(folder / "store"), "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stderr
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return done.returncode, row


def test_a_stream_whose_worker_dies_goes_on_with_each_router_or_x3_tells_it(ran: tuple[int, dict[str, Any]]) -> None:
    row = ran[1]
    agrees = Version(row["system"]["version"]) >= MOVES_WITH_KV
    found = {violation["signature"]: violation for violation in row["violations"]}
    assert row["doubts"] == []
    assert row["topologies"] == ["aggregated", "aggregated-kv"]
    assert row["invariants"]["X3"]["evaluated"] > 0
    assert {name for name in found if name.startswith("X3/")} == (set() if agrees else {"X3/router-outcome"})
    assert agrees or "-aggregated-kv-again-" in found["X3/router-outcome"]["example"]


def test_the_exit_code_fits_the_verdict_and_every_violation_is_documented(
    ran: tuple[int, dict[str, Any]], documented: frozenset[str]
) -> None:
    code, row = ran
    assert row["verdict"] == {0: "holds", 1: "violated"}[code]
    assert {violation["signature"] for violation in row["violations"]} <= documented


def test_the_stored_runs_are_compared_again_alike(ran: tuple[int, dict[str, Any]]) -> None:
    command = [sys.executable, "-m", "ftmodel", "recheck", ran[1]["store"], "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    again = json.loads(done.stdout.splitlines()[-1])
    for key in ("verdict", "requests", "invariants", "violations"):
        assert again[key] == ran[1][key], key
