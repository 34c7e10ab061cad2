"""What is told of an answer beside its text, and what excuses it: the limits of P2, P3, P5, O1 and of the tester's own deeds."""

from __future__ import annotations

import dataclasses

import pytest
from histories import Ask, Story, moment

from ftmodel.history import EngineErred, Event, Item, ReaderPaused, Received, Sample
from ftmodel.invariants import Judgement, judge

LATE_S = 400.0


def judged(story: Story, rest_s: float = 60.0) -> Judgement:
    story.mark("healed", rest_s - 50)
    return judge(story.told(rest_s))


def signatures(judgement: Judgement) -> list[str]:
    return sorted(finding.signature for finding in judgement.findings)


def stalled(how: str) -> Story:
    story = Story()
    ask = Ask(story, "r1", 5.0, 200).begin("w1", 5.004)
    end_s = ask.run(50, 5.01)
    if how:
        story.push(EngineErred(at=moment(end_s), request="r1", title="w1", how=how, step="s1"))  # type: ignore[arg-type]
    return story


def test_a_request_whose_engine_was_told_to_stall_need_not_end() -> None:
    assert signatures(judged(stalled(""), LATE_S)) == ["L1/never-ended"]
    assert signatures(judged(stalled("stall"), LATE_S)) == []
    assert judged(stalled("stall"), LATE_S).invariants["L1"].unknown == 1


@pytest.mark.parametrize(("paused", "found"), [(False, ["L3/hang"]), (True, [])])
def test_a_client_that_reads_nothing_waits_for_itself(*, paused: bool, found: list[str]) -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 200).begin("w1", 5.004)
    half_s = ask.run(70, 5.01)
    ask.stop("ended", half_s + 1)
    if paused:
        story.push(ReaderPaused(at=moment(half_s + 39, 38.5), request="r1"))
    ask.finish(ask.run(130, half_s + 40))
    assert signatures(judged(story, LATE_S)) == found


@pytest.mark.parametrize("finish", ["length", "stop"])
def test_what_an_engine_broke_off_must_not_look_whole(finish: str) -> None:
    story = stalled("cancelled")
    [ask] = [ask for ask in story.asks if ask.name == "r1"]
    ask.stop("failed", 5.4).finish(5.4, finish, 50)
    assert signatures(judged(story)) == ["P1/looks-whole"]


@pytest.mark.parametrize(("context", "found"), [(0, []), (16384, ["L2/completed"])])
def test_a_prompt_is_too_long_only_where_the_longest_is_known(context: int, found: list[str]) -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).whole("w1", 5.0)
    Ask(story, "b1", 6.0, 8, wrong="prompt-too-long").whole("w1", 6.0)
    events = [_sampled(event, context=float(context)) for event in told(story)]
    assert signatures(judge(events)) == found


def told(story: Story) -> list[Event]:
    story.mark("healed", 10.0)
    return story.told(60.0)


def _sampled(event: Event, **values: float) -> Event:
    known = isinstance(event, Sample) and "context" in event.values
    return dataclasses.replace(event, values={**event.values, **values}) if known else event  # type: ignore[union-attr]


def test_a_status_of_a_wrong_request_says_little_without_a_worker() -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).whole("w1", 5.0)
    story.kill("w1", 6.0)
    story.kill("w2", 6.0)
    Ask(story, "b1", 7.0, 8, wrong="malformed-json").refuse(7.01, 503)
    judgement = judge(story.told(60.0))
    assert signatures(judgement) == []
    assert judgement.invariants["P2"].unknown == 1


@pytest.mark.parametrize(("limit", "found"), [(0, []), (10, ["P2/server-blamed"])])
def test_a_wrong_request_that_met_a_dead_worker_may_be_told_that_none_is_there(limit: int, found: list[str]) -> None:
    story = Story(workers=3, limit=limit)
    Ask(story, "r1", 5.0, 50).whole("w2", 5.0)
    story.kill("w1", 6.0)
    Ask(story, "b1", 6.2, 8, wrong="prompt-too-long").refuse(6.21, 503)
    judgement = judge([_sampled(event, context=16384.0) for event in told(story)])
    assert signatures(judgement) == found
    assert judgement.invariants["P2"].unknown == (0 if found else 1)


def test_a_request_that_asks_for_more_than_text_may_be_refused() -> None:
    for n, found in ((1, ["P2/client-blamed"]), (2, [])):
        story = Story()
        Ask(story, "r1", 5.0, 50, n=n).refuse(5.01, 400)
        assert signatures(judged(story)) == found


def test_a_system_that_gives_ids_of_its_own_is_not_blamed_for_them() -> None:
    for all_of_them, found in ((True, []), (False, ["P3/id"])):
        story = Story()
        Ask(story, "r1", 5.0, 50).whole("w1", 5.0)
        Ask(story, "r2", 6.0, 50).whole("w1", 6.0)
        events = [_renamed(event) if all_of_them or _of(event, "r2") else event for event in told(story)]
        assert signatures(judge(events)) == found


def _of(event: Event, name: str) -> bool:
    return isinstance(event, Received) and event.request == name


def _renamed(event: Event) -> Event:
    if not isinstance(event, Received):
        return event
    items = tuple(dataclasses.replace(item, answer_id=f"own-{event.request}") for item in event.items)
    return dataclasses.replace(event, items=items)


def test_the_tokens_of_a_text_that_differs_are_not_counted() -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 8, stream=False).begin("w1", 5.004).stop("ended", 5.05).head(5.06)
    ask.read(5.06, Item("text", "no such text"), Item("finish", "length"), Item("usage", "40", count=3))
    ask.end("eof", 5.07, success=True)
    judgement = judged(story)
    assert signatures(judgement) == ["T1/differs"]
    assert judgement.invariants["P5"].unknown == 1


def test_a_frontend_under_a_fault_may_have_lost_count() -> None:
    for fault, found in ((False, ["O1/undercounted"]), (True, [])):
        story = Story()
        Ask(story, "r1", 5.0, 50).whole("w1", 5.0)
        if fault:
            story.fault("stop-frontend", "frontend-1", 30.0)
        events = [
            dataclasses.replace(event, values={**event.values, "success": min(event.values["success"], 1.0)})
            if isinstance(event, Sample) and "success" in event.values
            else event
            for event in told(story)
        ]
        assert [s for s in signatures(judge(events)) if s.startswith("O1")] == found


@pytest.mark.parametrize(("sent_on", "found"), [(False, ["O1/wrong-status"]), (True, [])])
def test_what_is_sent_on_after_its_client_left_may_fail_there(*, sent_on: bool, found: list[str]) -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 900).begin("w1", 5.004)
    ask.run(20, 5.01)
    ask.leave(5.5)
    if sent_on:
        ask.choose("w2", 6.0)
    events = [
        dataclasses.replace(event, values={**event.values, "cancelled": 0.0}) if isinstance(event, Sample) else event
        for event in told(story)
    ]
    assert [s for s in signatures(judge(events)) if s.startswith("O1")] == found
