"""Defects of the simulated cluster that show only sometimes: are their examples made as small as can be, and by how much work?

    python benchmarks/shrinking.py [--every 5] [--offset 0] [--defects ID,...] [--chance 0.3] [--coin run|hook] [--seed 1] [--processes 2]

What is made flaky is the failing: one coin is tossed for each run, whose seed has nothing to do with the plan's nor the
cluster's, and in three of ten runs the defect is there; a run that reaches it then fails. With `--coin hook` a coin is
tossed each time that the defect is reached, as `--defect ID:P` does. That is another question: what is reached a hundred
times in a run fails in every one, what must go wrong ten times in a row in none, and of a defect that has to last ("a
worker that came back is never chosen") nothing is left.

Plans of 30 steps are drawn until one, of 25 or more, is violated; that is made smaller for the violation that comes first
in the order of the invariants. One that does not fail again is given up, as a user would, and the next is taken; its
executions count. One that is violated without the defect too is a false alarm of the tester: it is passed over, and the
benchmark fails. The rate that 40 replays of the result give is compared with that of a thousand further ones. "known
least" is that of the defect, whatever it shows; for one signature it may be more.
"""

from __future__ import annotations

import argparse
import importlib
import random
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from ftmodel import shrink, topology
from ftmodel.invariants import Finding
from ftmodel.lanes import Collected
from ftmodel.prove import Grounds
from ftmodel.rates import Rate
from ftmodel.shrink import Seen, Shrunk
from ftmodel.steps import Plan
from ftmodel.targets.simulated import Defect, Planted, catalogue

DRAWN = 100
"""Plans that are drawn at once."""
BATCHES = 20
LONG = 25
STEPS = 30
TRUE_RUNS = 1000
BUDGET_S = 600.0
LEAST_OF_20, WITHIN_OF_20, EXECUTIONS = 18, 18, 120


@dataclass(frozen=True)
class Flaky:
    """How a defect shows only sometimes."""

    chance: float
    coin: str
    """Tossed for each "run", or each time that the "hook" is reached."""


@dataclass(frozen=True)
class Row:
    """What became of one defect."""

    defect: str
    least: int
    shrunk: Shrunk | None
    true: Rate
    seconds: float
    given_up: int = 0
    """Executions of plans that did not fail again."""
    false_alarms: int = 0
    """Plans that show the violation without the defect too."""

    @property
    def is_least(self) -> bool:
        """It came to the known least number of steps, or below."""
        return self.shrunk is not None and len(self.shrunk.plan.steps) <= self.least

    @property
    def executions(self) -> int:
        """Those that chose the result, and those of plans that were given up."""
        return self.given_up + (self.shrunk.executions if self.shrunk else 0)

    @property
    def holds(self) -> bool:
        """The measured interval holds the true rate."""
        if self.shrunk is None:
            return False
        low, high = self.shrunk.rate.interval
        return low <= self.true.share <= high

    def cells(self) -> tuple[str, ...]:
        """One row of the table."""
        if self.shrunk is None:
            return (f"`{self.defect}`", "not found", "", "", str(self.least), "", "", "", "")
        one = self.shrunk
        return (
            f"`{self.defect}`", one.signature, str(one.from_steps), str(len(one.plan.steps)), str(self.least),
            str(self.executions), str(one.first), str(one.rate), f"{100 * self.true.share:.1f}%{'' if self.holds else ' !'}",
        )  # fmt: skip


class Quiet:
    """Watches a search without a word."""

    def began(self, stage: str) -> None: ...

    def executed(self, stage: str, plan: Plan, seen: Seen | None) -> None: ...

    def smallest(self, plan: Plan, rate: Rate) -> None: ...


class Clusters:
    """Simulated clusters with one defect, each with a seed of its own; the defect is there by chance, or acts by chance."""

    def __init__(self, defect: Defect, flaky: Flaky, seed: int) -> None:
        self._grounds = Grounds(topology.find("simulated"))
        self._flaky = flaky
        self._planted = (Planted(defect, flaky.chance if flaky.coin == "hook" else 1.0),)
        self._seed = seed << 32
        self._coin = random.Random(f"{defect.id} {seed}")
        self._count = 0

    def findings(self, plan: Plan) -> tuple[Finding, ...]:
        """What a run of the plan shows, in the order of the invariants."""
        self._count += 1
        there = self._flaky.coin == "hook" or self._coin.random() < self._flaky.chance
        events = self._grounds.history(plan, seed=self._seed + self._count, planted=self._planted if there else ())
        order = [cls.id for cls in self._grounds.invariants]
        return tuple(sorted(self._grounds.judge(events).findings, key=lambda one: order.index(one.invariant)))

    def is_false_alarm(self, plan: Plan, signature: str) -> bool:
        """The plan shows it on a cluster without the defect too."""
        events = self._grounds.history(plan, seed=self._seed + self._count)
        return any(finding.signature == signature for finding in self._grounds.judge(events).findings)

    def execute(self, plan: Plan) -> Seen:
        """As the shrinker wants it."""
        return Seen(signatures=frozenset(finding.signature for finding in self.findings(plan)))

    def drawn(self, seed: int) -> Iterator[Plan]:
        """Long plans, as a run draws them."""
        strategies = importlib.import_module("ftmodel.strategies")
        for batch in range(BATCHES):
            kept = Collected(self._grounds.topology, DRAWN)
            strategies.generate(
                kept, examples=DRAWN, steps=STEPS, seed=seed + (batch << 16),
                timeouts_ms=self._grounds.promises.timeouts_ms(),
            )  # fmt: skip
            yield from (plan for plan in kept.plans if len(plan.steps) >= LONG)


def measure(name: str, flaky: Flaky, seed: int) -> Row:
    """Find, make smaller, and measure."""
    [defect] = (one for one in catalogue.ours() if one.id == name)
    clusters = Clusters(defect, flaky, seed)
    given_up = false_alarms = 0
    began_s = time.monotonic()
    for plan in clusters.drawn(seed):
        findings = clusters.findings(plan)
        if not findings:
            continue
        signature = findings[0].signature
        if clusters.is_false_alarm(plan, signature):
            false_alarms += 1
            continue
        subjects = [finding.subject for finding in findings if finding.signature == signature]
        found = shrink.shrink(
            plan, signature, execute=clusters.execute, budget_s=BUDGET_S, watcher=Quiet(), subjects=subjects
        )
        if not found.reproduced:
            given_up += found.executions
            continue
        seconds = time.monotonic() - began_s
        true = sum(signature in clusters.execute(found.plan).signatures for _ in range(TRUE_RUNS))
        return Row(name, defect.least_steps, found, Rate(failed=true, of=TRUE_RUNS), seconds, given_up, false_alarms)
    return Row(name, defect.least_steps, None, Rate(failed=0, of=0), 0.0, given_up, false_alarms)


def main() -> None:
    """Measure them all, side by side; exit 0 if as many as are wanted came to the least, within the work wanted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", type=int, default=5, help="of the catalogue, each so-manieth (5: 20 defects)")
    parser.add_argument("--offset", type=int, default=0, help="of the catalogue, from this one on")
    parser.add_argument("--defects", help="these instead")
    parser.add_argument("--chance", type=float, default=0.3)
    parser.add_argument("--coin", choices=("run", "hook"), default="run", help="tossed for each run, or each time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    ids = [defect.id for defect in catalogue.ours()][arguments.offset :: arguments.every]
    ids = arguments.defects.split(",") if arguments.defects else ids
    with ProcessPoolExecutor(max_workers=arguments.processes) as pool:
        flaky = Flaky(arguments.chance, arguments.coin)
        asked = [pool.submit(measure, name, flaky, arguments.seed) for name in ids]
        columns = ("defect", "signature", "from", "to", "least", "executions", "as it was", "40 replays", "true rate")
        print("| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), sep="\n")
        rows = []
        for one in asked:
            rows.append(one.result())
            print("| " + " | ".join(rows[-1].cells()) + " |", flush=True)
    executions = statistics.median(row.executions for row in rows)
    least, held = sum(row.is_least for row in rows), sum(row.holds for row in rows)
    print(f"\n{least} of {len(rows)} to the known least, median {executions:g} executions")
    print(f"{held} of {len(rows)} intervals hold the true rate; {sum(row.seconds for row in rows):.0f} s in all")
    false_alarms = sum(row.false_alarms for row in rows)
    print(f"{false_alarms} plans passed over that are violated without the defect too")
    share = len(rows) / 20
    good = (
        not false_alarms and least >= LEAST_OF_20 * share and held >= WITHIN_OF_20 * share and executions <= EXECUTIONS
    )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
