"""Workers and frontends: whom a fault excuses, who owns what, and what decides nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from histories import FRONTEND, Ask, Story, moment
from histories_of_workers import of_dynamo

from ftmodel.history import Event, Stall, Told
from ftmodel.invariants import INVARIANTS, Judgement, judge

OURS = tuple(cls for cls in INVARIANTS if cls.id in ("A1", "A2", "C1", "C2", "C4", "C5", "C6", "C7", "M2", "M3", "M4"))
OURS += tuple(cls for cls in INVARIANTS if cls.id in ("L1", "L2", "L3", "M1", "M6", "R1", "R5"))


def judged(story: Story, *, rest_s: float = 60.0, **promise: Any) -> Judgement:
    story.setting = dataclasses.replace(
        story.setting,
        promise=dataclasses.replace(story.setting.promise, **promise) if promise else story.setting.promise,
    )
    return judge(story.told(rest_s), OURS)


def signatures(judgement: Judgement) -> list[str]:
    return [finding.signature for finding in judgement.findings]


def with_second() -> Story:
    """Two frontends; both know both workers."""
    story = of_dynamo(Story(), frontends=2)
    story.start("frontend-2", 2, 0.01, role="frontend")
    for slot in (1, 2):
        story.join(f"w{slot}", 0.6 + slot / 10, "frontend-2")
    return story


def gone(story: Story, title: str, at_s: float) -> None:
    story.fault("kill-frontend", title, at_s)
    story.exit(title, at_s, unlisted_s=at_s)


# --- frontends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False])
def test_the_death_of_a_frontend_excuses_the_workers_that_drop_its_requests(exact: bool) -> None:  # noqa: FBT001
    story = of_dynamo(Story(exact=exact))
    cut = Ask(story, "r1", 5.0, 500).begin("w1", 5.004)
    cut.run(50, 5.01)
    gone(story, FRONTEND, 5.5)
    cut.end("cut", 5.502)
    cut.stop("aborted", 5.51)
    told = Ask(story, "r2", 5.2, 40).begin("w2", 5.204)
    told.run(40, 5.21)
    told.finish(5.47)
    told.stop("aborted", 5.52)
    assert signatures(judged(story)) == []


def test_a_frontend_that_was_killed_need_not_have_logged_a_migration() -> None:
    for killed, found in ((True, []), (False, ["M6/unlogged"])):
        story = with_second()
        ask = Ask(story, "r1", 5.0, 300).begin("w1", 5.004)
        ask.run(20, 5.01)
        story.kill("w1", 5.2)
        ask.stop("died", 5.2).begin("w2", 5.25)
        if killed:
            gone(story, FRONTEND, 5.3)
            ask.end("cut", 5.301)
            ask.stop("aborted", 5.31)
        else:
            end_s = ask.run(280, 5.26)
            ask.stop("ended", end_s - 0.001).finish(end_s)
        assert signatures(judged(story)) == found


def test_a_frontend_that_drains_lists_nobody_and_nobody_is_missing() -> None:
    story = with_second()
    Ask(story, "r1", 30.0, 50, frontend="frontend-2").whole("w2", 30.0)
    story.fault("stop-frontend", FRONTEND, 20.0)
    story.exit(FRONTEND, 50.0, unlisted_s=50.0)
    assert signatures(judged(story)) == []


# --- placement --------------------------------------------------------------------------------------------------


def elsewhere(story: Story, *, overlap: bool) -> None:
    """A request that goes on elsewhere though nothing was touched."""
    ask = Ask(story, "r1", 5.0, 600).begin("w1", 5.004)
    ask.run(100, 5.01)
    if not overlap:
        ask.stop("failed", 5.7)
    ask.move("migrating", 5.71)
    first = ask.serving
    ask.begin("w2", 5.72)
    end_s = ask.run(500, 5.73)
    ask.stop("ended", end_s - 0.001).finish(end_s)
    if overlap:
        ask.serving = first
        ask.stop("ended", end_s - 0.001)


@pytest.mark.parametrize(
    ("limit", "overlap", "found"),
    [
        (3, False, ["M2/without-cause"]),
        (3, True, ["M4/two-at-once"]),
        (0, False, ["M3/second-worker"]),
    ],
)
def test_a_further_worker_is_one_finding(limit: int, overlap: bool, found: list[str]) -> None:  # noqa: FBT001
    story = of_dynamo(Story(limit=limit))
    elsewhere(story, overlap=overlap)
    counted = [f for f in signatures(judged(story)) if f not in ("M1/counter", "M6/without-migration")]
    assert counted == found


def test_a_worker_that_ends_by_itself_loses_its_requests_before_its_end_is_seen() -> None:
    for lag_s, found in ((0.2, []), (5.0, ["M2/without-cause"])):
        story = of_dynamo(Story())
        elsewhere(story, overlap=False)
        story.exit("w1", 5.71 + lag_s, unlisted_s=20.0)
        assert [signature for signature in signatures(judged(story)) if signature.startswith("M2")] == found


def test_what_a_thawed_worker_reads_late_tells_no_order() -> None:
    story = of_dynamo(Story())
    story.fault("freeze-worker", "w1", 4.0)
    ask = Ask(story, "r1", 5.0, 300).move("retrying", 10.0).begin("w2", 10.01)
    story.fault("thaw-worker", "w1", 11.0)
    story.log("w1", "begun", 11.01, ask.id)
    story.log("w1", "aborted", 11.02, ask.id)
    end_s = ask.run(300, 10.02)
    ask.stop("ended", end_s - 0.001).finish(end_s)
    judgement = judged(story)
    assert signatures(judgement) == []
    assert judgement.invariants["M2"].unknown == 1


@pytest.mark.parametrize(("begun_s", "found"), [(5.012, []), (8.5, ["M2/without-cause"])])
def test_what_a_worker_that_is_hit_begins_late_tells_no_order(begun_s: float, found: list[str]) -> None:
    story = of_dynamo(Story())
    story.fault("stop-worker", "w1", 5.002)
    ask = Ask(story, "r1", 5.0, 3000).move("retrying", 5.004).begin("w2", 5.006)
    end_s = ask.run(3000, 5.01)
    story.log("w1", "begun", begun_s, ask.id)
    story.log("w1", "aborted", begun_s + 0.01, ask.id)
    ask.stop("ended", end_s - 0.001).finish(end_s)
    judgement = judged(story)
    assert [signature for signature in signatures(judgement) if signature.startswith("M2")] == found
    assert judgement.invariants["M2"].unknown == (not found)


# --- draining ---------------------------------------------------------------------------------------------------


def test_a_drained_worker_that_stays_is_found_and_one_with_work_is_not() -> None:
    for tokens, found in ((50, ["C5/never-exits"]), (9000, [])):
        story = of_dynamo(Story())
        ask = Ask(story, "r1", 5.0, tokens).begin("w1", 5.004)
        story.fault("stop-worker", "w1", 5.1)
        story.lives["w1"].unlisted_s = 5.15
        if not found:
            ask.head(5.2)
        else:
            ask.run(tokens, 5.01)
            ask.stop("ended", 5.6).finish(5.6)
        assert [f for f in signatures(judged(story, rest_s=50.0)) if f.startswith("C5")] == found


def test_a_worker_stopped_twice_or_frozen_in_its_drain_is_not_judged() -> None:
    for second in ("stop-worker", "freeze-worker"):
        story = of_dynamo(Story())
        Ask(story, "r1", 5.0, 50).whole("w2", 5.0)
        story.fault("stop-worker", "w1", 6.0)
        story.fault(second, "w1", 7.0)  # type: ignore[arg-type]
        story.lives["w1"].unlisted_s = 6.05
        assert judged(story).invariants["C5"].evaluated == 0


# --- health and identities --------------------------------------------------------------------------------------


def telling(story: Story, title: str, from_s: float, until_s: float, rest_s: float = 60.0) -> list[Event]:
    """The story, but that a process does not answer for a while."""
    return [
        dataclasses.replace(e, health=0, live=0)
        if isinstance(e, Told) and e.title == title and from_s < e.at.before_s < until_s
        else e
        for e in story.told(rest_s)
    ]


@pytest.mark.parametrize(
    ("seconds", "stalled", "found"),
    [(10.0, False, ["C4/worker-health", "C4/worker-live"]), (6.0, False, []), (10.0, True, [])],
)
def test_a_process_that_says_nothing_lies_only_after_the_bound(seconds: float, stalled: bool, found: list[str]) -> None:  # noqa: FBT001
    story = of_dynamo(Story())
    Ask(story, "r1", 5.0, 50).whole("w2", 5.0)
    if stalled:
        story.push(Stall(at=moment(26.0, 4.0), who="tester"))
    judgement = judge(telling(story, "w1", 20.0, 20.0 + seconds), OURS)
    assert sorted(signatures(judgement)) == found


def test_an_id_that_may_be_a_worker_not_identified_yet_is_no_strangers() -> None:
    story = of_dynamo(Story())
    Ask(story, "r1", 5.0, 50).whole("w2", 5.0)
    story.start("w3", 3, 6.0)
    story.kill("w3", 7.0)
    events = story.told(60.0)
    shown = next(e for e in events if e.kind == "listed" and e.at.before_s > 8.0)
    strange = [dataclasses.replace(e, strangers=("4711",)) if e is shown else e for e in events]
    judgement = judge(strange, OURS)
    assert signatures(judgement) == []
    assert judgement.invariants["C6"].unknown == 1
