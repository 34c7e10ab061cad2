"""Moments and subjects of steps, drawn from the outline: when something is done, and whom it hits."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ftmodel.outline import Outline
from ftmodel.steps import (
    LADDER_MS,
    After,
    Anchor,
    End,
    Heal,
    HolderOf,
    NotHolderOf,
    Now,
    Sent,
    Settle,
    Slot,
    Subject,
    Submit,
    Token,
)

RECENT = 3
"""Of the requests since the last settle the latest so many: they are most likely still under way."""


def named(letter: str, outline: Outline, number: int = 1) -> str:
    """The name of the step that comes next, or of the `number`-th that does: r for requests, s for all else."""
    return f"{letter}{outline.count + number}"


@st.composite
def hits(draw: st.DrawFn, outline: Outline, long_tokens: int) -> tuple[Subject, Anchor]:
    """Whom a fault hits, and when: subject and anchor are drawn together, for the best hit is at a request's token."""
    under_way = list(reversed(outline.open.values()))[:RECENT]
    whom = draw(st.sampled_from(("holder", "holder", "holder", "slot", "other"))) if under_way else "slot"
    if whom == "slot":
        blind: list[Subject] = [Slot(slot) for slot in outline.with_state("up")] or [Slot(1)]
        return draw(st.sampled_from(blind)), draw(moments(outline, long_tokens))
    submit = draw(st.sampled_from(under_way))
    subject = HolderOf(submit.name) if whom == "holder" else NotHolderOf(submit.name)
    return subject, draw(of(submit, long_tokens, early=False))


def of(submit: Submit, long_tokens: int, *, early: bool) -> SearchStrategy[Anchor]:
    """A moment of a request's life. Early: the long rest that an abort must cut short is still to come."""
    name, last = submit.name, submit.max_tokens
    if not submit.stream:
        return st.sampled_from((Sent(name), Sent(name), Sent(name), End(name)))
    middle = [k for k in (5, 17, 2, 1, 40) if k < last]
    edge = [0, last - 1, last] if last < long_tokens or not early else [0]
    anchors: list[Anchor] = [Token(name, k) for k in (*middle, *middle, *middle, *edge)]
    return st.sampled_from([*anchors, Sent(name), End(name)] if last < long_tokens else [*anchors, Sent(name)])


def moments(outline: Outline, long_tokens: int) -> SearchStrategy[Anchor]:
    """Now, mostly; or with or after something that the plan has."""
    choices: list[Anchor] = [Now(), Now(), Now(), *after(outline)]
    for submit in list(reversed(outline.open.values()))[:RECENT]:
        choices.append(Sent(submit.name))
        if submit.stream:
            choices += [Token(submit.name, k) for k in (5, 40) if k < submit.max_tokens]
        if submit.max_tokens < long_tokens:
            choices.append(End(submit.name))
    return st.sampled_from(choices)


def after(outline: Outline) -> list[Anchor]:
    """After the step before this one, if that is worth waiting for."""
    last = outline.last
    return [After(last.name)] if last is not None and not isinstance(last, Settle | Heal) else []


def skews(timeouts_ms: Sequence[int]) -> SearchStrategy[int]:
    """A delay after the moment."""
    return st.sampled_from((0, 0, *LADDER_MS, *timeouts_ms))
