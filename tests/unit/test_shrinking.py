"""`ftmodel shrink` on simulated clusters: what lies beside the example then, and that it survives SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from plants import plants
from typer.testing import CliRunner

from ftmodel import campaign, planfile, shrinking, store, topology
from ftmodel.campaign import Options
from ftmodel.cli.app import Done, app
from ftmodel.errors import UsageError
from ftmodel.rates import Rate
from ftmodel.runner import Outcome
from ftmodel.shrink import Seen
from ftmodel.steps import Cancel, KillWorker, Plan, Settle, Slot, StartWorker, Step, Submit, Token
from ftmodel.targets.simulated import catalogue

pytestmark = plants

DEFECT = "abort-ignored:0.3"
SIGNATURE = "A3/ran-on"
BOUND_S = 60.0


def long_plan() -> Plan:
    """Traffic and faults, and two cancels of requests that have long to go."""
    steps: list[Step] = []
    for number in range(1, 9):
        steps += [Submit(name=f"r{number}", max_tokens=20 * number, api="chat"), Settle(name=f"s{number}")]
    steps += [KillWorker(name="k1", worker=Slot(1)), StartWorker(name="w1", slot=1)]
    for name in ("a", "b"):
        steps += [
            Submit(name=name, max_tokens=600),
            Cancel(name=f"c{name}", request=name, at=Token(name, 12), skew_ms=5),
        ]
    return Plan(topology="simulated", workers=3, frontends=2, steps=tuple(steps))


class Quiet:
    """Watches without a word."""

    def began(self, what: str) -> None: ...

    def stepped(self, step: Step) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...

    def executed(self, stage: str, plan: Plan, seen: Seen | None) -> None: ...

    def smallest(self, plan: Plan, rate: Rate) -> None: ...

    def played(self, outcome: Outcome) -> None: ...


def options(where: Path, planted: str = DEFECT) -> Options:
    return Options(store=where, planted=catalogue.planted(planted, catalogue.ours()) if planted else ())


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """An example that shows the signature, in a store of its own."""
    file = tmp_path / "plan.json"
    file.write_text(planfile.dump(long_plan()), encoding="utf-8")
    verdict = campaign.replay(file, options(tmp_path / "runs"), Quiet(), times=20)
    [violation] = [one for one in verdict.violations if one.signature == SIGNATURE]
    return violation.outcome.folder


def command(example: Path, *more: str) -> list[str]:
    return ["shrink", str(example), "--defect", DEFECT, "--budget", "2m", "--json", *more]


def shrunk(example: Path, *more: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, command(example, *more))
    assert isinstance(done.exception, Done), done.exception
    assert done.exception.code == 0
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def test_beside_the_example_lie_the_smallest_plan_with_its_run_its_rate_and_one_that_passed(example: Path) -> None:
    row = shrunk(example)
    assert (row["example"], row["signature"], row["from_steps"]) == (str(example), SIGNATURE, 22)
    assert row["to_steps"] == 2
    assert row["rate"]["of"] == 40
    assert row["rate"]["low"] < 0.3 < row["rate"]["high"]
    assert (row["target"], row["topology"], row["done"], row["unknown"]) == ("simulated", "simulated", True, 0)

    folder = example / "shrunk"
    assert store.read_json(folder / "shrink.json") == row
    plan = campaign.load_plan(folder)
    assert [step.kind for step in plan.steps] == ["submit", "cancel"]
    findings = store.read_json(folder / "verdict.json")["findings"]
    assert SIGNATURE in [finding["signature"] for finding in findings]
    passing = store.read_json(example / "passing" / "verdict.json")["findings"]
    assert SIGNATURE not in [finding["signature"] for finding in passing]
    assert campaign.load_plan(example / "passing") == plan, "of a plan that fails sometimes, the nearest is itself"
    for one in (folder, example / "passing"):
        assert {"plan.json", "topology.toml", "history.jsonl", "verdict.json", "logs"} <= {
            path.name for path in one.iterdir()
        }
    assert list((example / "shrinking" / "examples").iterdir()) == []


def test_what_was_made_of_an_example_is_no_example_of_its_run(example: Path) -> None:
    run = example.parents[1]
    before = store.examples(run)
    shrunk(example)
    assert store.examples(run) == before
    assert store.examples(example / "shrunk") == [example / "shrunk"]


def test_a_second_call_finds_the_same_without_executing_anything(example: Path) -> None:
    first = shrunk(example)
    journal = (example / "shrinking" / "simulated.jsonl").read_text(encoding="utf-8")
    assert shrunk(example) == first
    assert (example / "shrinking" / "simulated.jsonl").read_text(encoding="utf-8") == journal
    assert store.read_json(example / "shrunk" / "shrink.json") == first


def test_killed_in_the_middle_it_goes_on_where_it_was(example: Path) -> None:
    journal = example / "shrinking" / "simulated.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen(
        [sys.executable, "-m", "ftmodel", *command(example)], env=environment, stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    until_s = time.monotonic() + BOUND_S
    while not journal.is_file() or journal.read_bytes().count(b"\n") < 30:
        assert time.monotonic() < until_s
        assert running.poll() is None, "it was to be killed in the middle"
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.wait()
    whole = journal.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    with journal.open("a", encoding="utf-8") as file:
        file.write('{"plan": "cut by the cra')

    row = shrunk(example)
    assert row["to_steps"] == 2
    after = journal.read_text(encoding="utf-8").splitlines()
    assert after[: len(whole)] == whole
    assert len(after) == 1 + row["executions"] + row["rate"]["of"], "each execution is a line, of both calls"
    assert campaign.load_plan(example / "shrunk") != campaign.load_plan(example)


def test_another_signature_begins_anew(example: Path) -> None:
    shrunk(example)
    head = (example / "shrinking" / "simulated.jsonl").read_text(encoding="utf-8").splitlines()[0]
    finding = shrinking.Finding(invariant="R5", slug="panic", subject="w1", message="", evidence=())
    keeper = shrinking.Keeper(example, "R5/panic", Quiet(), topology.find("simulated"), "simulated", (finding,))
    assert keeper.memory == {}
    assert not (example / "shrunk").exists()
    assert not (example / "passing").exists()
    assert (example / "shrinking" / "simulated.jsonl").read_text(encoding="utf-8").splitlines()[0] != head


def test_other_signatures_are_kept_aside_once_each(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(planfile.dump(long_plan()), encoding="utf-8")
    both = options(tmp_path / "runs", f"{DEFECT},drops-token:0.01")
    verdict = campaign.replay(file, both, Quiet(), times=20)
    alone = [
        outcome.folder
        for outcome in verdict.outcomes
        if outcome.judgement and {one.signature for one in outcome.judgement.findings} == {SIGNATURE}
    ]
    result = shrinking.run(alone[0], both, Quiet(), budget_s=BOUND_S)
    assert result.others["T1/lost"] > 0
    aside = alone[0] / "aside" / "T1-lost"
    assert result.aside["T1/lost"] == aside
    assert "T1/lost" in [one["signature"] for one in store.read_json(aside / "verdict.json")["findings"]]


def test_where_it_may_fail_too_is_tried_first_the_cheapest_first() -> None:
    def named(name: str) -> list[tuple[str, str, str, str]]:
        tops = shrinking.rungs(topology.find(name))
        return [(top.target, top.engine, top.discovery, top.request_plane) for top in tops]

    simulated = ("simulated", "counting", "file", "tcp")
    assert named("simulated") == [simulated]
    assert named("counting") == [simulated, ("real", "counting", "file", "tcp")]
    assert named("etcd-nats") == [simulated, ("real", "mocker", "file", "tcp"), ("real", "mocker", "etcd", "nats")]
    assert named("vllm") == [simulated, ("real", "counting", "file", "tcp"), ("real", "vllm", "file", "tcp")]
    assert named("disaggregated") == [("real", "mocker", "file", "tcp"), ("real", "mocker", "etcd", "nats")]


def test_wrong_use_is_told_with_what_is_expected(example: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no history\.jsonl in it, expected an example"):
        shrinking.run(tmp_path, options(tmp_path), Quiet(), budget_s=1.0)
    with pytest.raises(UsageError, match=f"does not show it, expected one of {SIGNATURE}"):
        shrinking.run(example, options(tmp_path), Quiet(), signature="R5/panic", budget_s=1.0)
    done = CliRunner().invoke(app, ["shrink", str(example), "--budget", "soon"])
    assert "--budget 'soon': expected a number and s, m or h; try: --budget 10m" in str(done.exception)


def test_what_never_fails_again_is_told_and_no_result(example: Path) -> None:
    result = shrinking.run(example, options(example, ""), Quiet(), budget_s=BOUND_S)
    assert not result.shrunk.reproduced
    assert result.row()["shrunk"] == ""
    assert not (example / "shrunk").exists()
    done = CliRunner().invoke(app, ["shrink", str(example), "--json"])
    assert isinstance(done.exception, Done)
    assert done.exception.code == 2


def test_a_replay_tells_how_often_each_signature_was_seen_and_after_which_steps_it_begins(tmp_path: Path) -> None:
    steps = (Submit(name="r1"), Submit(name="r2", max_tokens=600), Cancel(name="c", request="r2", at=Token("r2", 12)))
    file = tmp_path / "plan.json"
    file.write_text(planfile.dump(Plan(topology="simulated", steps=steps)), encoding="utf-8")
    replay = ["replay", str(file), "--times", "20", "--defect", DEFECT, "--store", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, [*replay, "--prefixes", "--json"])
    row = json.loads(done.stdout.splitlines()[-1])
    assert set(row["prefixes"]) == {"1", "2", "3"}
    assert row["prefixes"]["1"] == row["prefixes"]["2"] == {}
    assert row["prefixes"]["3"] == row["rates"]
    rate = row["rates"][SIGNATURE]
    assert rate == Rate(failed=rate["failed"], of=20).row()
    assert rate["low"] < 0.3 < rate["high"]
    [run] = (tmp_path / "runs").iterdir()
    assert store.read_json(run / "verdict.json") == row

    told = CliRunner().invoke(app, replay).stdout
    assert "seen in so many runs, with the 95% interval of the rate" in told
    assert f"{SIGNATURE:<33} " in told
    assert "prefixes" not in json.loads(CliRunner().invoke(app, [*replay, "--json"]).stdout.splitlines()[-1])
