"""What T4, T5, X1 and X2 leave to others, and what they never blame."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from histories import Ask, Story, moment
from histories_of_stops import WORD, Stopped

from ftmodel.history import EngineErred, Interval, Item, ReaderPaused, RequestSent, Stall
from ftmodel.invariants import Judgement, judge


def judged(story: Story, *, rest_s: float = 90.0, **setting: Any) -> Judgement:
    return judge([dataclasses.replace(story.setting, **setting), *story.told(rest_s)[1:]])


def of(judgement: Judgement, *ids: str) -> list[str]:
    return sorted(f.signature for f in judgement.findings if f.invariant in ids)


def stopped(*, exact: bool = True, lacks: int = 0, goes_on: str = "", finish: str = "stop") -> Story:
    """An answer that ends at its stop string, or not quite there."""
    story = Story(exact=exact)
    ask = Stopped(story, "r1", 5.0, 200, 60)
    ask.begin("w1", 5.004)
    text = ask.said_in_full()
    ask.head(5.01).read(5.4, Item("text", text[: len(text) - lacks] + goes_on))
    ask.stop("aborted", 5.5).read(5.51, Item("finish", finish), Item("done")).end("eof", 5.52, success=True)
    return story


def test_an_answer_may_end_right_before_its_stop_string() -> None:
    for exact in (True, False):
        judgement = judged(stopped(exact=exact))
        assert of(judgement, "T1", "T2", "T4") == []
        assert judgement.invariants["T4"].evaluated == 1


def test_what_lacks_more_than_can_be_withheld_is_short() -> None:
    assert of(judged(stopped(lacks=1)), "T1", "T2", "T4") == ["T4/withheld-lost"]
    assert of(judged(stopped(lacks=12)), "T1", "T2", "T4") == ["T2/short"]


def test_a_wrong_finish_reason_is_no_lost_text() -> None:
    assert of(judged(stopped(lacks=1, finish="length")), "T1", "T2", "T4") == ["T2/finish-reason"]


def test_a_text_that_is_not_the_expected_one_is_not_judged_by_its_stop_string() -> None:
    assert of(judged(stopped(goes_on="@@")), "T2", "T4") == []


def test_a_stop_string_is_found_though_it_comes_in_two_pieces() -> None:
    story = Story(exact=False)
    ask = Ask(story, "r1", 5.0, 200, stop=(WORD,)).begin("w1", 5.004).head(5.01)
    ask.read(5.1, Item("text", " abc ")).read(5.2, Item("text", "qde")).stop("aborted", 5.3)
    ask.read(5.3, Item("finish", "stop"), Item("done")).end("eof", 5.4, success=True)
    assert of(judged(story), "T4") == ["T4/past-stop"]


def test_a_stop_string_before_min_tokens_is_none() -> None:
    story = stopped(exact=False, goes_on=WORD)
    story.events = [
        dataclasses.replace(e, min_tokens=100) if isinstance(e, RequestSent) and e.request == "r1" else e
        for e in story.events
    ]
    assert of(judged(story), "T4") == []


# --- recovery ---------------------------------------------------------------------------------------------------


def recovering(gap_s: float, *, limit: int = 3) -> Story:
    """A stream that goes on so long after the death of its worker."""
    story = Story(limit=limit)
    ask = Ask(story, "r1", 5.0, 200).begin("w1", 5.004)
    at_s = ask.run(40, 5.01) + 0.01
    story.kill("w1", at_s)
    ask.stop("died", at_s).move("migrating", at_s + 0.01).begin("w2", at_s + gap_s - 0.01)
    end_s = ask.run(160, at_s + gap_s)
    ask.stop("ended", end_s - 0.001).finish(end_s)
    return story


@pytest.mark.parametrize(("gap_s", "found"), [(0.1, []), (13.0, []), (15.0, ["T5/slow-recovery"])])
def test_a_recovery_may_take_a_detection_for_each_touched_worker_and_one_more(gap_s: float, found: list[str]) -> None:
    assert of(judged(recovering(gap_s)), "T5", "L3") == found


def test_a_wait_that_is_a_hang_is_not_told_twice() -> None:
    assert of(judged(recovering(33.0)), "T5", "L3") == ["L3/hang"]


def test_where_requests_queue_a_wait_may_be_of_that() -> None:
    judgement = judged(recovering(15.0), slots=0)
    assert of(judgement, "T5") == []
    assert judgement.invariants["T5"].evaluated == 0


def test_the_pauses_of_the_client_are_its_own() -> None:
    story = recovering(15.0)
    story.push(ReaderPaused(at=Interval(8.0, 12.0), request="r1"))
    assert of(judged(story), "T5") == []


def test_a_wait_in_which_the_tester_slept_proves_nothing() -> None:
    story = recovering(20.0)
    story.push(Stall(at=Interval(8.0, 12.0), who="tester"))
    judgement = judged(story)
    assert of(judgement, "T5") == []
    assert judgement.invariants["T5"].unknown == 1


# --- compared runs ----------------------------------------------------------------------------------------------


def failed(status: int = 500, **how: Any) -> Story:
    story = Story()
    Ask(story, "r1", 5.0, 50, **how).refuse(5.1, status)
    Ask(story, "r2", 6.0, 50).whole("w1", 6.0)
    return story


def test_ordinary_runs_are_not_compared() -> None:
    judgement = judged(failed())
    assert of(judgement, "L2", "X1", "X2") == ["L2/status-500"]
    for name in ("X1", "X2"):
        assert judgement.invariants[name].not_applicable == "needs a compared run (ftmodel compare EXAMPLE)"


def test_without_faults_every_failure_is_told_once() -> None:
    assert of(judged(failed(), variant="without-faults"), "L2", "X1", "X2") == ["X1/failed"]


@pytest.mark.parametrize("how", [{"status": 400}, {"status": 400, "wrong": "malformed-json"}])
def test_without_faults_what_is_wrong_may_fail(how: dict[str, Any]) -> None:
    assert of(judged(failed(**how), variant="without-faults"), "X1") == []


def test_what_the_tester_made_an_engine_fail_is_not_compared() -> None:
    story = failed()
    story.push(EngineErred(at=moment(5.05), request="r1", title="w1", how="error", step="s1"))
    assert of(judged(story, variant="without-faults"), "X1") == []


def test_a_busy_service_is_still_a_failure_where_one_must_complete() -> None:
    assert of(judged(failed(529), variant="without-faults"), "L2", "X1") == ["L2/status-529"]


def test_only_what_completed_each_time_is_held_against_one_more_worker() -> None:
    more = {"variant": "one-more-worker"}
    assert of(judged(failed(), completed=("r1", "r2"), **more), "L2", "X2") == ["X2/pass-became-failure"]
    assert of(judged(failed(), completed=("r2",), **more), "L2", "X2") == ["L2/status-500"]
