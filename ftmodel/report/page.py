"""The page of an example: one HTML file that needs nothing else, neither a network nor a server."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

from ftmodel import systems
from ftmodel.invariants import INVARIANTS, Finding
from ftmodel.invariants.situations import SITUATIONS
from ftmodel.report import data, log
from ftmodel.report.case import Case, Execution
from ftmodel.report.words import Repro, commands, facts, head, outcomes, summary
from ftmodel.steps import words

HERE: Final = Path(__file__).parent
PAGE: Final = "report.html"
_SCRIPTS: Final = ("view.js", "timeline.js", "charts.js")
_CONTENTS: Final = (
    ("found", "What was found"), ("plan", "Plan"), ("times", "Timeline"), ("tokens-head", "Tokens"),
    ("gauges-head", "Gauges"), ("logs", "Logs"), ("invariants", "Invariants"), ("duty", "Duty"),
    ("situations", "Situations"), ("again", "Run it again"),
)  # fmt: skip


def render(case: Case, repro: Repro | None = None) -> str:
    """The page as the text of an HTML file."""
    run = case.shown
    judgement = run.outcome.judgement
    rows = judgement.situations if judgement else {}
    situations = [{"id": s.id, "sentence": s.sentence, "count": rows.get(s.id, 0)} for s in SITUATIONS]
    return filled(
        "page.html",
        scripts=_SCRIPTS,
        title=case.finding.signature + ": " + case.finding.message if case.finding else f"{case.folder.name} holds",
        verdict=run.outcome.value,
        summary=summary(case),
        facts=facts(case),
        contents=_CONTENTS,
        failure=run.outcome.failure,
        findings=[_finding(run, finding) for finding in _first(run.findings, case.finding)],
        drawn_steps=case.drawn_steps,
        plan_head=head(run),
        steps=_steps(case),
        logs=_logs(case),
        log_title=f"What was logged of {case.request.name}" if case.request else "What was logged",
        invariants=_invariants(run),
        duty=_duty(run),
        counts=_counts(run),
        reached=[row for row in situations if row["count"]],
        missed=[row for row in situations if not row["count"]],
        commands=commands(case, repro),
        repro=repro,
        bounds=", ".join(f"{name} {value:g}" for name, value in _bounds(run)),
        data=data.drawn(case),
    )


def filled(template: str, *, scripts: tuple[str, ...] = (), data: dict[str, Any] | None = None, **values: Any) -> str:
    """A template of ours with these values, its style and its scripts, and a policy that allows these alone."""
    css = (HERE / "page.css").read_text(encoding="utf-8")
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in scripts)
    allowed = [f"style-src {_hash(css)}", *([f"script-src {_hash(script)}"] if script else [])]
    policy = "; ".join(["default-src 'none'", *allowed, "img-src data:", "base-uri 'none'", "form-action 'none'"])
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return engine.get_template(template).render(
        css=_trusted(css), script=_trusted(script), policy=policy, data=_embedded(data or {}), **values
    )


def _trusted(text: str) -> Any:
    """Our own text, which is put in as it stands."""
    return Markup(text)  # noqa: S704 - a file of this package


def _embedded(value: dict[str, Any]) -> Any:
    """JSON that no word in it can end early."""
    text = json.dumps(value, separators=(",", ":"))
    return _trusted(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _first(findings: tuple[Finding, ...], chosen: Finding | None) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding is not chosen)


def _finding(run: Execution, finding: Finding) -> dict[str, Any]:
    promised = systems.find(run.ledger.setting.system).documented(finding.signature)
    issue = run.outcome.known.get(finding.signature)
    return {
        "signature": finding.signature,
        "known": issue is not None,
        "reason": issue.reason if issue else "",
        "reason_link": issue.link if issue else "",
        "sentence": next((cls.sentence for cls in INVARIANTS if cls.id == finding.invariant), ""),
        "message": finding.message
        if finding.subject.partition(" ")[0] in finding.message
        else f"{finding.subject}: {finding.message}",
        "evidence": finding.evidence,
        "quote": promised.quote if promised else "",
        "page": promised.page if promised else "",
        "link": promised.link if promised else "",
    }


def _steps(case: Case) -> list[dict[str, Any]]:
    became = outcomes(case.shown.events)
    about = {case.request.name} if case.request else set()
    return [
        {
            "name": step.name,
            "words": words(step),
            "subject": bool(about & {step.name, getattr(step, "request", None)}),
            "kind": became[step.name][0] if step.name in became else "doubt",
            "outcome": became[step.name][1] if step.name in became else "not reached",
        }
        for step in case.shown.plan.steps
    ]


def _logs(case: Case) -> list[dict[str, Any]]:
    request = case.request
    if request is None:
        return [{"title": "This run", "caption": "faults, steps and errors", "lines": log.of_processes(case.shown)}]
    sides = [_side("Failing", case.shown, request.name)]
    if case.passing is not None and request.name in case.passing.ledger.requests:
        sides.append(_side("Nearest that passed", case.passing, request.name))
    return sides


def _side(title: str, run: Execution, name: str) -> dict[str, Any]:
    request = run.ledger.requests[name]
    caption = f"{name}, id {request.sent.id}; seconds since the example began"
    return {"title": title, "caption": caption, "lines": log.merged(run, request)}


def _invariants(run: Execution) -> list[dict[str, Any]]:
    sentences = {cls.id: cls.sentence for cls in INVARIANTS}
    counts = run.outcome.judgement.invariants if run.outcome.judgement else {}
    return [
        {
            "id": name, "sentence": sentences.get(name, ""), "why": count.not_applicable,
            "evaluated": count.evaluated, "violated": count.violated, "unknown": count.unknown,
        }
        for name, count in counts.items()
    ]  # fmt: skip


def _duty(run: Execution) -> list[dict[str, Any]]:
    judgement = run.outcome.judgement
    if judgement is None:
        return []
    named = {"L2": "Completion of a request", "A1": "Abort of a cancelled one"}
    return [
        {"name": named[key], "cells": [row.get(cell, "") for cell in ("must", "must_touched", "may", "must_not")]}
        for key, row in judgement.duty.items()
    ]


def _counts(run: Execution) -> str:
    judgement = run.outcome.judgement
    if judgement is None:
        return ""
    requests = ", ".join(f"{count} {how}" for how, count in judgement.requests.items())
    return f"Requests: {requests}; {judgement.migrations} migrations, {judgement.aborts} aborts."


def _bounds(run: Execution) -> list[tuple[str, float]]:
    return list(dataclasses.asdict(run.ledger.setting.bounds).items())
