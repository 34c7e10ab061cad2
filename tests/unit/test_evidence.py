"""What a scripted test reads in a history: whose line it is, since when, and what is not there yet."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from classic import begun_on, is_aborted, is_migrated
from histories import Ask, Story, moment

from ftmodel.asked import marked
from ftmodel.errors import UsageError
from ftmodel.evidence import Evidence
from ftmodel.history import Exited, FaultMade, History, LogLine, StepDone
from ftmodel.testing import Cluster


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


# --- what a scenario takes for a cancel and for a migration -------------------------------------------------------


def told(*lines: LogLine, exact: bool = True, proven: tuple[str, ...] = ()) -> Evidence:
    """A request that began on w1, in a cluster of two, and these lines."""
    story = Story(exact=exact, proven=proven)
    for title in ("w1", "w2"):
        story.start(title, 1, 0.1)
    Ask(story, "r1", 5.0, 8).begin("w1", 5.01)
    return Evidence([*story.told(16.0), *lines])


R1 = "00000000-r1"


def test_an_abort_is_of_exactly_the_id_that_was_new_on_that_worker() -> None:
    assert is_aborted(told(line("aborted", 6.0, R1)), "r1")
    assert not is_aborted(told(), "r1")
    assert not is_aborted(told(line("aborted", 6.0, "another")), "r1")
    assert not is_aborted(told(line("aborted", 6.0, R1, title="w2")), "r1")
    assert not is_aborted(told(line("aborted", 6.0, R1), line("begun", 6.0, R1, title="w2")), "r1")


def test_an_engine_that_logs_no_abort_is_held_to_what_it_does_log() -> None:
    heard = line("signalled", 6.0, R1)
    assert is_aborted(told(heard, exact=False, proven=("signalled",)), "r1")
    assert not is_aborted(told(exact=False, proven=("signalled",)), "r1")
    assert is_aborted(told(exact=False), "r1")


def test_a_request_begins_on_workers_of_a_role() -> None:
    assert begun_on(told(), "r1", "worker") == {"w1"}
    assert begun_on(told(), "r1", "prefill") == set()


def test_a_migration_is_of_the_request_that_it_names() -> None:
    assert is_migrated(told(line("migrating", 6.0, R1, title="frontend-1")), "r1")
    assert not is_migrated(told(line("migrating", 6.0, "another", title="frontend-1")), "r1")
    assert not is_migrated(told(line("retrying", 6.0, R1, title="frontend-1")), "r1")


# --- waiting ------------------------------------------------------------------------------------------------------


@pytest.fixture
def unstarted(tmp_path: Path) -> Cluster:
    """One that was never started: it has a history and a folder."""
    bare = Cluster.__new__(Cluster)
    bare._target = SimpleNamespace(history=History())  # type: ignore[assignment]
    bare.folder = tmp_path
    return bare


def test_what_is_not_shown_in_time_fails_the_test(unstarted: Cluster) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"the end of r1: not seen within 0.2 s; next ls .*logs"):
        unstarted.wait("the end of r1", lambda seen: seen.over("r1"), within_s=0.2)


def test_what_is_shown_while_it_is_waited_for_is_seen(unstarted: Cluster) -> None:
    late = threading.Timer(0.15, unstarted.history.push, [line("kill", 6.0)])
    late.start()
    unstarted.wait("a Kill", lambda seen: seen.told("kill"), within_s=10)
    late.join()


# --- the marker ---------------------------------------------------------------------------------------------------


def test_the_nearest_marker_is_the_strongest_and_an_unknown_option_is_told() -> None:
    def item(*marks: dict[str, Any]) -> Any:
        made = [pytest.mark.ftmodel(**mark).mark for mark in marks]
        return SimpleNamespace(nodeid="test_x.py::test_y", iter_markers=lambda _name: iter(made))

    near = marked(item({"workers": 1}, {"workers": 2, "known_issues": "known.toml"}))
    assert (near["workers"], near["known_issues"], near["topology"]) == (1, "known.toml", "counting")
    with pytest.raises(UsageError, match=r"got speed, expected some of topology=.* known_issues="):
        marked(item({"speed": 1}))
