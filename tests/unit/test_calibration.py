"""Control and calibration: scripted plans, and what their histories prove."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ftmodel import calibration, engines, planfile
from ftmodel.calibration import WINDOW_TOKENS, pace, proof
from ftmodel.history import Event, Interval, Item, LogLine, Received, RequestSent
from ftmodel.steps import FAULTS, SLOTS, Cancel, KillWorker, Plan, Settle, StartWorker, StopWorker, Submit

COUNTING = engines.find("counting")


def sent(request: str, *, stream: bool = True) -> RequestSent:
    return RequestSent(
        at=Interval(0, 0), request=request, id=request, frontend="frontend-1", api="completion", stream=stream,
        prompt_tokens=40, max_tokens=200, n=1, key="request r1:",
    )  # fmt: skip


def burst(request: str, at_s: float, tokens: int = 1) -> Received:
    return Received(at=Interval(at_s, at_s), request=request, items=(Item("text", " abc" * tokens), Item("empty")))


def line(meaning: str) -> LogLine:
    return LogLine(at=Interval(0, 0), title="w1", meaning=meaning)


def test_the_control_plan_has_no_fault_and_no_cancel_and_every_way_to_ask() -> None:
    plan = calibration.control("aggregated")
    assert {step.kind for step in plan.steps} == {"submit", "settle"}
    asked = {(step.api, step.stream) for step in plan.steps if isinstance(step, Submit)}
    assert asked == {(api, stream) for api in ("completion", "chat") for stream in (True, False)}
    assert isinstance(plan.steps[-1], Settle)


def test_the_control_plan_has_a_stream_long_enough_to_measure_the_pace() -> None:
    plan = calibration.control("aggregated")
    longest = max(step.max_tokens for step in plan.steps if isinstance(step, Submit) and step.stream)
    assert longest > 2 * WINDOW_TOKENS


def test_the_calibration_plan_cancels_streams_and_others_drains_kills_and_spends_the_limit() -> None:
    plan = calibration.calibration("aggregated")
    submits = {step.name: step for step in plan.steps if isinstance(step, Submit)}
    cancelled = [submits[step.request] for step in plan.steps if isinstance(step, Cancel)]
    assert {(submit.api, submit.stream) for submit in cancelled} >= {("completion", True), ("completion", False)}
    assert any(isinstance(step, StopWorker) for step in plan.steps)
    kills_of_r6 = [step for step in plan.steps if isinstance(step, KillWorker) and "r6" in repr(step.worker)]
    assert len(kills_of_r6) > plan.migration_limit
    assert not any(isinstance(step, StartWorker) for step in plan.steps)


@pytest.mark.parametrize("make", [calibration.control, calibration.calibration])
def test_a_scripted_plan_is_a_plan_like_any_other(make: type[Plan]) -> None:
    plan: Plan = make("aggregated")  # type: ignore[call-arg, arg-type]
    assert planfile.parse(planfile.dump(plan), "plan.json") == plan
    assert plan.topology == "aggregated"
    assert plan.workers <= SLOTS
    names = [step.name for step in plan.steps]
    for number, step in enumerate(plan.steps):
        named = getattr(step.at, "request", getattr(step.at, "step", None))
        assert named is None or named in names[:number]


def test_the_scripted_plans_together_have_every_fault_that_the_dialect_tells_apart() -> None:
    kinds = {step.kind for step in calibration.calibration("aggregated").steps}
    assert {"kill-worker", "stop-worker"} <= kinds & set(FAULTS)


def test_what_was_seen_in_any_history_is_proven_and_the_pace_is_that_of_the_first() -> None:
    steady = [sent("r1"), *(burst("r1", 0.01 * k) for k in range(60))]
    fast = [sent("r1"), *(burst("r1", 0.001 * k) for k in range(60))]
    found = proof([[*steady, line("begun"), line("ended")], [*fast, line("aborted"), line("begun")]], COUNTING)
    assert found.meanings == ("aborted", "begun", "ended")
    assert found.pace_s == pytest.approx(0.01)
    assert found.pace_min_s == pytest.approx(0.01)


def test_no_history_proves_nothing() -> None:
    assert proof([], COUNTING) == proof([[]], COUNTING)
    assert proof([], COUNTING).meanings == ()


def test_the_least_pace_is_a_rate_over_a_window_so_bursts_of_the_reader_do_not_count() -> None:
    bursts = [burst("r1", 0.1 * k, 10) for k in range(20)]
    mean, least = pace([sent("r1"), *bursts], COUNTING)
    assert mean == pytest.approx(0.01, rel=0.06)
    assert least == pytest.approx(0.01, rel=0.01)


def test_the_least_pace_is_that_of_the_fastest_window() -> None:
    times = [0.01 * k for k in range(100)] + [1 + 0.002 * k for k in range(100)]
    _, least = pace([sent("r1"), *(burst("r1", at_s) for at_s in times)], COUNTING)
    assert least == pytest.approx(0.002, rel=0.05)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [sent("r1")],
        [sent("r1"), burst("r1", 1)],
        [sent("r1", stream=False), burst("r1", 0), burst("r1", 9)],
        [sent("r1"), burst("r1", 0, 0), burst("r1", 9, 0)],
        [burst("r1", 0), burst("r1", 9)],
    ],
)
def test_without_a_stream_of_tokens_there_is_no_pace(events: Sequence[Event]) -> None:
    assert pace(events, COUNTING) == (0.0, 0.0)


def test_a_stream_that_is_shorter_than_the_window_has_a_mean_alone() -> None:
    assert pace([sent("r1"), burst("r1", 0), burst("r1", 0.5)], COUNTING) == (0.5, 0.0)


def test_a_short_stream_that_came_at_once_does_not_bring_the_mean_below_the_least() -> None:
    steady = [burst("r1", at_s) for at_s in (0.01 * k for k in range(2 * WINDOW_TOKENS))]
    at_once = [burst("r2", 5.0), burst("r2", 5.0), burst("r2", 5.0)]
    mean, least = pace([sent("r1"), *steady, sent("r2"), *at_once], COUNTING)
    assert 0 < least <= mean
