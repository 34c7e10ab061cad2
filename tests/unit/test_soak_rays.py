"""Lanes on a Ray cluster: a node that is lost costs the rounds of its lanes, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from plants import plants

from ftmodel import topology
from ftmodel.cli import soaking
from ftmodel.cli.soaking import Asked
from ftmodel.errors import UsageError
from ftmodel.soak import rays
from ftmodel.soak.lane import Setup
from ftmodel.soak.places import LocalHand

SETUP = Setup(name="1", folder="", topologies=(topology.dump(topology.find("simulated")),))


def asked(**facts: Any) -> Asked:
    return Asked(seconds=60.0, limit_bytes=1 << 30, **facts)


def test_a_place_that_is_not_known_is_told() -> None:
    with pytest.raises(UsageError, match="expected local or ray"):
        soaking._place(asked(on="mars"))


def test_resources_are_asked_of_a_ray_cluster_alone() -> None:
    with pytest.raises(UsageError, match="try: --on ray"):
        soaking._place(asked(lane_gpus=1.0))


def test_a_lane_asks_for_its_resources_and_plays_as_many_examples_as_its_cpus_bear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted: dict[str, Any] = {}

    def remote(**options: Any) -> Any:
        wanted.update(options)
        return lambda _holder: SimpleNamespace(remote=lambda _setup: None)

    fake = SimpleNamespace(remote=remote, is_initialized=lambda: True)
    monkeypatch.setattr(rays, "ray", fake)
    monkeypatch.setattr(rays, "RayHand", lambda *_: None)
    request = asked(on="ray", lane_cpus=2.0, lane_gpus=0.5)
    soaking._place(request).start(SETUP, lambda *_: None)
    assert (wanted["num_cpus"], wanted["num_gpus"]) == (2.0, 0.5)
    assert soaking._width(SimpleNamespace(target="real", lanes=64), request) == 6  # type: ignore[arg-type]


class Told:
    """A lane's process, as its holder knows it."""

    def __init__(self, setup: Setup, heard: Any, *, inherits: object) -> None:  # noqa: ARG002 - it is no process
        self.folder = Path(setup.folder)
        self.orders: list[Any] = []
        self.tell = lambda row: heard(setup.name, row)

    def send(self, order: Any) -> None:
        self.orders.append(order)


def test_what_shows_something_is_carried_and_nothing_stays_on_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rays, "LocalHand", Told)
    holder = rays.Holder(SETUP)
    lane: Any = holder._hand
    for name, findings in (("1-1", []), ("1-2", [{"signature": "L2/cut"}])):
        folder = lane.folder / "examples" / name
        folder.mkdir(parents=True)
        (folder / "history.jsonl").write_text(name)
        row = {"is": "example", "verdict": "violated" if findings else "holds", "findings": findings}
        lane.tell({**row, "folder": f"examples/{name}"})
    held, found = holder.hear()
    assert held is not None
    assert found is not None
    assert (held["folder"], rays.FILES in held) == ("", False)
    assert list((lane.folder / "examples").iterdir()) == []
    rays.unpack(found[rays.FILES], tmp_path / found["folder"])
    assert (tmp_path / "examples" / "1-2" / "history.jsonl").read_text() == "1-2"

    order = {"source": "shrink", "folder": "findings/L2-cut"}
    holder.send(order, rays.packed(tmp_path / "examples" / "1-2"))
    assert lane.orders == [order]
    assert (lane.folder / "findings" / "L2-cut" / "history.jsonl").is_file()
    lane.tell(None)
    assert holder.hear() == [None]
    assert not lane.folder.exists()


def test_a_folder_goes_when_the_lane_and_its_holder_have_ended_however_that_was(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    told: list[Any] = []
    sweeper = rays.Sweeper(folder)
    hand = LocalHand(replace(SETUP, folder=str(folder)), lambda *row: told.append(row), inherits=(sweeper.alive,))
    sweeper.end()  # the holder has ended; the lane has not
    until(lambda: bool(told))
    assert folder.is_dir()
    hand.kill()
    until(lambda: not folder.exists())
    until(lambda: told[-1][1] is None)


def until(condition: Callable[[], bool], bound_s: float = 30.0) -> None:
    end_s = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rays, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'ftmodel\[ray\]'"):
        rays.Ray()


class GoneError(Exception):
    """As Ray's own, for an actor that has died."""


@pytest.mark.parametrize("last", [None, GoneError], ids=["the lane ends", "the actor dies"])
def test_the_end_of_a_lane_is_told_once(monkeypatch: pytest.MonkeyPatch, last: Any) -> None:
    words: list[Any] = [[{"is": "ready"}], [], [None] if last is None else last]

    def get(_reference: object) -> Any:
        word = words.pop(0)
        if word is GoneError:
            raise GoneError
        return word

    told: list[tuple[str, Any]] = []
    fake = SimpleNamespace(get=get, exceptions=SimpleNamespace(RayError=GoneError))
    monkeypatch.setattr(rays, "ray", fake)
    hear = SimpleNamespace(remote=lambda: None)
    hand = rays.RayHand(SETUP, SimpleNamespace(hear=hear), lambda *word: told.append(word))
    hand.listener.join(timeout=10)
    assert told == [("1", {"is": "ready"}), ("1", None)]


@plants
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray here: pip install '.[ray]'")
def test_what_is_planted_is_found_though_a_node_is_killed(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    room = {"object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **room})
    node = cluster.add_node(num_cpus=1, **room)
    try:
        soak = subprocess.Popen(
            [
                sys.executable, "-m", "ftmodel", "soak", "--for", "40s", "--on", "ray", "--lanes", "2", "--topology",
                "simulated", "--store", str(tmp_path), "--defect", "usage-counts-one-more,kv-leaks-on-cancel",
            ],
            env={**os.environ, "RAY_ADDRESS": cluster.address}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert soak.stdout is not None
        _until(soak.stdout, lambda line: line.startswith("confirmed"))
        cluster.remove_node(node, allow_graceful=False)
        soak.communicate(timeout=240)
    finally:
        cluster.shutdown()
    [verdict] = tmp_path.glob("*-soak/verdict.json")
    total = json.loads(verdict.read_text())
    assert [found["signature"] for found in total["violations"]] == ["P5/completion-tokens", "R1/worker-kv"]
    assert total["rounds"]["lost"] >= 1
    assert total["rounds"]["done"] > total["rounds"]["lost"]


def _until(lines: Any, wanted: Callable[[str], bool]) -> None:
    assert any(wanted(line) for line in lines)
