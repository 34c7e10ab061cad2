"""How fast the simulated cluster is: beside a machine that does nothing, for each further token, and as examples grow.

    python benchmarks/simulated.py [--examples 200] [--rounds 3] [--seed 0]

- A state machine of the same shape, with the same draws, an empty target and no invariants, is played in the same run;
  each request has 20 tokens. Told is the empty one's time over that of the simulated cluster with all invariants.
- The same plan is played with requests of 20 tokens and of 1,020: what a further token costs, with all that the longer
  example brings (lists, samples, log lines, the judge).
- Examples of 10, 100 and 1,000 steps: what a step costs. Longer plans are the shorter ones, drawn, one after the other.

Times are of the processor, medians of the rounds. Exits 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from ftmodel import planfile, strategies, topology
from ftmodel.prove import Example, Grounds
from ftmodel.steps import Plan, Step, Submit

TOKENS = 20
FURTHER_TOKENS = 1000
STEPS = 30
LEAST_RATIO = 0.35
MOST_US = 5.0
MOST_GROWTH = 1.5
"""A step of an example of 1,000 costs at most so many times what one of an example of 100 does."""
PARTS = 34
"""So many drawn plans of 30 steps have more than 1,000."""


def short(step: Step) -> Step:
    """The step, with 20 tokens if it is a request."""
    if not isinstance(step, Submit):
        return step
    return dataclasses.replace(step, max_tokens=TOKENS, min_tokens=0, stop_at=0)


class Short(Example):
    """An example on a simulated cluster whose requests have 20 tokens."""

    def apply(self, step: Step) -> None:
        """Do it, shorter."""
        super().apply(short(step))


class Empty:
    """The same with nothing behind it; it keeps what it is given."""

    def __init__(self, head: Plan) -> None:
        self.head = head
        self.steps: list[Step] = []

    def apply(self, step: Step) -> None:
        """Make it shorter, and keep it."""
        self.steps.append(short(step))

    def end(self) -> None:
        """Judge nothing."""

    def abandon(self) -> None:
        """Leave nothing behind."""


def spent_s(action: Callable[[], object]) -> float:
    """What it takes, of the processor."""
    before_s = time.process_time()
    action()
    return time.process_time() - before_s


def play(grounds: Grounds, opener: Callable[[Plan, int], Any], examples: int, seed: int) -> int:
    """Draw, and hand to these examples."""
    return strategies.search(
        opener, examples=examples, steps=STEPS, seed=seed, timeouts_ms=grounds.promises.timeouts_ms()
    )


def ratio(grounds: Grounds, examples: int, seed: int) -> tuple[float, float]:
    """Examples a second on the simulated cluster, and on nothing."""
    played = play(grounds, lambda head, _: Empty(head), examples, seed)
    empty_s = spent_s(lambda: play(grounds, lambda head, _: Empty(head), examples, seed))
    full_s = spent_s(lambda: play(grounds, lambda head, sim_seed: Short(grounds, head, sim_seed, ()), examples, seed))
    return played / full_s, played / empty_s


def traffic(max_tokens: int) -> Plan:
    """Twenty requests, at once."""
    steps = tuple(Submit(name=f"r{number}", max_tokens=max_tokens) for number in range(1, 21))
    return Plan(topology="simulated", workers=4, migration_limit=3, steps=steps)


def of_plan(grounds: Grounds, plan: Plan) -> float:
    """What it takes to play and judge it."""
    return spent_s(lambda: grounds.judge(grounds.history(plan, seed=0)))


def token_us(grounds: Grounds) -> float:
    """What a further token costs."""
    further_s = of_plan(grounds, traffic(TOKENS + FURTHER_TOKENS)) - of_plan(grounds, traffic(TOKENS))
    return further_s / (FURTHER_TOKENS * len(traffic(TOKENS).steps)) * 1e6


def long_plan(grounds: Grounds, seed: int) -> Plan:
    """Drawn plans, one after the other; names are those of no other."""
    drawn: list[Empty] = []

    def opener(head: Plan, _: int) -> Empty:
        drawn.append(Empty(head))
        return drawn[-1]

    play(grounds, opener, PARTS + 10, seed)
    steps: list[Step] = []
    for part, one in enumerate([one for one in drawn if one.steps][:PARTS], start=1):
        steps += [renamed(step, f"p{part}") for step in one.steps]
    return Plan(topology="simulated", workers=4, frontends=2, migration_limit=3, steps=tuple(steps))


def renamed(value: Any, part: str) -> Any:
    """With its own name, and those of others that it names, those of this part."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        if dataclasses.is_dataclass(own):
            changed[field.name] = renamed(own, part)
        elif field.name in ("name", "request", "step"):
            changed[field.name] = f"{part}{own}"
    return dataclasses.replace(value, **changed)


def step_us(grounds: Grounds, plan: Plan, steps: int) -> float:
    """What a step of an example of so many costs."""
    parts = [
        plan.steps[start : start + steps] for start in range(0, min(10 * steps, len(plan.steps) - steps + 1), steps)
    ]
    took_s = [of_plan(grounds, planfile.with_steps(plan, part)) for part in parts]
    return sum(took_s) / (steps * len(parts)) * 1e6


def main() -> int:
    """Measure, tell, and return 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200, help="of one round, against the empty machine")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    grounds = Grounds(topology.find("simulated"))
    rates = [ratio(grounds, args.examples, args.seed + number) for number in range(args.rounds)]
    full, empty = (statistics.median(column) for column in zip(*rates, strict=True))
    share = statistics.median(one / other for one, other in rates)
    print(f"examples of {STEPS} steps, {TOKENS} tokens a request: {full:.1f} a second, on nothing {empty:.1f}")
    print(f"ratio {share:.2f}, expected at least {LEAST_RATIO}")
    token = statistics.median(token_us(grounds) for _ in range(args.rounds))
    print(f"a further token: {token:.2f} µs, expected at most {MOST_US:g} µs")
    plan = long_plan(grounds, args.seed)
    costs = {
        steps: statistics.median(step_us(grounds, plan, steps) for _ in range(args.rounds)) for steps in (10, 100, 1000)
    }
    for steps, cost in costs.items():
        print(f"a step of an example of {steps:>5}: {cost / 1000:.2f} ms")
    growth = costs[1000] / costs[100]
    print(f"growth from 100 to 1000: {growth:.2f}, expected at most {MOST_GROWTH} (linear: 1)")
    return int(share < LEAST_RATIO or token > MOST_US or growth > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
