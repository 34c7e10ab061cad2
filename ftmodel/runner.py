"""Runs examples and gives the verdict: control and calibration first, then what is drawn, each on a fresh cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

from ftmodel import calibration, engines, history, planfile, store
from ftmodel.errors import HarnessError
from ftmodel.history import Event, HarnessFailed, Setting
from ftmodel.invariants import Judgement, judge
from ftmodel.session import Proof, Session
from ftmodel.steps import Mix, Patience, Plan, Step
from ftmodel.targets import Target
from ftmodel.targets.real.target import RealTarget
from ftmodel.topology import Topology

BACKGROUND: Final = 4
"""Patient examples that come to their end at once, while the next ones run."""

Value = Literal["holds", "violated", "unknown"]


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

    @property
    def value(self) -> Value:
        """Violated if anything was found; else unknown if the harness failed; else holds."""
        if self.judgement is not None and self.judgement.findings:
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
    outcomes: list[Outcome] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, outcome: Outcome) -> Outcome:
        """Keep an outcome and tell the watcher."""
        with self.lock:
            self.outcomes.append(outcome)
            self.watcher.ended(outcome)
        return outcome


class Live:
    """One example under way: boots lazily at its first step, and never raises for what the cluster does."""

    def __init__(
        self,
        name: str,
        folder: Path,
        head: Plan,
        topology: Topology,
        target: RealTarget,
        *,
        stepped: Callable[[Step], None],
        conclude: Callable[[Live], None],
    ) -> None:
        self._stepped = stepped
        self.name = name
        self.folder = folder
        self.head = head
        self.topology = topology
        self.target = target
        self.steps: list[Step] = []
        self.failure: str = ""
        self._conclude = conclude
        self._booted = False
        self.began_s = time.monotonic()

    @property
    def plan(self) -> Plan:
        """The plan as drawn so far."""
        return planfile.with_steps(self.head, self.steps)

    def apply(self, step: Step) -> None:
        """Do a step. After a failure of the harness steps are still drawn and kept, but no longer done."""
        self.steps.append(step)
        self._stepped(step)
        if self.failure:
            return
        try:
            if not self._booted:
                self._booted = True
                self.target.start()
            self.target.apply(step)
        except HarnessError as error:
            self.failure = str(error)

    def end(self) -> None:
        """No more steps."""
        self._conclude(self)

    def abandon(self) -> None:
        """The run is being ended: close the cluster, judge nothing."""
        self.target.close()


def conclude(live: Live) -> Outcome:
    """Bring an example to rest, close its cluster, judge it and write it down. Raises StoreError."""
    try:
        if not live.failure:
            live.target.finish()
    except HarnessError as error:
        live.failure = str(error)
    finally:
        if live.failure:
            live.target.fail(live.failure)
        live.target.close()
    events = list(live.target.history)
    store.write_example(live.folder, live.plan, live.topology, events)
    return judged(live.name, live.folder, live.plan, events, time.monotonic() - live.began_s)


SCRIPTED: Final = ("control", "calibration")


def judged(name: str, folder: Path, plan: Plan, events: Sequence[Event], seconds: float = 0.0) -> Outcome:
    """Judge a history. Where the harness failed nothing is judged: it is neither a pass nor a finding."""
    failure = next((event.why for event in events if isinstance(event, HarnessFailed)), "")
    if not events:
        failure = "the example has no history"
    return Outcome(
        name=name,
        folder=folder,
        plan=plan,
        judgement=None if failure else judge(events),
        setting=next((event for event in events if isinstance(event, Setting)), None),
        failure=failure,
        scripted=name.startswith(SCRIPTED),
        seconds=seconds,
    )


def play(session: Session, topology: Topology, plan: Plan, proof: Proof, name: str) -> tuple[Outcome, Target]:
    """Run a whole plan on a fresh cluster. Raises StoreError."""
    folder = session.run.example(name)
    target = session.target(topology, plan, proof, folder / "logs")
    live = Live(name, folder, plan, topology, target, stepped=lambda _step: None, conclude=lambda _live: None)
    try:
        for step in plan.steps:
            live.apply(step)
    except BaseException:
        live.target.close()
        raise
    return conclude(live), target


def prove(session: Session, topology: Topology, examples: Examples) -> Proof:
    """Run control and calibration of a topology; they are judged too. Raises HarnessError if they cannot be run."""
    control = _scripted(session, topology, calibration.control(topology.name), Proof(), "control", examples)
    measured = calibration.proof([control.history], engines.find(topology.engine))
    calibrated = _scripted(session, topology, calibration.calibration(topology.name), measured, "calibration", examples)
    return calibration.proof([control.history, calibrated.history], engines.find(topology.engine))


def _scripted(session: Session, topology: Topology, plan: Plan, proof: Proof, name: str, examples: Examples) -> Target:
    outcome, target = play(session, topology, plan, proof, f"{name}-{topology.name}")
    if outcome.failure:
        raise HarnessError(f"the {name} run of {topology.name} failed: {outcome.failure}")
    examples.add(outcome)
    return target


class Drawn:
    """Opens an example for each plan that is drawn, by turns over the topologies, until there are enough."""

    def __init__(
        self,
        session: Session,
        proofs: Sequence[tuple[Topology, Proof]],
        examples: Examples,
        *,
        count: int | None,
        until_s: float | None = None,
    ) -> None:
        """`count` examples, or as many as begin before `until_s` on the monotonic clock."""
        self._until_s = until_s
        self._session = session
        self._proofs = proofs
        self._count = count
        self._examples = examples
        self._opened = 0
        self._pool = ThreadPoolExecutor(max_workers=BACKGROUND, thread_name_prefix="patient")
        self._room = threading.BoundedSemaphore(BACKGROUND)
        self._pending: list[Future[None]] = []

    def __call__(self, workers: int, patience: Patience, limit: int, mix: Mix) -> Live | None:
        """Open the next example with these drawn values, or None if there were enough."""
        self._raise_early()
        if self._session.failure:
            raise HarnessError(self._session.failure)
        late = self._until_s is not None and time.monotonic() > self._until_s
        if late or (self._count is not None and self._opened >= self._count):
            return None
        topology, proof = self._proofs[self._opened % len(self._proofs)]
        self._opened += 1
        head = Plan(
            topology=topology.name,
            workers=_nearest(workers, topology.workers),
            migration_limit=_nearest(limit, topology.migration_limits),
            patience=patience,
            mix=mix,
        )
        name = f"{self._opened:03d}"
        folder = self._session.run.example(name)
        target = self._session.target(topology, head, proof, folder / "logs")
        return Live(
            name, folder, head, topology, target, stepped=self._examples.watcher.stepped, conclude=self._conclude
        )

    def _conclude(self, live: Live) -> None:
        if not live.steps:
            return
        fixed = live.topology.http_port is not None or live.topology.system_port is not None
        if live.head.patience == "short" or fixed:  # fixed ports bear one cluster at a time
            self._examples.add(conclude(live))
            return
        self._room.acquire()
        self._pending.append(self._pool.submit(self._conclude_later, live))

    def _conclude_later(self, live: Live) -> None:
        try:
            self._examples.add(conclude(live))
        finally:
            self._room.release()

    def _raise_early(self) -> None:
        """What went wrong in the background (a full disk) ends the run at the next example."""
        for future in self._pending:
            if future.done():
                future.result()

    def finish(self) -> None:
        """Wait for the patient ones. Raises what went wrong in them."""
        self._pool.shutdown(wait=True)
        self._raise_early()


def _nearest(wanted: int, allowed: Sequence[int]) -> int:
    return min(allowed, key=lambda value: (abs(value - wanted), value))


def recheck(folders: Sequence[Path], watcher: Watcher) -> Examples:
    """Judge stored histories again, without a cluster. Raises StoreError."""
    examples = Examples(watcher)
    for folder in folders:
        plan = planfile.load(folder / "plan.json")
        events = list(history.read(folder / "history.jsonl"))
        examples.add(judged(folder.name, folder, plan, events))
    return examples
