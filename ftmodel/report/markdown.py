"""REPORT.md: what is pasted as an issue, for readers who have never heard of ftmodel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ftmodel import systems
from ftmodel.errors import UsageError
from ftmodel.invariants import INVARIANTS
from ftmodel.report import log
from ftmodel.report.case import Case
from ftmodel.report.log import Line
from ftmodel.report.words import Repro, commands, head, outcomes, summary, versions
from ftmodel.steps import words

REPORT: Final = "REPORT.md"
REPRO: Final = "repro.py"


def render(case: Case, repro: Repro | None = None) -> str:
    """The issue as Markdown. Raises UsageError if the example shows no violation."""
    if case.finding is None:
        raise UsageError(f"{case.folder}: nothing was violated in it, expected a finding to report")
    return "\n".join(
        [*_said(case), *_steps(case), *_expected(case), *_script(repro), *_log(case), *_again(case, repro)]
    )


def _said(case: Case) -> Iterator[str]:
    assert case.finding is not None
    yield f"# {case.finding.signature}"
    yield ""
    yield summary(case)
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, value in versions(case):
        yield f"| {name} | {value} |"
    yield f"| cluster | {head(case.shown)} |"
    if case.rate is not None:
        yield f"| rate | {case.rate} runs |"
    yield ""


def _steps(case: Case) -> Iterator[str]:
    run = case.shown
    became = outcomes(run.events)
    shorter = (
        f" ({len(run.plan.steps)} of {case.drawn_steps} that were drawn)"
        if len(run.plan.steps) != case.drawn_steps
        else ""
    )
    yield f"## Steps{shorter}"
    yield ""
    for number, step in enumerate(run.plan.steps, start=1):
        kind, what = became.get(step.name, ("doubt", "not reached"))
        yield f"{number}. {words(step)}" + (f" ({what})" if kind != "good" else "")
    yield ""


def _expected(case: Case) -> Iterator[str]:
    finding = case.finding
    assert finding is not None
    promised = systems.find(case.shown.ledger.setting.system).documented(finding.signature)
    sentence = next((cls.sentence for cls in INVARIANTS if cls.id == finding.invariant), "")
    yield "## Expected"
    yield ""
    yield sentence
    if promised is not None:
        yield ""
        yield f"> {promised.quote}"
        yield ""
        yield f"([{promised.page}]({promised.link}))"
    yield ""
    yield "## Observed"
    yield ""
    yield finding.message + "."
    yield ""
    for line in finding.evidence:
        yield f"- {line}"
    yield ""


def _script(repro: Repro | None) -> Iterator[str]:
    if repro is None:
        return
    yield "## A script that shows it"
    yield ""
    if repro.published:
        yield f"`{REPRO}` beside this needs the tested release and Python's standard library. It failed {repro.failed} of {repro.of} times:"
        yield ""
        yield f"    {repro.line}"
    else:
        yield f"None: {repro.why_not}"
    yield ""


def _log(case: Case) -> Iterator[str]:
    request = case.request
    if request is None:
        yield from _block("What happened", log.of_processes(case.shown))
        return
    passing = case.passing.ledger.requests.get(request.name) if case.passing else None
    failing = log.merged(case.shown, request)
    if case.passing is None or passing is None:
        yield from _block(f"What was logged of {request.name}", failing)
        return
    yield f"## What was logged of {request.name}, beside the nearest run that passed"
    yield ""
    yield "Seconds since the run began, process, line. What stands alone in its row is where the two runs differ."
    yield ""
    yield "| failed | passed |"
    yield "|---|---|"
    for one, other in log.beside(failing, log.merged(case.passing, passing)):
        yield f"| {_cell(one)} | {_cell(other)} |"
    yield ""


def _cell(line: Line | None) -> str:
    if line is None:
        return ""
    text = f"{line.at_s:.3f} {line.who} {line.words}".replace("`", "'").replace("|", "\\|")
    return f"**`{text}`**" if line.kind in ("fault", "trouble") else f"`{text}`"


def _block(title: str, lines: list[Line]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield "Seconds since the run began, process, line:"
    yield ""
    yield "```text"
    wide = max((len(line.who) for line in lines), default=0)
    for line in lines:
        mark = "!" if line.kind in ("fault", "trouble") else " "
        yield f"{mark} {line.at_s:8.3f} {line.who:{wide}} {line.words}".replace("```", "'''")
    yield "```"
    yield ""


def _again(case: Case, repro: Repro | None) -> Iterator[str]:
    yield "## Run it again"
    yield ""
    yield "```sh"
    yield commands(case, repro)
    yield "```"
    yield ""
    yield "All that was seen is in `report.html` beside this; open it in a browser."
    yield ""
