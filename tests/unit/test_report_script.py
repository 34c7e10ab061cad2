"""A script that shows a finding is whole: the standard library alone, every name defined, a check for what it can see."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reported import MOVED, PLAN, STREAM, example, recorded, without_done

from ftmodel import engines
from ftmodel.history import Item
from ftmodel.invariants import INVARIANTS, Finding
from ftmodel.planfile import with_steps
from ftmodel.report import bundle, calls, case, checking, script
from ftmodel.report.runtime import checks, clients, cluster, trial
from ftmodel.report.words import Repro
from ftmodel.steps import (
    LADDER_MS,
    After,
    BadRequest,
    Begun,
    Cancel,
    End,
    EngineError,
    FreezeWorker,
    Gone,
    Heal,
    HolderOf,
    KillEngine,
    KillFrontend,
    KillWorker,
    NotHolderOf,
    OnService,
    Sent,
    Settle,
    Slot,
    SlowReader,
    StartFrontend,
    StartWorker,
    Step,
    StopWorker,
    Submit,
    ThawWorker,
    Token,
    VictimOf,
)

EVERY_STEP: tuple[Step, ...] = (
    Submit(name="r1", api="chat", stream=False, n=2, usage=True, at=Sent("r2"), skew_ms=LADDER_MS[2]),
    Submit(name=STREAM, stop_at=3),
    BadRequest(name="r3"),
    BadRequest(name="r4", wrong="negative-max-tokens", at=End("r1")),
    Cancel(name="s1", request="r1", how="timeout", at=Sent("r1"), skew_ms=1000),
    SlowReader(name="s2", request=STREAM, at=Token(STREAM, 0)),
    KillWorker(name="s3", worker=HolderOf(STREAM), at=Token(STREAM, 3)),
    KillWorker(name="s4", worker=NotHolderOf(STREAM, "prefill"), at=Begun(STREAM)),
    EngineError(name="s5", request=STREAM, how="stall", at=Token(STREAM, 5)),
    StopWorker(name="s6", worker=Slot(2)),
    FreezeWorker(name="s7", worker=Slot(1), at=After("s6")),
    ThawWorker(name="s8", worker=VictimOf("s7"), at=Gone("s6")),
    StartWorker(name="s9", slot=0, port="predecessor"),
    KillFrontend(name="s10"),
    StartFrontend(name="s11"),
    OnService(name="s12", kind="freeze-etcd"),
    Settle(name="s13"),
    Heal(name="s14"),
)


@pytest.fixture
def violated(tmp_path: Path) -> case.Case:
    return case.load(example(tmp_path / "007", without_done(recorded())))


def of(read: case.Case, signature: str, subject: str = STREAM, message: str = "expected 1 to 3") -> case.Case:
    invariant, _, slug = signature.partition("/")
    found = Finding(invariant=invariant, slug=slug, subject=subject, message=message, evidence=())
    return dataclasses.replace(read, finding=found)


def run(text: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = folder / "repro.py"
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-I", str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=folder)


# --- the file


def test_a_script_is_one_file_of_the_standard_library(violated: case.Case, tmp_path: Path) -> None:
    text = script.text(violated)
    tree = ast.parse(text)
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
    assert "import ftmodel" not in text
    assert "from ftmodel" not in text
    done = run(text, tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    assert "P1/no-done" in done.stdout


def test_without_the_tested_system_no_trial_is_held(violated: case.Case, tmp_path: Path) -> None:
    text = script.text(violated).replace("distribution='ai-dynamo'", "distribution='no-such-thing'")
    done = run(text, tmp_path)
    assert (done.returncode, done.stdout.partition(":")[0]) == (2, "no trial")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["007", "repro.py"]


def test_every_name_of_a_script_is_defined(violated: case.Case, tmp_path: Path) -> None:
    plan = with_steps(PLAN, EVERY_STEP)
    read = dataclasses.replace(violated, shown=dataclasses.replace(violated.shown, plan=plan))
    for check in ("P1/no-done", "C4/live-draining", "A3/still-running", "R3/orphan", "L3/hang"):
        (tmp_path / "repro.py").write_text(script.text(of(read, check)), encoding="utf-8")
        ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,E9", str(tmp_path / "repro.py")]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_words_of_a_finding_end_no_text_of_the_script(violated: case.Case, tmp_path: Path) -> None:
    read = of(violated, "P1/no-done", message='ends with """ and \\ and \\N{x} and \ud800')
    done = run(script.text(read).encode("utf-8", "backslashreplace").decode(), tmp_path, "--help")
    assert done.returncode == 0, done.stderr


def test_a_step_that_a_script_cannot_do_is_told(violated: case.Case) -> None:
    plan = with_steps(PLAN, (KillEngine(name="s1", worker=Slot(1)),))
    read = dataclasses.replace(violated, shown=dataclasses.replace(violated.shown, plan=plan))
    with pytest.raises(script.NoScriptError, match="step s1 \\(kill-engine\\)"):
        script.text(read)


def test_a_simulated_run_has_no_script(violated: case.Case) -> None:
    top = dataclasses.replace(violated.shown.topology, target="simulated")
    read = dataclasses.replace(violated, shown=dataclasses.replace(violated.shown, topology=top))
    assert script.published(read, Path(sys.executable), 1) == Repro(
        published=False, why_not="it was seen on a simulated cluster, which has no processes."
    )


# --- bundling


def test_a_definition_brings_those_that_it_names_and_no_other() -> None:
    imports, text = bundle.bundle([("ftmodel.targets.real.requests", "prompt")])
    assert (imports, text.count("def "), "_FILLER" in text) == (["from typing import Final"], 1, True)


def test_what_is_nowhere_defined_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense is not defined there"):
        bundle.bundle([("ftmodel.report.runtime.checks", "nonsense")])


# --- steps


def test_steps_are_calls_that_the_trial_takes(violated: case.Case) -> None:
    plan = with_steps(PLAN, EVERY_STEP)
    read = dataclasses.replace(violated, shown=dataclasses.replace(violated.shown, plan=plan))
    told = [call for call, _ in calls.calls(read, engines.find("counting"))]
    assert len(told) == len(EVERY_STEP)
    assert f"trial.kill_at_token('s3', '{STREAM}', 3)" in told
    assert "trial.on('s12', 'freeze', 'etcd')" in told
    names = {name: getattr(trial, name) for name in dir(trial)}
    for call in told:
        node = ast.parse(call).body[0]
        assert isinstance(node, ast.Expr)
        assert isinstance(node.value, ast.Call)
        assert isinstance(node.value.func, ast.Attribute)
        method = getattr(trial.Trial, node.value.func.attr)
        arguments = [eval(ast.unparse(argument), names) for argument in node.value.args]
        inspect.signature(method).bind(
            None, *arguments, **{str(k.arg): ast.unparse(k.value) for k in node.value.keywords}
        )


def test_a_request_has_the_id_that_it_had(violated: case.Case) -> None:
    id_ = violated.shown.ledger.requests[STREAM].sent.id
    assert any(id_ in call for call, _ in calls.calls(violated, engines.find("mocker")))


# --- checks

SIGNATURES = [f"{cls.id}/{slug}" for cls in INVARIANTS for slug in sorted(cls.slugs)]
UNSEEN = {"A1", "A5", "C1", "C2", "C3", "C5", "C6", "C7", "M1", "M2", "M4", "M5", "M6", "O1", "O3", "P2", "P3", "P4", "R4", "T2", "T5",
          "A2", "X1", "X2", "X3", "H1", "H2", "H3", "H4"}  # fmt: skip
"""Invariants of which some signature is in nothing that a script looks at; of all others it sees each."""


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_check_is_one_that_there_is_and_takes_what_it_is_given(violated: case.Case, signature: str) -> None:
    subject = "frontend-1" if signature.startswith(("A1/counter", "A1/no-kill")) else STREAM
    found = checking.check(of(violated, signature, subject))
    if found is None:
        assert signature.partition("/")[0] in UNSEEN
    else:
        assert callable(eval(found[0], {found[1]: getattr(checks, found[1])}))


@dataclasses.dataclass
class Seen:
    """A trial as a check looks at it."""

    requests: dict[str, clients.Request]
    probes: list[clients.Request] = dataclasses.field(default_factory=list)


def answered(status: int, how: str, *items: Item, **asked: Any) -> clients.Request:
    request = clients.Request("r1", "id", status=status, how=how, sent_s=1.0, **asked)
    request.items = [(2.0, item) for item in items]
    request.tokens = clients.count(request.text())
    return request


WHOLE = (Item("text", " abc def"), Item("finish", "length"), Item("done"))


@pytest.mark.parametrize(
    ("check", "request_"),
    [
        (checks.status("r1", got=500), answered(500, "eof")),
        (checks.cut("r1"), answered(200, "cut", Item("text", " abc"))),
        (checks.refused("r1"), answered(0, "refused")),
        (checks.error_in_stream("r1"), answered(200, "eof", Item("error", "no"), Item("done"))),
        (checks.never_ended("r1"), answered(200, "")),
        (checks.failed("r1"), answered(503, "eof")),
        (checks.grammar("r1", slug="cut"), answered(200, "cut")),
        (checks.grammar("r1", slug="no-done"), answered(200, "eof", *WHOLE[:2])),
        (checks.grammar("r1", slug="done-without-finish"), answered(200, "eof", WHOLE[0], WHOLE[2])),
        (checks.grammar("r1", slug="two-finishes"), answered(200, "eof", *WHOLE[:2], *WHOLE[1:])),
        (checks.grammar("r1", slug="after-done"), answered(200, "eof", *WHOLE, WHOLE[0])),
        (checks.grammar("r1", slug="empty-200"), answered(200, "eof")),
        (checks.grammar("r1", slug="unstructured-error"), answered(404, "eof")),
        (checks.grammar("r1", slug="error-without-done"), answered(200, "eof", Item("error", "no"))),
        (checks.length("r1", slug="short"), answered(200, "eof", *WHOLE, ask={"max_tokens": 3})),
        (checks.length("r1", slug="long"), answered(200, "eof", *WHOLE, ask={"max_tokens": 1})),
        (checks.length("r1", slug="finish-reason"), answered(200, "eof", WHOLE[0], Item("finish", "stop"), WHOLE[2])),
        (checks.usage("r1", what="prompt-tokens", prompt=9), answered(200, "eof", *WHOLE, Item("usage", "8", count=2))),
        (checks.usage("r1", what="completion-tokens", prompt=9), answered(200, "eof", *WHOLE, Item("usage", "9", count=3))),
        (checks.foreign("r1", what="id"), answered(200, "eof", Item("text", " abc", answer_id="x"))),
    ],
)  # fmt: skip
def test_a_check_sees_what_is_wrong_and_nothing_in_a_whole_answer(
    check: checks.Check, request_: clients.Request
) -> None:
    assert check(Seen({"r1": request_})).startswith("r1 ")  # type: ignore[arg-type]
    whole = answered(200, "eof", *WHOLE[:2], Item("usage", "9", count=2), WHOLE[2], ask={"max_tokens": 2})
    assert check(Seen({"r1": whole})) == ""  # type: ignore[arg-type]


def test_a_finding_about_a_probe_is_looked_for_in_the_probes_of_the_script(violated: case.Case) -> None:
    probe = next(name for name, request in violated.shown.ledger.requests.items() if request.sent.probe)
    read = of(violated, "L2/status-500", probe)
    found = checking.check(read)
    assert found is not None
    assert "status('probes'" in found[0]
    assert "trial.probe_restarted()" in script.text(read)
    assert "trial.probe_restarted()" not in script.text(of(violated, "L2/status-500"))
    of_probes = Seen({}, [answered(200, "eof", *WHOLE), answered(500, "eof")])
    assert checks.status(checks.PROBES, got=500)(of_probes).startswith("r1 got status 500")  # type: ignore[arg-type]
    assert checks.status(checks.PROBES, got=500)(Seen({}, of_probes.probes[:1])) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expected", "exact", "wrong"),
    [(" abc def", True, False), (" abc defg", False, False), (" abc defg", True, True), (" abc xyz", False, True)],
)
def test_a_text_is_held_to_the_one_expected(expected: str, exact: bool, wrong: bool) -> None:  # noqa: FBT001
    check = checks.text_differs("r1", expected=expected, exact=exact)
    assert bool(check(Seen({"r1": answered(200, "eof", *WHOLE)}))) is wrong  # type: ignore[arg-type]


def test_the_text_of_the_engine_is_what_a_moved_request_is_held_to(violated: case.Case) -> None:
    found = checking.check(of(violated, "T1/lost", MOVED))
    assert found is not None
    said = "".join(item.value for event in recorded() if event.kind == "received" and event.request == MOVED
                   for item in event.items if item.what == "text")  # fmt: skip
    assert said
    assert said[:8] in eval(found[0], {"text_differs": lambda _name, *, expected, **_: expected})


def test_a_port_is_given_once() -> None:
    place = cluster.Cluster(cluster.Setup(distribution="x", version="1", starts={}, patterns=(), metrics=()))
    ports = [place.take_port() for _ in range(20)]
    assert len(set(ports)) == 20
    assert all(cluster.FIRST_PORT <= port < cluster.LAST_PORT for port in ports)
