"""The harness: H1 to H4 are never violated; what they miss makes the verdict unknown."""

# ruff: noqa: ARG002  # a fold is given the ledger whether it needs it or not

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ftmodel.history import Event, FaultMade, LeftOver
from ftmodel.invariants.base import Finding, Invariant
from ftmodel.invariants.ledger import Ledger


class FaultsVerified(Invariant):
    """H1."""

    id = "H1"
    sentence = "Every fault that was made was verified: the process was seen gone, stopped or going on."
    kinds = frozenset({"fault"})

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Count a fault."""
        if isinstance(event, FaultMade):
            self.tally.evaluated += 1
            self.tally.unknown += not event.verified
        return ()


class PatternsProven(Invariant):
    """H2. Counts the log meanings that decisions of this example rested on; `doubts` names those never proven."""

    id = "H2"
    sentence = "Every log pattern on whose absence a decision rests was seen in a control run."
    at_any_end = True

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Count what was proven."""
        self.tally.evaluated += len(ledger.setting.proven)
        return ()


class NothingLeftBehind(Invariant):
    """H3."""

    id = "H3"
    sentence = "The tester leaves no process behind when it has closed the cluster."
    kinds = frozenset({"left-over", "mark"})

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Count the closing and what it left."""
        self.tally.unknown += isinstance(event, LeftOver) and event.of == "harness"
        self.tally.evaluated += getattr(event, "stage", "") == "closed"
        return ()


class LoadApplied(Invariant):
    """H4. An example whose requests got no answer of any kind shows nothing, nor one that never came to rest."""

    id = "H4"
    sentence = "Load was really applied: requests were answered, and the example came to rest."
    at_any_end = True

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Look for answers and for the rest."""
        self.tally.evaluated += 1
        self.tally.unknown += bool(_no_load(ledger)) + ("rest" not in ledger.marks)
        return ()


def _no_load(ledger: Ledger) -> str:
    asked = [request for request in ledger.requests.values() if request.closed is None]
    answered = any(request.begun or request.closed for request in ledger.requests.values())
    return f"none of {len(asked)} requests was answered" if asked and not answered else ""


def doubts(ledger: Ledger, invariants: Sequence[Invariant]) -> tuple[str, ...]:
    """Why the harness makes the verdict unknown, in words."""
    return tuple(_doubts(ledger, invariants))


def _doubts(ledger: Ledger, invariants: Sequence[Invariant]) -> Iterator[str]:
    for process in ledger.processes.values():
        for fault in process.faults:
            if not fault.verified:
                yield f"H1: {fault.fault} of {fault.title} was not verified"
    unproven: dict[str, list[str]] = {}
    for invariant in invariants:
        for meaning in invariant.tally.unproven:
            unproven.setdefault(meaning, []).append(invariant.id)
        if invariant.id == "H3" and invariant.tally.unknown:
            yield "H3: processes of the harness were left behind"
    for meaning, ids in sorted(unproven.items()):
        yield f"H2: no control run has seen the log pattern {meaning!r}, on which {', '.join(ids)} rests"
    if _no_load(ledger):
        yield f"H4: {_no_load(ledger)}"
    if "rest" not in ledger.marks:
        yield "H4: the example never came to rest"
