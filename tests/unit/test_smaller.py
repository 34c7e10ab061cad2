"""Smaller plans: what hangs together goes together, and each is a plan that the file format admits."""

from __future__ import annotations

import pytest

from ftmodel import planfile, smaller
from ftmodel.steps import (
    After,
    Cancel,
    End,
    Heal,
    HolderOf,
    KillWorker,
    Now,
    Plan,
    Slot,
    StartWorker,
    Step,
    Submit,
    ThawWorker,
    Token,
    VictimOf,
)

STEPS: tuple[Step, ...] = (
    Submit(name="r1", api="chat", max_tokens=100, skew_ms=20),
    Submit(name="r2", at=End("r1"), skew_ms=5),
    Cancel(name="s3", request="r2", at=Token("r2", 17)),
    KillWorker(name="s4", worker=HolderOf("r1"), at=Token("r1", 3)),
    StartWorker(name="s5", slot=2, at=After("s4"), skew_ms=100),
    KillWorker(name="s6", worker=Slot(1)),
    ThawWorker(name="s7", worker=VictimOf("s6")),
    Cancel(name="s8", request="r1", how="timeout", at=Now(), skew_ms=1000),
    Heal(name="s9"),
)
PLAN = Plan(topology="simulated", workers=3, frontends=2, patience="long", steps=STEPS)


def names(plan: Plan) -> list[str]:
    return [step.name for step in plan.steps]


@pytest.mark.parametrize(
    ("left_out", "kept"),
    [
        (["r1"], ["s6", "s7", "s9"]),
        (["r2"], ["r1", "s4", "s5", "s6", "s7", "s8", "s9"]),
        (["s6", "s9"], ["r1", "r2", "s3", "s4", "s5", "s8"]),
    ],
)
def test_what_would_be_void_without_a_step_goes_with_it(left_out: list[str], kept: list[str]) -> None:
    assert names(smaller.without(PLAN, left_out)) == kept


def test_what_only_waited_for_a_step_can_go_on_without_it() -> None:
    plan = smaller.freed(PLAN, "s4")
    assert names(plan) == ["r1", "r2", "s3", "s5", "s6", "s7", "s8", "s9"]
    assert plan.steps[3] == StartWorker(name="s5", slot=2)
    assert names(smaller.freed(PLAN, "r1")) == ["r2", "s3", "s6", "s7", "s9"]  # its own kill and cancel go with it


def test_the_subject_of_a_finding_is_kept_with_all_that_is_done_to_it() -> None:
    plans = [names(plan) for plan in smaller.slices(PLAN, ["r2 on w1"])]
    assert plans == [
        ["r1", "r2", "s3"],
        ["r1", "r2", "s3", "s6", "s7", "s9"],
        ["r1", "r2", "s3", "s4", "s5", "s6", "s7", "s9"],
    ]
    assert [names(plan) for plan in smaller.slices(PLAN, ["w2"])] == [["s6", "s7", "s9"]]


def test_kinds_are_left_out_whole_the_ones_that_take_most_first() -> None:
    assert [names(plan) for plan in smaller.kinds(PLAN)] == [
        ["s6", "s7", "s9"],
        ["r1", "r2", "s3", "s8", "s9"],
        ["r1", "r2", "s4", "s5", "s6", "s7", "s9"],
    ]


def test_chunks_are_the_steps_from_the_end_each_once() -> None:
    assert smaller.chunks(PLAN, 4) == [("s6", "s7", "s8", "s9"), ("r2", "s3", "s4", "s5"), ("r1",)]


def test_every_value_that_is_set_back_makes_a_plan_that_can_be_read_and_in_the_end_nothing_is_left_to_set_back() -> (
    None
):
    plan = PLAN
    while todo := smaller.values(plan):
        for value in todo[0].values:
            one = todo[0].at(plan, value)
            assert one != plan
            assert planfile.parse(planfile.dump(one), "plan.json") == one
        plan = todo[0].at(plan, todo[0].values[0])
    assert (plan.workers, plan.frontends, plan.patience) == (1, 1, "short")
    assert plan.steps[0] == Submit(name="r1", max_tokens=2)
    assert plan.steps[2] == Cancel(name="s3", request="r2")
    assert plan.steps[7] == STEPS[7]  # a client's own timeout is its anchor and skew
