"""What a report is about: an example, the finding that it is made for, its smaller plan, and a run that passed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ftmodel import campaign, history, planfile, runner, store
from ftmodel.errors import StoreError, UsageError
from ftmodel.history import Event
from ftmodel.invariants import Finding
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Request
from ftmodel.runner import RULES, Outcome, Rules
from ftmodel.steps import Plan
from ftmodel.topology import Topology

SHRUNK: Final = "shrunk"
"""The folder, in an example's, of the run of its smallest plan that still fails."""
PASSING: Final = "passing"
"""Likewise of the nearest run in which that did not happen."""
SHRINK_FILE: Final = "shrink.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How often a plan failed with one signature. `low` and `high`: the 95% interval, where it is known."""

    failed: int
    of: int
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = f" (95% interval {self.low:.0%} to {self.high:.0%})" if None not in (self.low, self.high) else ""
        return f"{self.failed} of {self.of}{interval}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One run of a plan: what was to be done, what happened, and what is to be said of it."""

    folder: Path
    plan: Plan
    topology: Topology
    events: tuple[Event, ...]
    ledger: Ledger
    outcome: Outcome

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found in it."""
        return self.outcome.judgement.findings if self.outcome.judgement else ()

    def finding(self, signature: str) -> Finding | None:
        """The first finding of this signature."""
        return next((finding for finding in self.findings if finding.signature == signature), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An example and all that a report tells of it."""

    folder: Path
    """The example's own folder, where the report is written."""
    shown: Execution
    """The run of the smallest plan that is known to fail: the example's own, until it was shrunk."""
    drawn_steps: int
    """Steps of the plan as it was drawn."""
    finding: Finding | None
    """What the report is about; None if nothing was violated."""
    passing: Execution | None = None
    rate: Rate | None = None
    env: dict[str, Any] = field(default_factory=dict)
    """What env.json says of the run: versions, interpreter, kernel."""

    @property
    def request(self) -> Request | None:
        """The request that the finding is about, or the first that it names."""
        return concerned(self.shown.ledger, self.finding) if self.finding else None


def load(example: Path, *, signature: str | None = None, rules: Rules = RULES) -> Case:
    """Read an example's folder. Raises StoreError, and UsageError for a signature that it does not show.

    The finding is the one of this signature; else that which the example was shrunk for; else the first that is not
    known; else the first.
    """
    shrunk = example / SHRUNK
    shrink = _shrink_row(example)
    shown = execution(shrunk if (shrunk / "history.jsonl").is_file() else example, rules)
    finding = _chosen(shown, signature or str(shrink.get("signature", "")), asked=signature is not None)
    passing, rate = _beside(example, finding, rules)
    if finding is not None and shrink.get("rate") and shrink.get("signature") == finding.signature:
        rate = Rate(**{key: shrink["rate"].get(key) for key in ("failed", "of", "low", "high")})
    return Case(
        folder=example,
        shown=shown,
        drawn_steps=len(planfile.load(example / "plan.json").steps),
        finding=finding,
        passing=passing,
        rate=rate,
        env=_env(example),
    )


def execution(folder: Path, rules: Rules = RULES) -> Execution:
    """Read and judge one run of a plan. Raises StoreError."""
    store.check_format(folder)
    plan = planfile.load(folder / "plan.json")
    events = tuple(history.read(folder / "history.jsonl"))
    outcome = runner.judged(folder.name, folder, plan, events, rules=rules)
    if outcome.setting is None:
        raise StoreError(f"{folder}: its history has no setting, expected it as the first event; nothing can be shown")
    return Execution(
        folder=folder,
        plan=plan,
        topology=campaign.topology_of(folder, plan),
        events=events,
        ledger=_ledger(outcome.setting, events),
        outcome=outcome,
    )


def concerned(ledger: Ledger, finding: Finding) -> Request | None:
    """The request that a finding is about, or the first that its words name."""
    for text in (finding.subject, finding.message, *finding.evidence):
        for word in re.findall(r"[\w-]+", text):
            if word in ledger.requests:
                return ledger.requests[word]
    return None


def _ledger(setting: history.Setting, events: Sequence[Event]) -> Ledger:
    ledger = Ledger(setting)
    for event in events:
        if ledger.belongs(event):
            ledger.see(event)
    ledger.settled = True
    return ledger


def _chosen(shown: Execution, signature: str, *, asked: bool) -> Finding | None:
    found = shown.finding(signature)
    if found is None and asked:
        able = ", ".join(dict.fromkeys(finding.signature for finding in shown.findings)) or "none: it holds"
        raise UsageError(f"--signature {signature}: not found in {shown.folder}, expected one of {able}")
    new = (finding for finding in shown.findings if finding.signature not in shown.outcome.known)
    return found or next(new, None) or next(iter(shown.findings), None)


def _shrink_row(example: Path) -> dict[str, Any]:
    places = (example / SHRUNK / SHRINK_FILE, example / SHRINK_FILE)
    return next((store.read_json(place) for place in places if place.is_file()), {})


def _env(example: Path) -> dict[str, Any]:
    places = (folder / "env.json" for folder in (example, *example.absolute().parents[:2]))
    return next((store.read_json(place) for place in places if place.is_file()), {})


def _beside(example: Path, finding: Finding | None, rules: Rules) -> tuple[Execution | None, Rate | None]:
    """A run of the same plan that did not show the finding, and of how many did, where runs were kept."""
    if finding is None:
        return None, None
    if (example / PASSING / "history.jsonl").is_file():
        return execution(example / PASSING, rules), None
    plan = (example / "plan.json").read_bytes()
    siblings = sorted(path for path in example.absolute().parent.glob("*/plan.json") if path.read_bytes() == plan)
    if len(siblings) < 2:
        return None, None
    runs = [execution(path.parent, rules) for path in siblings if (path.parent / "history.jsonl").is_file()]
    judged = [run for run in runs if run.outcome.judgement is not None]
    failed = sum(run.finding(finding.signature) is not None for run in judged)
    without = (run for run in judged if run.finding(finding.signature) is None)
    return next(without, None), Rate(failed=failed, of=len(judged))
