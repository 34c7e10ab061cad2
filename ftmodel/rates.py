"""Rates of what fails only sometimes: exact intervals, and a sequential test of whether a plan still fails."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

LEVEL: Final = 0.95
BISECTIONS: Final = 50
"""Halvings of the interval from 0 to 1 in which a bound is looked for: below the precision of a float's sums."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How many of so many runs failed."""

    failed: int
    of: int

    @property
    def share(self) -> float:
        """Between 0 and 1; 0 of no run."""
        return self.failed / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The exact (Clopper-Pearson) interval at 95%: of 100 rates measured so, at least 95 lie in theirs."""
        tail = (1 - LEVEL) / 2
        low = _solved(lambda share: _at_least(self.failed, self.of, share) < tail) if self.failed else 0.0
        high = _solved(lambda share: _at_least(self.failed + 1, self.of, share) < 1 - tail) if self.of else 1.0
        return low, high if self.failed < self.of else 1.0

    def row(self) -> dict[str, float]:
        """As `--json` prints it."""
        low, high = self.interval
        return {"failed": self.failed, "of": self.of, "low": round(low, 4), "high": round(high, 4)}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.failed} of {self.of} ({100 * low:.0f} to {100 * high:.0f}%)"


def of_signatures(runs: Sequence[Collection[str]]) -> dict[str, Rate]:
    """How often each signature was seen, of runs of which each showed some."""
    counts = Counter(signature for run in runs for signature in set(run))
    return {signature: Rate(failed=count, of=len(runs)) for signature, count in sorted(counts.items())}


def _solved(below: Callable[[float], bool]) -> float:
    """The share up to which `below` is true."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def _at_least(failed: int, of: int, share: float) -> float:
    """The chance that at least so many of `of` runs fail, each with this chance."""
    return math.fsum(math.comb(of, n) * share**n * (1 - share) ** (of - n) for n in range(failed, of + 1))


LEAST: Final = 0.05
"""Rates below this are not told from it."""
MOST: Final = 0.9
"""Nor rates above this: of a plan that fails always, one pass is not yet the answer no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StillFails:
    """Wald's sequential test of a plan's runs: either it fails as often as expected, or much more rarely.

    If it does fail at the expected rate, `miss` is the chance at most of the answer no; it takes k passes in a row with
    k >= ln(miss) / ln(1 - share), or slightly more.
    """

    share: float
    """The rate that is expected."""
    miss: float
    rarer: float = 8.0
    """A plan that fails by so much more rarely is not taken for one that still fails."""
    clear: float = 2.7
    """How much likelier what was seen must be at the expected rate than at the rarer one, for yes."""

    @property
    def _weights(self) -> tuple[float, float]:
        """What a failure and what a pass adds to the logarithm of the likelihood ratio."""
        share = min(max(self.share, LEAST), MOST)
        return math.log(self.rarer), math.log((1 - share) / (1 - share / self.rarer))

    def answer(self, failed: Sequence[bool]) -> bool | None:
        """What the runs say, read in their order; None if more are needed."""
        fail, passed = self._weights
        told = 0.0
        for one in failed:
            told += fail if one else passed
            if told >= math.log(self.clear):
                return True
            if told <= math.log(self.miss):
                return False
        return None

    def passes_left(self, failed: Sequence[bool]) -> int:
        """If all further runs pass: how many are needed until the answer is no."""
        fail, passed = self._weights
        told = sum(fail if one else passed for one in failed)
        return max(0, math.ceil((math.log(self.miss) - told) / passed))
