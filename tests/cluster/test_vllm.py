"""Real vLLM workers: a migration, the three kinds of cancel, and the engine's own processes killed. Some minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftmodel import planfile
from ftmodel.steps import Cancel, Heal, HolderOf, KillEngine, KillWorker, Plan, Sent, Settle, Submit, Token

pytestmark = [pytest.mark.cluster, pytest.mark.vllm]

PLAN = Plan(
    topology="vllm",
    workers=2,
    migration_limit=3,
    steps=(
        Submit(name="r1", max_tokens=600),
        KillWorker(name="s1", worker=HolderOf("r1"), at=Token("r1", 20)),
        Settle(name="s2"),
        Heal(name="s3"),
        Submit(name="r2", api="completion", stream=False, max_tokens=1500),
        Cancel(name="s4", request="r2", at=Sent("r2"), skew_ms=300),
        Submit(name="r3", api="chat", stream=False, max_tokens=1500),
        Cancel(name="s5", request="r3", how="timeout", at=Sent("r3"), skew_ms=1000),
        Submit(name="r4", api="chat", max_tokens=1500),
        Cancel(name="s6", request="r4", at=Token("r4", 5)),
        Settle(name="s7"),
        Submit(name="r5", max_tokens=600),
        KillEngine(name="s8", worker=HolderOf("r5"), at=Token("r5", 20)),
        Settle(name="s9"),
    ),
)


@pytest.fixture(scope="module")
def played(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("vllm")
    (folder / "plan.json").write_text(planfile.dump(PLAN), encoding="utf-8")
    command = [
        sys.executable, "-m", "ftmodel", "replay", str(folder / "plan.json"), "--sut-python", str(vllm_python),
        "--store", str(folder / "store"), "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode in (0, 1), done.stderr
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def test_each_fault_was_made_and_nothing_is_doubtful(played: dict[str, Any]) -> None:
    assert played["doubts"] == []
    assert {kind: counts["verified"] for kind, counts in played["faults"].items()} >= {
        "kill-worker": 1,
        "kill-engine": 1,
    }.items()


def test_a_request_migrates_and_each_cancel_is_an_abort(played: dict[str, Any]) -> None:
    assert played["migrations"] >= 2
    assert played["aborts"] >= 3
    for name in ("A1", "A2", "A3", "M1", "T1", "T2", "L2"):
        assert played["invariants"][name]["evaluated"] > 0, name


def test_what_was_violated_is_a_documented_finding(played: dict[str, Any], documented: frozenset[str]) -> None:
    assert {violation["signature"] for violation in played["violations"]} <= documented
