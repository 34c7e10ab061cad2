"""The judge: invariants are folds over a history's events, and need nothing else.

    from ftmodel.invariants import judge
    judgement = judge(history.read(path))

`duty.py` says what is owed (must, may, must not), `ledger.py` folds what all invariants read, one module per subject
holds the invariants, `judge.py` puts them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ftmodel.history import Event
from ftmodel.invariants.base import Finding, Invariant
from ftmodel.invariants.cancellation import CancelAborts, OnlyCancelAborts, WorkStops
from ftmodel.invariants.cluster import ListConverges
from ftmodel.invariants.grammar import Grammar
from ftmodel.invariants.harness import FaultsVerified, LoadApplied, NothingLeftBehind, PatternsProven
from ftmodel.invariants.judge import Count, Judgement
from ftmodel.invariants.judge import Judge as _Judge
from ftmodel.invariants.migration import LoggedMigration, NotAfterCancel, WithinTheLimit
from ftmodel.invariants.requests import EveryRequestEnds, FailureIsNoSuccess, MustComplete, NoHang
from ftmodel.invariants.resources import GaugesReturn, NoOrphan, NoPanic
from ftmodel.invariants.tokens import CountIsExact, TextIsExact

__all__ = ["INVARIANTS", "Count", "Finding", "Invariant", "Judge", "Judgement", "judge"]

INVARIANTS: Final[tuple[type[Invariant], ...]] = (
    EveryRequestEnds,
    MustComplete,
    NoHang,
    Grammar,
    TextIsExact,
    CountIsExact,
    WithinTheLimit,
    NotAfterCancel,
    LoggedMigration,
    CancelAborts,
    OnlyCancelAborts,
    WorkStops,
    ListConverges,
    GaugesReturn,
    NoOrphan,
    NoPanic,
    FailureIsNoSuccess,
    FaultsVerified,
    PatternsProven,
    NothingLeftBehind,
    LoadApplied,
)
"""All invariants, in the order of the catalogue."""


class Judge(_Judge):
    """Judges by `INVARIANTS`, unless others are given."""

    def __init__(self, invariants: Sequence[type[Invariant]] = INVARIANTS) -> None:
        super().__init__(invariants)


def judge(events: Iterable[Event], invariants: Sequence[type[Invariant]] = INVARIANTS) -> Judgement:
    """Judge a whole history. Raises StoreError if it does not begin with the setting."""
    folding = Judge(invariants)
    for event in events:
        folding.feed(event)
    return folding.result()
