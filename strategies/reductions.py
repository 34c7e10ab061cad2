"""Smaller plans than one that is given: any subsequence of a plan is a plan, and most values have a plainer one.

Hypothesis draws what is left out, mostly nothing, and shrinks towards what is left out most.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, given
from hypothesis import strategies as st

from ftmodel.steps import Plan, Step

KEPT = st.sampled_from((False, *(True,) * 15))
TRIES = 200
"""Plans that are drawn at most until one of them fails as the given one does."""


@st.composite
def reductions(draw: st.DrawFn, plan: Plan) -> Plan:
    """The plan with some of its steps, and with some of their values set back to the plainest."""
    kept = [draw(_plainer(step)) for step in plan.steps if draw(KEPT)]
    patience = draw(_perhaps(plan.patience, "short"))
    frontends = draw(_perhaps(plan.frontends, 1))
    workers = draw(_perhaps(plan.workers, min(2, plan.workers)))
    return dataclasses.replace(plan, patience=patience, frontends=frontends, workers=workers, steps=tuple(kept))


@st.composite
def _plainer(draw: st.DrawFn, step: Step) -> Step:
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(step):
        value = getattr(step, field.name)
        if field.default is not dataclasses.MISSING and value != field.default:
            changed[field.name] = draw(_perhaps(value, field.default))
    return dataclasses.replace(step, **changed)


def _perhaps(value: Any, plain: Any) -> st.SearchStrategy[Any]:
    """The value, mostly; or the plain one, towards which it shrinks."""
    return st.just(value) if value == plain else st.sampled_from((plain, *(value,) * 7))


def shrink(plan: Plan, play: Callable[[Plan], None], *, seed: int) -> None:
    """Play smaller and smaller plans, as long as they raise. Raises what the smallest raises; nothing if none did.

    `play` must raise for one kind of failure alone, and be the same each time.
    """

    @hypothesis.settings(
        max_examples=TRIES,
        phases=(Phase.generate, Phase.shrink),
        database=None,
        derandomize=False,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.seed(seed)
    @given(reductions(plan))
    def attempt(smaller: Plan) -> None:
        play(smaller)

    attempt()
