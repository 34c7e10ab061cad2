"""Which runs of a plan, each on another topology, are compared with which, and what X3 says of them.

An example of such a command is named `<plan>-<topology>`, or `<plan>-<topology>-again-<n>` for a fresh run that decides a
suspicion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ftmodel import axes, history
from ftmodel.invariants.agreement import FRESH_LEAST, AxisName, Point, Run, TopologiesAgree, compared, run_of, suspected
from ftmodel.invariants.base import Finding
from ftmodel.invariants.judge import Count, Judgement
from ftmodel.known import of_findings
from ftmodel.runner import Outcome, Rules
from ftmodel.topology import Topology

AGAIN: Final = "again"
TIMES: Final = FRESH_LEAST + 1
"""Fresh runs of each side, where nothing else is said: one may prove nothing."""


def named(plan: str, topology: Topology, again: int = 0) -> str:
    """The name of an example."""
    return f"{plan}-{topology.name}" + (f"-{AGAIN}-{again}" if again else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A plan on one topology: its first run, and the fresh ones."""

    first: tuple[Outcome, Run]
    fresh: tuple[tuple[Outcome, Run], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A plan on the base, and on a topology that is compared with it."""

    plan: str
    axis: AxisName
    topology: Topology
    base: Side
    other: Side

    @property
    def suspicions(self) -> tuple[Point, ...]:
        """Where the two first runs differ."""
        return suspected(self.base.first[1], self.other.first[1])


class Runs:
    """The runs of each plan so far; a history is read once."""

    def __init__(self, base: Topology, others: Sequence[Topology]) -> None:
        self._base = base
        self._others = tuple(others)
        self._runs: dict[str, tuple[Outcome, Run]] = {}
        self._plans: dict[str, None] = {}

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Take these outcomes. One of which nothing was judged is left out: it is told as a doubt. Raises StoreError."""
        for outcome in outcomes:
            if outcome.scripted or outcome.judgement is None or outcome.name in self._runs:
                continue
            events = history.read(outcome.folder / "history.jsonl")
            run = run_of(outcome.name, events, outcome.judgement, outcome.known)
            self._runs[outcome.name] = outcome, run
            self._plans[outcome.name.partition("-")[0]] = None

    def pairs(self) -> Iterator[Pair]:
        """What can be compared."""
        for plan in self._plans:
            base = self._side(plan, self._base)
            for top in self._others:
                other = self._side(plan, top)
                if base is not None and other is not None:
                    yield Pair(plan=plan, axis=axes.between(self._base, top), topology=top, base=base, other=other)

    def _side(self, plan: str, top: Topology) -> Side | None:
        first = self._runs.get(named(plan, top))
        again = f"{named(plan, top)}-{AGAIN}-"
        fresh = tuple(run for name, run in sorted(self._runs.items()) if name.startswith(again))
        return Side(first=first, fresh=fresh) if first is not None else None

    def doubtful(self) -> list[tuple[str, tuple[Topology, ...]]]:
        """Each plan that must be run afresh, and on which topologies."""
        found: dict[str, dict[str, Topology]] = {}
        for pair in self.pairs():
            if pair.suspicions:
                tops = found.setdefault(pair.plan, {self._base.name: self._base})
                tops[pair.topology.name] = pair.topology
        return [(plan, tuple(tops.values())) for plan, tops in found.items()]


@dataclass(slots=True)
class _Told:
    """What X3 says, by example."""

    counts: dict[str, Count] = field(default_factory=dict)
    findings: dict[str, list[Finding]] = field(default_factory=dict)


def settled(runs: Runs, outcomes: Sequence[Outcome], rules: Rules) -> list[Outcome]:
    """The outcomes with what X3 found: in the fresh run that went wrong, or counted in the first run that it compared."""
    told = _Told()
    for pair in runs.pairs():
        _judge(pair, told)
    return [_with(outcome, told, rules) for outcome in outcomes]


def _judge(pair: Pair, told: _Told) -> None:
    invariant = TopologiesAgree()
    violated = 0
    for point in pair.suspicions:
        ones, others = ([run for _, run in side.fresh] for side in (pair.base, pair.other))
        if _is_wrong(pair.base.first[1], point):
            ones, others = others, ones
        finding = invariant.compare(pair.axis, point, ones, others)
        if finding is not None:
            violated += 1
            bad = next(run.name for run in others if _is_wrong(run, point))
            told.findings.setdefault(bad, []).append(finding)
    first = pair.other.first[1]
    told.counts[first.name] = Count(
        evaluated=compared(pair.base.first[1], first), violated=violated, unknown=invariant.tally.unknown
    )


def _is_wrong(run: Run, point: Point) -> bool:
    seen = run.at(point)
    return seen is not None and bool(seen.wrong)


def _with(outcome: Outcome, told: _Told, rules: Rules) -> Outcome:
    judged, findings = outcome.judgement, told.findings.get(outcome.name, [])
    if judged is None or (outcome.name not in told.counts and not findings):
        return outcome
    counts = {**judged.invariants}
    if outcome.name in told.counts:
        counts[TopologiesAgree.id] = told.counts[outcome.name]
    whole: Judgement = dataclasses.replace(judged, findings=(*judged.findings, *findings), invariants=counts)
    version = outcome.setting.version if outcome.setting else ""
    signatures = [finding.signature for finding in whole.findings]
    return dataclasses.replace(
        outcome, judgement=whole, known=of_findings(signatures, version, outcome.plan.topology, rules.issues)
    )
