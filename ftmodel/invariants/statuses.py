"""P2: the status tells the cause.

Who owns what. Of a request that is wrong: an answer in full is L2's (it must not complete), a failure without a form is
P1's, and its status is judged here. Of a request that is right: a status that tells of no capacity, or of a failure, is
L2's where the request must complete; where it may fail, what remains to be judged here is that its client is not blamed,
and that a service with no worker on its list does not say that it failed. Whether a wrong request made a worker unhealthy
is seen by C4 and C7, which judge every worker that no fault touched.

Left open: 404, 500 and 503 for a request whose workers have just died, for nothing is written down of that moment; and a
status that tells of load (429, 529) for a wrong request, which may be the first thing that a frontend looks at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ftmodel.invariants.base import Finding, Invariant
from ftmodel.invariants.duty import LIST_LAG_S, REFUSALS, known_and_untouched, may_stay_unplaced, surely_wrong
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.outages import upset
from ftmodel.invariants.records import GONE_AFTER_S, Request
from ftmodel.invariants.requests import course_of, outcome

REFUSED_WITH: Final = {
    "malformed-json": (400, 422),
    "unknown-model": (404,),
    "negative-max-tokens": (400, 422),
    "prompt-too-long": (400, 413, 422),
}
"""By what is wrong with a request: the statuses that say so."""
TOLD_BY_WORKERS: Final = ("prompt-too-long",)
"""What can be wrong with a request that its engine may be the first to see."""
FULL: Final = (429, 529)
"""Statuses of a service that has no capacity left."""


class StatusTellsCause(Invariant):
    """P2. Documented: what does not validate gets 400 and what is too long a 4xx before the stream opens (notes of 1.5).

    A model that is not known gets 404; 503 says that there is no usable service (fault-tolerance/request-rejection), 500
    is any other failure. The API is OpenAI's (components/frontend), in which 4xx means that the request was at fault.
    """

    id = "P2"
    sentence = "The status tells the cause: 4xx for a wrong request alone, 500 for an internal failure alone."
    slugs = frozenset(
        {"server-blamed", "wrong-refusal", "refused-in-stream", "unsteady", "client-blamed", "empty-list-500"}
    )

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each request that got a status."""
        refused: dict[tuple[str, str, bool], Request] = {}
        for request in ledger.requests.values():
            if request.status is None:
                continue
            if not request.sent.wrong:
                yield from self._right(ledger, request, request.status)
            elif not surely_wrong(ledger, request) or request.status in FULL:
                self.tally.unknown += 1
            elif request.status in REFUSED_WITH.get(request.sent.wrong, REFUSALS):
                self.tally.evaluated += 1
                yield from self._steady(ledger, request, refused)
            else:
                yield from self._wrong(ledger, request, request.status)

    def _wrong(self, ledger: Ledger, request: Request, status: int) -> Iterator[Finding]:
        """A wrong request that got a status which does not say so."""
        life, frontend = ledger.life(request), request.sent.frontend
        if status == 200:
            if request.error is not None and request.over is not None:
                self.tally.evaluated += 1
                words = f"was told in a stream with status 200 that it is wrong: {request.error}"
                yield self._finding("refused-in-stream", ledger, request, words)
            return
        served = known_and_untouched(ledger, frontend, request.sent.at, life.after_s)
        shaken = upset(ledger, life.before_s, life.after_s)
        if served is None or shaken or ledger.touched_from_s(frontend) <= life.after_s:
            self.tally.unknown += 1  # without a worker, or in a drain, that may be what the status tells
            return
        if request.sent.wrong in TOLD_BY_WORKERS and may_stay_unplaced(ledger, request):
            self.tally.unknown += 1  # it met a dead worker, and was not read by another
            return
        self.tally.evaluated += 1
        yield self._finding("server-blamed" if status >= 500 else "wrong-refusal", ledger, request, outcome(request))

    def _finding(self, slug: str, ledger: Ledger, request: Request, words: str) -> Finding:
        wrong = request.sent.wrong
        expected = " or ".join(map(str, REFUSED_WITH.get(wrong, REFUSALS)))
        message = f"{request.name} {words}, expected status {expected}: it is wrong ({wrong})"
        return self.finding(slug, request.name, message, *course_of(ledger, request))

    def _steady(
        self, ledger: Ledger, request: Request, refused: dict[tuple[str, str, bool], Request]
    ) -> Iterator[Finding]:
        """The same cause gives the same status."""
        sent = request.sent
        first = refused.setdefault((sent.wrong, sent.api, sent.stream), request)
        if first.status != request.status:
            message = (
                f"{request.name} got status {request.status}, expected {first.status} as for {first.name}: both are"
                f" wrong in the same way ({sent.wrong})"
            )
            yield self.finding(
                "unsteady", request.name, message, *course_of(ledger, first), *course_of(ledger, request)
            )

    def _right(self, ledger: Ledger, request: Request, status: int) -> Iterator[Finding]:
        if status in REFUSALS:
            if not _plain(request):
                self.tally.unknown += 1  # what it asks for may not be served here
                return
            self.tally.evaluated += 1
            message = f"{request.name} {outcome(request)}: expected no such status, for nothing is wrong with it"
            yield self.finding("client-blamed", request.name, message, *course_of(ledger, request))
        elif status == 500 and (polled := _empty_around(ledger, request)):
            self.tally.evaluated += 1
            message = f"{request.name} {outcome(request)}: expected 503, for its frontend listed no worker"
            yield self.finding("empty-list-500", request.name, message, polled, *course_of(ledger, request))
        else:
            self.tally.evaluated += status == 200


def _plain(request: Request) -> bool:
    """True if it asks for nothing that an engine need not have."""
    sent = request.sent
    return sent.n == 1 and not (sent.guided or sent.logprobs or sent.stop or sent.min_tokens)


def _empty_around(ledger: Ledger, request: Request) -> str:
    """Where it can be seen that the frontend had no worker, from well before the sending to the end; "" if it cannot."""
    view, life = ledger.views.get(request.sent.frontend), ledger.life(request)
    if view is None or request.over is None or ledger.touched_from_s(request.sent.frontend) <= life.after_s:
        return ""
    if upset(ledger, life.before_s, life.after_s):
        return ""  # while the control plane is out, the list is empty and requests are served
    early_s = request.sent.at.before_s - GONE_AFTER_S - LIST_LAG_S
    before = [poll for poll in range(len(view.titles)) if view.afters_s[poll] < early_s]
    after = view.since(life.after_s)
    if not before or not after:
        return ""
    polls = range(before[-1], after[0] + 1)
    if not all(view.clear[poll] and not view.titles[poll] for poll in polls):
        return ""
    return f"{request.sent.frontend}, {view.befores_s[polls[0]]:.3f}-{view.afters_s[polls[-1]]:.3f} s: lists nobody"
