"""`ftmodel agree`: which topologies it takes, which plans, and what it tells who asks for what cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ftmodel import campaign, planfile
from ftmodel.cli.app import Done, app
from ftmodel.errors import UsageError
from ftmodel.lanes import Collected
from ftmodel.steps import OnService, Plan, Submit
from ftmodel.topology import Topology
from ftmodel.topology import find as topology
from ftmodel.verdict import Verdict


class Asked(Exception):  # noqa: N818 - no error: ends the command when it has said what it wants
    def __init__(self, plans: Sequence[Plan], topologies: Sequence[Topology], seed: int | None, times: int) -> None:
        super().__init__()
        self.plans, self.names = plans, [top.name for top in topologies]
        self.seed, self.times = seed, times


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def agree(
        plans: campaign.Plans, topologies: Sequence[Topology], *_: object, times: int, seed: int | None = None
    ) -> Verdict:
        raise Asked(plans((1000, 9000)), topologies, seed, times)

    monkeypatch.setattr(campaign, "agree", agree)


def asked(*arguments: str) -> Asked:
    done = CliRunner().invoke(app, ["agree", *arguments])
    assert isinstance(done.exception, Asked), done.exception
    return done.exception


def stored(folder: Path, top: str) -> str:
    folder.mkdir()
    plan = Plan(topology=top, steps=(Submit(name="r1"), OnService(name="s2", kind="kill-etcd")))
    (folder / "plan.json").write_text(planfile.dump(plan), encoding="utf-8")
    return str(folder)


def test_by_itself_it_draws_plans_and_changes_the_base_along_each_axis() -> None:
    first, again = (
        asked("--seed", "7", "--examples", "3", "--steps", "12"),
        asked("--seed", "7", "--examples", "3", "--steps", "12"),
    )
    assert first.names == ["counting", "counting-etcd", "counting-nats", "counting-kv"]
    assert len(first.plans) == 3
    assert all(0 < len(plan.steps) <= 12 for plan in first.plans)
    assert first.plans == again.plans
    assert first.seed == 7


def test_what_it_draws_does_nothing_to_services() -> None:
    steps = [step for plan in asked("--seed", "3").plans for step in plan.steps]
    assert not [step for step in steps if isinstance(step, OnService)]


def test_stored_plans_are_run_on_their_own_topology_and_beside_it(tmp_path: Path) -> None:
    told = asked(stored(tmp_path / "a", "etcd-nats"), stored(tmp_path / "b", "counting"))
    assert told.names == ["etcd-nats", "etcd-nats-file", "etcd-nats-tcp", "etcd-nats-kv"]
    assert [plan.topology for plan in told.plans] == ["etcd-nats", "counting"]
    assert told.seed is None


def test_topologies_and_axes_can_be_chosen() -> None:
    assert asked("--topology", "aggregated", "--axis", "router,discovery").names == [
        "aggregated", "aggregated-kv", "aggregated-etcd",
    ]  # fmt: skip
    assert asked("--topology", "aggregated,counting").names == ["aggregated", "counting"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topology", "aggregated,counting", "--axis", "router"), "--axis router: --topology names 2, expected one"),
        (("--topology", "counting,counting"), "expected topologies of different names"),
        (("--axis", "colour"), "axis 'colour': unknown"),
        (("--topology", "nowhere"), "topology 'nowhere': unknown"),
    ],
)
def test_what_cannot_be_is_wrong_use(arguments: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(app, ["agree", *arguments])
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_too_few_fresh_runs_are_wrong_use() -> None:
    done = CliRunner().invoke(app, ["agree", "--times", "4"])
    assert done.exit_code != 0
    assert not isinstance(done.exception, Asked | Done)


def test_as_many_plans_are_kept_as_are_wanted() -> None:
    kept = Collected(topology("counting"), 1)
    drawing: Any = kept(Plan(topology="", workers=9))
    drawing.apply(Submit(name="r1"))
    drawing.end()
    assert [(plan.topology, plan.workers, len(plan.steps)) for plan in kept.plans] == [("counting", 4, 1)]
    assert kept(Plan(topology="")) is None
