"""Several steps that belong together: races, storms, restarts, drains that are cut short, a cluster that is replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ftmodel.outline import Outline
from ftmodel.steps import (
    After,
    Anchor,
    Cancel,
    End,
    EngineError,
    Gone,
    HolderOf,
    KillFrontend,
    KillWorker,
    Now,
    Slot,
    StartFrontend,
    StartWorker,
    Step,
    StopFrontend,
    StopWorker,
    Submit,
    Token,
    VictimOf,
)

from .moments import moments, named

Draws = SearchStrategy[tuple[Step, ...]]

RACE_MS = (0, 1, 5, 20)
"""By how much one of two racing steps comes after the other; which of the two is drawn too."""
RACED_TOKENS = 200
RACED_STOP = 20
LEFT_TOKENS = 600
STORM = 8
STORM_TOKENS = 100
GROWING_CHARS, GROWING_TOKENS = 1000, 600
"""A worker takes in several of these, and has no KV blocks for all that they grow to, if it has blocks for few."""
UNLISTED_MS = 2000
"""So long after the last worker has gone every list has shown for a while that there is none."""


def races(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A request, and two things at one moment of it, or one after the other.

    Cancel and kill, kill and kill, cancel and finish, start and kill; a kill amid a stop string; a kill, and an error of
    the second engine.
    """
    if outline.alive < 1:
        return None
    empty = outline.with_state("empty")
    kinds = (
        "cancel-kill",
        "kill-kill",
        "cancel-finish",
        "stop-kill",
        "kill-error",
        *(("start-kill",) if empty else ()),
    )
    return st.tuples(
        st.sampled_from(kinds), st.sampled_from((5, 1, 17)), st.sampled_from(RACE_MS), st.booleans(),
        st.sampled_from(list(outline.gates)), st.sampled_from(empty or [1]), st.sampled_from((40, 4500)),
    ).map(lambda drawn: _race(outline, *drawn))  # fmt: skip


def _race(
    outline: Outline,
    kind: str,
    k: int,
    skew_ms: int,
    swapped: bool,
    frontend: int,
    slot: int,
    prompt_chars: int,
) -> tuple[Step, ...]:
    request = named("r", outline)
    submit = Submit(name=request, max_tokens=RACED_TOKENS, frontend=frontend)
    first, second = named("s", outline, 2), named("s", outline, 3)
    early, late = (skew_ms, 0) if swapped else (0, skew_ms)
    at: Anchor = Token(request, RACED_TOKENS) if kind == "cancel-finish" else Token(request, k)
    kill = KillWorker(name=second, worker=HolderOf(request), at=at, skew_ms=late)
    cancel = Cancel(name=first, request=request, at=at, skew_ms=early)
    match kind:
        case "cancel-kill":
            # Long, so that an abort is owed; with a long prompt its second worker reads it for a while.
            return replace(submit, max_tokens=LEFT_TOKENS, prompt_chars=prompt_chars), cancel, kill
        case "stop-kill":  # right behind the token with which the stop string begins
            amid = Token(request, RACED_STOP + 1)
            return replace(submit, stop_at=RACED_STOP), replace(kill, name=first, at=amid, skew_ms=0)
        case "kill-error":
            error = EngineError(name=second, request=request, how="error", at=Token(request, 2 * k))
            return submit, replace(kill, name=first, skew_ms=0), error
        case "cancel-finish":
            return submit, cancel
        case "start-kill":
            return submit, StartWorker(name=first, slot=slot, at=at, skew_ms=early), kill
        case _:
            up = outline.with_state("up") or [1]
            return submit, KillWorker(name=first, worker=Slot(up[0]), at=at, skew_ms=early), kill


def storms(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """Many requests at once; or many that grow, so that KV blocks run out where there are few; or many that leave."""
    return st.tuples(
        st.sampled_from(("short", "leaving", "growing")), st.sampled_from((True, True, False)),
        st.sampled_from((5, 1, 17)), st.sampled_from(list(outline.gates)), moments(outline, STORM_TOKENS),
    ).map(lambda drawn: _storm(outline, *drawn))  # fmt: skip


def _storm(
    outline: Outline,
    what: str,
    stream: bool,
    k: int,
    frontend: int,
    at: Anchor,
) -> tuple[Step, ...]:
    names = [named("r", outline, i) for i in range(1, STORM + 1)]
    prompt_chars, max_tokens = (GROWING_CHARS, GROWING_TOKENS) if what == "growing" else (40, STORM_TOKENS)
    submits: list[Step] = [
        Submit(
            name=name, stream=stream, prompt_chars=prompt_chars, max_tokens=max_tokens, frontend=frontend, at=at
        )
        for name in names
    ]  # fmt: skip
    if what != "leaving":
        return tuple(submits)
    moment: Anchor = Token(names[0], k) if stream else After(names[0])
    leaves = [
        Cancel(name=named("s", outline, STORM + i), request=name, at=moment, skew_ms=0 if stream else 100)
        for i, name in enumerate(names, start=1)
    ]
    return (*submits, *leaves)


def restarts(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A worker dies or is stopped, and is back in its slot as soon as it is gone: within the lease of its predecessor.

    At times on the same port of the request plane; at times it dies again at once (flapping).
    """
    up = outline.with_state("up")
    if not up or outline.alive < 1:
        return None
    return st.tuples(
        st.sampled_from(up), st.sampled_from((KillWorker, KillWorker, StopWorker)),
        st.sampled_from(("new", "predecessor")), st.sampled_from((False, False, True)),
        moments(outline, RACED_TOKENS),
    ).map(lambda drawn: _restart(outline, *drawn))  # fmt: skip


def _restart(
    outline: Outline,
    slot: int,
    ending: type[KillWorker | StopWorker],
    port: str,
    again: bool,
    at: Anchor,
) -> tuple[Step, ...]:
    end, start, second, third = (named("s", outline, i) for i in range(1, 5))
    steps: tuple[Step, ...] = (
        ending(name=end, worker=Slot(slot), at=at),
        StartWorker(name=start, slot=slot, port=port, at=Gone(end)),  # type: ignore[arg-type]
    )
    flap: tuple[Step, ...] = (
        KillWorker(name=second, worker=Slot(slot), at=After(start), skew_ms=100),
        StartWorker(name=third, slot=slot, at=Gone(second)),
    )
    return (*steps, *flap) if again else steps


def drains(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A worker that serves a request is stopped, and in its drain gets a second SIGTERM, or SIGKILL."""
    if outline.alive < 1:
        return None
    return st.tuples(
        st.sampled_from((KillWorker, StopWorker)), st.sampled_from((5, 17, 1)), st.sampled_from((20, 100, 1, 1000)),
        st.sampled_from(list(outline.gates)),
    ).map(lambda drawn: _drain(outline, *drawn))  # fmt: skip


def _drain(
    outline: Outline, second: type[KillWorker | StopWorker], k: int, skew_ms: int, frontend: int
) -> tuple[Step, ...]:
    request, stop = named("r", outline), named("s", outline, 2)
    return (
        Submit(name=request, max_tokens=2 * RACED_TOKENS, frontend=frontend),
        StopWorker(name=stop, worker=HolderOf(request), at=Token(request, k)),
        second(name=named("s", outline, 3), worker=VictimOf(stop), at=After(stop), skew_ms=skew_ms),
    )


def rolls(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """Every worker is replaced, one after the other; or all die or are stopped at once, and all come back."""
    up = outline.with_state("up")
    return st.sampled_from((_rolling, _to_zero, _scaled_to_zero)).map(lambda roll: roll(outline, up)) if up else None


def _rolling(outline: Outline, up: list[int]) -> tuple[Step, ...]:
    steps: list[Step] = []
    at: Anchor = Now()
    for i, slot in enumerate(up):
        stop, start = named("s", outline, 2 * i + 1), named("s", outline, 2 * i + 2)
        steps += [
            StopWorker(name=stop, worker=Slot(slot), at=at),
            StartWorker(name=start, slot=slot, at=Gone(stop)),
        ]
        at = After(start)
    return tuple(steps)


def _to_zero(outline: Outline, up: list[int]) -> tuple[Step, ...]:
    kills = [KillWorker(name=named("s", outline, i), worker=Slot(slot)) for i, slot in enumerate(up, start=1)]
    orphan = Submit(name=named("r", outline, len(up) + 1), max_tokens=8)
    starts = [
        StartWorker(name=named("s", outline, len(up) + 1 + i), slot=slot, at=Gone(kills[-1].name), skew_ms=100)
        for i, slot in enumerate(up, start=1)
    ]
    return (*kills, orphan, *starts)


def _scaled_to_zero(outline: Outline, up: list[int]) -> tuple[Step, ...]:
    """Asked for once no worker has been listed for a while: that is no failure of the service."""
    stops = [StopWorker(name=named("s", outline, i), worker=Slot(slot)) for i, slot in enumerate(up, start=1)]
    orphan = named("r", outline, len(up) + 1)
    starts = [
        StartWorker(name=named("s", outline, len(up) + 1 + i), slot=slot, at=End(orphan))
        for i, slot in enumerate(up, start=1)
    ]
    return (*stops, Submit(name=orphan, max_tokens=8, at=Gone(stops[-1].name), skew_ms=UNLISTED_MS), *starts)


def gates(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A frontend dies or is stopped; one that was is started again. An only one is back as soon as it is gone."""
    down = [place for place, is_up in outline.gates.items() if not is_up]
    if down:
        return st.sampled_from(down).map(lambda place: (StartFrontend(name=named("s", outline), frontend=place),))
    return st.tuples(
        st.sampled_from(list(outline.gates)), st.sampled_from((KillFrontend, StopFrontend)),
        moments(outline, RACED_TOKENS),
    ).map(lambda drawn: _gate(outline, *drawn))  # fmt: skip


def _gate(outline: Outline, place: int, ending: type[KillFrontend | StopFrontend], at: Anchor) -> tuple[Step, ...]:
    """One that is asked to stop has a stream for which it lives on a while."""
    submit = Submit(name=named("r", outline), max_tokens=LEFT_TOKENS, frontend=place)
    held = (submit,) if ending is StopFrontend else ()
    end = ending(name=named("s", outline, 1 + len(held)), frontend=place, at=Token(submit.name, 5) if held else at)
    back = StartFrontend(name=named("s", outline, 2 + len(held)), frontend=place, at=Gone(end.name))
    return (*held, end, back) if len(outline.gates) == 1 else (*held, end)
