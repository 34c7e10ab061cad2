"""The shrinker, on plans that fail with a known chance: to the least, within bounds, and on from where it was."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ftmodel import shrink
from ftmodel.errors import HarnessError
from ftmodel.rates import Rate
from ftmodel.shrink import Memory, Seen, Shrunk
from ftmodel.steps import Cancel, HolderOf, KillWorker, Plan, Settle, Step, Submit, Token

WANTED, OTHER = "A3/ran-on", "R5/panic"


def long_plan(seed: int, length: int = 30) -> Plan:
    """Traffic, with a cancel of a long request and a kill of another's worker somewhere in it."""
    chance = random.Random(seed)
    steps: list[Step] = []
    for number in range(length):
        requests = [step.name for step in steps if isinstance(step, Submit)]
        kind = chance.choice(("submit", "submit", "cancel", "kill", "settle")) if requests else "submit"
        name = f"{'r' if kind == 'submit' else 's'}{number}"
        if kind == "submit":
            steps.append(
                Submit(name=name, max_tokens=chance.choice((10, 50, 600)), api=chance.choice(("chat", "completion")))
            )
        elif kind == "cancel":
            of = chance.choice(requests)
            steps.append(Cancel(name=name, request=of, at=Token(of, chance.randint(1, 20))))
        elif kind == "kill":
            steps.append(KillWorker(name=name, worker=HolderOf(chance.choice(requests))))
        else:
            steps.append(Settle(name=name))
    return Plan(topology="toy", workers=4, patience="long", steps=tuple(steps))


def reaches(plan: Plan) -> int:
    """How often a long request is cancelled after which some worker is killed: three steps at least."""
    long = {step.name for step in plan.steps if isinstance(step, Submit) and step.max_tokens > 50}
    cancels = [place for place, step in enumerate(plan.steps) if isinstance(step, Cancel) and step.request in long]
    kills = [place for place, step in enumerate(plan.steps) if isinstance(step, KillWorker)]
    return sum(any(kill > cancel for kill in kills) for cancel in cancels)


class Toy:
    """A cluster that shows the signature with a chance each time it is reached; and tells how often it was asked."""

    def __init__(self, share: float, seed: int = 0, *, unknown: float = 0.0) -> None:
        self.share = share
        self.unknown = unknown
        self.chance = random.Random(seed)
        self.executed: list[Plan] = []

    def execute(self, plan: Plan) -> Seen | None:
        self.executed.append(plan)
        if self.chance.random() < self.unknown:
            return None
        failed = any(self.chance.random() < self.share for _ in range(reaches(plan)))
        return Seen(signatures=frozenset({WANTED} if failed else {OTHER}))


class Told:
    """Watches a search."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.executed_by_stage: list[str] = []

    def began(self, stage: str) -> None: ...

    def executed(self, stage: str, _plan: Plan, _seen: Seen | None) -> None:
        self.executed_by_stage.append(stage)

    def smallest(self, plan: Plan, rate: Rate) -> None:
        assert rate.failed > 0, "a plan that was never seen to fail is not a smaller one that fails"
        self.sizes.append(len(plan.steps))


def failing_plans(count: int) -> list[Plan]:
    return [plan for plan in map(long_plan, range(10 * count)) if reaches(plan)][:count]


def shrunk(plan: Plan, toy: Toy, **more: Any) -> Shrunk:
    return shrink.shrink(plan, WANTED, execute=toy.execute, **{"budget_s": 60.0, "watcher": Told(), **more})


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_it_comes_to_the_least_number_of_steps(share: float) -> None:
    plans = failing_plans(20)
    found = [shrunk(plan, Toy(share, seed)) for seed, plan in enumerate(plans)]
    assert sum(len(one.plan.steps) == 3 for one in found) >= 18
    assert all(reaches(one.plan) for one in found)
    assert all(one.done and one.from_steps == 30 for one in found)


def test_values_are_set_back_to_the_plainest_that_still_fails() -> None:
    [plan] = failing_plans(1)
    found = shrunk(plan, Toy(1.0)).plan
    submit, cancel, kill = found.steps
    assert submit == Submit(name=submit.name, max_tokens=200)
    assert cancel == Cancel(name=cancel.name, request=submit.name)
    assert isinstance(kill, KillWorker)
    assert (found.patience, found.workers) == ("short", 1)


def test_the_rate_is_that_of_runs_which_chose_nothing() -> None:
    plan = failing_plans(1)[0]
    toy = Toy(0.3)
    told = Told()
    found = shrunk(plan, toy, watcher=told)
    assert found.rate.of == shrink.RATE_RUNS
    assert toy.executed[-shrink.RATE_RUNS :] == [found.plan] * shrink.RATE_RUNS
    assert found.executions == len(toy.executed) - shrink.RATE_RUNS
    assert told.executed_by_stage.count(shrink.RATE) == shrink.RATE_RUNS
    assert told.sizes == sorted(told.sizes, reverse=True)


def test_the_same_memory_leads_to_the_same_result_without_an_execution() -> None:
    memory: Memory = {}
    plan = failing_plans(1)[0]
    first = shrunk(plan, Toy(0.3, 1), memory=memory)
    again = Toy(0.3, 2)
    assert shrunk(plan, again, memory=memory) == first
    assert again.executed == []


class BrokenOffError(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("after", [1, 5, 12, 40, 90])
def test_broken_off_at_any_time_it_goes_on_where_it_was(after: int) -> None:
    plan = failing_plans(1)[0]
    whole, memory = Toy(0.3, 1), {}
    expected = shrunk(plan, whole)
    broken = Toy(0.3, 1)

    def execute(one: Plan) -> Seen | None:
        if len(broken.executed) == after:
            raise BrokenOffError
        return broken.execute(one)

    with pytest.raises(BrokenOffError):
        shrink.shrink(plan, WANTED, execute=execute, budget_s=60.0, watcher=Told(), memory=memory)
    assert shrunk(plan, broken, memory=memory) == expected
    assert broken.executed == whole.executed, "nothing was executed twice, nor anything else"


def test_with_several_lanes_the_result_is_as_small() -> None:
    with ThreadPoolExecutor(max_workers=4) as workers:
        found = [shrunk(plan, Toy(0.5, seed), executor=workers, lanes=4) for seed, plan in enumerate(failing_plans(5))]
    assert sum(len(one.plan.steps) == 3 for one in found) >= 4


def test_what_does_not_fail_is_told_as_not_reproduced() -> None:
    plan = long_plan(0)
    toy = Toy(0.0)
    found = shrunk(plan, toy)
    assert not found.reproduced
    assert found.plan == plan
    assert (found.rate.failed, found.rate.of) == (0, shrink.FIRST_RUNS_MOST)


def test_executions_that_the_harness_failed_decide_nothing() -> None:
    found = [shrunk(plan, Toy(0.5, seed, unknown=0.1)) for seed, plan in enumerate(failing_plans(5))]
    assert sum(len(one.plan.steps) == 3 for one in found) >= 4
    assert all(one.unknown > 0 for one in found)


def test_a_harness_that_always_fails_is_no_result() -> None:
    with pytest.raises(HarnessError, match="failed each time"):
        shrunk(long_plan(0), Toy(0.5, unknown=1.0))


def test_when_the_time_is_over_the_smallest_so_far_is_the_result() -> None:
    """A run a second: of 60, a quarter at most is kept for the rate."""
    plan = failing_plans(1)[0]
    now = [0.0]
    toy = Toy(0.3)

    def execute(one: Plan) -> Seen | None:
        now[0] += 1.0
        return toy.execute(one)

    found = shrink.shrink(plan, WANTED, execute=execute, budget_s=60.0, watcher=Told(), clock=lambda: now[0])
    assert not found.done
    assert found.executions == 45
    assert found.rate.of == 15
    assert len(toy.executed) == 60


def test_plans_that_the_topology_does_not_admit_are_not_executed() -> None:
    toy = Toy(1.0)
    found = shrunk(failing_plans(1)[0], toy, admits=lambda plan: plan.workers >= 2)
    assert found.plan.workers == 2
    assert all(plan.workers >= 2 for plan in toy.executed)


def test_what_has_nothing_to_do_with_the_finding_goes_at_once() -> None:
    """The subject tells the request; the kill that it takes too is done to processes."""
    plan = failing_plans(1)[0]
    long = {step.name for step in plan.steps if isinstance(step, Submit) and step.max_tokens > 50}
    subject = next(step.request for step in plan.steps if isinstance(step, Cancel) and step.request in long)
    told, blind = Toy(1.0), Toy(1.0)
    assert len(shrunk(plan, told, subjects=[subject]).plan.steps) == 3
    shrunk(plan, blind)
    assert len(told.executed) < len(blind.executed)
