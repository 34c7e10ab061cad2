"""What a failing test says: in words, without a traceback, and with the command to type next."""

from __future__ import annotations

import dataclasses
import io
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ftmodel.cli import show
from ftmodel.invariants import INVARIANTS
from ftmodel.pytest_plugin import Chosen
from ftmodel.runner import Rules
from ftmodel.verdict import Verdict, Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """A test's failures in words: which commands follow, and whose invariants' sentences are shown."""

    rules: Rules
    origin: str
    """Where it came from, e.g. "seed 7, profile quick"; and how to draw the same again."""
    node: str
    """The test, as pytest names it."""
    chosen: Chosen
    scripted: bool = False

    def broken(self, verdict: Verdict) -> list[Violation]:
        """The violations that are no known issues."""
        return [found for found in verdict.violations if not found.known]

    def violation(self, found: Violation) -> str:
        """One violation: its first line is short, for pytest repeats it."""
        told = dataclasses.replace(
            found, outcome=dataclasses.replace(found.outcome, folder=_near(found.outcome.folder))
        )
        sentence = next((cls.sentence for cls in self.rules.invariants if cls.id == found.invariant), "")
        page = io.StringIO()
        show.account(Console(file=page, width=120, no_color=True), told, sentence, self._replay(told))
        times = "once" if found.count == 1 else f"{found.count} times"
        return f"{found.signature}, found {times}\n\n{page.getvalue().rstrip()}\n{self.origin}".rstrip()

    def _replay(self, found: Violation) -> str:
        """The command that runs the example again; of an invariant of one's own, under this test."""
        if found.invariant in {cls.id for cls in INVARIANTS}:
            python = f" --sut-python {shlex.quote(str(self.chosen.python))}" if self.chosen.python else ""
            return f"ftmodel replay {found.outcome.folder} --times 10{python}"
        replay = "" if self.scripted else f" --ftmodel-replay {found.outcome.folder}"
        return f"pytest {shlex.quote(self.node)}{replay}{self.chosen.arguments()}"

    def doubts(self, verdict: Verdict) -> str:
        """Why nothing can be said: neither a pass nor a finding."""
        why = "\n".join(f"    {doubt}" for doubt in verdict.doubts)
        told = "unknown: the tester could not do all its work, so this is neither a pass nor a finding"
        return f"{told}\n\n{why}\n\n{self.origin}".rstrip()

    def properties(self, verdict: Verdict) -> Iterator[tuple[str, str]]:
        """What a report of the tests keeps of it: names and values."""
        yield "ftmodel_verdict", verdict.value
        yield "ftmodel_version", " ".join(verdict.system.values())
        yield "ftmodel_examples", str(sum(not outcome.scripted for outcome in verdict.outcomes))
        for found in verdict.violations:
            if found.issue is None:
                yield "ftmodel_signature", found.signature
                yield "ftmodel_example", str(_near(found.outcome.folder))
            else:
                yield "ftmodel_known", f"{found.signature} {found.count}x: {found.issue.reason} ({found.issue.link})"


def _near(path: Path) -> Path:
    """The path as one would type it."""
    return Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path
