"""The command `soak` as a person uses it: killed and resumed, interrupted, asked where it is, compared with an earlier one."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plants import plants

from ftmodel.soak.journal import Journal, newest, open_newest

BUG = "P5/completion-tokens"
PLANTED = ("--lanes", "2", "--defect", "usage-counts-one-more")


def soak(store: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ftmodel", "soak", *arguments]
    where = ["--resume", str(store)] if store.is_dir() else ["--store", str(store), "--topology", "simulated"]
    return subprocess.Popen(
        [*command, *where], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "FTMODEL_TEST_OF": str(store)},
    )  # fmt: skip


def of_store(store: Path) -> list[int]:
    """Processes of the soaks in this store."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"FTMODEL_TEST_OF={store}\0".encode() in environ.read_bytes():
                found.append(int(environ.parent.name))
        except OSError:
            continue
    return found


def until(condition: Callable[[], Any], bound_s: float = 60.0) -> None:
    end_s = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def told(soaking: subprocess.Popen[str], begin: str) -> str:
    """The first line that has this in it."""
    assert soaking.stdout is not None
    return next(line for line in soaking.stdout if begin in line)


def executions(journal: Journal) -> int:
    """What was executed to make a finding smaller."""
    return sum(
        len(path.read_text().splitlines()) - 1 for path in journal.path.parent.glob("findings/*/shrinking/*.jsonl")
    )


@plants
def test_a_soak_outlives_its_death_amid_shrinking_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    store = tmp_path / "store"
    killed = soak(store, "--for", "10m", "--steps", "6", *PLANTED)  # small plans are soon made smaller
    told(killed, f"makes {BUG} smaller")
    with open_newest(store) as left:
        until(lambda: executions(left) > 2)
        killed.kill()
        killed.communicate()
        until(lambda: not of_store(store))
        assert [(one.state, one.shrunk) for one in left.bugs() if one.signature == BUG] == [("confirmed", "")]
        assert sqlite3.connect(left.path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
        count, before = left.totals().examples, executions(left)

    resumed = soak(store, "--for", "10m", "--json", "--known-issues", os.devnull)
    told(resumed, f"makes {BUG} smaller")
    assert "steps to 1, failed" in told(resumed, f"shrinking of {BUG}")
    resumed.send_signal(signal.SIGINT)
    said = resumed.communicate(timeout=60)[0]
    assert resumed.returncode == 1
    total = json.loads(said.splitlines()[-1])
    assert total["examples"] > count
    found = next(one for one in total["violations"] if one["signature"] == BUG)
    assert (found["state"], found["shrunk"]["how"], found["shrunk"]["to_steps"]) == ("confirmed", "done", 1)
    assert of_store(store) == []
    assert json.loads((Path(total["store"]) / "verdict.json").read_text()) == total
    with open_newest(store) as journal:
        assert executions(journal) > before
    example = Path(found["example"])
    assert {"report.html", "REPORT.md", "shrunk"} <= {path.name for path in example.iterdir()}
    page = (Path(total["store"]) / "soak.html").read_text()
    assert 'href="findings/P5-completion-tokens/REPORT.md"' in page


@plants
def test_it_tells_where_it_is_and_ends_at_once_when_it_is_interrupted_twice(tmp_path: Path) -> None:
    store = tmp_path / "store"
    soaking = soak(store, "--for", "10m", *PLANTED)
    told(soaking, "confirmed")
    soaking.send_signal(signal.SIGUSR1)
    assert f"{BUG} " in told(soaking, " left, ")
    soaking.send_signal(signal.SIGINT)
    told(soaking, "interrupted: what is under way comes to its end")
    soaking.send_signal(signal.SIGINT)
    soaking.communicate(timeout=20)
    assert soaking.returncode not in (0, 1)
    assert of_store(store) == []


@plants
def test_what_an_earlier_soak_found_is_replayed_first_and_is_not_new(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = soak(store, "--for", "10m", *PLANTED)
    told(first, "confirmed")
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    earlier = newest(store)
    again = subprocess.run(
        [
            sys.executable, "-m", "ftmodel", "soak", "--for", "8s", "--topology", "simulated", "--store", str(store),
            "--against", str(earlier), *PLANTED,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    rounds = [line for line in again.stdout.splitlines() if line.startswith("round ")]
    assert "plans that were kept" in rounds[0]
    assert any(" seed " in line for line in rounds)
    assert again.returncode == 0, again.stdout
    with open_newest(store) as journal:
        assert journal.path.parent != earlier
        total = json.loads((journal.path.parent / "verdict.json").read_text())
    assert total["against"] == {"new": [], "gone": [], "still_there": [BUG]}
    assert total["seconds"] < 20
