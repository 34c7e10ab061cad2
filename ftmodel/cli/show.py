"""What a person sees: progress while a run lasts, the violations, and the summary."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any, Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ftmodel.invariants import INVARIANTS
from ftmodel.runner import Outcome
from ftmodel.steps import FAULTS, Step, words
from ftmodel.verdict import Verdict, Violation, row

_COLOURS = {"holds": "green", "violated": "red", "unknown": "yellow"}
COLUMNS: Final = 3
_SENTENCES = {cls.id: cls.sentence for cls in INVARIANTS}


class Shown:
    """Watches a run: a progress bar on a terminal, a line an example elsewhere, nothing with `--json`."""

    def __init__(self, console: Console, total: int | None) -> None:
        self._console = console
        self._total = total
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.completed:g}/{task.fields[of]}"),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=total, of=total or "?", counts="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def began(self, what: str) -> None:
        """A stage begins."""
        with self._lock:
            self._progress.update(self._task, description=escape(what))
            if not self._console.is_terminal:
                self._console.print(f"{what} ...", highlight=False)

    def stepped(self, step: Step) -> None:
        """A step was drawn."""
        with self._lock:
            self._counts["steps"] += 1
            self._counts["requests"] += step.kind == "submit"
            self._counts["faults"] += step.kind in FAULTS
            self._progress.update(self._task, counts=self._line())

    def ended(self, outcome: Outcome) -> None:
        """An example has ended."""
        with self._lock:
            found = outcome.judgement.findings if outcome.judgement is not None else ()
            self._counts["found"] += len(found)
            self._progress.update(self._task, advance=not outcome.scripted, counts=self._line())
            if not self._console.is_terminal:
                signatures = " ".join(
                    sorted({f.signature + " (known)" * (f.signature in outcome.known) for f in found})
                )
                said = signatures or outcome.failure or outcome.value
                self._console.print(
                    f"example {outcome.name} {outcome.plan.topology} {outcome.plan.patience}"
                    f" {outcome.seconds:.1f} s: {said}",
                    highlight=False, markup=False, soft_wrap=True,
                )  # fmt: skip

    def _line(self) -> str:
        return " ".join(f"{self._counts[key]} {key}" for key in ("steps", "faults", "requests", "found"))


def violation(console: Console, found: Violation, number: int, planted: str = "") -> None:
    """One violation: what, the plan in words, the evidence, where it lies, what to type next.

    `planted` are the arguments by which defects were planted, if any were.
    """
    times = "once" if found.count == 1 else f"{found.count} times"
    console.rule(f"[bold red]{number}. {escape(found.signature)}[/]  found {times}", align="left", style="red")
    account(console, found, _SENTENCES[found.invariant], f"ftmodel replay {found.outcome.folder} --times 10{planted}")


def account(console: Console, found: Violation, sentence: str, replay: str) -> None:
    """What follows a violation's heading; `sentence` is its invariant's, `replay` the command to type next."""
    finding, outcome = found.finding, found.outcome
    console.print(f"[bold]{escape(sentence)}[/]", highlight=False, soft_wrap=True)
    console.print(escape(f"{finding.subject}: {finding.message}"), highlight=False, soft_wrap=True)
    plan = outcome.plan
    console.print(
        f"\n[bold]Steps[/]  ({escape(plan.topology)}, {plan.workers} workers, migration limit {plan.migration_limit},"
        f" {plan.patience} patience)",
        highlight=False,
    )
    for number_, step in enumerate(plan.steps, start=1):
        mark = ">" if finding.subject in (step.name, getattr(step, "request", None)) else " "
        console.print(f"  {mark}{number_:3}. {escape(f'{step.name}: {words(step)}')}", highlight=False, soft_wrap=True)
    console.print("\n[bold]Evidence[/]  (seconds since the example began)", highlight=False)
    for line in finding.evidence:
        console.print(f"    {escape(line)}", highlight=False, soft_wrap=True)
    console.print(f"\nin   {escape(str(outcome.folder))}", highlight=False, soft_wrap=True)
    console.print(f"next [cyan]{escape(replay)}[/]\n", highlight=False, soft_wrap=True)


def summary(console: Console, verdict: Verdict) -> None:
    """The whole run on a page."""
    total = row(verdict)
    colour = _COLOURS[verdict.value]
    console.rule(f"[bold {colour}]{verdict.value}[/]", style=colour)
    system = verdict.system
    seed = f", seed {verdict.seed}" if verdict.seed is not None else ""
    seconds = f" in {verdict.seconds:.0f} s" if verdict.seconds else ""
    facts = f"{total['examples']} examples{seconds} on {system['name']} {system['version']}{seed}"
    console.print(facts, highlight=False, markup=False)
    console.print(
        _rows(
            ("topologies", ", ".join(verdict.topologies)),
            ("steps", _counts(total["steps"])),
            ("faults", _faults(total["faults"])),
            ("requests", _counts(total["requests"])),
            ("complete", _duty(total["duty"].get("L2", {}))),
            ("abort", _duty(total["duty"].get("A1", {}))),
            ("moves", f"{total['migrations']} migrations, {total['aborts']} aborts"),
            ("bounds", ", ".join(f"{name} {value:g}" for name, value in total["bounds"].items())),
            ("reached", _counts({name: count for name, count in total["situations"].items() if count})),
            ("never", ", ".join(name for name, count in total["situations"].items() if not count) or "none"),
        )
    )
    console.print("\n[bold]invariants[/], and how often each was decided", highlight=False)
    console.print(_invariants(total["invariants"]))
    console.print()
    for found in verdict.violations:
        times = f"{found.count}x"
        where = escape(str(found.outcome.folder))
        mark = "[dim]known[/]   " if found.known else "[red]violated[/]"
        console.print(f"{mark} {escape(found.signature):<24} {times:>4}  {where}", highlight=False, soft_wrap=True)
        if found.issue is not None:
            console.print(
                f"         {escape(found.issue.reason)} ({escape(found.issue.link)})", highlight=False, soft_wrap=True
            )
    if verdict.rates:
        _rates(console, verdict)
    for doubt in verdict.doubts:
        console.print(f"[yellow]unknown[/]  {escape(doubt)}", highlight=False, soft_wrap=True)
    console.print(f"store    {escape(str(verdict.store))}", highlight=False, soft_wrap=True)


def _rates(console: Console, verdict: Verdict) -> None:
    """How often each signature was seen; a line for each number of first steps, where those were run too."""
    console.print("\n[bold]seen[/] in so many runs, with the 95% interval of the rate", highlight=False)
    steps = max((outcome.plan.steps for outcome in verdict.outcomes if not outcome.scripted), key=len, default=())
    for count, rates in verdict.rates.items():
        if len(verdict.rates) > 1:
            last = steps[count - 1]
            console.print(escape(f"after {count:2}. {last.name}: {words(last)}"), highlight=False, soft_wrap=True)
        for signature, rate in rates.items():
            console.print(f"{escape(signature):<33} {rate}", highlight=False)
        if not rates:
            console.print("nothing", highlight=False)
    console.print()


def _rows(*rows: tuple[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(f"[bold]{name}[/]", escape(value))
    return table


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _faults(faults: dict[str, dict[str, int]]) -> str:
    """How many were made, and how many of them were seen to have happened."""
    return ", ".join(f"{kind} {n['made']} ({n['verified']} verified)" for kind, n in faults.items()) or "none"


def _duty(counts: dict[str, int]) -> str:
    """What was owed: must, may, must not; how many of the musts were touched by a fault."""
    whole = sum(count for key, count in counts.items() if key != "must_touched")
    if not whole:
        return "nobody asked"
    named = {"must_touched": "of these touched by a fault"}
    return ", ".join(
        f"{named.get(key, key.replace('_', ' '))} {count} ({100 * count / whole:.0f}%)" for key, count in counts.items()
    )


def _invariants(counts: dict[str, dict[str, Any]]) -> Table:
    """Columns of invariants, read downwards, each with how often it was really decided, or why it was not."""
    table = Table.grid(padding=(0, 3))
    cells = [_cell(name, count) for name, count in counts.items()]
    height = -(-len(cells) // COLUMNS)
    for index in range(height):
        table.add_row(*cells[index::height])
    return table


def _cell(name: str, count: dict[str, Any]) -> str:
    if "not_applicable" in count:
        return f"{name} [dim]{escape(count['not_applicable'].partition(' (')[0])}[/]"
    text = f"{name} {count['evaluated']}"
    if count["violated"]:
        text += f" [red]{count['violated']} violated[/]"
    if count["unknown"]:
        text += f" [yellow]{count['unknown']} unknown[/]"
    if not count["evaluated"] and not count["unknown"]:
        text += " [yellow]no occasion[/]"
    return text
