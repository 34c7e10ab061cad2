"""What a person sees of a soak: a live page on a terminal, plain lines elsewhere, and a summary at its end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ftmodel.invariants.situations import SITUATIONS
from ftmodel.soak.bugs import Bug
from ftmodel.soak.driver import Driver
from ftmodel.soak.findings import smaller

REFRESH_EVERY_S: Final = 0.5
LINE_EVERY_S: Final = 30.0
"""So often a line tells where the soak is, where there is no page."""
LAST: Final = 6
"""Lines below the page."""
_COLOURS: Final = {"holds": "green", "violated": "red", "unknown": "yellow"}


class Audience:
    """Is told how a soak goes on, and shows it."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self.wants_summary = False
        self._console = console
        self._live = live
        self._lines: deque[str] = deque(maxlen=LAST)
        self._looked_s = float("-inf")

    def said(self, line: str) -> None:
        """On a terminal the last lines are a part of the page."""
        if self._live is None:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            self._lines.append(line)

    def looked(self, driver: Driver) -> None:
        """Show where it is, if it is time."""
        if self.wants_summary:
            self.wants_summary = False
            self._console.print(brief(driver), highlight=False, markup=False, soft_wrap=True)
        now_s = time.monotonic()
        if self._live is not None and now_s > self._looked_s + REFRESH_EVERY_S:
            self._looked_s = now_s
            self._live.update(page(driver, self._lines), refresh=True)
        elif self._live is None and now_s > self._looked_s + LINE_EVERY_S:
            self._looked_s = now_s
            self.said(brief(driver))


@contextmanager
def shown(console: Console) -> Iterator[Audience]:
    """An audience: with a live page if the console is a terminal."""
    if not console.is_terminal:
        yield Audience(console, None)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield Audience(console, live)


def brief(driver: Driver) -> str:
    """Where the soak is, in a line."""
    totals, left_s = driver.totals, max(0.0, driver.until_s - time.monotonic())
    fresh = [bug for bug in driver.bugs.values() if not bug.known]
    requests = ", ".join(f"{count} {how}" for how, count in totals.flat["requests"].items()) or "none"
    found = ", ".join(f"{bug.signature} {bug.count}x {bug.state}" for bug in fresh) or "nothing new"
    reached = len(SITUATIONS) - len(driver.missing)
    return (
        f"{span(left_s)} left, {driver.round_count} rounds, {totals.examples} examples, {totals.verified} faults"
        f" verified, requests: {requests}; {reached} of {len(SITUATIONS)} situations; found: {found}"
    )


def page(driver: Driver, lines: deque[str]) -> RenderableType:
    """The live page."""
    now_s = time.monotonic()
    gone_s = now_s - driver.began_s
    minutes = max(gone_s, 1.0) / 60
    totals = driver.totals
    head = Table.grid(padding=(0, 2))
    head.add_row("[bold]left[/]", span(max(0.0, driver.until_s - now_s)), _bar(driver, gone_s))
    facts = Table.grid(padding=(0, 2))
    facts.add_row(
        "[bold]rounds[/]", str(driver.round_count), "[bold]examples[/]", str(totals.examples), "[bold]steps/min[/]",
        f"{driver.stepped['steps'] / minutes:.0f}", "[bold]faults/min[/]", f"{driver.stepped['faults'] / minutes:.0f}",
        "[bold]verified[/]", str(totals.verified),
    )  # fmt: skip
    asked = ", ".join(f"{how} {count}" for how, count in totals.flat["requests"].items()) or "none yet"
    rows = Table.grid(padding=(0, 2))
    rows.add_row("[bold]requests[/]", escape(asked))
    missing = driver.missing
    rows.add_row("[bold]situations[/]", f"{len(SITUATIONS) - len(missing)} of {len(SITUATIONS)} reached")
    rows.add_row("[bold]never[/]", escape(", ".join(missing) or "none"))
    last = Text("\n".join(lines), style="dim", overflow="ellipsis", no_wrap=True)
    return Panel(
        Group(head, facts, rows, "", _lanes(driver, now_s), "", _bugs(list(driver.bugs.values())), "", last),
        title=f"ftmodel soak {escape(', '.join(top.name for top in driver.wish.topologies))}",
        subtitle=escape(driver.stopping) or "Ctrl-C ends it after what is under way",
    )


def _bar(driver: Driver, gone_s: float) -> ProgressBar:
    return ProgressBar(total=max(driver.wish.seconds, 1.0), completed=min(gone_s, driver.wish.seconds), width=40)


def _lanes(driver: Driver, now_s: float) -> Table:
    table = Table.grid(padding=(0, 2))
    for lane in driver.lanes.values():
        numbers = " ".join(str(this.number) for this in lane.rounds) or "-"
        table.add_row(
            f"[bold]lane {lane.name}[/]", f"rounds {numbers}", escape(lane.doing), f"for {span(now_s - lane.since_s)}"
        )
    return table


def _bugs(bugs: list[Bug]) -> RenderableType:
    if not bugs:
        return Text("nothing found", style="green")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("found", "times", "seen again", "state", "made smaller"):
        table.add_column(column)
    for bug in sorted(bugs, key=lambda bug: (bug.known, bug.signature)):
        style = "dim" if bug.known else "red"
        state = "known" if bug.known else bug.state
        again = f"{bug.seen} of {bug.replays}" if bug.replays else ""
        table.add_row(f"[{style}]{escape(bug.signature)}[/]", str(bug.count), again, state, escape(smaller(bug)))
    return table


def summary(console: Console, total: dict[str, Any], files: Sequence[Path]) -> None:
    """What it came to."""
    colour = _COLOURS[total["verdict"]]
    console.rule(f"[bold {colour}]{total['verdict']}[/]", style=colour)
    rounds = ", ".join(f"{count} {state}" for state, count in total["rounds"].items())
    console.print(
        f"{total['examples']} examples, rounds: {rounds}; {span(total['seconds'])} on {total['system']['name']}"
        f" {total['system']['version']}, seed {total['seed']}",
        highlight=False, markup=False,
    )  # fmt: skip
    table = Table.grid(padding=(0, 2))
    verified = sum(count["verified"] for count in total["faults"].values())
    made = sum(count["made"] for count in total["faults"].values())
    table.add_row("[bold]faults[/]", f"{made} made, {verified} verified")
    table.add_row("[bold]requests[/]", ", ".join(f"{how} {n}" for how, n in total["requests"].items()) or "none")
    reached = [name for name, n in total["situations"].items() if n]
    never = [name for name, n in total["situations"].items() if not n]
    table.add_row("[bold]situations[/]", f"{len(reached)} of {len(total['situations'])} reached")
    table.add_row("[bold]never[/]", ", ".join(never) or "none")
    for key, names in total.get("against", {}).items():
        table.add_row(f"[bold]{key.replace('_', ' ')}[/]", ", ".join(names) or "none")
    console.print(table)
    for found in total["violations"]:
        mark = "[dim]known[/]   " if found["known"] else "[red]violated[/]"
        again = f"seen again {found['seen_again']} of {found['replays']}" if found["replays"] else found["state"]
        if found["shrunk"]["to_steps"]:
            again += f", {found['steps']} steps to {found['shrunk']['to_steps']}"
        console.print(
            f"{mark} {escape(found['signature']):<24} {found['count']:>5}x  {again:<36} {escape(found['example'])}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    for doubt in total["doubts"]:
        console.print(f"[yellow]unknown[/]  {escape(doubt)}", highlight=False, soft_wrap=True)
    console.print(f"store    {escape(total['store'])}", highlight=False, soft_wrap=True)
    for file in files:
        console.print(f"  {escape(str(file))}", highlight=False, soft_wrap=True)


def span(seconds: float) -> str:
    """A time as a person says it: 45s, 12m 05s, 7h 59m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02}m"
