"""Smaller plans: what fails still fails, and what it does not take is gone."""

from __future__ import annotations

import dataclasses

from ftmodel.reductions import smallest
from ftmodel.steps import (
    Cancel,
    EngineError,
    HolderOf,
    KillWorker,
    Now,
    Plan,
    Settle,
    Slot,
    Step,
    StopWorker,
    Submit,
    Token,
)

STEPS: tuple[Step, ...] = (
    Submit(name="r1", max_tokens=600, api="chat"),
    Settle(name="s2"),
    Submit(name="r3", n=2),
    KillWorker(name="s4", worker=HolderOf("r1"), at=Token("r1", 5), skew_ms=20),
    Cancel(name="s5", request="r3", at=Token("r3", 7)),
    Submit(name="r6"),
    StopWorker(name="s7", worker=HolderOf("r6")),
    Submit(name="r8", stream=False),
    Cancel(name="s9", request="r8"),
)
PLAN = Plan(topology="simulated", workers=4, frontends=2, migration_limit=10, patience="long", steps=STEPS)


def kinds(plan: Plan) -> list[str]:
    return [step.kind for step in plan.steps]


def test_only_what_it_takes_is_left_and_the_rest_is_at_its_plainest() -> None:
    found = smallest(PLAN, lambda plan: "kill-worker" in kinds(plan))
    assert found.steps == (KillWorker(name="s4", worker=HolderOf("r1")),)
    assert (found.workers, found.frontends, found.migration_limit, found.patience) == (1, 1, 0, "short")


def test_two_that_take_each_other_go_together() -> None:
    """Neither may be left out alone: a submit without its cancel fails as little as a cancel without its submit."""

    def fails(plan: Plan) -> bool:
        submits = {step.name for step in plan.steps if isinstance(step, Submit)}
        cancelled = {step.request for step in plan.steps if isinstance(step, Cancel)}
        return cancelled <= submits and bool(submits) and len(submits - cancelled) == 2

    assert kinds(smallest(PLAN, fails)) == ["submit", "submit"]


def test_what_was_done_to_one_request_is_done_to_another() -> None:
    def fails(plan: Plan) -> bool:
        killed = [step for step in plan.steps if isinstance(step, KillWorker)]
        cancelled = {step.request for step in plan.steps if isinstance(step, Cancel)}
        there = {step.name for step in plan.steps if isinstance(step, Submit)}
        return any(isinstance(k.worker, HolderOf) and k.worker.request in there for k in killed) and bool(
            cancelled & there
        )

    found = smallest(PLAN, fails)
    assert kinds(found).count("submit") == 1
    assert len(found.steps) == 3


def test_a_plan_of_which_nothing_smaller_fails_is_the_smallest() -> None:
    assert smallest(PLAN, lambda plan: plan == PLAN) is PLAN


def test_no_plan_is_asked_for_twice() -> None:
    asked: list[Plan] = []

    def fails(plan: Plan) -> bool:
        asked.append(plan)
        return len(plan.steps) > 4

    smallest(PLAN, fails)
    assert len(asked) == len(set(asked))


def test_a_step_keeps_its_name_and_whom_it_concerns() -> None:
    found = smallest(PLAN, lambda plan: any(step.name == "s5" for step in plan.steps))
    assert found.steps == (Cancel(name="s5", request="r3", at=Now()),)


def test_what_befell_some_worker_befalls_the_one_that_serves_a_request() -> None:
    """The first two requests are there for the third to be served by worker 2, and for nothing else."""
    plan = Plan(
        topology="simulated",
        workers=3,
        steps=(Submit(name="r1"), KillWorker(name="k2", worker=Slot(2)), Submit(name="r3"), Submit(name="r4")),
    )

    def fails(plan: Plan) -> bool:
        served = [step.name for step in plan.steps if isinstance(step, Submit)]
        killed = next((step.worker for step in plan.steps if isinstance(step, KillWorker)), None)
        lucky = killed == Slot(2) and len(served) == 3
        return lucky or (isinstance(killed, HolderOf) and killed.request in served)

    assert kinds(smallest(plan, fails)) == ["submit", "kill-worker"]


def test_what_shows_whatever_is_done_keeps_a_step() -> None:
    assert len(smallest(PLAN, lambda _: True).steps) == 1


def test_a_fault_is_aimed_at_the_token_behind_that_with_which_a_stop_string_begins() -> None:
    steps = (Submit(name="r1", stop_at=20), Submit(name="r2"), KillWorker(name="s3", worker=Slot(1), skew_ms=100))

    def fails(plan: Plan) -> bool:
        amid = any(isinstance(step, KillWorker) and step.at == Token("r1", 21) for step in plan.steps)
        return amid or plan.steps == steps

    aimed = KillWorker(name="s3", worker=HolderOf("r1"), at=Token("r1", 21))
    assert smallest(dataclasses.replace(PLAN, steps=steps), fails).steps == (aimed,)


def test_a_kill_with_another_worker_stands_for_what_fails_a_request() -> None:
    error = EngineError(name="s2", request="r1", how="no-finish", at=Token("r1", 7))
    plan = dataclasses.replace(PLAN, workers=1, steps=(Submit(name="r1", stream=False), error))

    def fails(smaller: Plan) -> bool:
        moved = smaller.workers == 2 and kinds(smaller) == ["submit", "kill-worker"]
        return (moved and smaller.steps[0] == Submit(name="r1")) or smaller == plan

    assert kinds(smallest(plan, fails)) == ["submit", "kill-worker"]
