"""Outages of the services that a cluster stands on: when one began, when it was over, and whom it upset.

What an outage upsets is upset until `list_bound_s` after its end: until then processes reconnect, leases lapse that
could not lapse before, and lists come back. So long nothing is owed that rests on a service.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ftmodel.history import Interval
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import NEVER, Incarnation

CONTROL: Final = "etcd"
"""The service by which processes find each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A time in which a service was gone or frozen."""

    service: str
    title: str
    """The life of it that was hit."""
    fault: str
    began: Interval
    back: Interval
    """When it was seen to serve again; never, if it was not."""

    @property
    def longest_s(self) -> float:
        """How long it lasted at most."""
        return self.back.after_s - self.began.before_s

    @property
    def shortest_s(self) -> float:
        """How long it lasted at least."""
        return self.back.before_s - self.began.after_s


def name_of(process: Incarnation) -> str:
    """The service that a process is a life of."""
    return process.title.partition("-")[0]


def outages(ledger: Ledger) -> list[Outage]:
    """All outages, in the order in which they began. Valid for good at rest."""
    key = "outages"
    if ledger.settled and key in ledger.memo:
        known: list[Outage] = ledger.memo[key]
        return known
    found = sorted(_found(ledger), key=lambda outage: outage.began.before_s)
    if ledger.settled:
        ledger.memo[key] = found
    return found


def _found(ledger: Ledger) -> Iterator[Outage]:
    for process in ledger.services:
        ends: list[tuple[Interval, str]] = [
            (fault.at, fault.fault) for fault in process.faults if not fault.fault.startswith("thaw")
        ]
        if process.exited is not None and not process.faults:
            ends.append((process.exited.at, "its end"))
        for began, fault in ends:
            yield Outage(
                service=name_of(process), title=process.title, fault=fault, began=began,
                back=_back(ledger, process, fault, began),
            )  # fmt: skip


def _back(ledger: Ledger, process: Incarnation, fault: str, began: Interval) -> Interval:
    """The thaw of what was frozen, or when its next life served."""
    backs = [
        told.at
        for life in ledger.services
        if name_of(life) == name_of(process) and life is not process
        for told in life.told
        if told.at.after_s >= began.before_s
    ]
    if fault.startswith("freeze"):
        thaws = (made for made in process.faults if made.fault.startswith("thaw") and made.verified)
        backs += [thaw.at for thaw in thaws if thaw.at.after_s >= began.before_s]
    return min(backs, key=lambda at: at.after_s, default=NEVER)


def upset(ledger: Ledger, from_s: float, to_s: float, service: str = "") -> bool:
    """True if an outage of this service, or of any, or what follows an outage, could lie in [from_s, to_s]."""
    after_s = ledger.setting.bounds.list_bound_s
    return any(
        outage.began.before_s <= to_s and from_s <= outage.back.after_s + after_s
        for outage in outages(ledger)
        if service in ("", outage.service)
    )
