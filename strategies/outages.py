"""Outages of what a cluster stands on: a service is killed, stopped or frozen, and is back after a while."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ftmodel.outline import Outline
from ftmodel.steps import After, Anchor, Gone, OnService, ServiceName, Step

from .moments import moments, named

Draws = SearchStrategy[tuple[Step, ...]]

OUTAGES_MS = (1000, 0, 300, 2500)
"""How long an outage lasts; and around a lease and the other timeouts."""
UNTIL_TOKENS = 200


def outages(outline: Outline, timeouts_ms: Sequence[int]) -> Draws | None:
    """A service goes and comes back. Void where there is none."""
    up: list[ServiceName] = [name for name, state in outline.services.items() if state == "up"]
    if not up:
        return None
    return st.tuples(
        st.sampled_from(up), st.sampled_from(("kill", "freeze", "stop")),
        st.sampled_from((*OUTAGES_MS, *OUTAGES_MS, *timeouts_ms)), moments(outline, UNTIL_TOKENS),
    ).map(lambda drawn: _outage(outline, *drawn))  # fmt: skip


def _outage(outline: Outline, service: ServiceName, how: str, lasts_ms: int, at: Anchor) -> tuple[Step, ...]:
    begin, end = named("s", outline), named("s", outline, 2)
    back = "thaw" if how == "freeze" else "start"
    since: Anchor = After(begin) if how == "freeze" else Gone(begin)
    return (
        OnService(name=begin, kind=f"{how}-{service}", at=at),  # type: ignore[arg-type]
        OnService(name=end, kind=f"{back}-{service}", at=since, skew_ms=lasts_ms),  # type: ignore[arg-type]
    )
