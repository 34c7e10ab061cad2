"""What `ftmodel report` does: an example's page and issue, or the index of a store."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from ftmodel.errors import StoreError
from ftmodel.report import index, making, script
from ftmodel.report.files import written
from ftmodel.runner import Rules

TIMES: Final = 5
"""How often a script is run before it is published, unless another number is asked for."""


def example(
    console: Console,
    folder: Path,
    rules: Rules,
    *,
    signature: str | None,
    python: Path | None,
    times: int = TIMES,
    until_s: float = math.inf,
) -> dict[str, Any]:
    """Write report.html, and where something was violated REPORT.md and repro.py, if that fails in one of `times` runs.

    They are run with this interpreter, else with that of the run; after `until_s` (monotonic) no further one begins.
    Raises StoreError or UsageError.
    """
    if times:
        console.print(f"running {script.REPRO} {times} times, if there is one ...", highlight=False)
    made = making.make(folder, rules, signature=signature, python=python, times=times, until_s=until_s)
    read, repro, files = made.case, made.repro, list(made.files)
    if repro is not None:
        console.print(escape(repro.told), highlight=False, soft_wrap=True)
    found = read.finding.signature if read.finding else "nothing was violated"
    console.print(f"[bold]{escape(found)}[/]  {escape(str(folder))}", highlight=False, soft_wrap=True)
    _tell(console, files)
    return {
        "example": str(folder),
        "signature": read.finding.signature if read.finding else None,
        "repro": {"published": repro.published, "failed": repro.failed, "of": repro.of} if repro else None,
        "files": [str(file) for file in files],
    }


def store(console: Console, folder: Path, rules: Rules) -> dict[str, Any]:
    """Write index.html of all runs below a folder. Raises StoreError."""
    runs = index.runs(folder, rules)
    file = written(folder / index.INDEX, index.render(folder, runs))
    console.print(f"[bold]{len(runs)} runs[/]  {escape(str(folder))}", highlight=False, soft_wrap=True)
    _tell(console, [file])
    return {"store": str(folder), "runs": len(runs), "signatures": index.counts(runs), "files": [str(file)]}


def is_example(path: Path) -> bool:
    """True for an example's folder. Raises StoreError if there is nothing of the kind."""
    if not path.exists():
        raise StoreError(
            f"{path}: not there, expected an example, e.g. runs/<time>-run/examples/007, or a store, e.g. runs"
        )
    return (path / "history.jsonl").is_file()


def _tell(console: Console, files: list[Path]) -> None:
    for file in files:
        console.print(f"  {escape(str(file))}", highlight=False, soft_wrap=True)
