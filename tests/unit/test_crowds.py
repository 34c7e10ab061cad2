"""Requests that can have to wait for a slot or for KV blocks: for how long, and behind whom."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from histories import PACE_S, Ask, Story, moment

from ftmodel import topology
from ftmodel.history import EngineErred, Event, Sample
from ftmodel.invariants import INVARIANTS, Judge, duty, judge
from ftmodel.invariants.ledger import Ledger
from ftmodel.prove import Grounds
from ftmodel.steps import EngineError, Plan, Step, Submit, Token
from ftmodel.targets.simulated.catalogue import ours, planted

TOKENS = {"block_tokens": 64, "cache_tokens": 128}
"""Two KV blocks: with a prompt of 40 tokens, room for one request of at most 88 or for two of at most 24."""


def told(story: Story, rest_s: float, waiting: float, **setting: Any) -> list[Event]:
    """The story, on workers that tell of so many requests that wait in them."""
    return [
        dataclasses.replace(event, values={**event.values, "waiting": waiting})
        if isinstance(event, Sample) and "running" in event.values
        else event
        for event in (dataclasses.replace(story.setting, **setting), *story.told(rest_s)[1:])
    ]


def found(story: Story, rest_s: float, waiting: float = 1.0, **setting: Any) -> set[str]:
    return {finding.signature for finding in judge(told(story, rest_s, waiting, **setting), INVARIANTS).findings}


def settled(story: Story, **setting: Any) -> Ledger:
    fold = Judge(INVARIANTS)
    for event in told(story, 90.0, 1.0, **setting):
        fold.feed(event)
    fold.result()
    assert fold._ledger is not None
    return fold._ledger


def side_by_side(max_tokens: int) -> Story:
    """r2 has its answer 32 s after it was sent, all at once; r1 was there before it, and ended just then."""
    story = Story(workers=1)
    first = Ask(story, "r1", 5.0, max_tokens).begin("w1", 5.004)
    second = Ask(story, "r2", 5.1, max_tokens).begin("w1", 5.104)
    for ask, at_s in ((first, 36.0), (second, 37.0)):
        end_s = ask.run(max_tokens, at_s)
        ask.stop("ended", end_s - 0.001)
        ask.finish(end_s)
    return story


@pytest.mark.parametrize("setting", [{}, {**TOKENS, "cache_tokens": 256}])
def test_a_wait_is_a_hang_where_a_worker_had_kv_blocks_for_all(setting: dict[str, Any]) -> None:
    assert "L3/hang" in found(side_by_side(60), 50.0, **setting)


@pytest.mark.parametrize("setting", [TOKENS, {**TOKENS, "cache_tokens": 256, "admits_share": 0.5}])
def test_a_wait_is_no_hang_where_it_may_have_been_for_kv_blocks(setting: dict[str, Any]) -> None:
    assert "L3/hang" not in found(side_by_side(60), 50.0, **setting)


def test_a_wait_is_a_hang_where_engines_say_that_nothing_waited_in_them() -> None:
    assert "L3/hang" in found(side_by_side(60), 50.0, 0.0, **TOKENS)


def test_blocks_are_taken_whole() -> None:
    assert "L3/hang" in found(side_by_side(24), 50.0, **TOKENS)
    assert "L3/hang" not in found(side_by_side(25), 50.0, **TOKENS)


def test_what_waits_for_blocks_has_no_witness_and_as_long_as_all_others_need() -> None:
    for setting, value, others in ((TOKENS, "may", 1), ({}, "must", 0)):
        story = Story(workers=2)
        Ask(story, "r1", 5.0, 60).leave(9.0)
        Ask(story, "r2", 10.0, 60).refuse(10.1, 503)
        ledger = settled(story, **setting)
        owed = duty.completion(ledger, ledger.requests["r2"])
        assert (owed.value, owed.due_s) == (value, pytest.approx(10.0 + 4 * 60 * (1 + others) * PACE_S + 7.0))


def test_what_was_over_before_keeps_nobody_waiting() -> None:
    story = Story(workers=2)
    Ask(story, "r1", 5.0, 60).leave(9.0)
    Ask(story, "r2", 12.0, 60).refuse(12.1, 503)  # what a client left can hold on for two seconds
    ledger = settled(story, **TOKENS)
    assert duty.completion(ledger, ledger.requests["r2"]).value == "must"


def test_who_waits_for_the_blocks_of_a_stalled_request_need_not_end() -> None:
    for setting, ends in ((TOKENS, False), ({}, True)):
        story = Story(workers=1)
        Ask(story, "r1", 5.0, 60).begin("w1", 5.004).run(5, 5.01)
        story.push(EngineErred(at=moment(5.1), request="r1", title="w1", how="stall", step="s1"))
        Ask(story, "r2", 6.0, 60).begin("w1", 6.004)
        assert ("L1/never-ended" in found(story, 90.0, **setting)) is ends


# --- the same on a simulated cluster ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grounds() -> Grounds:
    return Grounds(topology.find("simulated"))


def played(grounds: Grounds, *steps: Step) -> tuple[list[Event], set[str]]:
    plan = Plan(topology="simulated", workers=1, patience="long", migration_limit=3, steps=steps)
    events = grounds.history(plan, seed=0)
    return events, {finding.signature for finding in grounds.judge(events).findings}


def test_long_answers_before_it_let_a_request_wait_for_more_than_the_hang_bound(grounds: Grounds) -> None:
    many = [Submit(name=f"r{i}", prompt_chars=1000, max_tokens=3000) for i in range(1, 5)]
    events, violated = played(grounds, *many, Submit(name="r5", prompt_chars=4500, max_tokens=50))
    [head] = [event for event in events if event.kind == "response-begun" and event.request == "r5"]
    assert head.at.after_s > 35
    assert violated == set()


def test_nobody_is_blamed_for_a_request_behind_a_stalled_one(grounds: Grounds) -> None:
    events, violated = played(
        grounds,
        Submit(name="r1", prompt_chars=4500, max_tokens=50),
        EngineError(name="s1", request="r1", how="stall", at=Token("r1", 5)),
        Submit(name="r2", prompt_chars=4500, max_tokens=50),
    )
    assert not [event for event in events if event.kind == "request-ended" and event.request == "r2"]
    assert violated == set()


def test_a_hang_is_found_where_blocks_are_short_and_nobody_waits_for_them(grounds: Grounds) -> None:
    """All of these have their blocks; if all grew as far as they may, there would be none for the last."""
    [hangs] = planted("hangs", ours())
    steps = [Submit(name=f"r{i}", prompt_chars=1000, max_tokens=600) for i in range(1, 5)]
    plan = Plan(topology="simulated", workers=1, patience="short", migration_limit=3, steps=tuple(steps))
    events = grounds.history(plan, seed=0, planted=[hangs])
    assert {finding.invariant for finding in grounds.judge(events).findings} <= {"L1", "L3"}
    assert grounds.judge(events).findings
