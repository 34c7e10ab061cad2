"""What page and issue say in the same words: what was run, what was seen, what to type to run it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ftmodel.history import Event, FaultMade, StepDone, StepVoid
from ftmodel.report.case import SHRUNK, Case, Execution

_TRIED: Final = 10
"""How often the command that is shown runs a plan again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repro:
    """What came of the script that shows the finding by itself."""

    published: bool
    failed: int = 0
    of: int = 0
    line: str = ""
    """What it printed when it failed."""
    why_not: str = ""
    """Why there is none, if so."""

    @property
    def told(self) -> str:
        """In a sentence."""
        return f"repro.py failed {self.failed} of {self.of} times" if self.published else f"no repro.py: {self.why_not}"


def summary(case: Case) -> str:
    """One sentence: what was observed, on what, how often; empty where nothing was found."""
    if case.finding is None:
        return ""
    setting = case.shown.ledger.setting
    rate = f", in {case.rate} runs of the same plan" if case.rate else ""
    return f"{case.finding.message.rstrip('.')}, on {setting.system} {setting.version}{rate}."


def facts(case: Case) -> list[tuple[str, str]]:
    """Name and value of what a reader compares first."""
    run, setting = case.shown, case.shown.ledger.setting
    return [
        *versions(case),
        ("topology", run.plan.topology),
        ("engine", setting.engine),
        (
            "workers",
            f"{setting.workers}" + (f" + {setting.prefill_workers} prefill" if setting.prefill_workers else ""),
        ),
        ("migration limit", f"{run.plan.migration_limit}"),
        ("events", f"{len(run.events):,}".replace(",", " ")),
        *([("failed in", str(case.rate))] if case.rate else []),
    ]


def versions(case: Case) -> list[tuple[str, str]]:
    """Of the tested system, of what it stands on, and of the machine; what is not known is left out."""
    setting = case.shown.ledger.setting
    known: Mapping[str, str | None] = case.env.get("versions") or {}
    found = {setting.system: setting.version}
    found |= {
        name: version for name, version in known.items() if version and version != setting.version and name != "python"
    }
    for name, value in (("Python", known.get("python")), ("kernel", case.env.get("kernel"))):
        found |= {name: value} if value else {}
    return list(found.items())


def head(run: Execution) -> str:
    """What a plan runs on, in a sentence."""
    setting, plan = run.ledger.setting, run.plan
    prefill = f", {_counted(setting.prefill_workers, 'prefill worker')}" if setting.prefill_workers else ""
    return (
        f"{_counted(setting.frontends, 'frontend')} ({setting.router_mode} routing),"
        f" {_counted(setting.workers, 'worker')}{prefill}, engine {setting.engine};"
        f" discovery over {setting.discovery}, requests over {setting.request_plane}; migration limit"
        f" {plan.migration_limit}, {plan.patience} patience."
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def outcomes(events: Iterable[Event]) -> dict[str, tuple[str, str]]:
    """By step: whether it was done (good) or not (doubt), and what became of it in words."""
    found: dict[str, tuple[str, str]] = {}
    for event in events:
        match event:
            case StepDone():
                to = f", {event.subject}" if event.subject and event.deed not in ("submit", "cancel") else ""
                found[event.step] = ("good", f"done at {event.at.after_s:.3f} s{to}")
            case StepVoid():
                found[event.step] = ("doubt", f"not done: {event.why}")
            case FaultMade(verified=False):
                found[event.step] = ("doubt", "not verified")
            case _:
                pass
    return found


def commands(case: Case, repro: Repro | None) -> str:
    """What to type."""
    python = f" --sut-python {case.env['sut_python']}" if case.env.get("sut_python") else ""
    plan = case.folder / SHRUNK if case.shown.folder.name == SHRUNK else case.folder
    lines = [f"ftmodel replay {plan} --times {_TRIED}{python}"]
    if repro is not None and repro.published:
        lines.insert(0, f"{case.env.get('sut_python') or 'python'} {case.folder / 'repro.py'}")
    return "\n".join(lines)
