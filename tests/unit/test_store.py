"""The store keeps what a run found, or says in one sentence why it cannot."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftmodel import history, planfile, store, topology
from ftmodel.errors import StoreError
from ftmodel.history import Interval, Mark
from ftmodel.steps import Plan, Submit
from ftmodel.store import Run

TOP = topology.find("aggregated")
PLAN = Plan(topology="aggregated", steps=(Submit(name="r1"),))
EVENTS: list[history.Event] = [Mark(at=Interval(0, 1), stage="ready")]


def refused(error: int) -> Callable[..., Any]:
    def write(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    return write


def test_a_run_gets_a_folder_of_its_own_named_by_time_and_command(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "deep" / "runs", "soak")
    assert run.folder.is_dir()
    assert run.folder.parent == tmp_path / "deep" / "runs"
    stamp, _, name = run.folder.name.rpartition("-")
    assert name == "soak"
    assert time.strptime(stamp, "%Y%m%d-%H%M%S")


def test_runs_that_begin_in_the_same_second_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.time, "strftime", lambda _form: "20260102-030405")
    made = [Run.create(tmp_path, "run").folder.name for _ in range(3)]
    assert made == ["20260102-030405-run", "20260102-030405-run-2", "20260102-030405-run-3"]


def test_an_example_is_written_and_found_again(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "run")
    run.write_env(seed=7)
    for name in ("002", "001"):
        folder = run.example(name)
        assert (folder / "logs").is_dir()
        store.write_example(folder, PLAN, TOP, EVENTS)
    wanted = [run.folder / "examples" / name for name in ("001", "002")]
    for path in (tmp_path, run.folder, run.folder / "examples"):
        assert store.examples(path) == wanted
    assert store.examples(wanted[1]) == wanted[1:]
    assert planfile.load(wanted[0] / "plan.json") == PLAN
    assert list(history.read(wanted[0] / "history.jsonl")) == EVENTS


def test_the_environment_says_what_was_run_where(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "run")
    run.write_env(seed=7, versions={"a": None})
    env = store.read_json(run.folder / "env.json")
    assert env["format"] == store.FORMAT
    assert env["seed"] == 7
    assert {"ftmodel", "python", "kernel", "machine", "cpus", "command"} < set(env)


@pytest.mark.parametrize("where", [".", "history.jsonl", "missing"])
def test_where_no_example_lies_that_is_told(tmp_path: Path, where: str) -> None:
    with pytest.raises(StoreError) as told:
        store.examples(tmp_path / where)
    assert str(told.value).startswith(f"{tmp_path / where}: no example with a history.jsonl in it; expected a run")


@pytest.mark.parametrize("depth", [0, 2])
def test_a_store_of_another_format_is_refused_for_the_run_and_for_its_examples(tmp_path: Path, depth: int) -> None:
    run = Run.create(tmp_path, "run")
    store.write_example(run.example("001"), PLAN, TOP, EVENTS)
    (run.folder / "env.json").write_text(json.dumps({"format": store.FORMAT + 1}))
    path = run.folder / "examples" / "001" if depth else run.folder
    with pytest.raises(StoreError) as told:
        store.examples(path)
    assert f"store format {store.FORMAT + 1}, expected {store.FORMAT}" in str(told.value)
    assert "pip install --upgrade ftmodel" in str(told.value)


def test_a_store_of_another_format_is_refused_from_within_the_example_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tmp_path, "run")
    store.write_example(run.example("001"), PLAN, TOP, EVENTS)
    (run.folder / "env.json").write_text(json.dumps({"format": store.FORMAT + 1}))
    monkeypatch.chdir(run.folder / "examples" / "001")
    with pytest.raises(StoreError, match="store format"):
        store.examples(Path())


def test_without_room_no_run_is_begun_and_what_to_do_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((*real[:4], 10, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    with pytest.raises(StoreError) as told:
        Run.create(tmp_path / "runs", "run")
    said = str(told.value)
    assert said.startswith(f"{tmp_path / 'runs'}: no space left on the device, expected at least 64 MiB free")
    assert "--store DIR" in said
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_while_an_example_is_written_is_told_once_and_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    folder = Run.create(tmp_path, "run").example("001")
    monkeypatch.setattr(Path, "write_text", refused(error))
    for write in (
        lambda: store.write_example(folder, PLAN, TOP, EVENTS),
        lambda: store.write_json(folder / "verdict.json", {}),
    ):
        with pytest.raises(StoreError, match="no space left on the device") as told:
            write()
        assert str(told.value).startswith(str(folder))
        assert told.value.__suppress_context__


def test_a_disk_that_fills_up_while_the_history_is_written_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Run.create(tmp_path, "run").example("001")
    monkeypatch.setattr(history, "write", refused(errno.ENOSPC))
    with pytest.raises(StoreError, match="no space left on the device"):
        store.write_example(folder, PLAN, TOP, EVENTS)


def test_a_store_that_may_not_be_written_to_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # By a refusal and not by the mode of a folder: the tests may run as root.
    monkeypatch.setattr(Path, "mkdir", refused(errno.EACCES))
    with pytest.raises(StoreError) as told:
        Run.create(tmp_path / "runs", "run")
    said = f"{tmp_path / 'runs'}: Permission denied: expected a folder that can be written to; try: --store DIR"
    assert str(told.value) == said


def test_a_store_that_is_a_file_is_told_to_be_no_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(StoreError, match="expected a folder that can be written to"):
        Run.create(tmp_path / "runs", "run")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b"{", "not JSON"), (b"\xff", "not JSON"), (b"[]", "got list, expected a JSON object")],
)
def test_a_file_of_the_store_that_cannot_be_read_is_told_with_its_path(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "env.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=said) as told:
        store.read_json(path)
    assert str(told.value).startswith(f"{path}: ")
