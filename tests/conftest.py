"""What tests of real clusters share: which interpreter, and a session on it."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ftmodel import topology
from ftmodel.session import Session
from ftmodel.store import Run

# No test is timed: machines are slow at times. Named, for Hypothesis loads a profile of its own where CI is set.
settings.register_profile("ftmodel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ftmodel")


def _sut_python() -> Path | None:
    named = os.environ.get("FTMODEL_SUT_PYTHON")
    if named:
        return Path(named)
    return Path(sys.executable) if importlib.util.find_spec("dynamo") else None


@pytest.fixture(scope="session")
def sut_python() -> Path:
    """The interpreter of the cluster under test."""
    python = _sut_python()
    if python is None:
        pytest.skip("no ai-dynamo here: pip install '.[dynamo]', or FTMODEL_SUT_PYTHON=/path/to/python")
    return python


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The interpreter of an environment that has vLLM."""
    named = os.environ.get("FTMODEL_VLLM_PYTHON")
    if not named:
        pytest.skip("no environment with vLLM: FTMODEL_VLLM_PYTHON=/path/to/python (docs/vllm.md)")
    return Path(named)


@pytest.fixture(scope="session")
def documented() -> frozenset[str]:
    """The signatures of docs/findings.md: confirmed there without ftmodel."""
    text = (Path(__file__).parents[1] / "docs" / "findings.md").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^## ([A-Z]\d/[a-z0-9-]+)", text, re.MULTILINE))


@pytest.fixture(scope="module", params=[False, True], ids=["forked", "cold"])
def session(
    request: pytest.FixtureRequest, sut_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Session]:
    """A session whose processes are forked, and one whose processes are started anew."""
    run = Run.create(tmp_path_factory.mktemp("store"), "contract")
    tops = [topology.find("aggregated"), topology.find("counting")]
    with Session(tops, run, python=sut_python, cold_start=request.param) as opened:
        yield opened
    assert opened.left_over == []
