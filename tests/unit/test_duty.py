"""What is owed to a request and to a cancel: must only if surely."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from histories import FRONTEND, PACE_S, Ask, Story, moment

from ftmodel.history import Event, Interval, Item, Listed, Promise, RequestSent, Setting, Stall, Started
from ftmodel.invariants import INVARIANTS, Judge, duty
from ftmodel.invariants.duty import AbortDuty, Duty
from ftmodel.invariants.ledger import Ledger


def settled(events: list[Event]) -> Ledger:
    judge = Judge(INVARIANTS)
    for event in events:
        judge.feed(event)
    judge.result()
    assert judge._ledger is not None
    return judge._ledger


def owed(story: Story, name: str = "r1", *, rest_s: float = 40.0, **setting: Any) -> Duty:
    return owed_of([dataclasses.replace(story.setting, **setting), *story.told(rest_s)[1:]], name)


def owed_of(events: list[Event], name: str = "r1") -> Duty:
    ledger = settled(events)
    return duty.completion(ledger, ledger.requests[name])


def changed(story: Story, kind: type, **change: Any) -> None:
    story.events = [dataclasses.replace(e, **change) if isinstance(e, kind) else e for e in story.events]


def promise(recovery: str, limit: int = 3) -> Promise:
    return Promise(recovery=recovery, limit=limit, shun_s=5.0, broken_stream=("error", "done"))  # type: ignore[arg-type]


def killed_under_it(**how: Any) -> Story:
    """r1 streams on w1 when that is killed; nothing tells where it goes."""
    story = Story(workers=3, **how)
    ask = Ask(story, "r1", 5.0, 300).begin("w1", 5.004)
    ask.run(50, 5.01)
    story.kill("w1", 5.5)
    ask.stop("died", 5.5).error(6.0)
    return story


# --- completion -------------------------------------------------------------------------------------------------


def test_without_a_fault_a_request_must_complete() -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).whole("w1", 5.0)
    found = owed(story)
    assert (found.value, found.touched, found.t, found.c) == ("must", False, (), 1)
    assert found.due_s == 5.0 + 4 * 50 * PACE_S + 7.0


def test_one_killed_worker_is_borne_by_a_limit_of_three_but_not_of_one() -> None:
    found = owed(killed_under_it(limit=3))
    assert (found.value, found.touched, found.t, found.c) == ("must", True, ("w1",), 1)
    assert owed(killed_under_it(limit=1)).value == "may"


def test_a_kill_that_was_not_verified_counts_as_one_that_could_have_been() -> None:
    story = Story(limit=1)
    Ask(story, "r1", 5.0, 50).refuse(5.2, 500)
    story.fault("kill-worker", "w1", 4.9, verified=False)
    assert owed(story).t == ("w1",)


def test_a_request_with_several_choices_must_not_migrate_and_so_need_not_complete() -> None:
    story = killed_under_it()
    changed(story, RequestSent, n=2)
    assert owed(story).value == "may"


def test_a_dead_worker_counts_until_a_poll_a_second_after_its_death_lacks_it() -> None:
    for sent_s, t in ((6.0, ("w1",)), (12.0, ())):
        story = Story(limit=1)
        story.kill("w1", 5.0, listed_s=4.0)
        Ask(story, "r1", sent_s, 50).refuse(sent_s + 0.1, 500)
        found = owed(story)
        assert (found.t, found.value) == (t, "may" if t else "must")


def test_a_poll_that_shows_a_stranger_proves_no_absence() -> None:
    story = Story(limit=1)
    story.kill("w1", 5.0, listed_s=4.0)
    Ask(story, "r1", 12.0, 50).refuse(12.1, 500)
    events = story.told(40.0)
    late = [dataclasses.replace(e, strangers=("4711",)) if isinstance(e, Listed) else e for e in events]
    assert owed_of(late).t == ("w1",)


def test_a_worker_that_joined_after_the_sending_is_no_witness() -> None:
    story = Story(workers=1)
    Ask(story, "r1", 5.0, 50).refuse(7.0, 500)
    story.start("w2", 2, 5.1)
    story.join("w2", 5.5)
    story.kill("w1", 5.05)
    assert owed(story).value == "may"


def test_a_join_that_could_fall_within_a_second_after_a_touch_is_a_change() -> None:
    story = killed_under_it(limit=3)
    story.start("w4", 4, 5.4)
    story.join("w4", 5.9)
    found = owed(story)
    assert (found.c, found.value) == (2, "must")


def test_a_lapse_that_comes_long_after_the_touch_is_no_change() -> None:
    assert owed(killed_under_it()).c == 1


def test_a_deregistration_at_once_is_a_change() -> None:
    story = Story(limit=10)
    ask = Ask(story, "r1", 5.0, 300).begin("w1", 5.004)
    ask.run(50, 5.01)
    story.fault("stop-worker", "w1", 5.5)
    story.lives["w1"].unlisted_s = 5.6
    ask.error(6.0)
    found = owed(story)
    assert (found.t, found.c) == (("w1",), 2)


def test_a_frozen_worker_makes_it_may_until_seven_seconds_after_the_thaw() -> None:
    for sent_s, value in ((5.5, "may"), (12.0, "may"), (14.0, "must")):
        story = Story(limit=10)
        story.fault("freeze-worker", "w1", 5.0)
        story.fault("thaw-worker", "w1", 6.0)
        Ask(story, "r1", sent_s, 50).refuse(sent_s + 0.1, 500)
        found = owed(story)
        assert (found.value, found.t) == (value, ("w1",))


def test_a_thaw_that_was_not_verified_restores_nothing() -> None:
    story = Story(limit=10)
    story.fault("freeze-worker", "w1", 5.0)
    story.fault("thaw-worker", "w1", 6.0, verified=False)
    Ask(story, "r1", 30.0, 50).refuse(30.1, 500)
    assert owed(story).value == "may"


def test_no_worker_alive_in_its_life_means_that_it_must_not_complete() -> None:
    story = Story()
    for title in ("w1", "w2"):
        story.kill(title, 4.0)
    Ask(story, "r1", 5.0, 50).refuse(5.1, 503)
    assert owed(story).value == "must_not"
    story.start("w1-2", 1, 5.05)
    assert owed(story).value == "may"


def test_a_dead_frontend_owes_nothing() -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).end("cut", 5.2)
    story.exit(FRONTEND, 5.1, unlisted_s=5.1)
    assert owed(story).value == "may"


def test_what_was_refused_as_malformed_need_not_complete() -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).refuse(5.1, 400)
    assert owed(story).value == "may"


def test_more_open_requests_than_slots_leave_no_witness() -> None:
    story = Story()
    for i in range(3):
        Ask(story, f"r{i}", 5.0 + i / 100, 50).refuse(6.0, 503)
    assert owed(story, slots=3).value == "must"
    assert owed(story, slots=2).value == "may"


def test_a_left_request_keeps_its_slot_for_the_abort_bound() -> None:
    story = Story()
    Ask(story, "r0", 5.0, 900).begin("w1", 5.004).leave(5.5)
    Ask(story, "r1", 6.0, 50).refuse(6.1, 503)
    assert owed(story, slots=1).value == "may"


def test_placed_on_a_worker_that_stayed_untouched_is_a_must_by_the_logs() -> None:
    story = killed_under_it(limit=0)
    assert owed(story).value == "may"
    story.log("w2", "begun", 5.6, "00000000-r1")
    assert owed(story).value == "must"


def test_given_up_with_attempts_left_is_a_must_by_the_logs_if_these_are_proven() -> None:
    story = killed_under_it(limit=1)
    assert owed(story).value == "may"
    story.log(FRONTEND, "given-up", 5.52, "00000000-r1")
    assert owed(story).value == "must"
    assert owed(story, proven=("begun", "given-up", "migrating")).value == "may"
    story.log(FRONTEND, "migrating", 5.51, "00000000-r1")
    assert owed(story).value == "may"


def test_without_recovery_a_touch_ends_the_duty() -> None:
    assert owed(killed_under_it(), promise=promise("none")).value == "may"


def test_retrying_until_the_response_begins_bears_a_touch_before_it_alone() -> None:
    assert owed(killed_under_it(), promise=promise("retry")).value == "may"
    story = Story(workers=3)
    story.kill("w1", 4.9)
    ask = Ask(story, "r1", 5.0, 50)
    ask.head(5.2).error(5.3)
    assert owed(story, promise=promise("retry")).value == "must"


def test_what_was_told_after_the_rest_changes_nothing() -> None:
    story = killed_under_it()
    events = story.told(40.0)
    late = Started(at=moment(41.0), title="w9", role="worker", slot=9, pid=9)
    assert owed_of([*events, late]) == owed_of(events)


@pytest.mark.parametrize(("cache_tokens", "value"), [(0, "must"), (100, "must"), (99, "may")])
def test_what_no_worker_has_the_blocks_for_is_not_owed(cache_tokens: int, value: str) -> None:
    story = Story()
    Ask(story, "r1", 5.0, 60).head(5.01).error(5.02)
    assert owed(story, cache_tokens=cache_tokens).value == value


# --- abort ------------------------------------------------------------------------------------------------------


def aborts(story: Story, title: str = "w1", **setting: Any) -> AbortDuty:
    ledger = settled([dataclasses.replace(story.setting, **setting), *story.told(40.0)[1:]])
    return duty.abort(ledger, ledger.requests["r1"], title)


def left(tokens: int = 20, max_tokens: int = 900, *, stream: bool = True, at_s: float = 5.5) -> Story:
    story = Story()
    ask = Ask(story, "r1", 5.0, max_tokens, stream=stream).begin("w1", 5.004)
    if stream:
        ask.run(tokens, 5.01)
    ask.leave(at_s)
    return story


def test_a_cancel_long_before_the_end_must_abort() -> None:
    assert aborts(left()).value == "must"


def test_nobody_left_so_nothing_may_be_aborted() -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).whole("w1", 5.0)
    assert aborts(story).value == "must_not"


def test_a_cancel_near_the_end_may_come_too_late() -> None:
    assert aborts(left(tokens=600)).value == "may"


def test_an_unmeasured_pace_proves_nothing() -> None:
    assert aborts(left(), pace_min_s=0.0).value == "may"


def test_of_an_answer_that_is_not_streamed_the_time_tells_how_far_it_is() -> None:
    assert aborts(left(stream=False, at_s=5.5)).value == "must"
    assert aborts(left(stream=False, at_s=7.6)).value == "may"


def test_a_worker_touched_before_the_bound_is_over_owes_nothing() -> None:
    story = left()
    story.kill("w1", 7.4)
    assert aborts(story).value == "may"
    later = left()
    later.kill("w1", 7.6)
    assert aborts(later).value == "must"


def test_where_it_began_only_after_the_cancel_an_abort_may_come() -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 900)
    ask.leave(5.1)
    ask.begin("w1", 5.1005).stop("aborted", 5.2)
    assert aborts(story).value == "may"


def test_a_worker_that_it_left_for_another_owes_no_abort() -> None:
    story = left()
    story.log("w2", "begun", 5.3, "00000000-r1")
    assert aborts(story).value == "may"
    assert aborts(story, "w2").value == "must"


def test_an_answer_that_had_failed_before_the_cancel_owes_no_abort() -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 900).begin("w1", 5.004)
    ask.run(20, 5.01)
    ask.read(5.3, Item("error", "broken"))
    ask.leave(5.5)
    assert aborts(story).value == "may"


def test_a_tester_that_slept_before_the_cancel_cannot_say_how_far_it_was() -> None:
    story = left()
    story.push(Stall(at=Interval(4.5, 5.4), who="tester"))
    assert aborts(story).value == "may"


def test_the_setting_is_the_first_event_of_every_story() -> None:
    assert isinstance(Story().told(1.0)[0], Setting)
