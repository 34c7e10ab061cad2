"""What a lane tells: of each example what became of it, when a round is over, and now and then how many steps were done."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from ftmodel import planfile
from ftmodel.rates import Rate
from ftmodel.runner import Examples, Outcome, Rules
from ftmodel.shrink import Seen
from ftmodel.soak.measures import measure
from ftmodel.soak.rounds import Round
from ftmodel.soak.totals import counted
from ftmodel.steps import FAULTS, Plan, Step

TELL_EVERY_S: Final = 1.0
"""So often the steps are told that were done since."""
Tell = Callable[[dict[str, Any]], None]


class Told(Examples):
    """Tells what became of an example instead of keeping it, and when a round is over."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(Telling(tell), Rules(measure=measure))
        self._tell = tell
        self._left: Counter[int] = Counter()

    def add(self, outcome: Outcome) -> Outcome:
        """An example has come to its end."""
        self._tell(row_of(outcome))
        if not outcome.scripted:
            self.ended(round_of(outcome.name))
        return outcome

    def begun(self, number: int) -> None:
        """One more thing of this round is to end before the round is over."""
        with self.lock:
            self._left[number] += 1

    def ended(self, number: int) -> None:
        """One of them has."""
        with self.lock:
            self._left[number] -= 1
            over = not self._left[number]
            if over:
                del self._left[number]
        if over:
            self._tell({"is": "round-over", "round": number})


class Shrinks:
    """Watches how an example is made smaller: each execution is told as an example of the round, and kept by nobody else."""

    def __init__(self, this: Round, examples: Told, tell: Tell) -> None:
        self._round = this
        self._telling = examples.watcher
        self._tell = tell

    def began(self, what: str) -> None:
        """A stage begins."""
        self._telling.began(f"making {self._round.signature} smaller: {what}")

    def stepped(self, step: Step) -> None:
        """Told by the lanes."""

    def ended(self, outcome: Outcome) -> None:
        """There is no proof but the lane's own."""

    def played(self, outcome: Outcome) -> None:
        """A plan was executed."""
        named = dataclasses.replace(outcome, name=f"{self._round.number:05d}-{outcome.name}")
        self._tell({**row_of(named), "name": named.name, "folder": ""})

    def executed(self, stage: str, plan: Plan, seen: Seen | None) -> None:
        """Told by `played`."""

    def smallest(self, plan: Plan, rate: Rate) -> None:
        """A smaller plan still fails."""
        self._telling.began(f"making {self._round.signature} smaller: {len(plan.steps)} steps, failed {rate}")


class Telling:
    """A watcher that tells, every now and then, how many steps were done since."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._told_s = time.monotonic()

    def began(self, what: str) -> None:
        """A stage begins."""
        self._tell({"is": "began", "what": what})

    def stepped(self, step: Step) -> None:
        """A step was done, or armed."""
        with self._lock:
            self._counts["steps"] += 1
            self._counts["faults"] += step.kind in FAULTS
            if time.monotonic() < self._told_s + TELL_EVERY_S:
                return
            counts, self._counts, self._told_s = dict(self._counts), Counter(), time.monotonic()
        self._tell({"is": "stepped", **counts})

    def ended(self, outcome: Outcome) -> None:
        """Told by `Told`."""


def round_of(example: str) -> int:
    """The number of the round that an example is of."""
    return int(example.partition("-")[0])


def row_of(outcome: Outcome) -> dict[str, Any]:
    """What is told of an example."""
    judged = outcome.judgement
    return {
        "is": "example",
        "name": outcome.folder.name,
        "round": 0 if outcome.scripted else round_of(outcome.name),
        "topology": outcome.plan.topology,
        "verdict": outcome.value,
        "doubt": outcome.failure or "; ".join(judged.doubts if judged and not outcome.scripted else ()),
        "version": outcome.setting.version if outcome.setting else "",
        "seconds": round(outcome.seconds, 3),
        "folder": f"examples/{outcome.folder.name}",
        "plan": planfile.dump(outcome.plan),
        "counts": counted(judged, outcome.measures) if judged else {},
        "usage": outcome.measures.get("usage", []),
        "findings": [
            {"signature": finding.signature, "subject": finding.subject, "message": finding.message}
            for finding in (judged.findings if judged else ())
        ],
    }
