"""An outage of a service excuses what rests on it, as long as it upsets the cluster and no longer."""

from __future__ import annotations

import pytest
from histories import BASES, Ask
from histories_of_services import hit, long_outage, over_etcd, served, short_outage
from planting import Base

from ftmodel.history import Event
from ftmodel.invariants import duty, judge
from ftmodel.invariants.outages import outages, upset


def owed(events: list[Event], name: str) -> str:
    ledger = Base.of(events).ledger
    return duty.completion(ledger, ledger.requests[name]).value


def test_an_outage_lasts_until_the_service_answers_again() -> None:
    (outage,) = outages(Base.of(short_outage(exact=True)).ledger)
    assert (outage.service, outage.fault) == ("etcd", "kill-etcd")
    assert outage.longest_s == pytest.approx(1.2, abs=0.01)


def test_a_freeze_lasts_until_the_thaw() -> None:
    (outage,) = outages(Base.of(long_outage(exact=True)).ledger)
    assert outage.longest_s == pytest.approx(12.0, abs=0.01)


def test_an_outage_that_nothing_ended_never_does() -> None:
    story = over_etcd(exact=True)
    hit(story, "kill-etcd", "etcd", 2.0)
    ledger = Base.of(story.told(60.0)).ledger
    assert upset(ledger, 59.0, 60.0)
    assert not upset(ledger, 1.0, 1.9)
    assert not upset(ledger, 59.0, 60.0, "nats")


def test_a_request_may_fail_in_an_outage_and_shortly_after_and_must_complete_later() -> None:
    events = short_outage(exact=True)
    assert [owed(events, name) for name in ("r1", "r2", "r3", "r4")] == ["must", "may", "may", "must"]


def test_whoever_ends_in_a_long_outage_ends_as_is_documented() -> None:
    judgement = judge(long_outage(exact=True))
    assert judgement.findings == ()
    assert judgement.invariants["C3"].not_applicable == ""


def test_two_short_outages_in_a_row_are_as_good_as_a_long_one() -> None:
    story = over_etcd(exact=True)
    for number, at_s in enumerate((2.0, 5.0, 8.0), start=1):
        hit(story, "kill-etcd", "etcd" if number == 1 else f"etcd-{number}", at_s)
        served(story, f"etcd-{number + 1}", at_s + 1)
    story.exit("w1", 11.0, unlisted_s=11.0)
    judgement = judge(story.told(60.0))
    assert judgement.findings == ()
    assert judgement.invariants["C3"].unknown > 0


def test_an_outage_of_the_request_plane_excuses_no_end() -> None:
    story = over_etcd(exact=True)
    served(story, "nats", 0.005)
    hit(story, "kill-nats", "nats", 2.0)
    served(story, "nats-2", 3.0)
    story.exit("w1", 8.0, unlisted_s=8.0)
    Ask(story, "r1", 30.0, 50).whole("w2", 30.0)
    assert [finding.signature for finding in judge(story.told(60.0)).findings] == ["R5/exited"]


@pytest.mark.parametrize(("back_s", "found"), [(6.0, []), (4.0, ["R5/traceback"])])
def test_who_cannot_start_while_a_service_is_out_may_say_so(back_s: float, found: list[str]) -> None:
    story = over_etcd(exact=True)
    served(story, "nats", 0.005)
    hit(story, "kill-nats", "nats", 2.0)
    story.start("w1-2", 1, 5.0)
    story.log("w1-2", "traceback", 5.3)
    story.exit("w1-2", 5.4, unlisted_s=5.4)
    served(story, "nats-2", back_s)
    assert [finding.signature for finding in judge(story.told(60.0)).findings if finding.invariant == "R5"] == found


def test_who_was_up_has_no_such_excuse() -> None:
    story = over_etcd(exact=True)
    served(story, "nats", 0.005)
    hit(story, "kill-nats", "nats", 2.0)
    story.log("w1", "traceback", 2.3)
    story.exit("w1", 2.4, unlisted_s=2.4)
    served(story, "nats-2", 3.0)
    assert [finding.signature for finding in judge(story.told(60.0)).findings] == ["R5/traceback"]


@pytest.mark.parametrize(("back_s", "found"), [(6.0, []), (4.0, ["R5/exited"])])
def test_a_frontend_that_cannot_start_while_a_service_is_out_may_end(back_s: float, found: list[str]) -> None:
    story = over_etcd(exact=True)
    served(story, "nats", 0.005)
    hit(story, "kill-nats", "nats", 2.0)
    story.start("frontend-2", 2, 5.0, role="frontend")
    story.exit("frontend-2", 5.04, unlisted_s=5.04)
    served(story, "nats-2", back_s)
    assert [finding.signature for finding in judge(story.told(60.0)).findings if finding.invariant == "R5"] == found


def test_without_a_control_plane_that_can_fail_c3_says_nothing() -> None:
    judgement = judge(BASES["drain-counting"])
    assert judgement.invariants["C3"].not_applicable == "needs a control plane service"
