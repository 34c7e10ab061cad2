"""repro.py: one file of the standard library that starts the cluster, does the steps, and says PASS or FAIL.

What it runs is the code of `ftmodel.report.runtime` and of our own readers, copied as it stands (`bundle`); what is its
own are the steps as calls, the check of the signature, and how each process is started, as the system tells it.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import re
import subprocess
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from ftmodel import engines, services, systems
from ftmodel.engines import Engine
from ftmodel.report import bundle, calls, checking
from ftmodel.report.calls import UntoldError
from ftmodel.report.case import Case
from ftmodel.report.runtime.checks import PROBES
from ftmodel.report.runtime.cluster import Server, Setup, Start
from ftmodel.report.runtime.trial import GAUGES
from ftmodel.report.words import Repro, head
from ftmodel.steps import words
from ftmodel.systems import MetricRow, Pattern, Place, Role
from ftmodel.targets.logs import spoken
from ftmodel.topology import Topology

REPRO: Final = "repro.py"
RUN_BOUND_S: Final = 240.0
"""One run of a script at most."""
_PORT, _PLANE, _SERVERS, _OWN = 61001, 61002, (61011, 61012), (61021, 61022, 61023, 61024)
"""Numbers that stand for ports until the script has taken some; they are none that a command line has otherwise."""
_FOLDER: Final = Path("{folder}")
_COUNTED: Final = ("cancellations", "success", "router_blocks", "router_prefill")
_PATIENT: Final = ("L1", "L3", "C", "R")
"""Invariants that need the time that a patient plan waits."""
_WIDTH: Final = 116


class NoScriptError(Exception):
    """No script can show this finding: why."""


def text(case: Case, engine: Engine | None = None) -> str:
    """The script for a finding, on the engine of its run or on another. Raises NoScriptError."""
    finding, run = case.finding, case.shown
    if finding is None:
        raise NoScriptError("nothing was violated")
    if run.topology.target == "simulated":
        raise NoScriptError("it was seen on a simulated cluster, which has no processes")
    engine = engine or calls.engine_of(case)
    if engine.model is not None:
        raise NoScriptError(f"its engine, {engine.name}, needs more than the tested system and the standard library")
    check = checking.check(case)
    if check is None:
        raise NoScriptError(
            f"a script cannot see {finding.signature}: it is not in what a client, a log, or a metric tells"
        )
    try:
        told = list(calls.calls(case, engine))
        if repr(PROBES) in check[0]:
            told.insert(0, ("trial.probe_restarted()", set()))
    except UntoldError as error:
        raise NoScriptError(str(error)) from None
    setup = _setup(case, engine)
    roots = [("ftmodel.report.runtime.main", "main"), (checking.MODULE, check[1]), (calls.MODULE, "Trial")]
    roots += [(calls.MODULE, name) for _, names in told for name in sorted(names)]
    roots += [("ftmodel.report.runtime.cluster", name) for name in ("Setup", "Start", "Server")]
    roots += [("ftmodel.systems", name) for name in ("Pattern", "MetricRow")]
    imports, definitions = bundle.bundle(roots)
    steps = "\n".join(_wrapped(call, 4) for call, _ in told) or "    pass"
    worker = setup.files
    setup = dataclasses.replace(setup, files={})
    parts = [
        f'"""{_about(case)}"""',
        "from __future__ import annotations",
        "\n".join(_merged(imports)),
        f"TITLE = {finding.signature!r}",
        f"def steps(trial: Trial) -> None:\n{steps}",
        f"def check() -> Check:\n{_wrapped('return ' + check[0], 4)}",
        f"# --- how the cluster is started, spoken to and understood\n\n\ndef setup() -> Setup:\n    return {_literal(setup, 4, worker)}",
        f"# --- what does it\n\n\n{definitions.rstrip()}",
        *(
            f"# --- {name}: the engine, one file that is run by path\n\n{_constant(name)} = r'''{body}'''"
            for name, body in worker.items()
        ),
        'if __name__ == "__main__":\n    main(TITLE, setup(), steps, check())',
    ]
    return (
        "\n\n\n".join(parts)
        .replace("\n\n\nfrom __future__", "\n\nfrom __future__")
        .replace("annotations\n\n\nimport", "annotations\n\nimport")
        + "\n"
    )


def published(case: Case, python: Path, times: int, until_s: float = math.inf) -> Repro:
    """Make the script, run it so often with this interpreter, and keep it beside the report if it ever fails.

    Where the run was on an engine of ours, the system's own is tried first: the script is shorter then. After `until_s`
    (monotonic) no further run begins, but each script is run once.
    """
    kept = case.folder / REPRO
    kept.unlink(missing_ok=True)
    best: Repro | None = None
    try:
        for engine in _engines(case):
            draft = case.folder / f"{REPRO}.draft"
            draft.write_text(text(case, engine), encoding="utf-8", errors="backslashreplace")
            try:
                tried = _tried(draft, python, times, until_s)
                if tried.published and (best is None or tried.failed > best.failed):
                    best = tried
                    draft.replace(kept)
                elif best is None or not best.published:
                    best = tried
            finally:
                draft.unlink(missing_ok=True)
            if best.failed == best.of:
                break
    except NoScriptError as error:
        return Repro(published=False, why_not=f"{error}.")
    assert best is not None
    return best


def _engines(case: Case) -> list[Engine]:
    """Those on which the finding may show, the cheapest to read first."""
    own = calls.engine_of(case)
    if not own.module.endswith(".py"):
        return [own]
    finding = case.finding
    assert finding is not None
    steps = {step.kind for step in case.shown.plan.steps}
    exact = finding.invariant in ("T1", "T4", "P4") or own.stop is None
    needs = exact or "engine-error" in steps or any(getattr(step, "stop_at", 0) for step in case.shown.plan.steps)
    others = [engine for name in engines.names() if not (engine := engines.find(name)).module.endswith(".py")]
    plain = [engine for engine in others if engine.model is None and engine.forks]
    return [own] if needs else [*plain, own]


def _tried(script: Path, python: Path, times: int, until_s: float) -> Repro:
    failed, of, line, other = 0, 0, "", ""
    while of < times and (of == 0 or time.monotonic() < until_s):
        of += 1
        try:
            done = subprocess.run(
                [str(python), str(script)], capture_output=True, text=True, timeout=RUN_BOUND_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Repro(published=False, of=of, why_not=f"it could not be run: {error}")
        told = [part for part in done.stdout.splitlines() if part.startswith(("PASS", "FAIL", "no trial"))]
        last = told[-1] if told else (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        if done.returncode == 1 and last.startswith("FAIL"):
            failed, line = failed + 1, last
        elif done.returncode != 0:
            return Repro(published=False, of=of, why_not=f"it could not be run with {python}: {last}")
        else:
            other = last
    if not failed:
        why = (
            f"the script that was made for it did not fail in {of} runs (it printed {other!r}), so it is not published."
        )
        return Repro(published=False, of=of, why_not=why)
    return Repro(published=True, failed=failed, of=of, line=line)


# --- what is said at the top


def _about(case: Case) -> str:
    finding, run = case.finding, case.shown
    assert finding is not None
    setting = run.ledger.setting
    system = systems.find(setting.system)
    promised = system.documented(finding.signature)
    lines = [
        f"{finding.signature}: {finding.message}.",
        "",
        f"Seen on {system.distribution} {setting.version}. {head(run)}",
        "",
    ]
    lines += [f"{n}. {words(step)}" for n, step in enumerate(run.plan.steps, start=1)]
    if promised is not None:
        lines += ["", f'Promised ({promised.page}): "{promised.quote}"', promised.link]
    how = (
        f"Run it with an interpreter that has {system.distribution} {setting.version}: it needs nothing else, keeps to"
        " loopback and a temporary folder, and leaves nothing behind. The last line begins with PASS or FAIL; exit code 0,"
        " 1, or 2 if no cluster could be started. --times N repeats it."
    )
    lines += ["", how]
    wrapped = [textwrap.fill(line, _WIDTH, break_long_words=False, break_on_hyphens=False) for line in lines]
    return "\n".join(wrapped).replace("\\", "\\\\").replace('"""', "'''") + "\n"


# --- how the cluster is started


def _setup(case: Case, engine: Engine) -> Setup:
    run, setting = case.shown, case.shown.ledger.setting
    top, system = run.topology, systems.find(setting.system)
    release = systems.release(setting.version)
    used = services.needed(top)
    place = Place(
        python=Path("python"), scratch=_FOLDER, model=Path("{model}"), http_port=_PORT, system_port=_PORT,
        plane_port=_PLANE, services={s.name: _SERVERS[i] for i, s in enumerate(used)}, ports=_OWN,
    )  # fmt: skip
    on = top if engine.name == top.engine else dataclasses.replace(top, engine=engine.name, options={})
    names = {str(_PORT): "{port}", str(_PLANE): "{plane}"}
    names |= {str(_SERVERS[i]): "{" + s.name + "}" for i, s in enumerate(used)}
    names |= {str(port): "{port" + str(n) + "}" for n, port in enumerate(_OWN, start=1)}
    roles: list[Role] = ["frontend", "worker", *(["prefill"] if run.plan.prefill_workers else [])]  # type: ignore[list-item]
    starts: dict[str, Start] = {
        role: _start(role, on, engine, place, run.plan.migration_limit, release, names) for role in roles
    }
    dialect = system.dialect(release)
    patterns = spoken(dialect.patterns, tuple(p for p in engine.patterns if p.since <= release < p.until))
    wanted = {*GAUGES, *_COUNTED}
    bounds = setting.bounds
    patient = run.plan.patience == "long" and case.finding is not None and case.finding.invariant.startswith(_PATIENT)
    return Setup(
        distribution=system.distribution,
        version=setting.version,
        starts=starts,
        patterns=tuple(dataclasses.replace(p, keep=()) for p in patterns),
        metrics=tuple(row for row in (*dialect.metrics, *engine.metrics) if row.name in wanted),
        workers=run.plan.workers,
        prefill_workers=run.plan.prefill_workers,
        frontends=run.plan.frontends,
        model=system.served(on, Path("{model}"), release),
        servers={service.name: _server(service) for service in used},
        files={"worker.py": Path(engine.module).read_text(encoding="utf-8")} if engine.module.endswith(".py") else {},
        header=system.request_id_header,
        models_path=system.models_path,
        metrics_path=system.metrics_path,
        health_path=system.health_path,
        live_path=system.live_path,
        boot_bound_s=max(60.0, engine.boot_bound_s),
        abort_bound_s=bounds.abort_bound_s,
        hang_bound_s=bounds.hang_bound_s,
        rest_bound_s=bounds.rest_bound_s,
        end_bound_s=bounds.end_bound_s,
        patience_s=max(bounds.lease_s, bounds.hang_bound_s) + 5 if patient else 0.0,
    )


def _start(
    role: Role, top: Topology, engine: Engine, place: Place, limit: int, release: tuple[int, int], names: dict[str, str]
) -> Start:
    command = systems.find(top.system).launch(role, top, engine, place, limit, release)
    own = command.module.endswith(".py")
    run = ["{folder}/worker.py"] if own else ["-m", command.module.removesuffix(".main")]
    argv = tuple(_named(part, names) for part in (*run, *command.argv))
    env = {name: _named(value, names) for name, value in command.env.items()}
    handoff = engines.handoff_of(top) if role == "prefill" else None
    ports = 0 if role == "frontend" else engine.ports + (handoff.ports if handoff else 0)
    return Start(argv=argv, env=env, ports=ports)


def _named(part: str, names: dict[str, str]) -> str:
    return re.sub("|".join(names), lambda found: names[found[0]], part)


def _server(service: services.Service) -> Server:
    argv = service.arguments(_SERVERS[: service.ports], _FOLDER / service.name)
    names = {str(_SERVERS[0]): "{a}", str(_SERVERS[1]): "{b}"}
    return Server(
        program=service.program, argv=tuple(_named(part, names) for part in argv), asks=service.asks,
        answers=service.answers, install=service.package,
    )  # fmt: skip


# --- Python, written so that it can be read


def _literal(value: object, indent: int, files: Iterable[str] = ()) -> str:
    """A value as the expression that makes it; fields that have their default are left out."""
    if isinstance(value, Setup | Start | Server | Pattern | MetricRow):
        fields = [f for f in dataclasses.fields(value) if getattr(value, f.name) != _default(f)]
        inner = [f"{f.name}={_literal(getattr(value, f.name), indent + 4)}" for f in fields]
        if isinstance(value, Setup) and files:
            inner.append("files={" + ", ".join(f"{name!r}: {_constant(name)}" for name in files) + "}")
        return _listed(f"{type(value).__name__}(", inner, ")", indent)
    if isinstance(value, dict):
        return _listed("{", [f"{key!r}: {_literal(item, indent + 4)}" for key, item in value.items()], "}", indent)
    if isinstance(value, tuple):
        inner = [_literal(item, indent + 4) for item in value]
        return _listed("(", [*inner, *([""] if len(inner) == 1 else [])], ")", indent)
    return repr(value)


def _listed(begin: str, inner: list[str], end: str, indent: int) -> str:
    one = begin + ", ".join(inner).rstrip() + end
    if len(one) + indent < _WIDTH and "\n" not in one:
        return one
    pad = " " * (indent + 4)
    if begin == "(" and not any("\n" in part or "(" in part for part in inner):
        inner = _packed([part for part in inner if part], _WIDTH - indent - 5)
    return begin + "".join(f"\n{pad}{part}," for part in inner if part) + f"\n{' ' * indent}{end}"


def _packed(parts: list[str], width: int) -> list[str]:
    """As many of them in a line as there is room for."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 2 <= width:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return lines


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _constant(file: str) -> str:
    return file.upper().replace(".", "_")


def _wrapped(code: str, indent: int) -> str:
    """A line of code, broken where it is too long: between the arguments of its call, or within a text."""
    pad = " " * indent
    if len(code) + indent <= _WIDTH:
        return pad + code
    begin, call = (
        ("return ", ast.parse(code[7:]).body[0]) if code.startswith("return ") else ("", ast.parse(code).body[0])
    )
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    parts = [ast.unparse(argument) for argument in call.value.args]
    parts += [f"{word.arg}={ast.unparse(word.value)}" for word in call.value.keywords]
    lines = [f"{pad}    {part}," for part in parts]
    joined = f"{pad}    {', '.join(parts)},"
    body = [joined] if len(joined) <= _WIDTH else lines
    return "\n".join([f"{pad}{begin}{ast.unparse(call.value.func)}(", *body, f"{pad})"])


def _merged(imports: Iterable[str]) -> list[str]:
    """Import statements, those from one module as one."""
    plain = [line for line in imports if line.startswith("import ")]
    named: dict[str, list[str]] = {}
    for line in imports:
        if line.startswith("from "):
            module, _, name = line.removeprefix("from ").partition(" import ")
            named.setdefault(module, []).append(name)
    return [*plain, *(f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(named.items()))]
