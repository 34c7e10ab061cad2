"""Defects that an outage of the control plane brings to light."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from planting import Base, Mutation, at, inserted

from ftmodel.history import Event, Exited, Listed
from ftmodel.invariants.outages import Outage, outages
from ftmodel.invariants.records import Incarnation


def _outlived(base: Base) -> Iterator[tuple[Outage, Incarnation]]:
    """Short outages, and an idle worker that lived through each."""
    for outage in outages(base.ledger):
        for worker in base.processes("worker"):
            idle = not any(g.begun[0].at.after_s > 1 for g in base.ledger.served.get(worker.title, {}).values())
            before = worker.started.at.surely_before(outage.began)
            if outage.longest_s < base.ledger.setting.promise.outage_s and idle and before:
                yield outage, worker


def _unlisted(events: list[Event], title: str, from_s: float) -> list[Event]:
    return [
        dataclasses.replace(e, titles=tuple(t for t in e.titles if t != title))
        if isinstance(e, Listed) and e.at.before_s >= from_s
        else e
        for e in events
    ]


def ended(base: Base) -> list[Event] | None:
    for outage, worker in _outlived(base):
        end_s = outage.back.after_s + 4
        exited = Exited(at=at(end_s), title=worker.title, code=0, signal=None)
        return inserted(_unlisted(base.events, worker.title, end_s + 8), exited)
    return None


def unlisted(base: Base) -> list[Event] | None:
    for outage, worker in _outlived(base):
        return _unlisted(base.events, worker.title, outage.began.before_s)
    return None


MUTATIONS = (
    Mutation("a short outage ends a worker", "C3/ended", ended),
    Mutation("a worker is not found again after an outage", "C3/unlisted", unlisted),
)
