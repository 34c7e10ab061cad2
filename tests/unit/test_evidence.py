"""What a scripted test reads in a history: whose line it is, and since when."""

from __future__ import annotations

import pytest
from histories import Ask, Story, moment

from ftmodel.errors import UsageError
from ftmodel.evidence import Evidence
from ftmodel.history import Exited, FaultMade, LogLine, StepDone


def line(meaning: str, at_s: float, of: str = "", title: str = "w1") -> LogLine:
    return LogLine(at=moment(at_s), title=title, meaning=meaning, id=of)


@pytest.fixture
def seen() -> Evidence:
    """Two requests, one after the other; the frontend's kill lines bear no id."""
    story = Story()
    first, second = Ask(story, "r1", 5.0, 8), Ask(story, "r2", 7.0, 8)
    first.whole("w1", 5.01)
    events = [
        *story.told(16.0),
        line("aborted", 6.0, first.id),
        line("kill", 6.0, title="frontend-1"),
        line("aborted", 8.0, second.id, title="w2"),
        line("kill", 8.0, title="frontend-1"),
        StepDone(at=moment(9.0), step="s1", deed="kill-worker", subject="w1"),
        FaultMade(at=moment(9.0), fault="kill-worker", title="w1", step="s1", verified=True),
        FaultMade(at=moment(9.0), fault="kill-worker", title="w2", step="s2", verified=False),
        Exited(at=moment(9.1), title="w1", code=None, signal=9),
    ]
    return Evidence(events)


def test_a_line_is_of_the_request_whose_id_it_bears(seen: Evidence) -> None:
    assert [found.title for found in seen.told("aborted", of="r1")] == ["w1"]
    assert [found.title for found in seen.told("aborted", of="r2")] == ["w2"]


def test_of_a_request_that_was_never_sent_nothing_was_told(seen: Evidence) -> None:
    assert seen.told("aborted", of="r3") == ()
    assert seen.sent("r3") is None


def test_what_an_earlier_case_caused_is_not_told_since_a_later_one(seen: Evidence) -> None:
    assert [found.at.after_s for found in seen.told("kill")] == [6.0, 8.0]
    later = seen.sent("r2")
    assert later is not None
    assert [found.at.after_s for found in seen.told("kill", since=later.at)] == [8.0]


def test_how_a_request_stands(seen: Evidence) -> None:
    over = seen.over("r1")
    assert over is not None
    assert over.kind == "request-ended"
    assert seen.status("r1") == 200
    assert seen.over("r2") is None
    assert seen.status("r2") is None


def test_only_a_verified_fault_is_a_hit(seen: Evidence) -> None:
    hit, done, exited = seen.hit("s1"), seen.done("s1"), seen.exited("w1")
    assert hit is not None
    assert done is not None
    assert exited is not None
    assert (hit.title, done.subject, exited.signal) == ("w1", "w1", 9)
    assert seen.hit("s2") is None
    assert seen.exited("w9") is None


def test_who_has_answered_and_who_is_listed(seen: Evidence) -> None:
    listed = seen.listed()
    assert listed is not None
    assert "w1" in listed.titles
    assert seen.answers("w1")
    assert seen.answers("frontend-1")
    assert not seen.answers("w9")


def test_without_a_setting_it_says_so() -> None:
    with pytest.raises(UsageError, match="has no setting"):
        _ = Evidence([]).setting
