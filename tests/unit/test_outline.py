"""The outline folds the steps drawn so far into names and counts, and knows nothing else."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ftmodel.outline import Outline
from ftmodel.steps import (
    SLOTS,
    Cancel,
    FreezeWorker,
    Heal,
    HolderOf,
    KillWorker,
    NotHolderOf,
    Settle,
    Slot,
    StartWorker,
    Step,
    StopWorker,
    Submit,
    ThawWorker,
)

rules: Any = importlib.import_module("ftmodel.strategies.rules")


def folded(*steps: Step, workers: int = 2) -> Outline:
    outline = Outline(workers=workers, patience="short")
    for step in steps:
        outline.add(step)
    return outline


def test_it_begins_with_the_workers_of_the_plan_in_the_lowest_slots() -> None:
    outline = folded(workers=3)
    assert outline.with_state("up") == [1, 2, 3]
    assert outline.with_state("empty") == [4]
    assert outline.alive == 3
    assert outline.last is None


def test_a_request_is_open_from_its_submit_to_the_next_settle() -> None:
    outline = folded(Submit(name="r1"), Submit(name="r2"))
    assert list(outline.open) == ["r1", "r2"]
    outline.add(Settle(name="s3"))
    assert not outline.open
    assert outline.count == 3
    assert outline.last == Settle(name="s3")


def test_a_request_that_a_step_cancels_is_not_offered_for_another_cancel() -> None:
    outline = folded(Submit(name="r1"), Submit(name="r2"), Submit(name="r3"), Cancel(name="s4", request="r2"))
    assert [submit.name for submit in outline.uncancelled()] == ["r3", "r1"]


def test_a_worker_killed_or_stopped_by_its_slot_leaves_it_empty() -> None:
    outline = folded(KillWorker(name="s1", worker=Slot(1)), StopWorker(name="s2", worker=Slot(2)))
    assert outline.with_state("up") == []
    assert outline.alive == 0
    assert outline.lost == 0


def test_a_worker_hit_through_a_request_is_lost_from_a_slot_that_nobody_knows() -> None:
    outline = folded(KillWorker(name="s1", worker=HolderOf("r1")), StopWorker(name="s2", worker=NotHolderOf("r1")))
    assert outline.with_state("up") == [1, 2]
    assert outline.lost == 2
    assert outline.alive == 0


def test_a_frozen_worker_is_not_up_until_it_is_thawed() -> None:
    outline = folded(FreezeWorker(name="s1", worker=Slot(2)))
    assert outline.with_state("frozen") == [2]
    assert outline.alive == 1
    outline.add(ThawWorker(name="s2", worker=Slot(2)))
    assert outline.alive == 2


def test_a_worker_started_in_an_empty_slot_is_one_more() -> None:
    outline = folded(KillWorker(name="s1", worker=HolderOf("r1")), StartWorker(name="s2", slot=3))
    assert outline.alive == 2
    assert outline.lost == 1


def test_a_worker_started_in_a_slot_thought_to_be_up_replaces_one_that_was_lost() -> None:
    outline = folded(KillWorker(name="s1", worker=HolderOf("r1")), StartWorker(name="s2", slot=1))
    assert outline.lost == 0
    assert outline.alive == 2
    outline.add(StartWorker(name="s3", slot=1))
    assert outline.alive == 2


def test_a_heal_brings_back_the_workers_of_the_plan_and_thaws_the_others() -> None:
    outline = folded(
        StartWorker(name="s1", slot=3),
        StartWorker(name="s2", slot=4),
        KillWorker(name="s3", worker=Slot(1)),
        KillWorker(name="s4", worker=Slot(4)),
        FreezeWorker(name="s5", worker=Slot(3)),
        KillWorker(name="s6", worker=HolderOf("r1")),
        Heal(name="s7"),
    )
    assert outline.with_state("up") == [1, 2, 3]
    assert outline.with_state("empty") == [4]
    assert outline.lost == 0


def test_it_is_told_steps_and_nothing_that_was_observed() -> None:
    verbs = [name for name, value in vars(Outline).items() if inspect.isfunction(value) and not name.startswith("_")]
    assert sorted(verbs) == ["add", "uncancelled", "with_state"]
    assert list(inspect.signature(Outline.add).parameters) == ["self", "step"]


@given(st.data(), st.integers(1, SLOTS), st.sampled_from(("short", "long")))
def test_the_counts_of_a_drawn_plan_stay_sane_and_are_the_same_when_folded_again(
    data: st.DataObject, workers: int, patience: Any
) -> None:
    mix = data.draw(rules.mixes())
    outline = Outline(workers=workers, patience=patience)
    steps: list[Step] = []
    for _ in range(data.draw(st.integers(0, 12))):
        for step in data.draw(rules.next_steps(outline, mix, (9000, 11000), 30)):
            steps.append(step)
            outline.add(step)
        submitted = {step.name for step in steps if isinstance(step, Submit)}
        assert sorted(outline.slots) == list(range(1, SLOTS + 1))
        assert 0 <= outline.alive <= SLOTS
        assert 0 <= outline.lost <= len(outline.with_state("up"))
        assert set(outline.open) <= submitted
        assert outline.cancelled <= submitted
    assert outline.count == len(steps) == len({step.name for step in steps})
    again = Outline(workers=workers, patience=patience)
    for step in steps:
        again.add(step)
    assert again == outline
