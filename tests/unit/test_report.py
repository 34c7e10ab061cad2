"""A report shows what a history holds, in files that need nothing else."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from reported import MOVED, PLAN, STREAM, example, recorded, run, saying, without_done
from typer.testing import CliRunner

from ftmodel import store
from ftmodel.cli.app import app
from ftmodel.errors import StoreError, UsageError
from ftmodel.history import LogLine
from ftmodel.known import Issue
from ftmodel.planfile import with_steps
from ftmodel.report import case, data, index, log, markdown, page
from ftmodel.report.files import written
from ftmodel.runner import Rules

ROOT = Path(__file__).parents[2]
KNOWN = Rules(issues=(Issue(invariant="P1", signature="P1/no-done", versions="<2", reason="so it is", link="docs#p1"),))


@pytest.fixture
def violated(tmp_path: Path) -> case.Case:
    return case.load(example(tmp_path / "007", without_done(recorded())))


def embedded(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    row: dict[str, Any] = json.loads(found[1])
    return row


# --- the page


def test_a_page_loads_nothing_and_allows_only_its_own_script_and_style(violated: case.Case) -> None:
    html = page.render(violated)
    assert not re.findall(r'(?:src|href)="(?!#|data:,|https://github\.com/)', html)
    assert not re.findall(r"@import|url\(|fetch\(|XMLHttpRequest", html)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy[1]
    assert not re.findall(r"<[^>]+ style=", html)


def test_a_page_shows_every_event_on_the_row_of_its_subject(violated: case.Case) -> None:
    drawn = embedded(page.render(violated))
    labels = [lane["label"] for lane in drawn["lanes"]]
    assert {"r1", STREAM, "frontend-1", "w1", "tester"} <= set(labels)
    assert len(drawn["events"]) == sum(event.kind not in ("setting", "sample") for event in violated.shown.events)
    kills = [event for event in drawn["events"] if "kill-worker of w1-2" in event[4]]
    assert {labels[event[0]] for event in kills} == {"w1"}
    assert [band[3] for band in drawn["bands"] if band[4] == labels.index("w1")] == [
        "kill-worker of w1",
        "kill-worker of w1-2",
    ]
    assert [event[2] for event in drawn["events"]] == sorted(event[2] for event in drawn["events"])


def test_the_tokens_of_a_moved_stream_have_a_gap_where_it_was_moved(violated: case.Case) -> None:
    tokens = {one["request"]: one for one in data.drawn(violated)["tokens"]}
    assert tokens[STREAM]["points"][-1][1] == tokens[STREAM]["asked"]
    assert tokens[STREAM]["gap"] is None
    lines = [e for e in recorded() if isinstance(e, LogLine) and e.meaning == "migrating"]
    from_s, to_s = tokens[MOVED]["gap"]
    assert [line for line in lines if from_s <= line.at.after_s <= to_s]


def test_words_of_an_answer_end_no_script(tmp_path: Path) -> None:
    words = "</script><script>alert(1)</script><!-- &amp;"
    html = page.render(case.load(example(tmp_path / "007", saying(words)(recorded()))))
    assert html.count("</script>") == 2
    assert any(words[:40] in event[4] for event in embedded(html)["events"])


def test_a_page_of_what_holds_says_so(tmp_path: Path) -> None:
    folder = example(tmp_path / "007", recorded())
    html = page.render(case.load(folder))
    assert "Nothing was violated" in html
    with pytest.raises(UsageError, match="nothing was violated"):
        markdown.render(case.load(folder))


def test_half_a_character_is_written_as_its_escape(tmp_path: Path) -> None:
    assert written(tmp_path / "page", "a\ud800b").read_text(encoding="utf-8") == "a\\ud800b"


# --- the issue


def test_an_issue_says_what_was_done_promised_and_seen(tmp_path: Path) -> None:
    folder = run(tmp_path, **{"007": without_done(recorded())}) / "examples" / "007"
    text = markdown.render(case.load(folder))
    assert text.startswith("# P1/no-done\n")
    assert "| dynamo | 1.6.1 |" in text
    assert "vllm" not in text
    assert f"3. kill the worker that serves {STREAM} (SIGKILL), at token 3 of {STREAM}" in text
    assert f"the answer of {STREAM} ends without [DONE]" in text
    assert f"ftmodel replay {folder} --times 10" in text


def test_a_finding_is_told_with_the_sentence_of_the_documentation_that_it_breaks(violated: case.Case) -> None:
    text = markdown.render(violated)
    documented = {document for document in text.splitlines() if document.startswith("> ")}
    assert not documented  # no page speaks of [DONE]
    html = page.render(violated)
    assert "Promised" not in html


def test_a_run_that_passed_stands_beside_the_one_that_failed(tmp_path: Path) -> None:
    folder = run(tmp_path, a=recorded(), b=without_done(recorded()), c=without_done(recorded()))
    read = case.load(folder / "examples" / "c")
    assert str(read.rate) == "2 of 3"
    assert read.passing is not None
    assert read.passing.folder.name == "a"
    rows = markdown.render(read).splitlines()
    assert "| failed | passed |" in rows
    assert any(row.startswith("|  | `") and "[DONE]" in row for row in rows)
    assert page.render(read).count("<caption") == 2


def test_lines_that_differ_in_numbers_and_names_alone_stand_beside_each_other() -> None:
    ours = [log.Line(1.0, "w1", "Selected worker_id=w1 ms=18", "log"), log.Line(2.0, "w1", "panicked", "trouble")]
    theirs = [log.Line(3.0, "w2", "Selected worker_id=w2-2 ms=7", "log")]
    assert log.beside(ours, theirs) == [(ours[0], theirs[0]), (ours[1], None)]


def test_lines_of_a_log_are_told_as_they_stand(tmp_path: Path) -> None:
    folder = example(tmp_path / "007", without_done(recorded()))
    request = case.load(folder).request
    assert request is not None
    line = next(e for e in recorded() if e.kind == "log" and e.id == request.sent.id)
    text = {"time": "2026-01-02T03:04:05Z", "level": "WARN", "message": "so and so", "request_id": line.id, "worker": 5}
    (folder / "logs" / f"{line.title}.log").write_text("\n" * (line.line - 1) + json.dumps(text))
    read = case.load(folder)
    told = log.merged(read.shown, request)
    assert (line.title, "WARN so and so worker=5") in {(one.who, one.words) for one in told}
    assert [one.at_s for one in told] == sorted(one.at_s for one in told)


# --- which finding, which plan


def test_the_shrunk_plan_is_what_is_shown(tmp_path: Path) -> None:
    folder = example(tmp_path / "007", recorded())
    smaller = with_steps(PLAN, PLAN.steps[1:3])
    example(folder / "shrunk", without_done(recorded()), smaller)
    rate = {"failed": 14, "of": 36, "low": 0.24, "high": 0.55}
    store.write_json(folder / "shrink.json", {"signature": "P1/no-done", "steps": 2, "rate": rate})
    read = case.load(folder)
    assert (len(read.shown.plan.steps), read.drawn_steps) == (2, 4)
    text = markdown.render(read)
    assert "14 of 36 (95% interval 24% to 55%)" in text
    assert f"ftmodel replay {folder / 'shrunk'}" in text


def test_a_signature_that_was_not_found_is_refused_with_those_that_were(tmp_path: Path) -> None:
    folder = example(tmp_path / "007", without_done(recorded()))
    with pytest.raises(UsageError, match="expected one of P1/no-done"):
        case.load(folder, signature="L2/cut")


def test_what_is_not_known_is_reported_first(tmp_path: Path) -> None:
    folder = example(tmp_path / "007", without_done(recorded()))
    read = case.load(folder, rules=KNOWN)
    assert read.shown.outcome.value == "holds"
    assert "(known)" in page.render(read)


# --- the store


def test_an_index_counts_each_signature_and_links_the_pages_that_there_are(tmp_path: Path) -> None:
    folder = run(tmp_path, a=recorded(), b=without_done(recorded()), c=without_done(recorded()))
    (folder / "examples" / "c" / page.PAGE).write_text("")
    (folder / "examples" / "c" / markdown.REPORT).write_text("")
    found = index.runs(tmp_path, Rules())
    assert index.counts(found) == {"P1/no-done": 2}
    html = index.render(tmp_path, found)
    assert re.findall(r'<a href="([^"]+)">', html) == [f"{folder.name}/examples/c/report.html"] * 2
    assert ">new<" in html
    assert "so it is (docs#p1)" in index.render(tmp_path, index.runs(tmp_path, KNOWN))


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run in it"):
        index.runs(tmp_path, Rules())


def test_the_command_writes_page_and_issue_of_an_example_and_the_index_of_a_store(tmp_path: Path) -> None:
    folder = run(tmp_path, b=without_done(recorded())) / "examples" / "b"
    done = CliRunner().invoke(app, ["report", str(folder), "--times", "0", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["signature"] == "P1/no-done"
    assert {Path(file).name for file in told["files"]} >= {"report.html", "REPORT.md"}
    assert (folder / "report.html").stat().st_size > 10_000
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--json"])
    assert json.loads(done.stdout.splitlines()[-1])["signatures"] == {"P1/no-done": 1}
    assert (tmp_path / "index.html").is_file()


def test_every_file_of_a_page_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["ftmodel"]
    for path in (ROOT / "ftmodel" / "report").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            name = path.relative_to(ROOT / "ftmodel").as_posix()
            assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name
