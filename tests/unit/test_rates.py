"""Rates: intervals that hold what they promise, and a sequential test whose errors are as rare as it says."""

from __future__ import annotations

import math
import random

import pytest

from ftmodel.rates import Rate, StillFails, of_signatures


@pytest.mark.parametrize(
    ("failed", "of", "low", "high"),
    [(0, 10, 0.0, 0.3085), (4, 10, 0.1216, 0.7376), (10, 10, 0.6915, 1.0), (14, 36, 0.2314, 0.5654), (0, 0, 0.0, 1.0)],
)
def test_the_interval_is_the_exact_one(failed: int, of: int, low: float, high: float) -> None:
    """Against published tables of Clopper and Pearson's interval."""
    assert Rate(failed=failed, of=of).interval == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.97])
def test_the_interval_holds_the_true_rate_in_at_least_95_of_100(share: float) -> None:
    of = 40
    held = sum(
        math.comb(of, failed) * share**failed * (1 - share) ** (of - failed)
        for failed in range(of + 1)
        for low, high in [Rate(failed=failed, of=of).interval]
        if low <= share <= high
    )
    assert held >= 0.95


def answered(test: StillFails, share: float, *, times: int, seed: int) -> tuple[float, float]:
    """The share of yes among the answers, and the mean number of runs until one, where runs fail so often."""
    chance = random.Random(seed)
    yes = runs = 0
    for _ in range(times):
        failed: list[bool] = []
        while test.answer(failed) is None:
            failed.append(chance.random() < share)
        yes += bool(test.answer(failed))
        runs += len(failed)
    return yes / times, runs / times


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_a_plan_that_fails_as_expected_is_seldom_taken_for_one_that_does_not(share: float) -> None:
    yes, _ = answered(StillFails(share=share, miss=0.03), share, times=2000, seed=1)
    assert yes > 0.95


def test_a_plan_that_fails_hardly_ever_is_seldom_taken_for_one_that_still_does() -> None:
    yes, _ = answered(StillFails(share=0.3, miss=0.03), 0.3 / 16, times=2000, seed=2)
    assert yes < 0.15


def test_as_many_passes_are_needed_for_no_as_the_rate_calls_for() -> None:
    for share in (0.1, 0.3, 0.6):
        needed = StillFails(share=share, miss=0.03).passes_left([])
        assert math.log(0.03) / math.log(1 - share) <= needed <= math.log(0.03) / math.log(1 - share) * 1.3 + 1


def test_the_answer_is_that_of_the_runs_in_their_order_whatever_comes_later() -> None:
    test = StillFails(share=0.3, miss=0.03)
    assert test.answer([True]) is True
    assert test.answer([True, *[False] * 50]) is True
    assert test.answer([False] * 5) is None
    assert test.answer([False] * 12) is False
    assert test.answer([*[False] * 12, True, True]) is False
    assert test.passes_left([False] * 12) == 0


def test_signatures_are_counted_once_a_run() -> None:
    runs = [{"A1/missing", "R5/panic"}, set(), {"R5/panic"}]
    assert of_signatures(runs) == {"A1/missing": Rate(failed=1, of=3), "R5/panic": Rate(failed=2, of=3)}
    assert of_signatures([set()]) == {}
