"""Compared runs: what a plan shows when it is run again with something changed.

X1 the plan without its faults completes every request, X2 one more worker turns no pass into a failure. In such a run
these own the told failures of the requests that they judge, and L2 is silent on them (`is_compared`).
"""

from __future__ import annotations

from collections.abc import Iterable

from ftmodel.invariants.base import Finding, Invariant
from ftmodel.invariants.duty import REFUSALS, completion
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Request
from ftmodel.invariants.requests import OVERLOADED, course_of, failure, is_compared, outcome


class CompletesWithoutFaults(Invariant):
    """X1. Without its faults and cancels, a plan is plain traffic."""

    id = "X1"
    sentence = "The plan without its faults completes every request."
    needs = frozenset({"a compared run (ftmodel compare EXAMPLE)"})
    slugs = frozenset({"failed"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each request that is right and that nobody left; one may be refused because all were busy."""
        if ledger.setting.variant != "without-faults":
            return
        for request in ledger.requests.values():
            if _is_plain(request) and is_compared(ledger.setting, request):
                self.tally.evaluated += 1
                if failure(request) is not None:
                    message = f"{request.name} {outcome(request)}, expected completion: nothing was done to the cluster"
                    yield self.finding("failed", request.name, message, *course_of(ledger, request))


def _is_plain(request: Request) -> bool:
    right = not request.sent.wrong and request.status not in (*REFUSALS, *OVERLOADED)
    return right and request.ended is not None and request.erred is None


class OneMoreWorker(Invariant):
    """X2. Only what must complete in this run too is held against it: faults may hit others than before."""

    id = "X2"
    sentence = "One more worker turns no pass into a failure."
    needs = frozenset({"a compared run (ftmodel compare EXAMPLE)"})
    slugs = frozenset({"pass-became-failure"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each request that completed every time the plan was run as drawn."""
        if ledger.setting.variant != "one-more-worker":
            return
        for request in ledger.requests.values():
            if not is_compared(ledger.setting, request) or request.ended is None:
                continue
            owed = completion(ledger, request)
            if owed.value != "must":
                continue
            self.tally.evaluated += 1
            if failure(request) is not None:
                message = f"{request.name} {outcome(request)} with one more worker, expected completion as without it"
                yield self.finding("pass-became-failure", request.name, message, *course_of(ledger, request))
