"""A suite of somebody's own on a real cluster: it passes, and fails in readable words where the engine loses tokens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

SUITE = Path(__file__).parents[2] / "examples" / "own_suite"
SEED = "7"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A copy, so that nothing of this checkout lies beside it."""
    return shutil.copytree(SUITE, tmp_path / "own_suite", ignore=shutil.ignore_patterns(".*", "__pycache__"))


def _run(suite: Path, sut_python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "HYPOTHESIS"))}
    command = [
        sys.executable, "-m", "pytest", "-p", "ftmodel.pytest_plugin", f"--ftmodel-sut-python={sut_python}",
        f"--ftmodel-seed={SEED}", "--junitxml=junit.xml", *arguments,
    ]  # fmt: skip
    return subprocess.run(
        command, cwd=suite, capture_output=True, text=True, timeout=240, check=False,
        env={**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip


def _properties(suite: Path) -> list[tuple[str | None, str | None]]:
    return [(one.get("name"), one.get("value")) for one in ET.parse(suite / "junit.xml").iter("property")]


def test_it_passes_on_a_healthy_cluster_with_a_step_and_an_invariant_of_its_own(suite: Path, sut_python: Path) -> None:
    done = _run(suite, sut_python, "--ftmodel-examples=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ftmodel: seed {SEED}, profile quick (2 examples of 30 steps)" in done.stdout
    assert ("ftmodel_verdict", "holds") in _properties(suite)
    plans = [
        path.read_text(encoding="utf-8") for path in suite.glob(".ftmodel-runs/*/examples/*TestCluster*/plan.json")
    ]
    assert len(plans) == 2
    assert sum(text.count('"cancel"') for text in plans) > 0
    verdict = next(suite.glob(".ftmodel-runs/*/verdict.json")).read_text(encoding="utf-8")
    assert '"MY1"' in verdict


def test_it_fails_in_readable_words_where_the_engine_loses_a_token(suite: Path, sut_python: Path) -> None:
    done = _run(suite, sut_python, "test_losing_engine.py", "--ftmodel-examples=1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SUBFAILED[T1/lost] test_losing_engine.py::TestLosingEngine::test_holds" in done.stdout
    assert "No token is lost, doubled or reordered, migrated or not" in done.stdout
    assert "next ftmodel replay .ftmodel-runs/" in done.stdout
    assert "Traceback" not in done.stdout
    assert ("ftmodel_signature", "T1/lost") in _properties(suite)
    assert ("ftmodel_seed", SEED) in _properties(suite)
