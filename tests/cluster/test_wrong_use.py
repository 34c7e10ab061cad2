"""What is wrong gets one clear message and its exit code, no traceback, and leaves nothing running."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import venv
from pathlib import Path

import psutil
import pytest

from ftmodel import planfile
from ftmodel.steps import Plan, Submit


def _run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ftmodel", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=180, check=False)


def _expect(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("ftmodel: ")]
    assert len(lines) == 1, done.stderr
    for part in said:
        assert part in lines[0]
    assert not _left()


def _left() -> list[int]:
    return [p.pid for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    "arguments", [("run", "--bogus"), ("replay",), ("bogus",), ("run", "--seed", "x")], ids=" ".join
)
def test_what_was_typed_wrong(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = _run(*arguments, cwd=tmp_path)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "Usage:" in done.stderr


def test_help_is_no_wrong_use(tmp_path: Path) -> None:
    assert _run("--help", cwd=tmp_path).returncode == 0


def test_an_unknown_topology(tmp_path: Path) -> None:
    _expect(
        _run("run", "--topology", "nonesuch", cwd=tmp_path), 3, "'nonesuch'", "aggregated", "ftmodel list topologies"
    )


def test_an_unknown_profile(tmp_path: Path) -> None:
    _expect(_run("run", "--profile", "slow", cwd=tmp_path), 3, "'slow'", "quick")


def test_a_duration_that_is_none(tmp_path: Path) -> None:
    _expect(_run("run", "--for", "soon", cwd=tmp_path), 3, "'soon'", "--for 10m")


def test_an_interpreter_that_does_not_exist(tmp_path: Path) -> None:
    _expect(_run("run", "--sut-python", "/nowhere/python", cwd=tmp_path), 3, "/nowhere/python", "not found", "try: ")


def test_an_interpreter_without_the_system_under_test(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / "bin" / "python"
    done = _run("run", "--sut-python", str(python), cwd=tmp_path)
    _expect(done, 3, str(python), "ai-dynamo", "pip install ai-dynamo")


def test_an_interpreter_without_the_system_under_test_started_anew(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / "bin" / "python"
    done = _run("run", "--cold-start", "--sut-python", str(python), cwd=tmp_path)
    _expect(done, 3, str(python), "pip install ai-dynamo")


def test_a_broken_plan_file(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"format": 1, "topology": "aggregated", "steps": [{"kind": "kil-worker", "name": "s1"}]}')
    _expect(_run("replay", str(plan), cwd=tmp_path), 3, str(plan), "step 1", "kind", "'kil-worker'", "kill-worker")


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    _expect(_run("replay", "none.json", cwd=tmp_path), 3, "none.json", "plan")


def test_a_store_of_a_newer_format(tmp_path: Path) -> None:
    example = tmp_path / "runs" / "x-run" / "examples" / "001"
    example.mkdir(parents=True)
    (example / "history.jsonl").write_text('{"history": 1}\n')
    (example.parents[1] / "env.json").write_text(json.dumps({"format": 99}))
    _expect(_run("recheck", "runs", cwd=tmp_path), 3, "env.json", "99", "pip install --upgrade ftmodel")


def test_a_store_that_is_none(tmp_path: Path) -> None:
    _expect(_run("recheck", "empty", cwd=tmp_path), 3, "empty", "expected")


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _expect(_run("run", "--store", "file/store", cwd=tmp_path), 3, "file/store", "--store DIR")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system to fill")
@pytest.mark.cluster
def test_a_store_on_a_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        done = _run("run", "--store", str(small), cwd=tmp_path)
        _expect(done, 3, "no space left", "--store DIR")
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.cluster
def test_a_port_that_is_taken(tmp_path: Path, sut_python: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        top = tmp_path / "mine.toml"
        top.write_text(f'system = "dynamo"\nengine = "mocker"\nhttp_port = {port}\n')
        done = _run("run", "--topology", "mine.toml", "--sut-python", str(sut_python), cwd=tmp_path)
        _expect(done, 2, f"port {port}", "taken", "try: ")


@pytest.mark.cluster
def test_a_plan_of_a_topology_of_ones_own_is_replayed(
    tmp_path: Path, sut_python: Path, documented: frozenset[str]
) -> None:
    (tmp_path / "topology.toml").write_text('name = "mine"\nsystem = "dynamo"\nengine = "counting"\n')
    (tmp_path / "plan.json").write_text(planfile.dump(Plan(topology="mine", steps=(Submit(name="r1"),))))
    done = _run("replay", str(tmp_path), "--json", "--sut-python", str(sut_python), cwd=tmp_path)
    assert done.returncode in (0, 1), done.stderr  # the calibration can meet what is known of a release
    row = json.loads(done.stdout.splitlines()[-1])
    assert (row["doubts"], row["topologies"], row["requests"]["completed"]) == ([], ["mine"], 1)
    assert {violation["signature"] for violation in row["violations"]} <= documented
