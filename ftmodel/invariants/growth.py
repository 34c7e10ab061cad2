"""Growth: whether what a process uses rises with the requests that its cluster has served.

Only samples count that were taken while no request was open. A process that has just started grows with each thread, with
the arena of its allocator, and with each cache that fills, in steps of up to 3 MiB: a frontend by 20 to 50 KiB a request over
its first 300, and by less than 1 KiB over those from 600 on, with workers killed and joining all the while (measured with
`docs/findings/growth.py`, 1.4 and 1.6). So the first requests are left out, and what follows must be long enough that one
late step is no slope. A slope is a finding if even the low end of its confidence interval is more than its bound.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ftmodel.history import Usage
from ftmodel.invariants.base import when
from ftmodel.invariants.ledger import Ledger
from ftmodel.slope import Slope, slope

ROLES: Final = ("frontend", "worker", "prefill")
HANDLES: Final = ("sockets", "fds", "threads", "children")
WARM_REQUESTS: Final = 600
"""Of the cluster, since the process was first looked at: in these it warms up, and samples are left out."""
REQUESTS_LEAST: Final = 300
"""Over which the samples that are left must reach: fewer tell nothing."""
SAMPLES_LEAST: Final = 12
"""Of those that are left: likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What rose, by how much for each request."""

    what: str
    slope: Slope
    bound: float


class Series:
    """The samples of each process."""

    def __init__(self) -> None:
        self._usages: dict[str, list[Usage]] = {}

    def add(self, usage: Usage) -> None:
        """Keep one."""
        self._usages.setdefault(usage.title, []).append(usage)

    def judged(self, ledger: Ledger) -> Iterator[tuple[str, str, list[Usage]]]:
        """Title, role and samples of each process that has enough of them: of those that were never frozen or cut."""
        for title, usages in self._usages.items():
            process = ledger.processes.get(title)
            warm = usages[warm_from([usage.requests for usage in usages]) :]
            if process is not None and process.started.role in ROLES and not process.faults and is_enough(warm):
                yield title, process.started.role, warm


def warm_from(requests: Sequence[int]) -> int:
    """Of samples of one process, by the requests until each: the place of the first one after its warm-up."""
    return bisect.bisect_left(requests, requests[0] + WARM_REQUESTS) if requests else 0


def is_enough(usages: Sequence[Usage]) -> bool:
    """True if a slope over these tells something."""
    return len(usages) >= SAMPLES_LEAST and usages[-1].requests - usages[0].requests >= REQUESTS_LEAST


def growth(usages: Sequence[Usage], what: str, bound: float) -> Growth | None:
    """How this rose with the requests, if surely by more than the bound for each of them."""
    found = slope([(usage.requests, getattr(usage, what)) for usage in usages])
    return Growth(what=what, slope=found, bound=bound) if found is not None and found.low > bound else None


def told(title: str, grown: Growth, usages: Sequence[Usage]) -> tuple[str, ...]:
    """A finding's message and evidence."""
    rate = grown.slope
    low, high = rate.low, rate.high
    message = f"{grown.what} of {title} grew by {rate.value:.3g} a request (95 %: {low:.3g} to {high:.3g}), expected at most {grown.bound:g}"
    shown = (usages[0], usages[len(usages) // 2], usages[-1])
    return message, *(
        f"{title}, {when(usage.at)}: {grown.what} {getattr(usage, grown.what)} after {usage.requests} requests"
        for usage in shown
    )
