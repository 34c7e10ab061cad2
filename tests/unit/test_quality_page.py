"""docs/quality.md: what it quotes is run, and its table is of the defects that there are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from plants import plants

from ftmodel import strategies, topology
from ftmodel.cli import proving
from ftmodel.errors import UsageError
from ftmodel.history import Event, Sample
from ftmodel.invariants import INVARIANTS, Finding, Invariant
from ftmodel.invariants.ledger import Ledger
from ftmodel.prove import Grounds, false_alarms, prove
from ftmodel.targets.simulated import Planted, catalogue

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "quality.md"
TEXT = PAGE.read_text(encoding="utf-8")
QUOTED = re.findall(r"^<!-- (\S+\.py) -->\n```\w+\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `([a-z0-9-]+)`", re.MULTILINE)


class KeepsNothing(Invariant):
    """MY2. At rest a worker's KV cache is empty."""

    id = "MY2"
    sentence = "At rest a worker's KV cache is empty."
    kinds = frozenset({"sample"})
    slugs = frozenset({"kept"})

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:  # noqa: ARG002
        """Remember what each worker told last."""
        if isinstance(event, Sample) and "kv" in event.values:
            self._last[event.title] = event.values["kv"]
        return ()

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge what those told that live."""
        for worker in ledger.workers:
            if worker.died is None and worker.title in self._last:
                self.tally.evaluated += 1
                kept = self._last[worker.title]
                if kept > 0:
                    yield self.finding("kept", worker.title, f"{worker.title} kept {kept:.0%} of its KV cache at rest")


def test_an_invariant_of_ones_own_is_proven() -> None:
    grounds = Grounds(topology.find("simulated"), invariants=(*INVARIANTS, KeepsNothing))
    [defect] = catalogue.load(HERE / "defects_of_others.py")
    [row] = prove(grounds, strategies, [Planted(defect)], seeds=[0, 1], examples=500, steps=30)
    assert row.found == 2  # it is found,
    assert "MY2" in row.caught_by  # by this invariant,
    assert false_alarms(grounds, strategies, examples=50, steps=30) == []  # and nothing is where nothing is wrong


@pytest.mark.parametrize(("path", "text"), QUOTED, ids=[path for path, _ in QUOTED])
def test_what_the_page_quotes_is_run(path: str, text: str) -> None:
    assert text in (HERE.parents[1] / path).read_text(encoding="utf-8")


def test_the_page_quotes_a_defect_and_an_invariants_proof() -> None:
    assert len(QUOTED) == 2


@plants
def test_the_table_has_a_row_for_each_defect() -> None:
    assert ROW.findall(TEXT) == [defect.id for defect in catalogue.ours()]


@plants
def test_the_table_is_put_between_its_marks_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{proving.BEGIN}\nold\n{proving.END}\nafter\n")
    planted = catalogue.planted("abort-twice,kv-leaks-on-preemption", catalogue.ours())
    row = {"found": 4, "of": 5, "examples": 40.5, "steps": 4, "least": 2, "shrunk": 3, "signatures": ["A2/double"]}
    proof = {
        "defects": {"abort-twice": row, "kv-leaks-on-preemption": row}, "clean_examples": 10, "false_alarms": 0,
        "invariants": {"A2": ["abort-twice"], "L1": []},
    }  # fmt: skip
    proving.write(page, proof, planted)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| `abort-twice` |" in text
    assert "| `kv-leaks-on-preemption`, hard |" in text
    assert "not found with every seed: `abort-twice`, `kv-leaks-on-preemption`." in text
    assert "with four of five seeds: `abort-twice`, `kv-leaks-on-preemption`." in text
    assert "50 examples all the same: `kv-leaks-on-preemption`." in text
    assert "no defect violated: `L1`." in text


def test_a_page_without_marks_is_told_as_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a file with the lines"):
        proving.write(tmp_path / "none.md", {}, ())


@plants
def test_there_are_enough_defects_and_enough_hard_ones() -> None:
    ours = catalogue.ours()
    assert len(ours) >= 50
    assert sum(defect.hard for defect in ours) >= 10
    assert len({defect.id for defect in ours}) == len(ours)
    assert all(defect.least_steps >= 1 for defect in ours)
    assert all(defect.sentence.endswith(".") for defect in ours)


@plants
def test_the_page_says_that_each_invariant_was_violated_by_some_defect() -> None:
    assert "no defect violated: none." in TEXT
