"""What a person sees of the command `shrink`: how it goes on, and what it came to."""

from __future__ import annotations

import threading
import time
from typing import Any, Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from ftmodel import store
from ftmodel.campaign import Options
from ftmodel.cli import reporting
from ftmodel.rates import Rate
from ftmodel.report import script
from ftmodel.report.case import SHRINK_FILE
from ftmodel.runner import Outcome
from ftmodel.shrink import Seen
from ftmodel.shrinking import Result
from ftmodel.steps import Plan, Step, words

EVERY: Final = 20
"""Where there is no terminal: a line after so many executions."""
REPORT_SHARE: Final = 0.1
"""Of the time, what is kept for the runs of the report's script."""


class Shown:
    """Watches a search: a bar with size, attempts, rate and time left on a terminal, lines elsewhere."""

    def __init__(self, console: Console, budget_s: float) -> None:
        self._console = console
        self.until_s = time.monotonic() + budget_s
        self.reserved_s = REPORT_SHARE * budget_s
        self._lock = threading.Lock()
        self._size = ""
        self._rate = ""
        self._executions = 0
        self._failed = 0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[told]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=budget_s, told="")
        self._budget_s = budget_s

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    # -- of proofs

    def began(self, what: str) -> None:
        """A stage begins."""
        with self._lock:
            self._progress.update(self._task, description=escape(what))
            self._say(f"{what} ...")

    def stepped(self, step: Step) -> None:  # noqa: ARG002 - which one is not told
        """A step was done: the time left is shown anew."""
        with self._lock:
            self._show()

    def ended(self, outcome: Outcome) -> None:
        """Control or calibration has ended."""
        with self._lock:
            self._say(f"{outcome.name} {outcome.seconds:.1f} s: {outcome.failure or outcome.value}")

    # -- of the search

    def played(self, outcome: Outcome) -> None:
        """Told by `executed`."""

    def executed(self, stage: str, plan: Plan, seen: Seen | None) -> None:  # noqa: ARG002 - what is told is the size
        """A plan was executed."""
        with self._lock:
            self._executions += 1
            self._size = self._size or f"{len(plan.steps)} steps"
            self._show()
            if self._executions % EVERY == 0:
                self._say(self._told())

    def smallest(self, plan: Plan, rate: Rate) -> None:
        """A smaller plan still fails."""
        with self._lock:
            self._size = f"{len(plan.steps)} steps"
            self._rate = f"{rate.failed} of {rate.of}"
            self._show()
            self._say(self._told())

    def _show(self) -> None:
        left_s = max(0.0, self.until_s - time.monotonic())
        self._progress.update(self._task, completed=self._budget_s - left_s, told=self._told())

    def _told(self) -> str:
        left_s = max(0.0, self.until_s - time.monotonic())
        rate = f", failed {self._rate}" if self._rate else ""
        return f"{self._size}{rate}, {self._executions} executions, {left_s:.0f} s left"

    def _say(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def result(console: Console, found: Result, *, replay: str = "") -> None:
    """The smallest plan, its rate, what was seen besides, and what to type next; `replay` are further arguments."""
    shrunk, plan = found.shrunk, found.shrunk.plan
    if not shrunk.reproduced:
        console.print(
            f"[yellow]not reproduced[/] in {shrunk.first.of} replays: {escape(shrunk.signature)}\n"
            f"next [cyan]{escape(f'ftmodel replay {found.example} --times 100{replay}')}[/]",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        return
    title = f"[bold red]{escape(shrunk.signature)}[/]  {shrunk.from_steps} steps became {len(plan.steps)}"
    console.rule(title, align="left", style="red")
    console.print(f"as it was  failed in {shrunk.first}", highlight=False)
    console.print(f"smallest   failed in {shrunk.rate}, by runs that chose nothing", highlight=False)
    console.print(
        f"where      {escape(found.topology.name)} ({found.topology.target}), {plan.workers} workers, {plan.frontends}"
        f" frontends, migration limit {plan.migration_limit}, {plan.patience} patience",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    console.print(f"by         {shrunk.executions} executions, {shrunk.unknown} of them unknown\n", highlight=False)
    for number, step in enumerate(plan.steps, start=1):
        console.print(f"  {number:3}. {escape(f'{step.name}: {words(step)}')}", highlight=False, soft_wrap=True)
    console.print()
    for signature, count in sorted(found.others.items()):
        where = f"  {found.aside[signature]}" if signature in found.aside else ""
        console.print(f"beside it  {escape(f'{signature} {count}x{where}')}", highlight=False, soft_wrap=True)
    if not shrunk.done:
        console.print("[yellow]the time was over[/] before nothing more could be left out; the same command goes on")
    console.print(f"in   {escape(str(found.folder))}\n", highlight=False, soft_wrap=True)


def reported(console: Console, found: Result, options: Options, *, until_s: float) -> dict[str, Any]:
    """Make the report of the smallest plan, and return what `--json` prints: the result, and where the script lies.

    Raises StoreError.
    """
    row = {**found.row(), "repro": ""}
    if not found.shrunk.reproduced:
        return row
    made = reporting.example(
        console, found.example, options.rules, signature=found.shrunk.signature, python=options.python, until_s=until_s
    )
    row["repro"] = next((file for file in made["files"] if file.endswith(script.REPRO)), "")
    if (found.folder / SHRINK_FILE).is_file():
        store.write_json(found.folder / SHRINK_FILE, row)
    return row
