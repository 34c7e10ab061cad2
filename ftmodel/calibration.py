"""Two scripted runs before the random ones: they prove the wording of logs, and measure the engine's pace.

Control: no fault, no cancel; everything completes, nothing is violated. Calibration: each kind of cancel, the holder
killed, the limit spent, a drain; each pattern of the dialect is seen at least once, or what rests on its absence is
unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Final

from ftmodel.engines import Engine
from ftmodel.history import Event, LogLine, Received, RequestSent, Started
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

LONG_PROMPT_CHARS: Final = 4500
"""As long as the longest prompts that are drawn."""
WINDOW_TOKENS: Final = 50
"""The least pace is the fastest run of so many tokens: single gaps say more of the reader than of the engine."""


def control(topology: str, prefill_workers: int = 0) -> Plan:
    """Each API, streamed and not, alone and side by side; with prefill workers, a long prompt too."""
    apis = [("completion", True), ("completion", False), ("chat", True), ("chat", False)]
    steps: list[Step] = [
        Submit(name=f"r{i}", api=api, stream=stream, max_tokens=50)  # type: ignore[arg-type]
        for i, (api, stream) in enumerate(apis, start=1)
    ]
    steps += [Submit(name=f"r{i}", max_tokens=200) for i in (5, 6)]
    steps += [Settle(name="s7")]
    if prefill_workers:
        steps += [Submit(name="r8", prompt_chars=LONG_PROMPT_CHARS, max_tokens=8), Settle(name="s9")]
    return Plan(topology=topology, workers=2, prefill_workers=prefill_workers, migration_limit=3, steps=tuple(steps))


def calibration(topology: str, workers: int = SLOTS, prefill_workers: int = 0) -> Plan:
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
    return Plan(
        topology=topology, workers=workers, prefill_workers=prefill_workers, migration_limit=1, steps=tuple(steps)
    )


def _cancels() -> Iterable[Step]:
    for i, (api, stream) in enumerate((("completion", True), ("completion", False), ("chat", True)), start=1):
        yield Submit(name=f"r{i}", api=api, stream=stream, max_tokens=600)  # type: ignore[arg-type]
        at = Token(f"r{i}", 5) if stream else Sent(f"r{i}")
        yield Cancel(name=f"c{i}", request=f"r{i}", at=at, skew_ms=100)
    yield Submit(name="r0", api="chat", stream=False, max_tokens=600)
    yield Cancel(name="c0", request="r0", how="timeout", at=Sent("r0"), skew_ms=300)


def proof(histories: Iterable[Iterable[Event]], engine: Engine) -> Proof:
    """What these histories prove: the meanings seen, and the times of the first of them (the control run)."""
    meanings: set[str] = set()
    pace_s = pace_min_s = first_token_s = prefill_min_s = 0.0
    for number, events in enumerate(histories):
        kept = list(events)
        meanings |= {event.meaning for event in kept if isinstance(event, LogLine)}
        if number == 0:
            pace_s, pace_min_s = pace(kept, engine)
            first_token_s, prefill_min_s = first_token(kept), least_prefill(kept)
    return Proof(
        meanings=tuple(sorted(meanings)), pace_s=pace_s, pace_min_s=pace_min_s, first_token_s=first_token_s,
        prefill_min_s=prefill_min_s,
    )  # fmt: skip


def first_token(events: Iterable[Event]) -> float:
    """The longest wait of a streamed request for its first bytes of the answer's body, in seconds; 0 if there was none."""
    sent_s: dict[str, float] = {}
    longest_s = 0.0
    for event in events:
        if isinstance(event, RequestSent) and event.stream:
            sent_s[event.request] = event.at.before_s
        elif isinstance(event, Received) and event.request in sent_s:
            longest_s = max(longest_s, event.at.after_s - sent_s.pop(event.request))
    return longest_s


def least_prefill(events: Iterable[Event]) -> float:
    """The shortest time that a prefill worker had a request, in seconds, by its log; 0 if none is told."""
    prefills: set[str] = set()
    begun_s: dict[tuple[str, str], float] = {}
    spans_s: list[float] = []
    for event in events:
        if isinstance(event, Started) and event.role == "prefill":
            prefills.add(event.title)
        elif isinstance(event, LogLine) and event.title in prefills and event.id:
            key = event.title, event.id
            if event.meaning == "begun":
                begun_s[key] = event.at.after_s
            elif event.meaning in ("ended", "finished") and key in begun_s:
                spans_s.append(event.at.before_s - begun_s.pop(key))
    return max(0.0, min(spans_s, default=0.0))


def pace(events: Iterable[Event], engine: Engine) -> tuple[float, float]:
    """(mean gap, least gap) between tokens of streamed requests, in seconds, both over stretches of WINDOW_TOKENS.

    Without such a stretch the mean is that of the whole streams, and the least is not known: zero, as both are without any.
    """
    streamed: set[str] = set()
    arrivals: dict[str, list[tuple[float, int]]] = {}
    for event in events:
        if isinstance(event, RequestSent) and event.stream:
            streamed.add(event.request)
        elif isinstance(event, Received) and event.request in streamed:
            count = sum(engine.count(item.value) for item in event.items if item.what == "text")
            seen = arrivals.setdefault(event.request, [])
            seen.append((event.at.after_s, count + (seen[-1][1] if seen else 0)))
    gaps = [gap for seen in arrivals.values() for gap in _windows(seen)]
    if gaps:
        return fmean(gaps), min(gaps)
    spans = [(seen[0], seen[-1]) for seen in arrivals.values()]
    means = [(last_s - first_s) / (last - first) for (first_s, first), (last_s, last) in spans if last > first]
    return (fmean(means) if means else 0.0), 0.0


def _windows(seen: list[tuple[float, int]]) -> Iterable[float]:
    start = 0
    for at_s, count in seen:
        while count - seen[start][1] >= WINDOW_TOKENS:
            yield (at_s - seen[start][0]) / (count - seen[start][1])
            start += 1
