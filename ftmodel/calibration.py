"""Two scripted runs before the random ones: they prove the wording of logs, and measure the engine's pace.

Control: no fault, no cancel; everything completes, nothing is violated. Calibration: each kind of cancel, the holder
killed, the limit spent, a drain; each pattern of the dialect is seen at least once, or what rests on its absence is
unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ftmodel.engines import Engine
from ftmodel.history import Event, LogLine, Received, RequestSent
from ftmodel.session import Proof
from ftmodel.steps import (
    SLOTS,
    After,
    Cancel,
    HolderOf,
    KillWorker,
    Plan,
    Sent,
    Settle,
    Slot,
    Step,
    StopWorker,
    Submit,
    Token,
)

WINDOW_TOKENS: Final = 50
"""The least pace is the fastest run of so many tokens: single gaps say more of the reader than of the engine."""


def control(topology: str) -> Plan:
    """Each API, streamed and not, alone and side by side."""
    apis = [("completion", True), ("completion", False), ("chat", True), ("chat", False)]
    steps: list[Step] = [
        Submit(name=f"r{i}", api=api, stream=stream, max_tokens=50)  # type: ignore[arg-type]
        for i, (api, stream) in enumerate(apis, start=1)
    ]
    steps += [Submit(name=f"r{i}", max_tokens=200) for i in (5, 6)]
    return Plan(topology=topology, workers=2, migration_limit=3, steps=(*steps, Settle(name="s7")))


def calibration(topology: str, workers: int = SLOTS) -> Plan:
    """Each kind of cancel, a drain, a holder killed, a request to a worker that is dead, and the limit spent.

    With fewer workers than slots the drain is left out, for each worker has to die.
    """
    all_ = workers == SLOTS
    drain: list[Step] = [
        Submit(name="r4", max_tokens=200),
        Submit(name="r5", max_tokens=200),
        StopWorker(name="s2", worker=HolderOf("r4"), at=Token("r4", 20)),
        Settle(name="s3"),
    ]
    rest: list[Step] = [
        KillWorker(name="s7", worker=Slot(1)),
        *(Submit(name=f"r{i}", max_tokens=2) for i in (10, 11, 12)),
        Settle(name="s12"),
    ]
    steps: list[Step] = [
        *_cancels(),
        Settle(name="s1"),
        *(drain if all_ else ()),
        Submit(name="r6", max_tokens=600),
        KillWorker(name="s4", worker=HolderOf("r6"), at=Token("r6", 20)),
        # Sent to every worker in turn, so to the dead one too.
        *(Submit(name=f"r{i}", max_tokens=2, at=After("s4")) for i in (7, 8, 9)),
        KillWorker(name="s5", worker=HolderOf("r6"), at=Token("r6", 200)),
        Settle(name="s6"),
        *(rest if all_ else ()),
        *(KillWorker(name=f"s{i}", worker=Slot(i - 6)) for i in (8, 9, 10)[: workers - 1]),
        Submit(name="r13", max_tokens=2),
        Settle(name="s11"),
    ]
    return Plan(topology=topology, workers=workers, migration_limit=1, steps=tuple(steps))


def _cancels() -> Iterable[Step]:
    for i, (api, stream) in enumerate((("completion", True), ("completion", False), ("chat", True)), start=1):
        yield Submit(name=f"r{i}", api=api, stream=stream, max_tokens=600)  # type: ignore[arg-type]
        at = Token(f"r{i}", 5) if stream else Sent(f"r{i}")
        yield Cancel(name=f"c{i}", request=f"r{i}", at=at, skew_ms=100)
    yield Submit(name="r0", api="chat", stream=False, max_tokens=600)
    yield Cancel(name="c0", request="r0", how="timeout", at=Sent("r0"), skew_ms=300)


def proof(histories: Iterable[Iterable[Event]], engine: Engine) -> Proof:
    """What these histories prove: the meanings seen, and the pace of the first of them (the control run)."""
    meanings: set[str] = set()
    pace_s = pace_min_s = 0.0
    for number, events in enumerate(histories):
        kept = list(events)
        meanings |= {event.meaning for event in kept if isinstance(event, LogLine)}
        if number == 0:
            pace_s, pace_min_s = pace(kept, engine)
    return Proof(meanings=tuple(sorted(meanings)), pace_s=pace_s, pace_min_s=pace_min_s)


def pace(events: Iterable[Event], engine: Engine) -> tuple[float, float]:
    """(mean gap, least gap over WINDOW_TOKENS) between the tokens of streamed requests, in seconds; zeros if none."""
    streamed: set[str] = set()
    arrivals: dict[str, list[tuple[float, int]]] = {}
    for event in events:
        if isinstance(event, RequestSent) and event.stream:
            streamed.add(event.request)
        elif isinstance(event, Received) and event.request in streamed:
            count = sum(engine.count(item.value) for item in event.items if item.what == "text")
            seen = arrivals.setdefault(event.request, [])
            seen.append((event.at.after_s, count + (seen[-1][1] if seen else 0)))
    gaps: list[float] = []
    means: list[float] = []
    for seen in arrivals.values():
        if len(seen) > 1 and seen[-1][1] > seen[0][1]:
            means.append((seen[-1][0] - seen[0][0]) / (seen[-1][1] - seen[0][1]))
        gaps += _windows(seen)
    return (sum(means) / len(means) if means else 0.0, min(gaps, default=0.0))


def _windows(seen: list[tuple[float, int]]) -> Iterable[float]:
    start = 0
    for at_s, count in seen:
        while count - seen[start][1] >= WINDOW_TOKENS:
            yield (at_s - seen[start][0]) / (count - seen[start][1])
            start += 1
