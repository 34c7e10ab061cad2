"""How invariants decide: what they leave undecided, what they leave to each other, and what they never blame."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from histories import BASES, FRONTEND, Ask, Story, moment

from ftmodel import history
from ftmodel.errors import StoreError
from ftmodel.history import (
    Answered,
    ClientClosed,
    Event,
    Interval,
    Item,
    LeftOver,
    LogLine,
    Mark,
    Promise,
    Received,
    RequestEnded,
    Stall,
    read,
    write,
)
from ftmodel.invariants import INVARIANTS, Judge, Judgement, judge
from ftmodel.invariants.base import Finding, Invariant
from ftmodel.invariants.ledger import Ledger


def judged(story: Story, *, rest_s: float = 60.0, **setting: Any) -> Judgement:
    return judge([dataclasses.replace(story.setting, **setting), *story.told(rest_s)[1:]])


def signatures(judgement: Judgement) -> list[str]:
    return sorted(finding.signature for finding in judgement.findings)


def cancelled(*, aborts: bool = True, at_s: float = 5.5) -> Story:
    story = Story()
    ask = Ask(story, "r1", 5.0, 900).begin("w1", 5.004)
    ask.run(20, 5.01)
    ask.leave(at_s, aborts=aborts)
    return story


# --- the judge --------------------------------------------------------------------------------------------------


def test_a_history_begins_with_its_setting() -> None:
    with pytest.raises(StoreError, match="begins with 'mark'"):
        judge([Mark(at=moment(1.0), stage="ready")])
    with pytest.raises(StoreError, match="empty"):
        judge([])


def test_each_invariant_has_a_sentence_and_an_identifier_of_its_own() -> None:
    assert len({cls.id for cls in INVARIANTS}) == len(INVARIANTS)
    assert all(cls.sentence.endswith(".") and "\n" not in cls.sentence for cls in INVARIANTS)


def test_a_subject_is_found_once_by_one_invariant() -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 8)
    ask.run(8, 5.01)
    ask.read(5.2, Item("finish", "length"), Item("finish", "length"), Item("text", "more"), Item("done"), Item("done"))
    ask.end("eof", 5.3, success=True)
    judgement = judged(story)
    assert signatures(judgement) == ["P1/two-finishes"]
    assert judgement.invariants["P1"].violated == 1


def test_a_finding_is_told_as_soon_as_its_event_is_fed() -> None:
    judge_ = Judge()
    story = Story()
    Ask(story, "r1", 5.0, 8).head(5.1).read(5.2, Item("done"), Item("text", "more"))
    new = [finding.signature for event in [story.setting, *story.events] for finding in judge_.feed(event)]
    assert new == ["P1/after-done"]


def test_feeding_after_the_result_adds_nothing_but_what_was_left_over() -> None:
    judge_ = Judge()
    for event in cancelled(aborts=False).told(60.0):
        judge_.feed(event)
    before = judge_.result()
    judge_.feed(LeftOver(at=moment(61.0), of="w1", pids=(4711,), by="child"))
    assert signatures(judge_.result()) == sorted([*signatures(before), "R3/orphan"])


@pytest.mark.parametrize("name", BASES)
def test_a_history_read_back_from_disk_is_judged_alike(name: str, tmp_path: Path) -> None:
    write(BASES[name], tmp_path / "history.jsonl")
    assert signatures(judge(read(tmp_path / "history.jsonl"))) == signatures(judge(BASES[name]))


def test_somebodys_own_invariant_is_judged_with_the_others() -> None:
    class NoPolls(Invariant):
        id = "Z1"
        sentence = "Nobody polls."
        kinds = frozenset({"listed"})
        slugs = frozenset({"polled"})

        def see(self, event: Event, ledger: Ledger) -> list[Finding]:
            return [self.finding("polled", event.frontend, f"{len(ledger.processes)} processes")]  # type: ignore[union-attr]

    judgement = judge(BASES["drain-mocker"], (*INVARIANTS, NoPolls))
    assert signatures(judgement) == ["Z1/polled"]


def test_a_slug_outside_the_closed_set_is_refused() -> None:
    with pytest.raises(ValueError, match="'oops': expected one of"):
        INVARIANTS[0]().finding("oops", "r1", "")


# --- what is counted --------------------------------------------------------------------------------------------


def test_the_counts_tell_requests_duties_faults_and_steps_but_no_probes() -> None:
    judgement = judge(BASES["drain-counting"])
    assert judgement.requests == {"completed": 3, "cancelled": 1, "failed": 1, "unknown": 0}
    assert judgement.duty == {
        "L2": {"must": 2, "must_touched": 1, "may": 2, "must_not": 0},
        "A1": {"must": 1, "may": 0, "must_not": 0},
    }
    assert judgement.faults == {
        "kill-worker": {"made": 1, "verified": 1},
        "stop-worker": {"made": 1, "verified": 1},
    }
    assert judgement.steps == {"cancel": 1, "kill-worker": 1, "stop-worker": 1}
    assert (judgement.migrations, judgement.aborts) == (0, 1)


@pytest.mark.parametrize("exact", [True, False])
def test_migrations_and_aborts_are_counted_with_and_without_ids_in_the_engines_log(exact: bool) -> None:  # noqa: FBT001
    judgement = judge(BASES[f"kill_and_cancel-{'counting' if exact else 'mocker'}"])
    assert (judgement.migrations, judgement.aborts) == (1, 2)


def test_a_client_that_leaves_after_the_end_has_cancelled_nothing() -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).whole("w1", 5.0)
    story.push(ClientClosed(at=moment(6.0), request="r1", how="close"))
    judgement = judged(story)
    assert judgement.duty["A1"] == {"must": 0, "may": 0, "must_not": 1}
    assert judgement.requests["completed"] == 1


def test_what_an_invariant_needs_and_the_engine_lacks_is_said() -> None:
    counts = judge(BASES["drain-mocker"]).invariants
    assert counts["T1"].not_applicable == "needs exact text"
    assert counts["A2"].not_applicable == "needs engine ids"
    promise = Promise(recovery="none", limit=0, shun_s=0.0, broken_stream=())
    assert judged(Story(), promise=promise).invariants["M1"].not_applicable == "needs migrate"


# --- unknown ----------------------------------------------------------------------------------------------------


def test_a_bound_that_the_tester_slept_through_is_undecided() -> None:
    story = cancelled(aborts=False)
    assert signatures(judged(story)) == ["A1/missing"]
    story.push(Stall(at=Interval(5.6, 6.3), who="tester"))
    judgement = judged(story)
    assert signatures(judgement) == []
    assert judgement.invariants["A1"].unknown > 0


def test_stalls_that_overlap_count_once() -> None:
    story = cancelled(aborts=False)
    for who in ("tester", "warden"):
        story.push(Stall(at=Interval(5.6, 6.0), who=who))
    assert signatures(judged(story)) == ["A1/missing"]


def test_what_rests_on_a_pattern_that_was_never_proven_is_undecided_and_said() -> None:
    judgement = judged(cancelled(aborts=False), proven=("begun", "ended", "kill"))
    assert signatures(judgement) == []
    assert judgement.invariants["A1"].unknown == 1
    assert judgement.doubts == ("H2: no control run has seen the log pattern 'aborted', on which A1 rests",)


def test_a_rest_too_soon_after_a_cancel_decides_nothing() -> None:
    judgement = judged(cancelled(aborts=False), rest_s=6.0)
    assert signatures(judgement) == []
    assert judgement.invariants["A1"].unknown > 0


def test_a_gauge_seen_too_soon_decides_nothing() -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).whole("w1", 5.0)
    story.lives["w1"].open.append((5.0, 99.0))
    early, late = judged(story, rest_s=12.0), judged(story, rest_s=20.0)
    assert signatures(early) == []
    assert early.invariants["R1"].unknown == 3
    assert signatures(late) == ["R1/worker-inflight", "R1/worker-kv", "R1/worker-running"]


def test_an_example_that_never_came_to_rest_proves_only_what_was_seen() -> None:
    story = cancelled(aborts=False)
    Ask(story, "r2", 6.0, 8).head(6.1).read(6.2, Item("done"), Item("done"))
    story.exit("w2", 7.0, unlisted_s=7.0)
    judgement = judge([story.setting, *story.events])
    assert signatures(judgement) == ["P1/after-done"]
    assert judgement.doubts == ("H4: the example never came to rest",)


def test_an_open_request_that_is_not_due_yet_is_undecided() -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).begin("w1", 5.004).run(10, 5.01)
    early, late = judged(story, rest_s=30.0), judged(story, rest_s=60.0)
    assert (signatures(early), early.invariants["L1"].unknown) == ([], 1)
    assert signatures(late) == ["L1/never-ended"]


def test_after_a_fault_that_nobody_healed_no_request_is_overdue() -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).begin("w1", 5.004).run(10, 5.01)
    story.fault("freeze-worker", "w1", 5.05)
    assert signatures(judged(story, rest_s=35.0)) == []
    story.mark("healed", 6.0)
    assert "L1/never-ended" in signatures(judged(story, rest_s=60.0))


# --- the harness ------------------------------------------------------------------------------------------------


def test_a_fault_that_was_not_verified_makes_the_verdict_unknown() -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).whole("w1", 5.0)
    story.fault("kill-worker", "w1", 6.0, verified=False)
    judgement = judged(story)
    assert judgement.doubts == ("H1: kill-worker of w1 was not verified",)
    assert judgement.faults == {"kill-worker": {"made": 1, "verified": 0}}


def test_what_the_tester_left_behind_is_its_own_fault() -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).whole("w1", 5.0)
    story.push(LeftOver(at=moment(60.4), of="harness", pids=(1,), by="warden"))
    judgement = judged(story)
    assert signatures(judgement) == []
    assert judgement.doubts == ("H3: processes of the harness were left behind",)


def test_load_that_nobody_answered_shows_nothing() -> None:
    story = Story()
    story.events = [event for event in story.events if getattr(event, "request", "").startswith("probe") is False]
    story.events = [event for event in story.events if not isinstance(event, Answered | LogLine)]
    Ask(story, "r1", 5.0, 50).end("refused", 5.1)
    assert judged(story).doubts == ("H4: none of 1 requests was answered",)


def test_the_closing_of_the_cluster_is_no_finding() -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).begin("w1", 5.004).stop("ended", 5.4)
    late = [
        LogLine(at=moment(60.2), title="w1", meaning="traceback"),
        LogLine(at=moment(60.2), title="w1", meaning="aborted", id="00000000-r1"),
        RequestEnded(at=moment(60.3), request="r1", how="cut"),
    ]
    judgement = judge([*story.told(60.0)[:-1], *late, story.told(60.0)[-1]])
    assert signatures(judgement) == ["L1/never-ended"]


# --- requests ---------------------------------------------------------------------------------------------------


def test_a_wait_is_measured_from_byte_to_byte_and_without_the_testers_own_sleep() -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 30).begin("w1", 5.004)
    ask.run(10, 5.01)
    end_s = ask.run(20, 36.0)
    ask.stop("ended", end_s).finish(end_s)
    assert signatures(judged(story)) == ["L3/hang"]
    story.push(Stall(at=Interval(10.0, 11.5), who="tester"))
    assert signatures(judged(story)) == []


def test_an_answer_that_is_not_streamed_may_take_as_long_as_its_generation() -> None:
    for max_tokens, found in ((100, ["L3/hang"]), (300, [])):
        story = Story()
        ask = Ask(story, "r1", 5.0, max_tokens, stream=False).begin("w1", 5.004)
        ask.stop("ended", 38.9).finish(39.0)
        assert signatures(judged(story)) == found


def test_without_a_witness_a_wait_is_no_hang() -> None:
    story = Story(workers=1)
    ask = Ask(story, "r1", 5.0, 30).begin("w1", 5.004)
    ask.run(10, 5.01)
    story.fault("freeze-worker", "w1", 5.2)
    story.fault("thaw-worker", "w1", 40.0)
    end_s = ask.run(20, 40.01)
    ask.stop("ended", end_s).finish(end_s)
    assert signatures(judged(story)) == []


def test_of_a_left_answer_only_the_prefix_is_judged() -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 900).begin("w1", 5.004)
    ask.run(20, 5.01)
    ask.read(5.3, Item("malformed", 'data: {"cho'))
    ask.leave(5.5)
    assert signatures(judged(story)) == []


def test_a_broken_connection_is_the_form_of_an_error_where_none_other_is_promised() -> None:
    story = Story(workers=1, limit=0)
    ask = Ask(story, "r1", 5.0, 900).begin("w1", 5.004)
    ask.run(20, 5.01)
    story.kill("w1", 5.5)
    ask.stop("died", 5.5).end("cut", 5.6)
    assert signatures(judged(story)) == ["P1/cut"]
    promise = dataclasses.replace(story.setting.promise, broken_stream=())
    assert signatures(judged(story, promise=promise)) == []


def test_an_abort_that_follows_a_told_failure_is_left_to_the_failure() -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 900).begin("w1", 5.004)
    ask.run(20, 5.01)
    ask.end("cut", 5.5)
    ask.stop("aborted", 5.51)
    story.lives[FRONTEND].cancelled.append(5.51)
    assert signatures(judged(story)) == ["L2/cut"]


@pytest.mark.parametrize(("asked_for", "found"), [(0, []), (1, ["T2/wrong-remainder"])])
def test_of_a_request_that_has_got_too_much_nothing_is_left_to_ask_for(asked_for: int, found: list[str]) -> None:
    story = Story(exact=True)
    ask = Ask(story, "r1", 5.0, 50).begin("w1", 5.004)
    end_s = ask.run(51, 5.01)
    story.log("w2", "begun", end_s, ask.id, position=51, max_tokens=asked_for)
    assert [one for one in signatures(judged(story)) if one == "T2/wrong-remainder"] == found


def test_several_choices_are_judged_each() -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 8, n=2)
    ask.run(8, 5.01)
    ask.read(5.2, Item("text", "no such text", choice=1), Item("finish", "length", choice=1), Item("done"))
    ask.end("eof", 5.3, success=True)
    assert signatures(judged(story)) == ["P1/done-without-finish", "T1/differs"]


def test_the_text_of_a_choice_that_nobody_asked_for_is_not_judged() -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 8)
    ask.run(8, 5.01)
    both = (Item("finish", "length", choice) for choice in (0, 1))
    ask.read(5.2, Item("text", "no such text", choice=1), *both, Item("done"))
    ask.end("eof", 5.3, success=True)
    assert signatures(judged(story)) == ["P3/index"]


# --- processes --------------------------------------------------------------------------------------------------


def test_a_process_that_died_as_it_was_told_to_has_not_ended_by_itself() -> None:
    for meaning, found in (("selected", ["R5/exited"]), ("armed-death", [])):
        story = Story()
        Ask(story, "r1", 5.0, 50).whole("w2", 5.0)
        story.log("w1", meaning, 8.0, "00000000-r1")
        story.exit("w1", 8.0, unlisted_s=17.0)
        assert signatures(judged(story)) == found


def test_a_killed_or_frozen_process_may_cry_a_stopped_one_may_not() -> None:
    for fault, found in (("freeze-worker", []), ("stop-worker", ["R5/traceback"])):
        story = Story()
        Ask(story, "r1", 5.0, 50).whole("w2", 5.0)
        story.fault(fault, "w1", 8.0)  # type: ignore[arg-type]
        story.log("w1", "traceback", 8.1)
        if fault == "stop-worker":
            story.exit("w1", 8.2, unlisted_s=8.1)
        assert signatures(judged(story)) == found


def test_a_worker_whose_engine_was_killed_may_cry_and_end_and_is_no_witness_from_then_on() -> None:
    story = Story(limit=3)
    moved = Ask(story, "r1", 5.0, 203).begin("w1", 5.004)
    moved.run(61, 5.01)
    story.fault("kill-engine", "w1", 5.5)
    story.log("w1", "traceback", 5.6)
    moved.stop("died", 5.7).move("migrating", 5.71).begin("w2", 5.75)
    story.exit("w1", 5.7, unlisted_s=5.7)
    end_s = moved.run(203 - 61, 5.76)
    moved.stop("ended", end_s - 0.001).finish(end_s)
    assert signatures(judged(story)) == []


def test_a_worker_whose_engine_was_killed_lives_until_its_own_end() -> None:
    story = Story()
    story.fault("kill-engine", "w1", 5.0)
    ledger = Ledger(story.setting)
    for event in story.told(20.0):
        ledger.see(event)
    worker = ledger.processes["w1"]
    assert worker.touched_from_s < 5.1
    assert worker.died is None or worker.died.before_s > 20.0


def test_a_thawed_worker_lives_on_and_must_come_to_rest() -> None:
    story = Story()
    Ask(story, "r1", 5.0, 50).whole("w2", 5.0)
    story.fault("freeze-worker", "w1", 6.0)
    story.fault("thaw-worker", "w1", 7.0)
    story.lives["w1"].open.append((5.0, 99.0))
    assert "R1/worker-running" in signatures(judged(story, rest_s=20.0))
    assert signatures(judged(story, rest_s=16.5)) == []


def test_a_worker_that_reads_a_left_request_only_after_its_thaw_is_not_blamed() -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 900)
    story.fault("freeze-worker", "w1", 4.9)
    ask.leave(5.5)
    story.fault("thaw-worker", "w1", 9.0)
    ask.begin("w1", 9.1).stop("aborted", 9.12)
    assert signatures(judged(story)) == []


def test_lines_that_name_no_request_may_be_the_migration_that_is_looked_for() -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 100).begin("w1", 5.004)
    ask.run(20, 5.01)
    story.kill("w1", 5.2)
    ask.stop("died", 5.2).begin("w2", 5.3)
    end_s = ask.run(80, 5.31)
    ask.stop("ended", end_s - 0.001).finish(end_s)
    assert signatures(judged(story)) == ["M6/unlogged"]
    story.log(FRONTEND, "migrating", 5.25)
    assert signatures(judged(story)) == []


def test_bursts_of_many_tokens_are_as_good_as_single_ones() -> None:
    story = Story()
    ask = Ask(story, "r1", 5.0, 203).begin("w1", 5.004)
    end_s = ask.run(203, 5.01)
    ask.stop("ended", end_s - 0.001).finish(end_s)
    bursts = [event for event in story.events if isinstance(event, Received) and event.request == "r1"]
    text = [item for burst in bursts for item in burst.items]
    story.events = [event for event in story.events if event not in bursts]
    story.push(dataclasses.replace(bursts[-1], items=tuple(text)))
    assert signatures(judged(story)) == []


def test_a_cancel_that_the_worker_was_told_of_needs_no_control_message_of_the_frontend() -> None:
    """Recorded: of five cancels right behind a migration one dropped the connection instead of sending a message."""
    events = list(history.read(Path(__file__).parent / "recorded" / "mocker-1.6.1-dropped.jsonl"))
    kills = sum(getattr(event, "meaning", "") == "kill" for event in events)
    judged = judge(events)
    assert kills < judged.duty["A1"]["must"]
    assert judged.findings == ()
