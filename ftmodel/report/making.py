"""Makes the report of an example: its page, and where something was violated the issue to paste and the script to run."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

from ftmodel.report import case, markdown, page, script
from ftmodel.report.case import Case
from ftmodel.report.files import written
from ftmodel.report.words import Repro
from ftmodel.runner import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was written."""

    case: Case
    repro: Repro | None
    """The script, and how often it failed; None if it was not wanted, or nothing was violated."""
    files: tuple[Path, ...]


def make(
    folder: Path,
    rules: Rules,
    *,
    signature: str | None = None,
    python: Path | None = None,
    times: int = 0,
    until_s: float = math.inf,
) -> Made:
    """Write report.html, and where something was violated REPORT.md and repro.py, if that fails in one of `times` runs.

    They are run with this interpreter; else with that of the run; after `until_s` (monotonic) no further one begins.
    Raises StoreError or UsageError.
    """
    read = case.load(folder, signature=signature, rules=rules)
    repro = None
    if read.finding is not None and times:
        repro = script.published(read, python or Path(read.env.get("sut_python") or sys.executable), times, until_s)
    files = [written(folder / page.PAGE, page.render(read, repro))]
    if read.finding is not None:
        files.append(written(folder / markdown.REPORT, markdown.render(read, repro)))
    if repro is not None and repro.published:
        files.append(folder / script.REPRO)
    return Made(case=read, repro=repro, files=tuple(files))
