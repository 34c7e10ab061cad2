"""A plan changed to be compared: without its faults it is plain traffic, with one more worker it is the same."""

from __future__ import annotations

import dataclasses

from ftmodel.steps import (
    FAULTS,
    SLOTS,
    After,
    BadRequest,
    Cancel,
    EngineError,
    FreezeWorker,
    Gone,
    Heal,
    HolderOf,
    KillFrontend,
    KillWorker,
    Now,
    OnService,
    Plan,
    Settle,
    Slot,
    SlowReader,
    StartFrontend,
    StartWorker,
    StopWorker,
    Submit,
    ThawWorker,
    Token,
    VictimOf,
)
from ftmodel.variants import one_more_worker, without_faults, without_outages

PLAN = Plan(
    topology="counting",
    workers=2,
    steps=(
        Submit(name="r1", max_tokens=600),
        KillWorker(name="s2", worker=HolderOf("r1"), at=Token("r1", 17)),
        StartWorker(name="s3", slot=1, port="predecessor", at=Gone("s2")),
        Submit(name="r4", at=After("s3"), skew_ms=9000),
        Submit(name="r5", at=Token("r4", 3), skew_ms=5),
        StartWorker(name="s6", slot=3, at=Token("r1", 20)),
        StartWorker(name="s7", slot=4, at=After("s2")),
        Submit(name="r8", at=After("s6"), skew_ms=20),
        Cancel(name="s9", request="r8", at=Token("r8", 5)),
        SlowReader(name="s10", request="r4", at=After("s9")),
        EngineError(name="s11", request="r5", at=Token("r5", 4)),
        FreezeWorker(name="s12", worker=Slot(2)),
        ThawWorker(name="s13", worker=VictimOf("s12"), at=After("s12"), skew_ms=4500),
        StopWorker(name="s14", worker=Slot(2)),
        KillFrontend(name="s15"),
        StartFrontend(name="s16", at=Gone("s15")),
        BadRequest(name="r17", at=After("s16")),
        Settle(name="s18"),
        Heal(name="s19"),
    ),
)


def test_nothing_is_left_of_faults_and_cancels_and_every_request_is() -> None:
    left = without_faults(PLAN)
    assert [step.name for step in left.steps] == ["r1", "r4", "r5", "s6", "r8", "s10", "r17", "s18"]
    assert not {step.kind for step in left.steps} & {*FAULTS, "cancel"}
    assert dataclasses.replace(left, steps=PLAN.steps) == PLAN


def test_what_waited_for_a_fault_goes_on_at_once() -> None:
    at = {step.name: (step.at, step.skew_ms) for step in without_faults(PLAN).steps}
    assert at["r4"] == at["s10"] == at["r17"] == (Now(), 0)


def test_what_waited_for_a_request_or_for_a_join_still_does() -> None:
    at = {step.name: (step.at, step.skew_ms) for step in without_faults(PLAN).steps}
    assert at["r5"] == (Token("r4", 3), 5)
    assert at["s6"] == (Token("r1", 20), 0)
    assert at["r8"] == (After("s6"), 20)


def test_a_plan_without_faults_stays_as_it_is() -> None:
    left = without_faults(PLAN)
    assert without_faults(left) == left


def test_one_more_worker_changes_nothing_else() -> None:
    more = one_more_worker(PLAN)
    assert more is not None
    assert more.workers == PLAN.workers + 1
    assert dataclasses.replace(more, workers=PLAN.workers) == PLAN


def test_there_is_no_more_than_a_worker_in_every_slot() -> None:
    assert one_more_worker(dataclasses.replace(PLAN, workers=SLOTS)) is None


def test_without_outages_all_else_is_left_and_goes_on_at_once() -> None:
    outage = (
        OnService(name="s20", kind="kill-etcd", at=Token("r1", 5)),
        OnService(name="s21", kind="start-etcd", at=Gone("s20"), skew_ms=300),
        KillWorker(name="s22", worker=Slot(1), at=After("s21"), skew_ms=20),
        OnService(name="s23", kind="freeze-nats"),
        StartWorker(name="s24", slot=1, at=Gone("s22"), skew_ms=5),
    )
    left = without_outages(dataclasses.replace(PLAN, steps=(*PLAN.steps, *outage)))
    assert left.steps[: len(PLAN.steps)] == PLAN.steps
    assert left.steps[len(PLAN.steps) :] == (KillWorker(name="s22", worker=Slot(1)), outage[-1])
    assert without_outages(PLAN) == PLAN
