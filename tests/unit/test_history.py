"""The history as JSON lines: every kind of event comes back as it was; what is broken is told with its line."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftmodel import history
from ftmodel.errors import StoreError
from ftmodel.history import Event, History, Interval, Item, Mark, Received

# A tester must write down whatever came, half characters too.
TEXTS = st.text(st.characters(codec=None), max_size=20)
SECONDS = st.integers(0, 10**10).map(lambda microseconds: microseconds / 10**6)
FIELDS = st.dictionaries(TEXTS, st.one_of(TEXTS, st.integers(), st.booleans(), SECONDS), max_size=3)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that events are made of."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return TEXTS
    if hint in (str, float, int, bool, type(None)):
        return {str: TEXTS, float: SECONDS, int: st.integers(), bool: st.booleans(), type(None): st.none()}[hint]
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(values, arguments))
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return FIELDS if arguments[1] is Any else st.dictionaries(TEXTS, values(arguments[1]), max_size=3)
    hints = typing.get_type_hints(hint)
    return st.builds(hint, **{name: values(part) for name, part in hints.items() if name != "kind"})


KINDS = get_args(Event)
EVENTS = {cls: values(cls) for cls in KINDS}


def written(events: list[Event], folder: Path) -> list[Event]:
    path = folder / "history.jsonl"
    history.write(events, path)
    return list(history.read(path))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("cls", KINDS)
@given(data=st.data())
def test_an_event_of_any_kind_comes_back_as_it_was(cls: type[Any], data: st.DataObject, tmp_path: Path) -> None:
    event = data.draw(EVENTS[cls])
    back = written([event], tmp_path)
    assert back == [event]
    assert type(back[0]) is cls


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(st.one_of(*EVENTS.values()), max_size=8))
def test_a_history_comes_back_in_order_with_the_same_bytes(events: list[Event], tmp_path: Path) -> None:
    assert written(events, tmp_path) == events
    first = (tmp_path / "history.jsonl").read_bytes()
    written(events, tmp_path)
    assert (tmp_path / "history.jsonl").read_bytes() == first
    assert first.count(b"\n") == len(events) + 1


def test_every_kind_of_event_has_an_interval_and_an_id_of_its_own() -> None:
    kinds = [cls.__dataclass_fields__["kind"].default for cls in KINDS]
    assert len(set(kinds)) == len(kinds)
    assert all("at" in cls.__dataclass_fields__ for cls in KINDS)
    assert all(cls.__dataclass_params__.frozen for cls in KINDS)


def test_what_happened_before_something_else_is_told_by_the_ends_of_the_intervals() -> None:
    early, late, long = Interval(1, 2), Interval(3, 4), Interval(1.5, 3.5)
    assert early.surely_before(late)
    assert not late.surely_before(early)
    assert not early.surely_before(long)
    assert not long.surely_before(late)
    assert not early.surely_before(Interval(2, 3))
    assert long.could_overlap(0, 1.5)
    assert long.could_overlap(3.5, 9)
    assert long.could_overlap(2, 2)
    assert not long.could_overlap(0, 1.4)


def test_a_history_keeps_the_order_in_which_events_were_pushed() -> None:
    marks = [Mark(at=Interval(9, 9), stage="ready"), Mark(at=Interval(1, 1), stage="rest")]
    kept = History(marks[:1])
    kept.push(marks[1])
    assert list(kept) == marks
    assert len(kept) == 2
    assert kept[-1] == marks[1]


def test_a_history_that_breaks_off_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.write([Mark(at=Interval(0, 1), stage="ready")], path)
    with path.open("a") as file:
        file.write('{"kind":"mark"')
    events = history.read(path)
    assert next(events) == Mark(at=Interval(0, 1), stage="ready")
    with pytest.raises(StoreError, match="line 3"):
        next(events)


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"",
        b"null",
        b"7",
        b"[]",
        b'"mark"',
        b"{}",
        b'{"kind":"explosion","at":[0,1]}',
        b'{"kind":"mark","at":[0,1]}',
        b'{"kind":"mark","at":[0],"stage":"ready"}',
        b'{"kind":"mark","at":5,"stage":"ready"}',
        b'{"kind":"mark","at":[0,1],"stage":"ready","more":1}',
        b'{"kind":"received","at":[0,1],"request":"r1","items":[5]}',
        b'{"kind":"received","at":[0,1],"request":"r1"}',
        b'{"kind":"setting","at":[0,1],"promise":[],"bounds":{}}',
        b'{"kind":"mark","at":[0,1],"stage":"\xff"}',
    ],
)
def test_a_broken_line_is_told_with_file_and_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"history": 1}\n' + line + b"\n")
    with pytest.raises(StoreError) as told:
        list(history.read(path))
    assert str(told.value).startswith(f"{path}: line 2: got ")
    assert "expected an event" in str(told.value)


@pytest.mark.parametrize("head", [b"", b"{}", b"[]", b"7", b"null", b'{"kind":"mark"}', b"\xff"])
def test_a_file_without_the_first_line_of_a_history_is_told_to_be_none(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(head)
    with pytest.raises(StoreError, match=r'line 1: got .*, expected \{"history": 1\}'):
        list(history.read(path))


@pytest.mark.parametrize("version", [history.FORMAT + 1, 0, None, "1"])
def test_a_history_of_another_format_is_refused(tmp_path: Path, version: object) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps({"history": version}) + "\n")
    with pytest.raises(StoreError) as told:
        list(history.read(path))
    assert f"history format {version!r}, expected {history.FORMAT}" in str(told.value)
    assert "pip install --upgrade ftmodel" in str(told.value)


def test_a_missing_history_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.jsonl: No such file or directory: expected the history"):
        list(history.read(tmp_path / "none.jsonl"))


def test_a_history_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    burst = Received(at=Interval(0, 1), request="r1", items=(Item("text", "abcd"),) * 3)
    history.write([burst] * 3, path)
    events = history.read(path)
    assert next(events) == burst
    assert dataclasses.asdict(burst)["items"][0]["what"] == "text"
    events.close()  # type: ignore[attr-defined]
