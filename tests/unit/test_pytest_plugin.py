"""The plugin without a cluster: one failure a signature, in words; what is known fails nothing; the options."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from ftmodel import topology
from ftmodel.asked import found, head_of, rules_of
from ftmodel.errors import UsageError
from ftmodel.invariants import INVARIANTS
from ftmodel.profiles import find
from ftmodel.pytest_plugin import Chosen

HERE = Path(__file__).parent
CONFTEST = f"""
import sys
from pathlib import Path
import dataclasses
import pytest
sys.path.insert(0, {str(HERE)!r})
from histories import Ask, Story
from ftmodel import known
from ftmodel.invariants import judge
from ftmodel.invariants.base import Finding
from ftmodel.runner import Outcome
from ftmodel.steps import Plan, Submit
from ftmodel.verdict import combine

FOUND = []
DOUBTS = ()
ASKED = {{}}

class Suite:
    def campaign(self, name, tops, rules, draw, *, count):
        import conftest
        ASKED.update(name=name, tops=[top.name for top in tops], count=count)
        story = Story()
        Ask(story, "r1", 5.0, 8).whole("w1", 5.01)
        judgement = judge(story.told(16.0), rules.invariants)
        findings = tuple(
            Finding(invariant=s.split("/")[0], slug=s.split("/")[1], subject="r1", message=f"r1 got {{s}}", evidence=("client, 1 s: eof",))
            for s in FOUND
        )
        judgement = dataclasses.replace(judgement, findings=findings, doubts=DOUBTS)
        outcome = Outcome(
            name="001", folder=Path.cwd() / "kept/examples/001", plan=Plan(topology="counting", steps=(Submit(name="r1"),)),
            judgement=judgement, setting=story.setting, known=known.of_findings(FOUND, "1.4.2", "aggregated", rules.issues),
        )
        return combine([outcome], seed=7, system={{"name": "toy", "version": "1.4.2"}}, topologies=["t"], store=Path("kept"))

@pytest.fixture(scope="session")
def ftmodel_suite():
    return Suite()
"""
MINE = """
import conftest
from ftmodel.invariants import INVARIANTS, Invariant
from ftmodel.testing import FaultTolerance

class Own(Invariant):
    id = "MY1"
    sentence = "Nobody waits."
    slugs = frozenset({"late"})

class TestMine(FaultTolerance):
    topology = ["counting", "aggregated"]
    invariants = (*INVARIANTS, Own)
"""
KNOWN = """
[[issue]]
invariant = "L2"
signature = "L2/status-500"
versions = "<1.5"
reason = "a dead worker is routed to"
link = "docs/findings.md"
"""


def ran(folder: Path, *arguments: str, body: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a suite of somebody's own."""
    (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (folder / "test_mine.py").write_text(MINE + body, encoding="utf-8")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "HYPOTHESIS", "FTMODEL"))
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "ftmodel.pytest_plugin", "-p", "no:cacheprovider", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **env},
    )  # fmt: skip


def test_each_signature_is_one_failure_that_reads_without_a_traceback(tmp_path: Path) -> None:
    done = ran(tmp_path, "--ftmodel-seed=7", body='conftest.FOUND += ["L2/status-500", "MY1/late"]\n')
    assert done.returncode == 1, done.stderr
    assert "SUBFAILED[L2/status-500]" in done.stdout
    assert "SUBFAILED[MY1/late]" in done.stdout
    for line in (
        "A request that must complete completes; one that must not does not.",
        "r1: r1 got L2/status-500",
        "  >  1. r1: submit r1: completion, streamed, 40 characters, 50 tokens",
        "    client, 1 s: eof",
        "in   kept/examples/001",
        "next ftmodel replay kept/examples/001 --times 10",
        "Nobody waits.",
        "next pytest test_mine.py::TestMine --ftmodel-replay kept/examples/001",
        "pytest test_mine.py::TestMine --ftmodel-seed=7 --ftmodel-profile=quick",
    ):
        assert line in done.stdout, done.stdout
    assert "Traceback" not in done.stdout
    assert "hidden" not in done.stdout
    assert "conftest.py" not in done.stdout


def test_what_is_known_passes_and_is_shown(tmp_path: Path) -> None:
    (tmp_path / "known_issues.toml").write_text(KNOWN, encoding="utf-8")
    done = ran(tmp_path, body='conftest.FOUND += ["L2/status-500"]\n')
    assert done.returncode == 0, done.stdout
    assert "known L2/status-500 1x: a dead worker is routed to (docs/findings.md)" in done.stdout


def test_a_broken_file_of_known_issues_fails_in_words(tmp_path: Path) -> None:
    (tmp_path / "known_issues.toml").write_text(KNOWN + "owner = 1\n", encoding="utf-8")
    done = ran(tmp_path)
    assert done.returncode == 1
    assert "known_issues.toml: [[issue]] 1: key owner: unknown" in done.stdout
    assert "Traceback" not in done.stdout
    assert "During handling" not in done.stdout


def test_unknown_fails_in_other_words_than_a_violation(tmp_path: Path) -> None:
    done = ran(tmp_path, "--ftmodel-seed=7", body='conftest.DOUBTS = ("H1: kill-worker of w1 was not verified",)\n')
    assert done.returncode == 1
    assert "SUBFAILED[unknown]" in done.stdout
    assert "neither a pass nor a finding" in done.stdout
    assert "H1: kill-worker of w1 was not verified" in done.stdout
    assert "replay" not in done.stdout


def test_a_junit_report_has_seed_signatures_and_examples(tmp_path: Path) -> None:
    ran(tmp_path, "--ftmodel-seed=7", "--junitxml=j.xml", body='conftest.FOUND += ["L2/status-500", "T1/lost"]\n')
    case = next(ET.parse(tmp_path / "j.xml").iter("testcase"))
    properties = [(one.get("name"), one.get("value")) for one in case.iter("property")]
    assert ("ftmodel_seed", "7") in properties
    assert ("ftmodel_version", "toy 1.4.2") in properties
    assert [value for name, value in properties if name == "ftmodel_signature"] == ["L2/status-500", "T1/lost"]
    assert [value for name, value in properties if name == "ftmodel_example"] == ["kept/examples/001"] * 2


@pytest.mark.parametrize(
    ("arguments", "env", "told"),
    [
        ((), {}, "profile quick (60 examples of 30 steps)"),
        (("--ftmodel-profile=ci",), {}, "profile ci (10 examples of 20 steps)"),
        ((), {"HYPOTHESIS_PROFILE": "ci"}, "profile ci (10 examples of 20 steps)"),
        ((), {"HYPOTHESIS_PROFILE": "their-own"}, "profile quick"),
        (("--ftmodel-profile=thorough",), {"HYPOTHESIS_PROFILE": "ci"}, "profile thorough"),
        (("--ftmodel-seed=7", "--ftmodel-examples=3"), {}, "ftmodel: seed 7, profile quick (3 examples of 30 steps)"),
    ],
)
def test_profile_and_seed_are_chosen_and_told(
    tmp_path: Path, arguments: tuple[str, ...], env: dict[str, str], told: str
) -> None:
    done = ran(tmp_path, *arguments, **env)
    assert done.returncode == 0, done.stdout
    assert told in done.stdout


def test_a_profile_that_does_not_exist_is_wrong_use(tmp_path: Path) -> None:
    done = ran(tmp_path, "--ftmodel-profile=fast")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "profile 'fast': unknown, expected one of quick, ci" in done.stderr


def test_a_profile_without_an_end_is_wrong_use_here(tmp_path: Path) -> None:
    done = ran(tmp_path, "--ftmodel-profile=soak")
    assert done.returncode == 1
    assert "profile soak: goes on until the time is over, expected one of quick, ci, thorough" in done.stdout


def test_where_nothing_of_it_is_used_nothing_is_said(tmp_path: Path) -> None:
    done = ran(tmp_path, "test_plain.py", "--collect-only")
    (tmp_path / "test_plain.py").write_text("def test_plain(): pass\n", encoding="utf-8")
    done = ran(tmp_path, "test_plain.py")
    assert done.returncode == 0
    assert "seed" not in done.stdout


def test_to_load_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import pytest, sys; before = set(sys.modules); import ftmodel.pytest_plugin\n"
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    ours = {name for name in done.stdout.split() if name.startswith("ftmodel")}
    assert ours == {"ftmodel", "ftmodel.pytest_plugin", "ftmodel.profiles", "ftmodel.errors"}
    assert not {"asyncio", "hypothesis", "httpx", "pydantic", "rich"} & set(done.stdout.split())


# --- what a test asks for ---------------------------------------------------------------------------------------


def chosen(**changed: Any) -> Chosen:
    return Chosen(**{"profile": find("quick"), "seed": 7, "store": Path("runs"), "root": Path("nowhere"), **changed})


def test_a_cluster_has_what_was_asked_for_and_else_the_usual() -> None:
    top = topology.find("counting")
    head = head_of(top, {"workers": 3})
    assert (head.workers, head.frontends, head.migration_limit, head.patience) == (3, 1, 3, "short")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 9}, "workers: got 9, expected 1 to 4"),
        ({"workers": "2"}, "workers: got '2', expected 1 to 4"),
        ({"frontends": 0}, "frontends: got 0, expected 1 to 2"),
        ({"patience": "none"}, "patience: got 'none', expected short or long"),
    ],
)
def test_a_cluster_that_cannot_be_is_wrong_use(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        head_of(topology.find("counting"), options)


def test_a_topology_file_is_found_beside_the_test(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('system = "dynamo"\nengine = "counting"\n', encoding="utf-8")
    assert found("mine.toml", tmp_path).name == "mine"
    assert found("counting", tmp_path).name == "counting"


def test_an_invariant_given_twice_is_wrong_use() -> None:
    twice = rules_of((), None, Path(), chosen()).invariants
    assert twice == ()
    with pytest.raises(UsageError, match="id L1 is given twice"):
        rules_of((*INVARIANTS, INVARIANTS[0]), None, Path(), chosen())


def test_the_command_line_s_known_issues_are_stronger_than_the_class_s(tmp_path: Path) -> None:
    (tmp_path / "class.toml").write_text("", encoding="utf-8")
    (tmp_path / "line.toml").write_text(KNOWN, encoding="utf-8")
    assert rules_of((), "class.toml", tmp_path, chosen()).issues == ()
    assert len(rules_of((), "class.toml", tmp_path, chosen(known_issues=tmp_path / "line.toml")).issues) == 1
