"""Which examples begin, and when: by lanes, by seats for frontends, the patient ones first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftmodel import lanes, topology
from ftmodel.errors import HarnessError
from ftmodel.lanes import Drawn, Lanes, Room, Seats, room
from ftmodel.session import Proof
from ftmodel.steps import Plan, Submit
from ftmodel.targets.real import ports

TOP = topology.find("counting")
BOUND_S = 10.0


class Stage:
    """Stands for the runner: examples are on it until they are told to go on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.doors: dict[str, threading.Event] = {}
        self.patient: dict[str, threading.Event] = {}
        self.open = threading.Event()

    def play(
        self, _session: object, _top: object, plan: Plan, _proof: object, name: str, *_: object,
        steps_done: Callable[[], None], **_named: object,
    ) -> tuple[str, None]:  # fmt: skip
        self.begun.append(name)
        self._pass(self.doors, name)
        if name in self.failing:
            raise self.failing[name]
        steps_done()
        if plan.patience == "long":
            self._pass(self.patient, name)
        return name, None

    def _pass(self, doors: dict[str, threading.Event], name: str) -> None:
        door = doors.setdefault(name, threading.Event())
        until_s = time.monotonic() + BOUND_S
        while not door.wait(0.01) and not self.open.is_set():
            assert time.monotonic() < until_s, f"{name} was never told to go on"

    def let(self, *names: str) -> None:
        """Have these do their steps; a patient one stays to be let twice."""
        for name in names:
            door = self.doors.setdefault(name, threading.Event())
            (self.patient.setdefault(name, threading.Event()) if door.is_set() else door).set()

    # what Examples is to the lanes
    watcher = None
    rules = None

    def add(self, name: str) -> None:
        self.ended.append(name)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stage]:
    """A machine with two lanes, five seats, and names of seats of its own."""
    stage = Stage()
    monkeypatch.setattr(lanes.runner, "play", stage.play)
    monkeypatch.setattr(lanes, "room", lambda: Room(lanes=2, seats=5))
    monkeypatch.setattr(lanes, "claim", lambda name: ports.claim(f"{tmp_path.name}-{id(stage)}-{name}"))
    yield stage
    stage.open.set()


def _lanes(stage: Stage, *tops: topology.Topology, until_s: float | None = None) -> Lanes:
    session: Any = SimpleNamespace(topologies=tops or (TOP,), failure="", interrupt=stage.open.set)
    examples: Any = stage
    return Lanes(session, examples, until_s=until_s)


def _plan(patience: str = "short", *, frontends: int = 1) -> Plan:
    return Plan(topology="counting", patience=patience, frontends=frontends)  # type: ignore[arg-type]


def _until(said: Callable[[], bool], lanes_: Lanes | None = None) -> None:
    until_s = time.monotonic() + BOUND_S
    while not said():
        assert time.monotonic() < until_s
        if lanes_ is not None:
            lanes_._begin_while(lambda: False)
        time.sleep(0.005)


def test_as_many_examples_are_played_at_once_as_there_are_lanes(stage: Stage) -> None:
    with _lanes(stage) as opened:
        for name in ("a", "b", "c"):
            opened.start(name, TOP, _plan(), Proof())
        _until(lambda: stage.begun == ["a", "b"])
        stage.let("a")
        _until(lambda: stage.begun == ["a", "b", "c"], opened)
        stage.let("b", "c")
    assert sorted(stage.ended) == ["a", "b", "c"]


def test_a_patient_example_begins_before_short_ones_that_were_drawn_earlier(stage: Stage) -> None:
    with _lanes(stage) as opened:
        for name in ("a", "b", "c"):
            opened.start(name, TOP, _plan(), Proof())
        opened.start("patient", TOP, _plan("long"), Proof())
        _until(lambda: stage.begun == ["a", "b"])
        stage.let("a")
        _until(lambda: len(stage.begun) == 3, opened)
        assert stage.begun[2] == "patient"
        stage.open.set()


def test_a_patient_example_leaves_its_lane_when_its_steps_are_done(stage: Stage) -> None:
    with _lanes(stage) as opened:
        opened.start("p1", TOP, _plan("long"), Proof())
        opened.start("p2", TOP, _plan("long"), Proof())
        opened.start("a", TOP, _plan(), Proof())
        _until(lambda: sorted(stage.begun) == ["p1", "p2"])
        stage.let("p1")
        _until(lambda: "a" in stage.begun, opened)
        assert stage.ended == []
        stage.open.set()


def test_patient_examples_leave_seats_to_the_lanes(stage: Stage) -> None:
    with _lanes(stage) as opened:
        for name in ("p1", "p2"):
            opened.start(name, TOP, _plan("long", frontends=2), Proof())
        stage.let("p1")
        opened.start("a", TOP, _plan(), Proof())
        _until(lambda: stage.begun == ["p1", "a"], opened)  # five seats, of which the lanes need two
        stage.let("p1")
        _until(lambda: "p2" in stage.begun, opened)
        stage.open.set()


def test_an_example_that_finds_no_seats_is_overtaken_by_one_that_does(stage: Stage) -> None:
    with _lanes(stage) as opened:
        held = opened._seats.take(4)
        assert held is not None
        opened.start("two", TOP, _plan(frontends=2), Proof())
        opened.start("one", TOP, _plan(), Proof())
        _until(lambda: stage.begun == ["one"])
        for seat in held:
            seat.close()
        _until(lambda: stage.begun == ["one", "two"], opened)
        stage.open.set()


def test_discovery_that_watches_no_files_needs_no_seats(stage: Stage) -> None:
    elsewhere = replace(TOP, discovery="etcd")  # type: ignore[arg-type]
    with _lanes(stage) as opened:
        held = opened._seats.take(5)
        assert held is not None
        opened.start("a", elsewhere, _plan(), Proof())
        _until(lambda: stage.begun == ["a"])
        stage.open.set()
        for seat in held:
            seat.close()


@pytest.mark.parametrize("kind", [{"router_mode": "kv"}, {"prefill_workers": (1, 2)}])
def test_a_frontend_that_knows_blocks_needs_two_seats(stage: Stage, kind: dict[str, Any]) -> None:
    """With one each, frontends of 1.6 found no file watch left: they ended at their start, or never saw the model."""
    knowing = replace(TOP, **kind)
    with _lanes(stage, knowing) as opened:
        held = opened._seats.take(4)
        assert held is not None
        opened.start("one", knowing, _plan(), Proof())
        opened._begin_while(lambda: False)
        assert stage.begun == []
        held.pop().close()
        _until(lambda: stage.begun == ["one"], opened)
        stage.open.set()
        for seat in held:
            seat.close()


def test_one_patient_example_begins_however_few_seats_there_are(stage: Stage) -> None:
    knowing = replace(TOP, router_mode="kv")
    with _lanes(stage, knowing) as opened:
        assert opened._room.patient_seats < 4
        opened.start("p", knowing, _plan("long", frontends=2), Proof())
        _until(lambda: stage.begun == ["p"], opened)
        stage.open.set()


def test_ports_that_are_set_bear_one_example_at_a_time(stage: Stage) -> None:
    set_ = replace(TOP, http_port=12345)
    with _lanes(stage, set_) as opened:
        opened.start("p", set_, _plan("long"), Proof())
        opened.start("a", set_, _plan(), Proof())
        stage.let("p")
        _until(lambda: "p" in stage.patient, opened)
        assert stage.begun == ["p"]
        stage.open.set()
    assert stage.ended == ["p", "a"]


def test_what_went_wrong_in_an_example_is_raised_where_the_next_is_started(stage: Stage) -> None:
    stage.failing["a"] = OSError("no space left")
    opened = _lanes(stage)
    opened.start("a", TOP, _plan(), Proof())
    stage.let("a")
    _until(lambda: bool(opened._errors))
    with pytest.raises(OSError, match="no space left"), opened:
        opened.start("b", TOP, _plan(), Proof())
    assert stage.begun == ["a"]


def test_what_has_not_begun_in_time_is_dropped(stage: Stage) -> None:
    with _lanes(stage, until_s=time.monotonic() - 1) as opened:
        opened.start("a", TOP, _plan(), Proof())
        assert Drawn(opened, [(TOP, Proof())], count=None)(_plan()) is None
    assert stage.begun == []


def test_a_session_that_failed_begins_nothing(stage: Stage) -> None:
    opened = _lanes(stage)
    opened._session.failure = "the warden ended"
    with pytest.raises(HarnessError, match="the warden ended"), opened:
        opened.start("a", TOP, _plan(), Proof())
    assert stage.begun == []


def test_drawn_plans_are_begun_by_turns_over_the_topologies_under_their_numbers(stage: Stage) -> None:
    tops = [topology.find("aggregated"), TOP]
    stage.open.set()
    with _lanes(stage, *tops) as opened:
        drawn = Drawn(opened, [(top, Proof()) for top in tops], count=2, prefix="x-")
        for _ in range(2):
            drawing = drawn(_plan())
            assert drawing is not None
            drawing.apply(Submit(name="r1"))
            drawing.end()
            assert drawing.plan.topology == drawing.topology.name
        assert drawn(_plan()) is None
    assert sorted(stage.ended) == ["x-001", "x-002"]


def test_seats_are_all_taken_or_none(stage: Stage) -> None:
    seats = Seats(3)
    two = seats.take(2)
    assert two is not None
    assert seats.take(2) is None
    one = seats.take(1)
    assert one is not None
    for seat in (*one, *two):
        seat.close()
    again = seats.take(3)
    assert again is not None
    for seat in again:
        seat.close()


def test_room_follows_the_machines_file_watches(tmp_path: Path) -> None:
    limit = tmp_path / "max_user_instances"
    limit.write_text("128\n")
    assert room(limit).seats == 19
    limit.write_text("8\n")
    assert room(limit) == Room(lanes=1, seats=4)
