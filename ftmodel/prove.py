"""The proof of the tester: plant a defect in the simulated cluster, and show that it is found, how soon, and how small.

On a simulated cluster a violation is raised at an example's end, so that the search that draws the examples can shrink
them. It is an exception of a class of its own for each invariant: by the class one bug is told from another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Final, Protocol

from ftmodel import calibration, engines, planfile, reductions, systems
from ftmodel.history import SIMULATED, Event, Interval, Setting
from ftmodel.invariants import INVARIANTS, Finding, Invariant, Judgement, judge
from ftmodel.invariants.base import missing_need
from ftmodel.lanes import mended
from ftmodel.session import Proof, setting_of
from ftmodel.steps import Plan, Step
from ftmodel.targets.simulated import Defect, Planted, SimulatedTarget, release_of
from ftmodel.topology import Topology

SEEDS_TRIED: Final = 3
"""Of each candidate for a smaller plan, besides the seed that was found."""


class ViolationError(Exception):
    """An example violated an invariant: its plan, the seed of its cluster, and all that was found."""

    def __init__(self, plan: Plan, seed: int, findings: Sequence[Finding]) -> None:
        first = findings[0]
        super().__init__(f"{first.signature}: {first.message}")
        self.plan = plan
        self.seed = seed
        self.findings = tuple(findings)

    @property
    def signature(self) -> str:
        """Of the first finding, in the order of the invariants."""
        return self.findings[0].signature


class Grounds:
    """Simulated clusters of one topology, with what control and calibration prove of it."""

    def __init__(self, topology: Topology, invariants: Sequence[type[Invariant]] = INVARIANTS) -> None:
        self.topology = topology
        self.invariants = tuple(invariants)
        self.system = systems.find(topology.system)
        self.engine = engines.of(topology)
        self.release = release_of(self.system)
        self.promises = self.system.promises(topology, self.release)
        self.proof = Proof()
        self._order = {cls.id: place for place, cls in enumerate(self.invariants)}
        self._errors = {cls.id: type(f"{cls.id}ViolationError", (ViolationError,), {}) for cls in self.invariants}
        prefills = max(topology.prefill_workers, default=0)
        self._control = calibration.control(topology.name, prefills)
        control = self.history(self._control, seed=0)
        self.proof = calibration.proof([control], self.engine)
        calibrated = self.history(calibration.calibration(topology.name, self.engine.workers_most, prefills), seed=0)
        self.proof = calibration.proof([control, calibrated], self.engine)

    @property
    def applying(self) -> tuple[str, ...]:
        """The invariants that clusters can violate, but for those that lack something here; the harness's judge us."""
        setting = self._setting(self._control, Interval(0.0, 0.0))
        return tuple(cls.id for cls in self.invariants if cls.slugs and missing_need(cls, setting) is None)

    def _setting(self, plan: Plan, at: Interval) -> Setting:
        return setting_of(at, self.promises, self.topology, plan, self.proof, version=SIMULATED)

    def target(self, plan: Plan, seed: int, planted: Sequence[Planted] = ()) -> SimulatedTarget:
        """A cluster of this seed, not started yet."""
        return SimulatedTarget(
            self.system, self.release, self.engine, self.topology, plan, setting=partial(self._setting, plan),
            seed=seed, planted=planted,
        )  # fmt: skip

    def history(self, plan: Plan, *, seed: int, planted: Sequence[Planted] = ()) -> list[Event]:
        """Run a whole plan."""
        target = self.target(plan, seed, planted)
        target.start()
        for step in plan.steps:
            target.apply(step)
        target.finish()
        target.close()
        return list(target.history)

    def judge(self, events: Sequence[Event]) -> Judgement:
        """What a history shows."""
        return judge(events, self.invariants)

    def check(self, plan: Plan, seed: int, events: Sequence[Event]) -> Judgement:
        """Judge it. Raises a ViolationError, of the class of the first invariant that is violated."""
        judgement = self.judge(events)
        findings = sorted(judgement.findings, key=lambda finding: self._order[finding.invariant])
        if findings:
            error = self._errors[findings[0].invariant]
            raise error(plan, seed, findings)
        return judgement

    def smallest(self, error: ViolationError, planted: Sequence[Planted]) -> ViolationError:
        """A violation by a plan that is as small as can be found: by any, for all come of what is planted.

        A smaller plan has its random choices elsewhere, so that a race may need another order of what is simultaneous:
        once it is small, each candidate is tried with several seeds of the cluster.
        """
        smallest = error
        for seeds in ((error.seed,), (error.seed, *range(SEEDS_TRIED))):

            def fails(plan: Plan, seeds: Sequence[int] = seeds) -> bool:
                nonlocal smallest
                for seed in seeds:
                    try:
                        self.check(plan, seed, self.history(plan, seed=seed, planted=planted))
                    except ViolationError as smaller:
                        smallest = smaller
                        return True
                return False

            reductions.smallest(smallest.plan, fails)
        return smallest


class Example:
    """One example on a simulated cluster; at its end it raises what was violated."""

    def __init__(self, grounds: Grounds, head: Plan, seed: int, planted: Sequence[Planted]) -> None:
        self._grounds = grounds
        self._head = mended(head, grounds.topology)
        self._seed = seed
        self._steps: list[Step] = []
        self._target = grounds.target(self._head, seed, planted)
        self._target.start()

    def apply(self, step: Step) -> None:
        """Do a step, or arm it."""
        self._steps.append(step)
        self._target.apply(step)

    def end(self) -> None:
        """Bring it to rest and judge it. Raises a ViolationError."""
        if self._steps:
            self._target.finish()
            self._target.close()
            plan = planfile.with_steps(self._head, self._steps)
            self._grounds.check(plan, self._seed, list(self._target.history))

    def abandon(self) -> None:
        """End it unjudged."""


class Drawing(Protocol):
    """What draws (`ftmodel.strategies`)."""

    def search(
        self,
        opener: Callable[[Plan, int], Example],
        *,
        examples: int,
        steps: int,
        seed: int,
        timeouts_ms: Sequence[int],
        apart: bool,
    ) -> int:
        """Play drawn examples until one raises that; returns how many were played."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """What one search came to."""

    examples: int
    """How many were played until one was violated, or in all."""
    error: ViolationError | None = None
    """The violation, shrunk; None if there was none."""
    caught_by: frozenset[str] = frozenset()
    """The invariants that the first violated example violated, and the smallest."""

    @property
    def steps(self) -> int:
        """How many the shrunk plan has."""
        return len(self.error.plan.steps) if self.error else 0


def seek(
    grounds: Grounds, drawing: Drawing, planted: Sequence[Planted], *, examples: int, steps: int, seed: int
) -> Find:
    """Search with these defects planted, or with none."""
    opened = 0
    first: list[int] = []

    class Noting(Example):
        def end(self) -> None:
            try:
                super().end()
            except ViolationError:
                first.append(opened)
                raise

    def opener(head: Plan, sim_seed: int) -> Example:
        nonlocal opened
        opened += 1
        return Noting(grounds, head, sim_seed, planted)

    timeouts_ms, apart = grounds.promises.timeouts_ms(), bool(grounds.topology.prefill_workers)
    try:
        drawing.search(opener, examples=examples, steps=steps, seed=seed, timeouts_ms=timeouts_ms, apart=apart)
    except ViolationError as error:
        smallest = grounds.smallest(error, planted)
        caught_by = frozenset(finding.invariant for finding in (*error.findings, *smallest.findings))
        return Find(examples=first[0], error=smallest, caught_by=caught_by)
    return Find(examples=opened)


LEAST_MARGIN: Final = 1
"""A plan that has this many steps more than the least that is known counts as shrunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How a defect was found, over several seeds."""

    defect: Defect
    finds: tuple[Find, ...] = field(default_factory=tuple)

    @property
    def found(self) -> int:
        """In so many searches it was."""
        return sum(find.error is not None for find in self.finds)

    @property
    def examples(self) -> float:
        """Median of the examples until it was."""
        return median(find.examples for find in self.finds)

    @property
    def steps(self) -> int:
        """Median of what it shrunk to; 0 if it was never found."""
        shrunk = [find.steps for find in self.finds if find.error is not None]
        return int(median(shrunk)) if shrunk else 0

    @property
    def shrunk(self) -> int:
        """In so many searches it shrunk to the least that is known, or one step more."""
        most = self.defect.least_steps + LEAST_MARGIN
        return sum(find.error is not None and find.steps <= most for find in self.finds)

    @property
    def signatures(self) -> tuple[str, ...]:
        """By which it was found, shrunk."""
        return tuple(sorted({find.error.signature for find in self.finds if find.error is not None}))

    @property
    def caught_by(self) -> frozenset[str]:
        """The invariants that it violated, in the first examples and in the smallest."""
        return frozenset().union(*(find.caught_by for find in self.finds))


def prove(
    grounds: Grounds, drawing: Drawing, defects: Sequence[Planted], *, seeds: Sequence[int], examples: int, steps: int
) -> Iterator[Row]:
    """Plant each defect by itself and search for it, once for each seed."""
    for one in defects:
        finds = tuple(seek(grounds, drawing, [one], examples=examples, steps=steps, seed=seed) for seed in seeds)
        yield Row(defect=one.defect, finds=finds)


def false_alarms(grounds: Grounds, drawing: Drawing, *, examples: int, steps: int) -> list[str]:
    """What is found where nothing is planted, within so many examples; a search begins anew after each find."""
    alarms: list[str] = []
    played = 0
    while played < examples:
        find = seek(grounds, drawing, (), examples=examples - played, steps=steps, seed=CLEAN_SEED + len(alarms))
        played += find.examples
        if find.error is not None:
            alarms.append(str(find.error))
    return alarms


CLEAN_SEED: Final = 1000
"""Others than those of the searches for defects."""
