"""What befalls prefill workers, and requests while their prompts are read. Void where a cluster has none."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ftmodel.outline import Outline
from ftmodel.steps import (
    After,
    Anchor,
    Begun,
    Cancel,
    FreezeWorker,
    Gone,
    HolderOf,
    KillWorker,
    Sent,
    Slot,
    StartWorker,
    Step,
    StopWorker,
    Submit,
    ThawWorker,
    Token,
)

from .moments import moments, named

Draws = SearchStrategy[tuple[Step, ...]]

READ_MS = (0, 20, 100, 500, 2000)
"""How long after a prompt began to be read something befalls it."""
LONG_TOKENS = 600
UNTIL_TOKENS = 200


def prefills(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A request and what befalls it in its prefill; or a prefill worker is killed, stopped, frozen, or started."""
    if not outline.prefill_slots:
        return None
    up = [slot for slot, state in outline.prefill_slots.items() if state == "up"]
    down = [slot for slot, state in outline.prefill_slots.items() if state == "empty"]
    frozen = [slot for slot, state in outline.prefill_slots.items() if state == "frozen"]
    if frozen:
        thaw = ThawWorker(name=named("s", outline), worker=Slot(frozen[0], "prefill"))
        return st.just((thaw,))
    if down:
        start = StartWorker(name=named("s", outline), slot=down[0], role="prefill")
        return st.just((start,))
    return st.one_of(_befallen(outline), _befallen(outline), _befallen(outline), _hit(outline, up))


def _befallen(outline: Outline) -> Draws:
    """A request, and in its prefill, or just after it, its client leaves or one of its two workers dies or drains."""
    return st.tuples(
        st.sampled_from(("cancel", "kill-prefill", "kill-worker", "cancel", "stop-prefill", "cancel-late")),
        st.sampled_from(READ_MS), st.booleans(), st.sampled_from(list(outline.gates)),
    ).map(lambda drawn: _request(outline, *drawn))  # fmt: skip


def _request(outline: Outline, what: str, skew_ms: int, stream: bool, frontend: int) -> tuple[Step, ...]:
    request, name = named("r", outline), named("s", outline, 2)
    tokens = LONG_TOKENS if what.startswith("cancel") else UNTIL_TOKENS
    submit = Submit(name=request, stream=stream, max_tokens=tokens, frontend=frontend)
    begun = Begun(request)
    steps: dict[str, Step] = {
        "cancel": Cancel(name=name, request=request, at=begun, skew_ms=skew_ms),
        # As soon as the other worker has it, or the head of the answer is there: its first token is still to come.
        "cancel-late": Cancel(name=name, request=request, at=Token(request, 0) if stream else Sent(request)),
        "kill-prefill": KillWorker(name=name, worker=HolderOf(request, "prefill"), at=begun, skew_ms=skew_ms),
        "stop-prefill": StopWorker(name=name, worker=HolderOf(request, "prefill"), at=begun, skew_ms=skew_ms),
        "kill-worker": KillWorker(name=name, worker=HolderOf(request), at=begun, skew_ms=skew_ms),
    }
    back = StartWorker(name=named("s", outline, 3), slot=0, role="prefill", at=Gone(name))
    return (submit, steps[what], back) if what.endswith("prefill") else (submit, steps[what])


def _hit(outline: Outline, up: list[int]) -> Draws:
    """A prefill worker dies, drains, or is frozen for a while."""
    return st.tuples(
        st.sampled_from(up), st.sampled_from((KillWorker, FreezeWorker, StopWorker)), moments(outline, UNTIL_TOKENS),
        st.sampled_from((300, 1000, 2500)),
    ).map(lambda drawn: _hits(outline, *drawn))  # fmt: skip


def _hits(
    outline: Outline,
    slot: int,
    cls: type[KillWorker | FreezeWorker | StopWorker],
    at: Anchor,
    lasts_ms: int,
) -> tuple[Step, ...]:
    name, back = named("s", outline), named("s", outline, 2)
    hit = cls(name=name, worker=Slot(slot, "prefill"), at=at)
    if cls is FreezeWorker:
        return hit, ThawWorker(name=back, worker=Slot(slot, "prefill"), at=After(name), skew_ms=lasts_ms)
    return hit, StartWorker(name=back, slot=slot, role="prefill", at=Gone(name), skew_ms=lasts_ms)
