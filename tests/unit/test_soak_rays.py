"""Lanes on a Ray cluster: a node that is lost costs the rounds of its lanes, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from plants import plants

from ftmodel.cli import soaking
from ftmodel.errors import UsageError
from ftmodel.soak import rays


def test_a_place_that_is_not_known_is_told() -> None:
    with pytest.raises(UsageError, match="expected local or ray"):
        soaking._place("mars")


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
    hand = rays.RayHand("1", SimpleNamespace(hear=hear), lambda *word: told.append(word))
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
