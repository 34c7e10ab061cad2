"""A disaggregated cluster: a cancel during decode, one during prefill, and a prefill worker killed with a prompt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftmodel import history, planfile
from ftmodel.bounds import Bounds
from ftmodel.history import Event, LogLine, Started
from ftmodel.invariants import INVARIANTS, Judge
from ftmodel.invariants.duty import abort
from ftmodel.invariants.ledger import Ledger
from ftmodel.steps import Begun, Cancel, HolderOf, KillWorker, Plan, Settle, StartWorker, Submit, Token

pytestmark = pytest.mark.cluster

LATER_MS = round(Bounds().abort_bound_s * 1000) + 1000
PLAN = Plan(
    topology="disaggregated-tcp",
    workers=2,
    prefill_workers=1,
    migration_limit=3,
    steps=(
        Submit(name="r1", max_tokens=600),
        Cancel(name="s1", request="r1", at=Token("r1", 5)),
        Settle(name="s2"),
        Submit(name="r2", max_tokens=600),
        Cancel(name="s3", request="r2", at=Begun("r2"), skew_ms=100),
        Settle(name="s4"),
        Submit(name="r3", max_tokens=50, skew_ms=LATER_MS),  # else that cancel may be lost to the kill
        KillWorker(name="s5", worker=HolderOf("r3", "prefill"), at=Begun("r3"), skew_ms=20),
        Settle(name="s6"),
        StartWorker(name="s7", slot=0, role="prefill"),
    ),
)


@pytest.fixture(scope="module")
def played(sut_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("disaggregated")
    (folder / "plan.json").write_text(planfile.dump(PLAN), encoding="utf-8")
    command = [
        sys.executable, "-m", "ftmodel", "replay", str(folder / "plan.json"), "--sut-python", str(sut_python),
        "--store", str(folder / "store"), "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode in (0, 1), done.stderr
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


@pytest.fixture(scope="module")
def events(played: dict[str, Any]) -> list[Event]:
    [path] = Path(played["store"]).glob("examples/as-drawn-*/history.jsonl")
    return list(history.read(path))


def test_a_cancel_during_decode_is_owed_by_the_worker_that_decodes_and_its_id_is_in_both_logs(
    events: list[Event],
) -> None:
    ledger = _ledger(events)
    request = ledger.requests["r1"]
    roles = {event.title: event.role for event in events if isinstance(event, Started)}
    began = [
        roles[e.title] for e in events if isinstance(e, LogLine) and e.meaning == "begun" and e.id == request.sent.id
    ]
    assert sorted(began) == ["prefill", "worker"]
    [decode] = ledger.generations[request.sent.id]
    [prefill] = ledger.prefilled[request.sent.id]
    assert abort(ledger, request, decode).value == "must"
    assert abort(ledger, request, prefill).value == "may"
    assert (ledger.counted(decode, "cancellations") or 0) >= 1
    assert ledger.kills[request.sent.frontend] >= 1


def test_the_phases_are_reached_and_every_fault_was_made(played: dict[str, Any]) -> None:
    assert played["doubts"] == []
    assert played["faults"]["kill-worker"] == {"made": 1, "verified": 1}
    for name in ("cancelled-during-decode", "cancelled-during-remote-prefill", "prefill-killed-during-prefill"):
        assert played["situations"][name] == 1, name
    assert played["duty"]["A1"]["must"] == 2


def test_what_was_violated_is_a_documented_finding(played: dict[str, Any], documented: frozenset[str]) -> None:
    assert {violation["signature"] for violation in played["violations"]} <= documented


def _ledger(events: list[Event]) -> Ledger:
    judge = Judge(INVARIANTS)
    for event in events:
        judge.feed(event)
    judge.result()
    assert judge._ledger is not None
    return judge._ledger
