"""A cluster that stands on an etcd and a NATS server of its own: it serves, and a short outage of either does no harm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftmodel import planfile
from ftmodel.steps import After, Gone, OnService, Plan, Settle, Submit

pytestmark = [pytest.mark.cluster, pytest.mark.services]

CALM_MS = 16_000
"""After an outage all is owed again once a lease and `lease_margin_s` are over (list_bound_s)."""
PLAN = Plan(
    topology="etcd-nats",
    workers=2,
    steps=(
        Submit(name="r1"),
        Settle(name="s2"),
        OnService(name="s3", kind="kill-etcd"),
        OnService(name="s4", kind="start-etcd", at=Gone("s3"), skew_ms=100),
        OnService(name="s5", kind="freeze-nats", at=After("s4")),
        OnService(name="s6", kind="thaw-nats", at=After("s5"), skew_ms=300),
        *(Submit(name=f"r{n}", at=After("s6"), skew_ms=CALM_MS) for n in (7, 8, 9, 10)),
        Settle(name="s11"),  # it has a deadline of its own, sooner than the requests
        Settle(name="s12"),
    ),
)
FAULTS = ("kill-etcd", "freeze-nats")


@pytest.fixture(scope="module")
def ran(sut_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("services")
    (folder / "plan.json").write_text(planfile.dump(PLAN), encoding="utf-8")
    command = [
        sys.executable, "-m", "ftmodel", "replay", str(folder / "plan.json"), "--sut-python", str(sut_python),
        "--store", str(folder / "store"), "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stderr
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def test_it_serves_before_the_outages_and_after_them(ran: dict[str, Any]) -> None:
    assert ran["requests"] == {"completed": 5, "cancelled": 0, "failed": 0, "unknown": 0}
    assert ran["duty"]["L2"]["must"] == 5


def test_the_outages_happened(ran: dict[str, Any]) -> None:
    assert ran["doubts"] == []
    assert {kind: ran["faults"][kind]["verified"] for kind in FAULTS} == dict.fromkeys(FAULTS, 1)


def test_nobody_ended_by_them_and_all_are_listed_again(ran: dict[str, Any], documented: frozenset[str]) -> None:
    assert ran["invariants"]["C3"]["evaluated"] > 0
    assert {violation["signature"] for violation in ran["violations"]} <= documented
