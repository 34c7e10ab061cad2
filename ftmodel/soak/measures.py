"""What a history tells besides its judgement: in which phase of requests steps were done, and how latency went.

Times are counted in buckets that grow by a quarter, so that counts of many examples can be added up.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ftmodel.history import (
    ClientClosed,
    Event,
    FaultMade,
    LogLine,
    Received,
    RequestEnded,
    RequestSent,
    StepDone,
    Usage,
)

PHASES: Final = ("no request", "sent", "begun", "first quarter", "middle", "last quarter")
"""Of the requests that are open when a step is done: none is; sent; a worker has it; by the tokens that have come."""
KINDS: Final = ("before", "during", "after")
"""Of the faults."""
DURING_S: Final = 7.0
"""So long after a fault is during it: in this time an open stream is to go on elsewhere."""
AROUND_S: Final = range(-5, 21)
"""Seconds from the nearest fault, as far as latency around it is told."""
GROWS: Final = 1.25
LEAST_S: Final = 0.001
USAGES_LEAST: Final = 12
"""Examples with fewer samples of a process tell nothing of its growth."""
QUIET: Final = ("submit", "settle", "bad-request")
"""Steps that do nothing to a request that is open."""


def bucket(seconds: float) -> int:
    """The bucket that a time falls into; 0 is the least."""
    return max(0, math.ceil(math.log(max(seconds, LEAST_S) / LEAST_S, GROWS) - 1e-9))


def upper_s(number: int) -> float:
    """The longest time of a bucket."""
    return float(LEAST_S * GROWS**number)


def quantile(counts: Mapping[str, int], share: float) -> float | None:
    """The time that this share does not exceed, in s, to the bucket; None where nothing was counted."""
    total = sum(counts.values())
    seen = 0
    for number in sorted(map(int, counts)):
        seen += counts[str(number)]
        if seen >= share * total:
            return upper_s(number)
    return None


@dataclass(slots=True)
class _Open:
    """One request, as far as its client has it."""

    sent: RequestSent
    texts: list[float] = field(default_factory=list)
    """When text came, in s."""
    begun_s: list[float] = field(default_factory=list)
    """When workers began it."""
    over_s: float = math.inf


def measure(events: Sequence[Event]) -> dict[str, Any]:
    """Counts: `coverage` by step and phase, `latency` by what and when, `around` by second; and `usage`, as sampled."""
    requests = _requests(events)
    faults = sorted(event.at.after_s for event in events if isinstance(event, FaultMade) and event.verified)
    latency: dict[str, Counter[str]] = {}
    for request in requests:
        if not request.sent.stream:
            continue
        for what, at_s, lasted_s in _waits(request):
            _add(latency, f"{what} {_when(at_s - lasted_s, at_s, faults)}", lasted_s)
            second = _second(at_s, faults)
            if second is not None:
                _add(latency, f"{what} @{second}", lasted_s)
        if (recovery_s := _recovery(request)) is not None:
            _add(latency, "recovery", recovery_s)
    return {
        "coverage": dict(_coverage(events, requests)),
        "latency": {key: dict(counts) for key, counts in latency.items()},
        "usage": _usage(events),
    }


def _add(counts: dict[str, Counter[str]], key: str, seconds: float) -> None:
    counts.setdefault(key, Counter())[str(bucket(seconds))] += 1


def _requests(events: Iterable[Event]) -> list[_Open]:
    found: dict[str, _Open] = {}
    by_id: dict[str, _Open] = {}
    for event in events:
        match event:
            case RequestSent(probe=False, wrong=""):
                found[event.request] = by_id[event.id] = _Open(event)
            case Received() if event.request in found:
                if any(item.what == "text" for item in event.items):
                    found[event.request].texts.append(event.at.after_s)
            case RequestEnded() | ClientClosed() if event.request in found:
                found[event.request].over_s = min(found[event.request].over_s, event.at.after_s)
            case LogLine(meaning="begun") if event.id in by_id:
                by_id[event.id].begun_s.append(event.at.after_s)
            case _:
                pass
    return list(found.values())


def _waits(request: _Open) -> Iterable[tuple[str, float, float]]:
    """What was waited for, when it came, and how long it took: the first token, and each further burst."""
    last_s = request.sent.at.before_s
    for index, text_s in enumerate(request.texts):
        yield "between" if index else "first", text_s, text_s - last_s
        last_s = text_s


def _when(from_s: float, to_s: float, faults: Sequence[float]) -> str:
    """Before the first fault, during one, or after one."""
    if not faults or to_s < faults[0]:
        return "before"
    place = bisect.bisect_right(faults, to_s) - 1
    return "during" if from_s <= faults[place] + DURING_S else "after"


def _second(at_s: float, faults: Sequence[float]) -> int | None:
    """Whole seconds since the last fault, or, if that is long ago, to the next one."""
    place = bisect.bisect_right(faults, at_s)
    since_s = at_s - faults[place - 1] if place else math.inf
    until_s = faults[place] - at_s if place < len(faults) else math.inf
    second = math.floor(since_s) if since_s <= AROUND_S[-1] else -math.ceil(until_s) if until_s < math.inf else None
    return second if second in AROUND_S else None


def _recovery(request: _Open) -> float | None:
    """Of a request that a second worker began: from the last token of the first one to the next."""
    if len(request.begun_s) < 2 or not request.texts:
        return None
    later = bisect.bisect_right(request.texts, request.begun_s[-1])
    if later == len(request.texts):
        return None
    return request.texts[later] - (request.texts[later - 1] if later else request.sent.at.before_s)


def _coverage(events: Sequence[Event], requests: Sequence[_Open]) -> Counter[str]:
    """By step and phase: each step once for each phase in which a request was then."""
    counts: Counter[str] = Counter()
    for event in events:
        if isinstance(event, StepDone) and event.deed not in QUIET:
            at_s = event.at.before_s
            open_ = [r for r in requests if r.sent.at.before_s <= at_s < r.over_s]
            for phase in {_phase(request, at_s) for request in open_} or {PHASES[0]}:
                counts[f"{event.deed}|{phase}"] += 1
    return counts


def _phase(request: _Open, at_s: float) -> str:
    come = bisect.bisect_right(request.texts, at_s)
    if not come:
        return PHASES[2] if any(begun_s <= at_s for begun_s in request.begun_s) else PHASES[1]
    share = come / max(len(request.texts), 1)
    return PHASES[3] if share < 0.25 else PHASES[5] if share >= 0.75 else PHASES[4]


def _usage(events: Sequence[Event]) -> list[list[Any]]:
    """Title, s, requests, memory, fds, sockets, threads, children: of processes that were looked at often."""
    looks = Counter(event.title for event in events if isinstance(event, Usage))
    return [
        [
            event.title, round(event.at.after_s, 2), event.requests, event.memory, event.fds, event.sockets,
            event.threads, event.children,
        ]
        for event in events
        if isinstance(event, Usage) and looks[event.title] >= USAGES_LEAST
    ]  # fmt: skip
