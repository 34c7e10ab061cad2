"""Disaggregated clusters: how workers of each role are started, what is owed, and who is judged for what."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from histories import Ask, Story
from test_duty import owed, settled

from ftmodel import calibration, engines, systems, topology
from ftmodel.engines import Handoff, handoff_of
from ftmodel.history import Event, FaultMade, Interval, LogLine, Started
from ftmodel.invariants import INVARIANTS, duty, judge
from ftmodel.lanes import mended
from ftmodel.steps import Plan
from ftmodel.systems import Command, Pattern, Place, Role, concerns
from ftmodel.topology import Topology

TCP = topology.find("disaggregated-tcp")
NATS = topology.find("disaggregated")


def command(top: Topology, role: Role, release: tuple[int, int]) -> Command:
    place = Place(
        python=Path("python3"), scratch=Path("/s"), model=Path("/s/model"), http_port=18000, system_port=19000,
        ports=(20001,),
    )  # fmt: skip
    return systems.find(top.system).launch(role, top, engines.of(top), place, 3, release)


# --- launch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", [(1, 1), (1, 4), (1, 6)])
def test_workers_are_told_their_role_and_where_they_meet(release: tuple[int, int]) -> None:
    said = " ".join(command(NATS, "prefill", release).argv)
    assert "--disaggregation-mode prefill --bootstrap-ports 20001" in said
    assert "--disaggregation-mode decode" in " ".join(command(NATS, "worker", release).argv)
    assert "bootstrap" not in " ".join(command(TCP, "prefill", release).argv)


def test_a_prefill_worker_has_a_pace_of_its_own() -> None:
    assert "--speedup-ratio 0.006" in " ".join(command(TCP, "prefill", (1, 4)).argv)
    assert "--speedup-ratio 1" in " ".join(command(TCP, "worker", (1, 4)).argv)


def test_an_aggregated_worker_is_told_no_role() -> None:
    aggregated = topology.find("aggregated")
    assert "--disaggregation-mode" not in command(aggregated, "worker", (1, 4)).argv
    assert handoff_of(aggregated) is None
    assert isinstance(handoff_of(NATS), Handoff)


def test_each_role_gets_what_the_topology_adds_for_it() -> None:
    own = dataclasses.replace(TCP, prefill=topology.Component(args=("--own",), env={"OWN": "1"}))
    assert command(own, "prefill", (1, 6)).argv[-1] == "--own"
    assert command(own, "prefill", (1, 6)).env["OWN"] == "1"
    assert "--own" not in command(own, "worker", (1, 6)).argv


def test_a_prefill_worker_speaks_as_workers_do_and_has_rows_of_its_own() -> None:
    rows = [Pattern(role=role, meaning="begun", text="x") for role in ("frontend", "worker", "prefill", "any")]
    assert [row.role for row in rows if concerns(row, "prefill")] == ["worker", "prefill", "any"]
    assert [row.role for row in rows if concerns(row, "worker")] == ["worker", "any"]


def test_a_plan_has_as_many_prefill_workers_as_its_topology_admits() -> None:
    head = Plan(topology="", prefill_workers=2)
    assert mended(head, TCP).prefill_workers == 2
    assert mended(dataclasses.replace(head, prefill_workers=0), TCP).prefill_workers == 1
    assert mended(head, topology.find("aggregated")).prefill_workers == 0


def test_the_time_of_a_prefill_is_the_shortest_that_a_prefill_worker_tells() -> None:
    started = [
        Started(at=Interval(0, 0), title=title, role=role, slot=1, pid=1)  # type: ignore[arg-type]
        for title, role in (("p1", "prefill"), ("w1", "worker"))
    ]

    def said(title: str, meaning: str, id_: str, at_s: float) -> Event:
        return LogLine(at=Interval(at_s, at_s), title=title, meaning=meaning, id=id_)

    events = [
        *started, said("p1", "begun", "a", 1.0), said("w1", "begun", "a", 1.0), said("w1", "finished", "a", 1.1),
        said("p1", "begun", "b", 2.0), said("p1", "finished", "a", 4.0), said("p1", "finished", "b", 4.5),
    ]  # fmt: skip
    assert calibration.least_prefill(events) == 2.5
    assert calibration.least_prefill(started) == 0.0


# --- duty -------------------------------------------------------------------------------------------------------


def read_and_answered(story: Story, until_s: float = 8.0) -> Ask:
    """r1: p1 reads its prompt from 5 s on, then w1 answers."""
    ask = Ask(story, "r1", 5.0, 100).prefill("p1", 5.004, until_s).begin("w1", until_s + 0.01)
    end_s = ask.run(100, until_s + 0.02)
    ask.stop("ended", end_s).finish(end_s)
    return ask


def apart(prefills: int = 2) -> Story:
    return Story(exact=False, prefills=prefills)


def test_with_nobody_touched_a_request_must_complete_and_its_prompt_may_take_its_time() -> None:
    story = apart()
    read_and_answered(story)
    found, together = owed(story), owed(story, first_token_s=0.0)
    assert (found.value, found.touched) == ("must", False)
    assert found.due_s > together.due_s


def test_a_prefill_worker_that_is_touched_while_it_may_have_the_prompt_makes_it_may() -> None:
    story = apart()
    read_and_answered(story)
    story.kill("p2", 6.0)
    found = owed(story)
    assert (found.value, found.touched) == ("may", True)
    assert "p2, which may have had its prompt, was touched" in found.why


def test_a_prefill_worker_that_is_touched_after_the_first_token_concerns_it_no_more() -> None:
    story = apart()
    read_and_answered(story)
    story.kill("p1", 8.3)
    assert owed(story).value == "must"


def test_with_a_touched_worker_too_its_prompt_may_have_to_be_read_again() -> None:
    story = apart()
    read_and_answered(story)
    story.kill("p1", 8.3)
    story.kill("w2", 8.4)
    assert owed(story).value == "may"


def test_a_prefill_worker_long_gone_from_the_list_concerns_nobody() -> None:
    story = apart()
    story.kill("p2", 1.0, listed_s=1.0)
    read_and_answered(story)
    assert owed(story).value == "must"


def test_without_a_prefill_worker_nothing_is_owed_and_nothing_forbidden() -> None:
    story = apart(prefills=1)
    story.kill("p1", 1.0, listed_s=1.0)
    Ask(story, "r1", 5.0, 50).refuse(5.01, 503)
    assert owed(story).value == "may"


def test_without_a_worker_that_decodes_it_must_not_complete() -> None:
    story = apart(prefills=1)
    for title in ("w1", "w2"):
        story.kill(title, 1.0, listed_s=1.0)
    Ask(story, "r1", 5.0, 50).refuse(5.01, 503)
    assert owed(story).value == "must_not"


def left_in_prefill(left_s: float, until_s: float = 8.0, *, told: bool = False) -> Story:
    story = apart()
    ask = Ask(story, "r1", 5.0, 900).prefill("p1", 5.004, until_s, "aborted" if told else "finished")
    ask.leave(left_s)
    return story


def aborts(story: Story, title: str = "p1") -> str:
    ledger = settled([story.setting, *story.told(60.0)[1:]])
    return duty.abort(ledger, ledger.requests["r1"], title).value


def test_a_prefill_that_surely_goes_on_for_longer_than_the_bound_must_be_aborted() -> None:
    assert aborts(left_in_prefill(5.5)) == "must"


def test_a_prefill_that_can_be_over_within_the_bound_need_not() -> None:
    assert aborts(left_in_prefill(6.5)) == "may"


def test_a_prefill_worker_that_dies_owes_no_abort() -> None:
    story = left_in_prefill(5.5)
    story.kill("p1", 6.0)
    assert aborts(story) == "may"


def test_after_the_first_token_the_prefill_owes_nothing_and_the_other_worker_does() -> None:
    story = apart()
    ask = Ask(story, "r1", 5.0, 900).prefill("p1", 5.004, 5.1).begin("w1", 5.11)
    ask.run(20, 5.12)
    ask.leave(5.4)
    assert aborts(story) == "may"
    assert aborts(story, "w1") == "must"


# --- who is judged for what -------------------------------------------------------------------------------------


def signatures(story: Story) -> list[str]:
    return sorted(finding.signature for finding in judge(story.told(70.0), INVARIANTS).findings)


def test_a_prefill_worker_that_is_not_told_of_a_cancel_is_found_by_its_counter_and_its_gauge() -> None:
    assert signatures(left_in_prefill(5.5)) == ["A1/counter-low", "A3/still-running"]


def test_one_that_is_told_in_time_is_not() -> None:
    assert signatures(left_in_prefill(5.5, 5.52, told=True)) == []


def test_a_request_that_is_sent_on_to_decode_after_its_client_left_began_too_late() -> None:
    story = left_in_prefill(5.5, told=True)
    story.asks[-1].begin("w1", 8.01).stop("ended", 8.02)
    assert "M5/begun-after-cancel" in signatures(story)


def test_two_workers_a_request_are_no_migration_where_one_of_them_only_reads() -> None:
    story = Story(exact=False, limit=0, prefills=2)
    read_and_answered(story)
    assert signatures(story) == []


def test_a_list_without_the_model_is_no_finding_while_one_role_is_not_there() -> None:
    story = apart(prefills=1)
    story.kill("p1", 5.0, listed_s=1.0)
    events = [
        dataclasses.replace(e, models=False) if e.kind == "listed" and e.at.before_s > 6.5 else e
        for e in story.told(60.0)
    ]
    assert "C2/no-model" not in {finding.signature for finding in judge(events, INVARIANTS).findings}


def test_a_list_without_the_model_is_one_while_both_roles_are() -> None:
    story = apart(prefills=1)
    events = [
        dataclasses.replace(e, models=False) if e.kind == "listed" and e.at.before_s > 6.5 else e
        for e in story.told(60.0)
    ]
    assert "C2/no-model" in {finding.signature for finding in judge(events, INVARIANTS).findings}


def test_a_fault_on_a_prefill_worker_is_one_of_workers() -> None:
    story = apart()
    story.kill("p1", 5.0)
    assert [e.fault for e in story.events if isinstance(e, FaultMade)] == ["kill-worker"]
    assert judge(story.told(60.0), INVARIANTS).faults["kill-worker"]["verified"] == 1
