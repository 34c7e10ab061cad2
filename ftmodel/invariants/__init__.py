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
from ftmodel.invariants.agreement import TopologiesAgree
from ftmodel.invariants.answers import NoCrossTalk, OneIdentity, UsageIsTrue
from ftmodel.invariants.base import Finding, Invariant
from ftmodel.invariants.cancellation import CancelAborts, WorkStops
from ftmodel.invariants.cluster import ListConverges, OneOwner, WorkersJoin
from ftmodel.invariants.compared import CompletesWithoutFaults, OneMoreWorker
from ftmodel.invariants.control import OutageIsOutlived
from ftmodel.invariants.counters import CancelsByKind, CountedAsSeen, CountersRise
from ftmodel.invariants.grammar import Grammar
from ftmodel.invariants.harness import FaultsVerified, LoadApplied, NothingLeftBehind, PatternsProven
from ftmodel.invariants.health import HealthIsTrue
from ftmodel.invariants.judge import Count, Judgement
from ftmodel.invariants.judge import Judge as _Judge
from ftmodel.invariants.migration import LoggedMigration, NotAfterCancel, WithinTheLimit
from ftmodel.invariants.placement import NobodyElse, OneAtATime, OnlyForACause
from ftmodel.invariants.recovery import RecoversInTime
from ftmodel.invariants.requests import EveryRequestEnds, FailureIsNoSuccess, MustComplete, NoHang
from ftmodel.invariants.resources import GaugesReturn, MemoryStays, NoOrphan, NoPanic, RouterForgets
from ftmodel.invariants.routing import DrainsInOrder, NothingToTheDead
from ftmodel.invariants.statuses import StatusTellsCause
from ftmodel.invariants.stops import StopsHold
from ftmodel.invariants.tokens import CountIsExact, TextIsExact
from ftmodel.invariants.unasked import OnlyCancelAborts, OthersGoOn

__all__ = ["INVARIANTS", "Count", "Finding", "Invariant", "Judge", "Judgement", "judge"]

INVARIANTS: Final[tuple[type[Invariant], ...]] = (
    EveryRequestEnds,
    MustComplete,
    NoHang,
    Grammar,
    StatusTellsCause,
    OneIdentity,
    NoCrossTalk,
    UsageIsTrue,
    TextIsExact,
    CountIsExact,
    StopsHold,
    RecoversInTime,
    WithinTheLimit,
    OnlyForACause,
    NobodyElse,
    OneAtATime,
    NotAfterCancel,
    LoggedMigration,
    CancelAborts,
    OnlyCancelAborts,
    WorkStops,
    OthersGoOn,
    CancelsByKind,
    NothingToTheDead,
    WorkersJoin,
    OutageIsOutlived,
    HealthIsTrue,
    DrainsInOrder,
    OneOwner,
    ListConverges,
    GaugesReturn,
    RouterForgets,
    NoOrphan,
    MemoryStays,
    NoPanic,
    CountedAsSeen,
    FailureIsNoSuccess,
    CountersRise,
    CompletesWithoutFaults,
    OneMoreWorker,
    TopologiesAgree,
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
