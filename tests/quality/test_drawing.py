"""What is drawn: the same plans for the same seed, worth running, and never a complaint of Hypothesis."""

from __future__ import annotations

import dataclasses
import importlib
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from ftmodel import planfile
from ftmodel.errors import HarnessError
from ftmodel.outline import Outline
from ftmodel.steps import FAULTS, FRONTENDS, KINDS, SLOTS, Begun, OnService, Plan, Step, Submit

strategies: Any = importlib.import_module("ftmodel.strategies")

TIMEOUTS_MS = (9000, 11000)
TOPOLOGY = "aggregated"


class Toy:
    """An example on a cluster that violates and fails at random, as a real one does: it never raises for that."""

    def __init__(self, head: Plan, chance: random.Random) -> None:
        self.head = head
        self.chance = chance
        self.steps: list[Step] = []
        self.violations = 0
        self.failure = ""
        self.ends: list[str] = []

    @property
    def plan(self) -> Plan:
        return planfile.with_steps(self.head, self.steps)

    def apply(self, step: Step) -> None:
        self.steps.append(step)
        if self.failure:
            return
        try:
            self.do()
        except HarnessError as error:
            self.failure = str(error)

    def do(self) -> None:
        if self.chance.random() < 0.01:
            raise HarnessError("a worker never booted")
        self.violations += self.chance.random() < 0.05

    def end(self) -> None:
        self.ends.append("end")

    def abandon(self) -> None:
        self.ends.append("abandon")


@dataclass
class Drawn:
    """Opens toys until there are enough."""

    count: int
    make: Callable[[Plan, random.Random], Toy] = Toy
    toys: list[Toy] = field(default_factory=list)
    refusals: int = 0

    def __call__(self, head: Plan) -> Toy | None:
        if len(self.toys) >= self.count:
            self.refusals += 1
            return None
        named = dataclasses.replace(head, topology=TOPOLOGY)
        self.toys.append(self.make(named, random.Random()))  # not of the seed: a cluster's luck is its own
        return self.toys[-1]

    @property
    def plans(self) -> list[Plan]:
        return [toy.plan for toy in self.toys]


def drawn(
    seed: int,
    *,
    examples: int = 5,
    steps: int = 15,
    make: Callable[[Plan, random.Random], Toy] = Toy,
    services: tuple[str, ...] = (),
    apart: bool = False,
) -> Drawn:
    opener = Drawn(examples, make)
    strategies.generate(
        opener, examples=examples, steps=steps, seed=seed, timeouts_ms=TIMEOUTS_MS, services=services, apart=apart
    )
    return opener


ELSEWHERE = f"""
import dataclasses, importlib, json, sys
from ftmodel import planfile

class Toy:
    def __init__(self, head): self.head, self.steps = head, []
    def apply(self, step): self.steps.append(step)
    def end(self): pass
    def abandon(self): pass

toys = []

def opener(head):
    if len(toys) == 4:
        return None
    toys.append(Toy(dataclasses.replace(head, topology="{TOPOLOGY}")))
    return toys[-1]

strategies = importlib.import_module("ftmodel.strategies")
strategies.generate(opener, examples=4, steps=12, seed=int(sys.argv[1]), timeouts_ms={TIMEOUTS_MS})
print(json.dumps([planfile.dump(planfile.with_steps(toy.head, toy.steps)) for toy in toys]))
"""


def elsewhere(seed: int) -> list[str]:
    """The plans that a process of its own draws."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", ELSEWHERE, str(seed)], capture_output=True, text=True, check=True, timeout=60
    )
    plans: list[str] = json.loads(done.stdout)
    return plans


# --- seeds ------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_plans_whatever_the_cluster_did() -> None:
    for seed in range(3):
        first, second = drawn(seed, examples=23, steps=8), drawn(seed, examples=23, steps=8)
        assert first.plans == second.plans
        assert len(first.plans) == 23


def test_a_long_run_begins_as_a_short_one_and_hardly_repeats_itself() -> None:
    plans = drawn(3, examples=35, steps=10).plans
    assert plans[:5] == drawn(3, steps=10).plans
    assert len({repr(plan.steps) for plan in plans}) >= 30


def test_another_seed_gives_other_plans() -> None:
    assert len({repr(drawn(seed).plans[1:]) for seed in range(5)}) == 5


def test_the_same_seed_gives_the_same_plans_in_another_process() -> None:
    first, second = elsewhere(7), elsewhere(7)
    assert first == second
    assert len(first) == 4
    assert elsewhere(8) != first


# --- Hypothesis does not complain -------------------------------------------------------------------------------


def test_no_run_against_a_cluster_that_violates_and_fails_at_random_dies() -> None:
    violations = failures = 0
    for seed in range(100):
        run = drawn(seed, steps=12)
        assert len(run.toys) == 5
        assert all(toy.ends == ["end"] for toy in run.toys)
        assert all(len(toy.steps) == 12 for toy in run.toys)
        violations += sum(toy.violations for toy in run.toys)
        failures += sum(bool(toy.failure) for toy in run.toys)
    assert violations > 100
    assert failures > 10


def test_drawing_goes_on_to_the_last_step_after_the_harness_has_failed() -> None:
    class Failing(Toy):
        def apply(self, step: Step) -> None:
            self.failure = "from the start"
            super().apply(step)

    assert drawn(3, make=Failing).plans == drawn(3).plans


def test_drawing_ends_when_there_are_enough() -> None:
    run = drawn(1, examples=3)
    assert len(run.toys) == 3
    opener = Drawn(2)
    strategies.generate(opener, examples=50, steps=5, seed=1)
    assert len(opener.toys) == 2
    assert opener.refusals == 1


# --- what is raised ends the drawing ----------------------------------------------------------------------------


class BoomError(Exception):
    """Raised by a toy."""


@pytest.mark.parametrize("error", [BoomError, HarnessError, AssertionError, KeyboardInterrupt])
def test_what_a_step_raises_ends_the_drawing_abandons_the_example_and_comes_out(error: type[BaseException]) -> None:
    raised = error("at the fourth step")
    made: list[Toy] = []

    class Raising(Toy):
        def __init__(self, head: Plan, chance: random.Random) -> None:
            super().__init__(head, chance)
            made.append(self)

        def apply(self, step: Step) -> None:
            super().apply(step)
            if len(made) == 2 and len(self.steps) == 4:
                raise raised

    with pytest.raises(error) as told:
        drawn(1, make=Raising)
    assert told.value is raised
    assert not getattr(told.value, "__notes__", [])
    assert [toy.ends for toy in made] == [["end"], ["abandon"]]


@pytest.mark.parametrize("error", [BoomError, HarnessError, KeyboardInterrupt])
def test_what_the_opener_raises_ends_the_drawing_and_comes_out(error: type[BaseException]) -> None:
    raised = error("no room")
    calls: list[int] = []

    def opener(head: Plan) -> Toy:
        calls.append(head.workers)
        if len(calls) == 2:
            raise raised
        return Toy(Plan(topology=TOPOLOGY), random.Random())

    with pytest.raises(error) as told:
        strategies.generate(opener, examples=5, steps=5, seed=1)
    assert told.value is raised
    assert len(calls) == 2


@pytest.mark.parametrize("error", [BoomError, HarnessError, KeyboardInterrupt])
def test_what_the_end_of_an_example_raises_ends_the_drawing_and_comes_out(error: type[BaseException]) -> None:
    raised = error("the disk is full")

    class Raising(Toy):
        def end(self) -> None:
            super().end()
            raise raised

    opener = Drawn(5, Raising)
    with pytest.raises(error) as told:
        strategies.generate(opener, examples=5, steps=5, seed=1)
    assert told.value is raised
    assert len(opener.toys) == 1


def test_an_interrupt_while_a_step_is_drawn_abandons_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    machine: Any = importlib.import_module("ftmodel.strategies.machine")
    real, opener = machine.next_steps, Drawn(5)

    def interrupted(outline: Outline, *drawn: Any) -> Any:
        if outline.count == 3:
            raise KeyboardInterrupt
        return real(outline, *drawn)

    monkeypatch.setattr(machine, "next_steps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        strategies.generate(opener, examples=5, steps=5, seed=1)
    assert [toy.ends for toy in opener.toys] == [["abandon"]]


# --- what is drawn is worth running -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs() -> list[list[Plan]]:
    """The plans of 40 seeds."""
    return [drawn(seed, examples=6, steps=20).plans for seed in range(1000, 1040)]


@pytest.fixture(scope="module")
def plans(runs: list[list[Plan]]) -> list[Plan]:
    return [plan for run in runs for plan in run]


def test_the_first_example_is_traffic_without_faults(runs: list[list[Plan]]) -> None:
    for first, *_ in runs:
        assert {step.kind for step in first.steps} <= {"submit", "settle"}
        assert isinstance(first.steps[0], Submit)
        assert first.patience == "short"


def test_every_kind_of_step_is_drawn(plans: list[Plan]) -> None:
    of_services = {kind for kind, cls in KINDS.items() if cls is OnService}
    assert {step.kind for plan in plans for step in plan.steps} == set(KINDS) - of_services


def test_every_kind_of_anchor_and_subject_is_drawn(plans: list[Plan]) -> None:
    steps = [step for plan in plans for step in plan.steps]
    assert {step.at.on for step in steps} == {"now", "sent", "token", "end", "after", "gone"}
    assert {step.worker.by for step in steps if hasattr(step, "worker")} == {"slot", "holder", "not-holder", "victim"}


def test_no_example_is_without_a_request(plans: list[Plan]) -> None:
    assert all(any(isinstance(step, Submit) for step in plan.steps) for plan in plans)


def test_about_one_example_in_eight_of_a_run_is_patient() -> None:
    patience = [plan.patience for seed in range(20) for plan in drawn(seed, examples=20, steps=3).plans]
    assert len(patience) / 16 < patience.count("long") < len(patience) / 4


def test_faults_and_cancels_and_starts_come_together_in_many_examples(plans: list[Plan]) -> None:
    kinds = [{step.kind for step in plan.steps} for plan in plans]
    assert sum({"submit", "kill-worker", "cancel", "start-worker"} <= found for found in kinds) > len(plans) / 8


def test_where_there_are_faults_a_worker_is_up_most_of_the_time(plans: list[Plan]) -> None:
    faulty = [plan for plan in plans if any(step.kind in FAULTS for step in plan.steps)]
    assert len(faulty) > len(plans) / 4
    alive = 0
    for plan in faulty:
        outline, up = Outline(workers=plan.workers, patience=plan.patience), 0
        for step in plan.steps:
            outline.add(step)
            up += outline.alive > 0
        alive += up > len(plan.steps) / 2
    assert alive > len(faulty) * 2 / 3


def test_outages_are_drawn_where_a_topology_of_the_run_has_the_service_and_nowhere_else(plans: list[Plan]) -> None:
    assert not [step for plan in plans for step in plan.steps if isinstance(step, OnService)]
    found = drawn(5, examples=40, services=("nats",)).plans
    steps = [step for plan in found for step in plan.steps if isinstance(step, OnService)]
    assert {step.service for step in steps} == {"nats"}
    assert {step.deed for step in steps} == {"kill", "stop", "freeze", "thaw", "start"}
    assert sum(any(isinstance(step, OnService) for step in plan.steps) for plan in found) > len(found) / 8
    for plan in found:
        assert planfile.parse(planfile.dump(plan), "plan.json") == plan


def of_prefill(step: Step) -> bool:
    """True if it concerns a prefill worker, or waits for one."""
    roles = (getattr(step, "role", ""), getattr(getattr(step, "worker", None), "role", ""))
    return "prefill" in roles or isinstance(step.at, Begun)


def test_prefill_workers_are_hit_where_a_topology_of_the_run_has_them_and_nowhere_else(plans: list[Plan]) -> None:
    assert not [step for plan in plans for step in plan.steps if of_prefill(step)]
    assert {plan.prefill_workers for plan in plans} == {0}
    found = drawn(5, examples=40, apart=True).plans
    steps = [step for plan in found for step in plan.steps if of_prefill(step)]
    kinds = {"kill-worker", "stop-worker", "freeze-worker", "thaw-worker", "start-worker", "cancel"}
    assert {step.kind for step in steps} == kinds
    assert {plan.prefill_workers for plan in found} == {1, 2}
    assert sum(any(map(of_prefill, plan.steps)) for plan in found) > len(found) / 4
    assert not any(map(of_prefill, found[0].steps)), "the first example is traffic alone"
    for plan in found:
        assert planfile.parse(planfile.dump(plan), "plan.json") == plan


def test_every_plan_can_be_written_and_read_again(plans: list[Plan]) -> None:
    for plan in plans:
        assert planfile.parse(planfile.dump(plan), "plan.json") == plan


def test_every_step_names_what_came_before_it(plans: list[Plan]) -> None:
    for plan in plans:
        seen: set[str] = set()
        for step in plan.steps:
            named = {getattr(part, name, None) for part in (step, step.at) for name in ("request", "step")}
            named |= {getattr(getattr(step, "worker", None), name, None) for name in ("request", "step")}
            assert named - {None} <= seen
            assert step.name not in seen
            seen.add(step.name)


def test_workers_limits_and_weights_vary(plans: list[Plan]) -> None:
    assert {plan.frontends for plan in plans} == set(range(1, FRONTENDS + 1))
    assert set(Counter(plan.workers for plan in plans)) == set(range(1, SLOTS + 1))
    assert len({plan.migration_limit for plan in plans}) > 3
    assert len({plan.mix for plan in plans}) > 4
