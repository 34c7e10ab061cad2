"""Simulated prefill workers: prompts are read apart, what is moved is read again, cancels reach them, failures are told."""

from __future__ import annotations

import pytest

from ftmodel import topology
from ftmodel.history import Event, Item, LogLine, Received, RequestSent
from ftmodel.prove import Grounds
from ftmodel.steps import Begun, Cancel, HolderOf, KillWorker, Plan, Step, Submit, Token


@pytest.fixture(scope="module")
def grounds() -> Grounds:
    return Grounds(topology.find("simulated-disaggregated"))


def played(grounds: Grounds, *steps: Step) -> list[Event]:
    """The history of these steps, in which nothing is violated."""
    plan = Plan(topology="simulated-disaggregated", workers=2, prefill_workers=2, migration_limit=3, steps=tuple(steps))
    events = grounds.history(plan, seed=1)
    grounds.check(plan, 1, events)
    return events


def told(events: list[Event], meaning: str) -> list[str]:
    """By the letter of its role: which workers logged this of r1."""
    [id_] = [event.id for event in events if isinstance(event, RequestSent) and event.request == "r1"]
    return [e.title[0] for e in events if isinstance(e, LogLine) and e.meaning == meaning and e.id == id_]


def whats(events: list[Event]) -> list[str]:
    """What the client of r1 received."""
    parts = [event for event in events if isinstance(event, Received) and event.request == "r1"]
    items: list[Item] = [item for part in parts for item in part.items]
    return [item.what for item in items]


def test_a_prefill_worker_begins_and_the_other_goes_on(grounds: Grounds) -> None:
    events = played(grounds, Submit(name="r1", max_tokens=50))
    assert told(events, "begun") == ["p", "w"]
    assert told(events, "ended") == ["p", "w"]


def test_what_is_moved_is_read_again(grounds: Grounds) -> None:
    kill = KillWorker(name="k1", worker=HolderOf("r1"), at=Token("r1", 20))
    events = played(grounds, Submit(name="r1", max_tokens=50), kill)
    begun = told(events, "begun")  # once more where the dead worker was met again
    assert begun[:3] == ["p", "w", "p"]
    assert begun[-1] == "w"
    assert "done" in whats(events)


def test_a_cancel_in_prefill_is_aborted_there_and_goes_no_further(grounds: Grounds) -> None:
    events = played(
        grounds, Submit(name="r1", max_tokens=50), Cancel(name="c1", request="r1", at=Begun("r1"), skew_ms=100)
    )
    assert told(events, "begun") == told(events, "aborted") == ["p"]


def test_a_prefill_that_is_lost_is_told_to_the_client(grounds: Grounds) -> None:
    kill = KillWorker(name="k1", worker=HolderOf("r1", "prefill"), at=Begun("r1"), skew_ms=100)
    events = played(grounds, Submit(name="r1", max_tokens=50), kill)
    assert told(events, "begun") == ["p"]
    assert whats(events)[-1] == "error"
