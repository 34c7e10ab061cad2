"""Runs one example on a fresh cluster and says what became of it; control and calibration come first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from ftmodel import calibration, engines, history, planfile, store
from ftmodel.errors import HarnessError
from ftmodel.history import Event, HarnessFailed, Setting
from ftmodel.invariants import INVARIANTS, Invariant, Judgement, judge
from ftmodel.known import Issue, of_findings
from ftmodel.session import AS_DRAWN, Compared, Proof, Session
from ftmodel.steps import Plan, Step
from ftmodel.store import Run
from ftmodel.targets import Target
from ftmodel.topology import Topology

Value = Literal["holds", "violated", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """By what examples are judged: the invariants, and the violations that are known."""

    invariants: tuple[type[Invariant], ...] = INVARIANTS
    issues: tuple[Issue, ...] = ()
    measure: Callable[[Sequence[Event]], Mapping[str, Any]] | None = None
    """What else is to be told of each history."""


RULES: Final = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one example."""

    name: str
    folder: Path
    plan: Plan
    judgement: Judgement | None
    """None if the harness failed before there was anything to judge."""
    setting: Setting | None = None
    failure: str = ""
    """How the harness failed, if it did."""
    scripted: bool = False
    """Control or calibration: it makes the proof that the others rest on, and can lack none itself."""
    seconds: float = 0.0
    known: Mapping[str, Issue] = field(default_factory=dict)
    """Of the signatures that were found: the known issues that cover them in this version."""
    measures: Mapping[str, Any] = field(default_factory=dict)
    """What else was to be told of its history."""

    @property
    def value(self) -> Value:
        """Violated if anything was found that is not known; else unknown if the harness failed; else holds."""
        if self.judgement is not None and any(f.signature not in self.known for f in self.judgement.findings):
            return "violated"
        doubts = self.judgement.doubts if self.judgement is not None and not self.scripted else ()
        failed = self.failure or self.judgement is None or doubts
        return "unknown" if failed else "holds"


class Watcher(Protocol):
    """Is told how a run goes on. Called from several threads, one at a time."""

    def began(self, what: str) -> None:
        """A stage of the run begins, e.g. control of a topology."""

    def stepped(self, step: Step) -> None:
        """A step was drawn and done, or armed."""

    def ended(self, outcome: Outcome) -> None:
        """An example has come to its end."""


@dataclass(slots=True)
class Examples:
    """The outcomes so far, and those that still come to their end."""

    watcher: Watcher
    rules: Rules = RULES
    outcomes: list[Outcome] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, outcome: Outcome) -> Outcome:
        """Keep an outcome and tell the watcher."""
        with self.lock:
            self.outcomes.append(outcome)
            self.watcher.ended(outcome)
        return outcome


SCRIPTED: Final = ("control", "calibration")


def judged(
    name: str, folder: Path, plan: Plan, events: Sequence[Event], seconds: float = 0.0, *, rules: Rules = RULES
) -> Outcome:
    """Judge a history. Where the harness failed nothing is judged: it is neither a pass nor a finding."""
    failure = next((event.why for event in events if isinstance(event, HarnessFailed)), "")
    if not events:
        failure = "the example has no history"
    judgement = None if failure else judge(events, rules.invariants)
    setting = next((event for event in events if isinstance(event, Setting)), None)
    signatures = [finding.signature for finding in judgement.findings] if judgement else []
    return Outcome(
        name=name,
        folder=folder,
        plan=plan,
        judgement=judgement,
        setting=setting,
        failure=failure,
        scripted=name.startswith(SCRIPTED),
        seconds=seconds,
        known=of_findings(signatures, setting.version if setting else "", plan.topology, rules.issues),
        measures=rules.measure(events) if rules.measure is not None and events else {},
    )


def play(
    session: Session,
    topology: Topology,
    plan: Plan,
    proof: Proof,
    name: str,
    watcher: Watcher,
    *,
    steps_done: Callable[[], None] = lambda: None,
    compared: Compared = AS_DRAWN,
    rules: Rules = RULES,
    run: Run | None = None,
) -> tuple[Outcome, Target]:
    """Run a whole plan on a fresh cluster, close that, judge what happened and write it down: in `run`, or the session's.

    `steps_done` is called before the example comes to its end. A failure of the harness ends the steps, and is told in
    the outcome. Raises StoreError, and what interrupts it; nothing of the cluster is left in any case.
    """
    began_s = time.monotonic()
    folder = (run or session.run).example(name)
    target = session.target(topology, plan, proof, folder / "logs", compared)
    try:
        try:
            target.start()
            for step in plan.steps:
                watcher.stepped(step)
                target.apply(step)
            steps_done()
            target.finish()
        except HarnessError as error:
            target.fail(str(error))
    finally:
        target.close()
    events = list(target.history)
    store.write_example(folder, plan, topology, events)
    return judged(name, folder, plan, events, time.monotonic() - began_s, rules=rules), target


def prove(session: Session, topology: Topology, examples: Examples) -> Proof:
    """Run control and calibration of a topology; they are judged too. Raises HarnessError if they cannot be run."""
    engine = engines.of(topology)
    prefills = max(topology.prefill_workers, default=0)
    control = _scripted(session, topology, calibration.control(topology.name, prefills), Proof(), "control", examples)
    measured = calibration.proof([control.history], engine)
    calibrated = _scripted(
        session,
        topology,
        calibration.calibration(topology.name, engine.workers_most, prefills),
        measured,
        "calibration",
        examples,
    )
    return calibration.proof([control.history, calibrated.history], engine)


def _scripted(session: Session, topology: Topology, plan: Plan, proof: Proof, name: str, examples: Examples) -> Target:
    outcome, target = play(
        session, topology, plan, proof, f"{name}-{topology.name}", examples.watcher, rules=examples.rules
    )
    if outcome.failure:
        raise HarnessError(f"the {name} run of {topology.name} failed: {outcome.failure}")
    examples.add(outcome)
    return target


def recheck(folders: Sequence[Path], watcher: Watcher, rules: Rules = RULES) -> Examples:
    """Judge stored histories again, without a cluster. Raises StoreError."""
    examples = Examples(watcher, rules)
    for folder in folders:
        plan = planfile.load(folder / "plan.json")
        events = list(history.read(folder / "history.jsonl"))
        examples.add(judged(folder.name, folder, plan, events, rules=rules))
    return examples
