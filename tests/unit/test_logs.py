"""A log is followed by offset; the lines that the dialect knows are events, told once, with their own time."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftmodel import systems
from ftmodel.history import LogLine
from ftmodel.systems import Pattern
from ftmodel.targets.logs import SKEW_S, STAMP_S
from ftmodel.targets.real import logs
from ftmodel.targets.real.clock import Clock
from ftmodel.targets.real.logs import LogFile

PATTERNS = (
    Pattern(role="worker", meaning="begun", text="Decode Request ID: ", id_field="", keep=("position", "why")),
    Pattern(role="worker", meaning="arrived", text="request received", target="push_handler"),
    Pattern(role="worker", meaning="kill", text="issued control message", id_field=None, where={"control": "Kill"}),
    Pattern(role="any", meaning="traceback", text="Traceback (most recent call last)", id_field=None),
    Pattern(role="any", meaning="late", text="Traceback", id_field=None),
)


class Log:
    """A process's log and what is read of it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "w1.log"
        self.clock = Clock()
        self.file = LogFile(self.path, "w1", PATTERNS, self.clock)

    def gain(self, data: str | bytes) -> list[LogLine]:
        with self.path.open("ab") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        return self.file.poll()

    def row(self, *, at_s: float | None = None, **fields: Any) -> list[LogLine]:
        """A JSON line, stamped at this moment of the example's clock."""
        if at_s is not None:
            wall_s = time.time() + at_s - self.clock.now()
            fields["time"] = datetime.fromtimestamp(wall_s, UTC).isoformat()
        return self.gain(json.dumps(fields) + "\n")


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_a_log_that_is_not_there_yet_has_no_lines(log: Log) -> None:
    assert log.file.poll() == []


def test_a_line_is_told_once_with_its_number(log: Log) -> None:
    (line,) = log.gain("hello\nDecode Request ID: r1\n")
    assert (line.title, line.meaning, line.id, line.line) == ("w1", "begun", "r1", 2)
    assert log.file.poll() == []
    (line,) = log.gain("Decode Request ID: r2\n")
    assert (line.id, line.line) == ("r2", 3)


def test_a_line_that_is_split_over_reads_is_told_when_it_is_whole(log: Log) -> None:
    assert log.gain("Decode Requ") == []
    assert log.gain("est ID: r") == []
    (line,) = log.gain("17\nDecode")
    assert line.id == "r17"
    assert line.line == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 200), max_size=8))
def test_the_lines_do_not_depend_on_when_the_log_was_read(cuts: list[int], tmp_path: Path) -> None:
    whole = 'x\nDecode Request ID: ż\n{"message": "request received", "target": "push_handler", "request_id": "r2"}\n\n'
    (tmp_path / "w1.log").unlink(missing_ok=True)
    log, data = Log(tmp_path), whole.encode()
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    found = [line for i in range(len(ends) - 1) for line in log.gain(data[ends[i] : ends[i + 1]])]
    assert [(line.meaning, line.id, line.line) for line in found] == [("begun", "ż", 2), ("arrived", "r2", 3)]


def test_a_json_line_is_read_by_its_message_and_fields(log: Log) -> None:
    (line,) = log.row(message="request received", target="dynamo::push_handler", request_id="r1", instance=7)
    assert (line.meaning, line.id) == ("arrived", "r1")


def test_an_id_that_a_named_field_should_hold_is_not_guessed_from_the_text(log: Log) -> None:
    (line,) = log.row(message="request received from somewhere", target="push_handler")
    assert line.id == ""


def test_an_id_that_follows_the_text_is_its_next_word(log: Log) -> None:
    assert [line.id for line in log.gain("INFO Decode Request ID: r1, more\nDecode Request ID: \n")] == ["r1,", ""]


def test_a_line_of_another_logger_is_not_meant(log: Log) -> None:
    assert log.row(message="request received", target="http", request_id="r1") == []
    assert log.row(message="request received", request_id="r1") == []


def test_the_fields_that_a_pattern_demands_must_have_their_values(log: Log) -> None:
    assert log.row(message="issued control message", control="Stop") == []
    assert log.row(message="issued control message") == []
    (line,) = log.row(message="issued control message", control="Kill", request_id="r1")
    assert (line.meaning, line.id) == ("kill", "")


def test_the_fields_that_a_pattern_keeps_are_kept_as_plain_values(log: Log) -> None:
    (line,) = log.row(message="Decode Request ID: r1", position=5, why={"a": [1]}, other=1)
    assert line.fields == {"position": 5, "why": "{'a': [1]}"}
    (line,) = log.row(message="Decode Request ID: r1")
    assert line.fields == {}


def test_of_several_patterns_the_first_that_fits_tells_the_meaning(log: Log) -> None:
    found = log.gain("Traceback (most recent call last):\nTraceback follows\n")
    assert [line.meaning for line in found] == ["traceback", "late"]


def test_a_text_beside_the_message_means_nothing(log: Log) -> None:
    assert log.row(message="hello", note="Traceback") == []


@pytest.mark.parametrize(
    "line", [b"{Traceback\n", b'["Traceback"]\n', b"\xff Traceback \xfe\n", b'{"message": Traceback\n']
)
def test_a_line_that_is_not_json_is_its_own_message(log: Log, line: bytes) -> None:
    assert [found.meaning for found in log.gain(line)] == ["late"]


def test_a_line_has_the_time_of_its_stamp(log: Log) -> None:
    log.clock.zero_s -= 100
    (line,) = log.row(at_s=42, message="Traceback")
    assert line.at.before_s == pytest.approx(42 - STAMP_S, abs=0.01)
    assert line.at.after_s == pytest.approx(42 + STAMP_S, abs=0.01)


@pytest.mark.parametrize("at_s", [-1, -SKEW_S - 0.1, 101, 10_000])
def test_a_stamp_from_before_the_example_or_after_the_reading_is_not_believed(log: Log, at_s: float) -> None:
    log.clock.zero_s -= 100
    log.gain("")
    before_s = log.clock.now()
    (line,) = log.row(at_s=at_s, message="Traceback")
    assert before_s - 1 <= line.at.before_s <= line.at.after_s <= log.clock.now()


@pytest.mark.parametrize("ahead_s", [0, STAMP_S / 2, SKEW_S * 0.8])
def test_a_line_never_ends_after_its_reading_nor_before_its_begin(log: Log, ahead_s: float) -> None:
    (line,) = log.row(at_s=log.clock.now() + ahead_s, message="Traceback")
    assert line.at.before_s <= line.at.after_s <= log.clock.now()


@pytest.mark.parametrize("stamp", ["yesterday", "", "0001-01-01T00:00:00", 5, None])
def test_a_stamp_that_cannot_be_read_gives_the_time_between_two_readings(log: Log, stamp: object) -> None:
    log.gain("")
    before_s = log.clock.now()
    (line,) = log.gain(json.dumps({"time": stamp, "message": "Traceback"}) + "\n")
    assert line.at.before_s <= before_s <= line.at.after_s <= log.clock.now()


def test_a_long_log_is_read_in_parts_and_to_its_end(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "READ_BYTES", 10)
    found = log.gain("Traceback\n" * 3)
    while more := log.file.poll():
        found += more
    assert [line.line for line in found] == [1, 2, 3]


def test_a_log_past_its_bound_is_read_no_further_and_says_so(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES", 25)
    assert len(log.gain("Traceback\n" * 3)) == 3
    assert not log.file.overflowed
    assert log.gain("Traceback\n") == []
    assert log.file.overflowed


@pytest.mark.parametrize("message", ["Kill", "Stop"])
@pytest.mark.parametrize("release", [(1, 4), (1, 6)])
def test_either_control_message_that_ends_a_request_is_understood(
    message: str, release: tuple[int, int], tmp_path: Path
) -> None:
    patterns = systems.find("dynamo").dialect(release).patterns
    path = tmp_path / "frontend-1.log"
    path.write_text(json.dumps({"level": "DEBUG", "message": "issued control message", "control_msg": message}) + "\n")
    log = LogFile(path, "frontend-1", tuple(p for p in patterns if p.role != "worker"), Clock())
    assert [line.meaning for line in log.poll()] == ["kill"]
