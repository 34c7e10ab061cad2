"""The kinds of step, one function each, that read like rules: from the outline, a strategy for the next such step.

`KINDS` lists them plainest first, with the weight in the example's mix that governs each; a kind of one's own is one
more row. A function returns None where its step would make no sense yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ftmodel.outline import Outline
from ftmodel.steps import (
    LADDER_MS,
    After,
    Anchor,
    Cancel,
    End,
    FreezeWorker,
    Heal,
    HolderOf,
    KillWorker,
    Mix,
    NotHolderOf,
    Now,
    Sent,
    Settle,
    Slot,
    StartWorker,
    Step,
    StopWorker,
    Subject,
    Submit,
    ThawWorker,
    Token,
)

Draws = SearchStrategy[Step]
Kind = Callable[[Outline, Sequence[int]], Draws | None]

PROMPT_CHARS = (40, 200, 1000, 4500)
LONG_TOKENS = 600
MAX_TOKENS = (50, 50, 50, 50, LONG_TOKENS, LONG_TOKENS, LONG_TOKENS, LONG_TOKENS, 8, 2, 1)
"""Mostly short, so that an example is over soon; long enough often enough that a cancel must cut them short."""
PATIENT_MAX_TOKENS = (*MAX_TOKENS, 3000)
CLIENT_TIMEOUTS_MS = (1000, 100, 300)
"""1 s is the classic scenario's."""


def submits(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A request: each API, streamed or not; now, mostly."""
    lengths = PATIENT_MAX_TOKENS if outline.patience == "long" else MAX_TOKENS
    return st.builds(
        Submit,
        name=st.just(f"r{outline.count + 1}"),
        api=st.sampled_from(("completion", "chat")),
        stream=st.sampled_from((True, True, False)),
        prompt_chars=st.sampled_from((40, 40, *PROMPT_CHARS)),
        max_tokens=st.sampled_from(lengths),
        n=st.sampled_from((1,) * 15 + (2,)),
        at=st.sampled_from((st.just(Now()),) * 4 + (_moments(outline),)).flatmap(lambda strategy: strategy),
        skew_ms=st.sampled_from((0, 0, 0, *LADDER_MS)),
    )


def cancels(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """The client of a request under way leaves: before the first byte, at token k, at the last, after the end."""
    waiting = outline.uncancelled()
    if not waiting:
        return None
    # Those that would go on for long first: there the abort is owed, not only allowed.
    long = [submit for submit in waiting if submit.max_tokens >= LONG_TOKENS]
    return st.sampled_from([*long * 8, *waiting]).flatmap(lambda submit: _cancel(outline, submit))


def _cancel(outline: Outline, submit: Submit) -> Draws:
    name = st.just(f"s{outline.count + 1}")
    closing = st.builds(
        Cancel,
        name=name,
        request=st.just(submit.name),
        at=_of(submit, early=True),
        # What is not streamed has no token to wait for: it has begun for sure only a while after it was sent.
        skew_ms=st.sampled_from((0, 0, *LADDER_MS) if submit.stream else (100, 100, 100, *LADDER_MS)),
    )
    timeout = st.builds(
        Cancel,
        name=name,
        request=st.just(submit.name),
        how=st.just("timeout"),
        at=st.just(Sent(submit.name)),
        skew_ms=st.sampled_from(CLIENT_TIMEOUTS_MS),
    )
    return st.sampled_from((closing, closing, closing, timeout)).flatmap(lambda strategy: strategy)


def starts(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A worker joins, in an empty slot (or, if one was lost through a request, in whichever is empty then)."""
    empty = outline.with_state("empty")
    slots = empty or (list(range(1, outline.workers + 1)) if outline.lost else [])
    if not slots:
        return None
    return st.builds(
        StartWorker,
        name=st.just(f"s{outline.count + 1}"),
        slot=st.sampled_from(slots),
        at=_moments(outline),
        skew_ms=_skews(()),
    )


def kills(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A worker dies by SIGKILL. Mostly one that serves a request, at a token of it."""
    return _fault(KillWorker, outline, timeouts_ms) if outline.alive > 0 else None


def stops(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A worker is asked to stop: it drains."""
    return _fault(StopWorker, outline, timeouts_ms) if outline.alive > 0 else None


def freezes(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A worker is frozen, or a frozen one thawed."""
    frozen = outline.with_state("frozen")
    if frozen:
        return st.builds(
            ThawWorker,
            name=st.just(f"s{outline.count + 1}"),
            worker=st.sampled_from([Slot(slot) for slot in frozen]),
            at=st.sampled_from((Now(), *_after(outline))),
            skew_ms=_skews(timeouts_ms),
        )
    up = outline.with_state("up")
    if outline.alive < 1 or not up:
        return None
    return st.builds(
        FreezeWorker,
        name=st.just(f"s{outline.count + 1}"),
        worker=st.sampled_from([Slot(slot) for slot in up]),
        at=_moments(outline),
        skew_ms=_skews(()),
    )


def settles(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """Wait until it is quiet."""
    return st.just(Settle(name=f"s{outline.count + 1}")) if outline.open else None


def heals(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """Undo the faults."""
    hurt = outline.lost or "frozen" in outline.slots.values() or outline.alive < outline.workers
    return st.just(Heal(name=f"s{outline.count + 1}")) if hurt else None


KINDS: tuple[tuple[str, Kind], ...] = (
    ("submit", submits),
    ("cancel", cancels),
    ("start_worker", starts),
    ("settle", settles),
    ("heal", heals),
    ("kill_worker", kills),
    ("stop_worker", stops),
    ("freeze_worker", freezes),
)


def next_step(outline: Outline, mix: Mix, timeouts_ms: Sequence[int]) -> Draws:
    """The next step, by the weights of the mix, bent so that the cluster is mostly alive."""
    choices: list[Draws] = []
    for weight_name, kind in KINDS:
        strategy = kind(outline, timeouts_ms)
        weight = getattr(mix, weight_name)
        if outline.alive < 1 and weight_name == "start_worker":
            weight *= 4
        if outline.alive > 1 and weight_name in ("kill_worker", "stop_worker"):
            weight *= 2
        if strategy is not None and weight > 0:
            choices.extend([strategy] * weight)
    return st.sampled_from(choices).flatmap(lambda strategy: strategy)


def mixes() -> SearchStrategy[Mix]:
    """The weights of one example: traffic alone first, then kills and cancels together, then what is rarer."""
    both = Mix(submit=7, cancel=6, start_worker=3, kill_worker=2, stop_worker=0, settle=1, heal=1)
    kills_most = Mix(submit=7, cancel=3, start_worker=4, kill_worker=4, stop_worker=0, settle=1, heal=1)
    cancels_most = Mix(submit=7, cancel=8, start_worker=2, kill_worker=1, stop_worker=0, settle=1, heal=0)
    drains = Mix(submit=7, cancel=4, start_worker=4, kill_worker=1, stop_worker=3, settle=1, heal=1)
    freezing = Mix(submit=7, cancel=4, start_worker=2, kill_worker=1, stop_worker=0, freeze_worker=3, settle=1, heal=1)
    plain = Mix(start_worker=0, kill_worker=0, stop_worker=0, cancel=0, settle=1)
    faulty = (both, both, kills_most, cancels_most, drains, kills_most, both, freezing)
    return st.sampled_from((plain, *faulty, *faulty, *faulty))


def _fault(cls: type[KillWorker | StopWorker], outline: Outline, timeouts_ms: Sequence[int]) -> Draws:
    return _hits(outline).flatmap(
        lambda hit: st.builds(
            cls,
            name=st.just(f"s{outline.count + 1}"),
            worker=st.just(hit[0]),
            at=st.just(hit[1]),
            skew_ms=_skews(()),
        )
    )


def _hits(outline: Outline) -> SearchStrategy[tuple[Subject, Anchor]]:
    """Whom a fault hits, and when: subject and anchor are drawn together, for the best hit is at a request's token."""
    blind: list[Subject] = [Slot(slot) for slot in outline.with_state("up")] or [Slot(1)]
    by_slot = st.tuples(st.sampled_from(blind), _moments(outline))
    under_way = list(reversed(outline.open.values()))
    if not under_way:
        return by_slot
    submit = st.sampled_from(under_way)
    holder = submit.flatmap(lambda s: st.tuples(st.just(HolderOf(s.name)), _of(s, early=False)))
    other = submit.flatmap(lambda s: st.tuples(st.just(NotHolderOf(s.name)), _of(s, early=False)))
    return st.sampled_from((holder, holder, holder, by_slot, other)).flatmap(lambda strategy: strategy)


def _of(submit: Submit, *, early: bool) -> SearchStrategy[Anchor]:
    """A moment of a request's life. Early: the long rest that an abort must cut short is still to come."""
    name, last = submit.name, submit.max_tokens
    if not submit.stream:
        return st.sampled_from((Sent(name), Sent(name), Sent(name), End(name)))
    middle = [k for k in (5, 17, 2, 1, 40) if k < last]
    edge = [0, last - 1, last] if last < LONG_TOKENS or not early else [0]
    moments: list[Anchor] = [Token(name, k) for k in (*middle, *middle, *middle, *edge)]
    return st.sampled_from([*moments, Sent(name), End(name)] if last < LONG_TOKENS else [*moments, Sent(name)])


def _moments(outline: Outline) -> SearchStrategy[Anchor]:
    """Now, mostly; or with or after something that the plan has."""
    choices: list[Anchor] = [Now(), Now(), Now(), *_after(outline)]
    for submit in list(reversed(outline.open.values()))[:3]:
        choices.append(Sent(submit.name))
        if submit.stream:
            choices += [Token(submit.name, k) for k in (5, 40) if k < submit.max_tokens]
        if submit.max_tokens < LONG_TOKENS:
            choices.append(End(submit.name))
    return st.sampled_from(choices)


def _after(outline: Outline) -> list[Anchor]:
    last = outline.last
    return [After(last.name)] if last is not None and not isinstance(last, Settle | Heal) else []


def _skews(timeouts_ms: Sequence[int]) -> SearchStrategy[int]:
    return st.sampled_from((0, 0, *LADDER_MS, *timeouts_ms))
