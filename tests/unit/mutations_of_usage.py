"""Defects planted into what processes use: one thing piles up in one process, request by request."""

from __future__ import annotations

from typing import Final

from planting import Base, Mutate, Mutation, at, inserted

from ftmodel.history import Event, Usage
from ftmodel.invariants.growth import HANDLES, ROLES

SAMPLES: Final = 100
EACH: Final = 10
"""Requests between two samples."""
PLAIN: Final = {"memory": 90 << 20, "fds": 40, "sockets": 9, "threads": 20, "children": 0}


def usages(title: str, rest_s: float, what: str, per_request: float) -> list[Usage]:
    """So many samples before the rest, of which this rises."""
    return [
        Usage(
            at=at(rest_s - 0.2 + n / 1000), title=title, requests=EACH * n,
            **{**PLAIN, what: PLAIN[what] + round(per_request * EACH * n)},
        )
        for n in range(SAMPLES)
    ]  # fmt: skip


def grows(role: str, what: str, per_request: float) -> Mutate:
    def mutate(base: Base) -> list[Event] | None:
        for process in base.processes(role):
            if not process.exited and not process.faults:
                return inserted(base.events, *usages(process.title, base.rest_s, what, per_request))
        return None

    return mutate


MUTATIONS = (
    *(Mutation(f"{what} of a {role} pile up", f"R3/{role}-{what}", grows(role, what, 0.5)) for role in ROLES for what in HANDLES),
    *(Mutation(f"the memory of a {role} grows", f"R4/{role}-memory", grows(role, "memory", 50_000)) for role in ROLES),
)  # fmt: skip
