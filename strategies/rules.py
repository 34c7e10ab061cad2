"""The kinds of what comes next in a plan, one function each, that read like rules: from the outline, a strategy for it.

`KINDS` lists them plainest first, with the weight in the example's mix that governs each; a kind of one's own is one
more row. A function gives one step, or a few that belong together (`strategies.races` has those), or returns None where
its step would make no sense yet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ftmodel.outline import Outline
from ftmodel.steps import (
    LADDER_MS,
    After,
    Api,
    BadRequest,
    Cancel,
    EngineError,
    EngineFault,
    FreezeWorker,
    Heal,
    HolderOf,
    KillEngine,
    KillWorker,
    Mix,
    Now,
    Sent,
    Settle,
    Slot,
    SlowReader,
    StartWorker,
    Step,
    StopWorker,
    Submit,
    ThawWorker,
    Token,
    VictimOf,
)

from .moments import RECENT, after, hits, moments, named, of, skews
from .outages import outages as service_outages
from .prefills import prefills
from .races import drains, gates, races, restarts, rolls, storms

Draws = SearchStrategy[tuple[Step, ...]]
Kind = Callable[[Outline, Sequence[int]], Draws | None]

PROMPT_CHARS = (40, 200, 1000, 4500)
LONG_TOKENS = 600
MAX_TOKENS = (50, 50, 50, 50, 50, 50, 50, 50, 200, 200, LONG_TOKENS, 8, 2, 1)
"""Mostly short, so that an example is over soon."""
PATIENT_MAX_TOKENS = (*MAX_TOKENS, 3000)
CLIENT_TIMEOUTS_MS = (1000, 100, 300)
"""1 s is the classic scenario's."""
Asked = Mapping[str, Any]
PLAIN: Asked = {}
ASKED: tuple[Asked, ...] = (
    *(PLAIN,) * 14,
    *({"usage": True},) * 3,
    {"logprobs": True},
    {"n": 2},
    {"n": 2},
    {"guided": True},
    {"guided": True},
    {"stop_at": 5},
    {"stop_at": 20},
    {"stop_at": 20, "min_tokens": 10},
    {"min_tokens": 10},
)
"""What a request asks for besides its length; mostly nothing."""
LEFT: tuple[Asked, ...] = (*(PLAIN,) * 6, {"n": 2}, {"guided": True}, {"usage": True})
"""The same, of a request whose client is to leave: nothing by which it can end early."""
APIS: SearchStrategy[Api] = st.sampled_from(("completion", "chat"))
STREAMED = st.sampled_from((True, True, False))


def submits(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A request: each API, streamed or not; now, mostly."""
    return _submit(outline)


@st.composite
def _submit(draw: st.DrawFn, outline: Outline) -> tuple[Step, ...]:
    asked = draw(st.sampled_from(ASKED))
    least = max(asked.get("stop_at", 0), asked.get("min_tokens", 0))
    lengths = PATIENT_MAX_TOKENS if outline.patience == "long" else MAX_TOKENS
    step = Submit(
        name=named("r", outline),
        api=draw(APIS),
        stream=draw(STREAMED),
        prompt_chars=draw(st.sampled_from((40, 40, *PROMPT_CHARS))),
        max_tokens=draw(st.sampled_from([length for length in lengths if length > least])),
        frontend=draw(st.sampled_from(list(outline.gates))),
        at=draw(moments(outline, LONG_TOKENS)) if draw(st.sampled_from((False,) * 4 + (True,))) else Now(),
        skew_ms=draw(st.sampled_from((0, 0, 0, *LADDER_MS))),
        **asked,
    )
    return (step,)


def cancels(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A client leaves: a long request's, which is submitted for it, or that of one under way, at any moment of it."""
    return _cancels(outline)


@st.composite
def _cancels(draw: st.DrawFn, outline: Outline) -> tuple[Step, ...]:
    waiting = outline.uncancelled()[:RECENT]
    if waiting and draw(st.sampled_from((False,) * 3 + (True,))):
        return (draw(_cancel(named("s", outline), draw(st.sampled_from(waiting)))),)
    # A request with long to go, and its client's leaving: there the abort is owed, not only allowed.
    submit = Submit(
        name=named("r", outline),
        api=draw(APIS),
        stream=draw(STREAMED),
        max_tokens=LONG_TOKENS,
        frontend=draw(st.sampled_from(list(outline.gates))),
        **draw(st.sampled_from(LEFT)),
    )
    return submit, draw(_cancel(named("s", outline, 2), submit))


@st.composite
def _cancel(draw: st.DrawFn, name: str, submit: Submit) -> Cancel:
    if draw(st.sampled_from((False,) * 3 + (True,))):
        waits_ms = draw(st.sampled_from(CLIENT_TIMEOUTS_MS))
        return Cancel(name=name, request=submit.name, how="timeout", at=Sent(submit.name), skew_ms=waits_ms)
    # What is not streamed has no token to wait for: it has begun for sure only a while after it was sent.
    ladder = (0, 0, *LADDER_MS) if submit.stream else (100, 100, 100, *LADDER_MS)
    return Cancel(
        name=name,
        request=submit.name,
        at=draw(of(submit, LONG_TOKENS, early=True)),
        skew_ms=draw(st.sampled_from(ladder)),
    )


def bad_requests(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A request that is its client's fault."""
    step = st.builds(
        BadRequest,
        name=st.just(named("r", outline)),
        wrong=st.sampled_from(("malformed-json", "unknown-model", "negative-max-tokens", "prompt-too-long")),
        api=st.sampled_from(("completion", "chat")),
        stream=st.booleans(),
        frontend=st.sampled_from(list(outline.gates)),
    )
    return step.map(lambda bad: (bad,))


def slow_readers(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """The client of a stream under way stops reading for a while."""
    streams = [
        submit for submit in outline.uncancelled()[:RECENT] if submit.stream and submit.name not in outline.paused
    ]
    if not streams:
        return None
    return st.sampled_from(streams).flatmap(
        lambda submit: st.builds(
            SlowReader,
            name=st.just(named("s", outline)),
            request=st.just(submit.name),
            pause_ms=st.sampled_from((300, 2000)),
            at=of(submit, LONG_TOKENS, early=True),
        ).map(lambda step: (step,))
    )


def engine_errors(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """The engine fails a request, at a token of it; of one that stalls the client leaves.

    One whose stream breaks off goes on elsewhere, and at times breaks off there again.
    """
    failing = [
        s for s in outline.uncancelled()[:RECENT] if s.max_tokens > 8 and s.n == 1 and s.name not in outline.paused
    ]
    if not failing:
        return None
    hows: tuple[EngineFault, ...] = ("error", "no-finish", "cancelled", "stall")
    return st.tuples(
        st.sampled_from(failing),
        st.sampled_from(hows),
        st.sampled_from((5, 1, 7)),
        st.booleans(),
    ).map(lambda drawn: _engine_error(outline, *drawn))


def _engine_error(outline: Outline, submit: Submit, how: EngineFault, k: int, twice: bool) -> tuple[Step, ...]:
    request, name, then = submit.name, named("s", outline), named("s", outline, 2)
    step = EngineError(name=name, request=request, how=how, at=Token(request, k))
    if how == "stall":
        return step, Cancel(name=then, request=request, how="timeout", at=Sent(request), skew_ms=1000)
    if how == "no-finish" and twice:
        return step, EngineError(name=then, request=request, how=how, at=Token(request, k + 2))
    return (step,)


def starts(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A worker joins, in whichever slot is empty then."""
    if not outline.lost and not outline.with_state("empty"):
        return None
    return st.tuples(moments(outline, LONG_TOKENS), skews(())).map(
        lambda drawn: (StartWorker(name=named("s", outline), slot=0, at=drawn[0], skew_ms=drawn[1]),)
    )


def kills(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A worker dies by SIGKILL. Mostly one that serves a request, at a token of it."""
    return _fault(KillWorker, outline) if outline.alive > 0 else None


def stops(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A worker is asked to stop: it drains."""
    return _fault(StopWorker, outline) if outline.alive > 0 else None


def kills_engine(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A process inside a worker dies: the engine, or a rank of it. Void with engines that have none."""
    if outline.alive < 1:
        return None
    return st.tuples(hits(outline, LONG_TOKENS), skews(()), st.sampled_from(("engine", "engine", "rank"))).map(
        lambda drawn: (
            KillEngine(name=named("s", outline), worker=drawn[0][0], at=drawn[0][1], skew_ms=drawn[1], part=drawn[2]),  # type: ignore[arg-type]
        )
    )


def _fault(cls: type[KillWorker | StopWorker], outline: Outline) -> Draws:
    return st.tuples(hits(outline, LONG_TOKENS), skews(())).map(
        lambda drawn: (cls(name=named("s", outline), worker=drawn[0][0], at=drawn[0][1], skew_ms=drawn[1]),)
    )


def freezes(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A worker is frozen, or a frozen one thawed."""
    frozen = outline.with_state("frozen")
    if frozen:
        return st.builds(
            ThawWorker,
            name=st.just(named("s", outline)),
            worker=st.sampled_from([Slot(slot) for slot in frozen]),
            at=st.sampled_from((Now(), *after(outline))),
            skew_ms=skews(timeouts_ms),
        ).map(lambda step: (step,))
    up = outline.with_state("up")
    if outline.alive < 1 or not up:
        return None
    some = st.builds(
        FreezeWorker,
        name=st.just(named("s", outline)),
        worker=st.sampled_from([Slot(slot) for slot in up]),
        at=moments(outline, LONG_TOKENS),
        skew_ms=skews(()),
    ).map(lambda step: (step,))
    thaws = st.none() | st.sampled_from(tuple(timeouts_ms)) if timeouts_ms else st.none()
    holder = st.tuples(st.sampled_from(list(outline.gates)), thaws).map(lambda drawn: _freeze_holder(outline, *drawn))
    return some | holder


def _freeze_holder(outline: Outline, frontend: int, thaw_ms: int | None) -> tuple[Step, ...]:
    """A stream, and then its worker stands still, at times until about the end of its lease."""
    submit = Submit(name=named("r", outline), max_tokens=LONG_TOKENS, frontend=frontend)
    freeze = FreezeWorker(name=named("s", outline, 2), worker=HolderOf(submit.name), at=Token(submit.name, 5))
    if thaw_ms is None:
        return submit, freeze
    victim = VictimOf(freeze.name)
    return (
        submit,
        freeze,
        ThawWorker(name=named("s", outline, 3), worker=victim, at=After(freeze.name), skew_ms=thaw_ms),
    )


def settles(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """Wait until it is quiet."""
    return st.just((Settle(name=named("s", outline)),)) if outline.open else None


def heals(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """Undo the faults."""
    hurt = outline.lost or "frozen" in outline.slots.values() or outline.alive < outline.workers
    hurt = hurt or not all(outline.gates.values()) or not set(outline.services.values()) <= {"up"}
    return st.just((Heal(name=named("s", outline)),)) if hurt else None


KINDS: tuple[tuple[str, Kind], ...] = (
    ("submit", submits),
    ("cancel", cancels),
    ("start_worker", starts),
    ("settle", settles),
    ("heal", heals),
    ("bad_request", bad_requests),
    ("slow_reader", slow_readers),
    ("engine_error", engine_errors),
    ("kill_worker", kills),
    ("kill_engine", kills_engine),
    ("stop_worker", stops),
    ("freeze_worker", freezes),
    ("frontend", gates),
    ("race", races),
    ("storm", storms),
    ("restart", restarts),
    ("drain", drains),
    ("roll", rolls),
    ("service", service_outages),
    ("prefill", prefills),
)


@st.composite
def next_steps(
    draw: st.DrawFn,
    outline: Outline,
    mix: Mix,
    timeouts_ms: Sequence[int],
    room: int,
    own: Sequence[tuple[Kind, int]] = (),
) -> tuple[Step, ...]:
    """What comes next, at most `room` steps, by the weights of the mix, bent so that the cluster is mostly alive.

    `own` are further kinds, with their weights.
    """
    kinds = [*((kind, _weight(name, outline, mix)) for name, kind in KINDS), *own]
    choices = [kind for kind, weight in kinds for _ in range(weight)]
    while True:
        chosen = draw(st.sampled_from(choices))
        strategy = chosen(outline, timeouts_ms)  # of one kind alone: strategies cost more to make than to draw from
        if strategy is not None:
            return draw(strategy)[:room]
        choices = [kind for kind in choices if kind is not chosen]


def _weight(name: str, outline: Outline, mix: Mix) -> int:
    """The fewer workers are alive, the more are started; the last one is seldom hit."""
    weight: int = getattr(mix, name)
    if name == "start_worker":
        return weight * (8, 6, 2, 1, 1)[min(4, outline.alive)]
    if name in ("kill_worker", "kill_engine", "stop_worker"):
        return weight * (0, 1, 3, 6, 6)[min(4, outline.alive)] // 2
    return weight


def mixes(*, outages: bool = False, apart: bool = False) -> SearchStrategy[Mix]:
    """The weights of one example: traffic alone first, then kills and cancels together, then what is rarer.

    With services that can be out, every third example or so has outages. With prefill workers, those apart, every
    example but the plainest has something that befalls them, and every third or so much.
    """
    calm = {"stop_worker": 1, "settle": 3, "heal": 1}
    both = Mix(submit=4, cancel=6, start_worker=4, kill_worker=4, race=1, **calm)
    kills_most = Mix(submit=5, cancel=3, start_worker=5, kill_worker=6, kill_engine=1, restart=1, race=1, **calm)
    cancels_most = Mix(submit=4, cancel=9, start_worker=2, kill_worker=1, slow_reader=1, bad_request=1, **calm)
    drains_most = Mix(
        submit=4, cancel=4, start_worker=4, kill_worker=2, stop_worker=3, drain=2, roll=2, settle=3, heal=1
    )
    freezing = Mix(submit=5, cancel=4, start_worker=3, kill_worker=2, freeze_worker=3, bad_request=1, **calm)
    doors = Mix(submit=5, cancel=5, start_worker=3, kill_worker=2, frontend=2, slow_reader=1, **calm)
    crowds = Mix(submit=4, cancel=3, start_worker=3, kill_worker=2, storm=2, roll=2, restart=1, **calm)
    errors = Mix(
        submit=5, cancel=5, start_worker=3, kill_worker=3, engine_error=3, kill_engine=2, bad_request=1, **calm
    )
    blackouts = Mix(submit=6, cancel=4, start_worker=2, kill_worker=2, service=3, **calm)
    plain = Mix(start_worker=0, kill_worker=0, stop_worker=0, cancel=0, settle=1)
    faulty: tuple[Mix, ...] = (
        both,
        both,
        kills_most,
        cancels_most,
        drains_most,
        crowds,
        doors,
        errors,
        kills_most,
        both,
        freezing,
    )
    if apart:
        phases = Mix(submit=4, cancel=3, start_worker=3, kill_worker=2, prefill=6, **calm)
        faulty = (*(dataclasses.replace(mix, prefill=1) for mix in faulty), *(phases,) * 5)
    if outages:
        return st.sampled_from((plain, *(*faulty, *(blackouts,) * 5) * 3))
    return st.sampled_from((plain, *faulty, *faulty, *faulty))
