"""A finding on a real cluster, its report, and the script that shows it by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftmodel import planfile
from ftmodel.steps import Plan, StopFrontend, Submit, Token

pytestmark = pytest.mark.cluster

SIGNATURE = "C4/live-draining"
"""Seen on each release that was looked at, each time."""
PLAN = Plan(
    topology="aggregated",
    workers=1,
    steps=(Submit(name="r1", max_tokens=200), StopFrontend(name="s2", at=Token("r1", 3))),
)


def _ftmodel(*arguments: str, env: dict[str, str] | None = None) -> dict[str, object]:
    command = [sys.executable, "-m", "ftmodel", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env)
    assert done.returncode in (0, 1), done.stderr
    row: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return row


def test_a_script_shows_the_finding_and_leaves_nothing_behind(tmp_path: Path, sut_python: Path) -> None:
    plan, scratch = tmp_path / "plan.json", tmp_path / "scratch"
    scratch.mkdir()
    env = {**os.environ, "TMPDIR": str(scratch)}
    plan.write_text(planfile.dump(PLAN), encoding="utf-8")
    sut = ["--sut-python", str(sut_python)]
    _ftmodel("replay", str(plan), "--store", str(tmp_path / "runs"), *sut)
    (example,) = tmp_path.glob("runs/*/examples/as-drawn-001")
    told = _ftmodel("report", str(example), "--signature", SIGNATURE, "--times", "1", *sut, env=env)
    assert told["repro"] == {"published": True, "failed": 1, "of": 1}
    assert "failed 1 of 1 times" in (example / "REPORT.md").read_text(encoding="utf-8")
    assert not list(scratch.iterdir())

    script = subprocess.Popen([str(sut_python), str(example / "repro.py")], start_new_session=True, env=env)
    deadline_s = time.monotonic() + 30
    while not list(scratch.glob("repro-*/w1.log")):
        assert time.monotonic() < deadline_s, "its cluster was not begun"
        time.sleep(0.02)
    script.send_signal(signal.SIGTERM)
    assert script.wait(timeout=30) == 128 + signal.SIGTERM
    assert not list(scratch.iterdir())
    assert not [entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and _speaks_of(scratch, entry)]


def _speaks_of(folder: Path, process: Path) -> bool:
    """True if a process was started with this folder in its environment."""
    try:
        return str(folder).encode() in (process / "environ").read_bytes()
    except OSError:
        return False  # it has ended, or is somebody else's
