"""The slope of a series, with a confidence interval that a few outliers do not move.

Theil and Sen: the median of the slopes between all pairs of points; its interval from the distribution of Kendall's rank
correlation (P. K. Sen, Estimates of the Regression Coefficient Based on Kendall's Tau, 1968).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

SIGMAS: Final = 1.96
"""Of the interval: 95 %."""
POINTS_MOST: Final = 300
"""Of a longer series every n-th point is taken: there are half as many pairs as the square of the points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """Units of y for one unit of x: the estimate, and the interval in which it lies."""

    value: float
    low: float
    high: float

    @property
    def rises(self) -> bool:
        """Surely above zero."""
        return self.low > 0


def slope(points: Sequence[tuple[float, float]]) -> Slope | None:
    """The slope of y over x; None for fewer than three points, or where no two differ in x."""
    step = -(-len(points) // POINTS_MOST) if points else 1
    thinned = points[::step]
    n = len(thinned)
    slopes = sorted(
        (thinned[j][1] - thinned[i][1]) / (thinned[j][0] - thinned[i][0])
        for i in range(n)
        for j in range(i + 1, n)
        if thinned[j][0] != thinned[i][0]
    )
    if n < 3 or not slopes:
        return None
    spread = SIGMAS * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    return Slope(value=median(slopes), low=slopes[low], high=slopes[high])
