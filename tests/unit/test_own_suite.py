"""The example project and the docs that quote it say the same, and what it knows is what is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ftmodel import known, topology
from ftmodel.invariants import INVARIANTS

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "examples" / "own_suite"
QUOTED = re.findall(r"^<!-- (\S+) -->\n```\w+\n(.*?)^```$", (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)  # fmt: skip


def test_what_the_example_knows_is_what_is_documented() -> None:
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    documented = re.findall(r"^## ([A-Z]\d/[a-z0-9-]+)", text, re.MULTILINE)
    issues = known.load(SUITE / "known_issues.toml")
    assert {issue.signature for issue in issues} == set(documented)


def test_its_links_are_those_of_the_findings() -> None:
    for issue in known.load(SUITE / "known_issues.toml"):
        page, _, anchor = issue.link.partition("#")
        assert (SUITE / page).resolve() == ROOT / "docs" / "findings.md"
        assert anchor == issue.signature.lower().replace("/", "")


@pytest.mark.parametrize(("path", "text"), QUOTED, ids=[path for path, _ in QUOTED])
def test_what_the_docs_quote_is_run(path: str, text: str) -> None:
    assert text in (ROOT / path).read_text(encoding="utf-8")


def test_the_docs_quote_a_step_an_invariant_and_a_topology() -> None:
    assert len(QUOTED) == 3


@pytest.mark.parametrize("name", ["small.toml", "losing.toml"])
def test_its_topologies_can_be_read(name: str) -> None:
    assert topology.find(str(SUITE / name)).engine == "counting"


def test_its_invariant_has_an_id_of_its_own() -> None:
    ids = re.findall(r'^    id = "(\w+)"$', (SUITE / "invariants.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert ids == ["MY1"]
    assert "MY1" not in {cls.id for cls in INVARIANTS}
