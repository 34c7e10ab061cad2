"""What befell requests of a disaggregated cluster in their phases: prefill, the way to the other worker, decode.

Each function says of one request whether the situation surely was.
"""

from __future__ import annotations

from collections.abc import Iterator

from ftmodel.history import Interval
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Request
from ftmodel.invariants.whereabouts import killed_at, placements


def _prefills(ledger: Ledger, request: Request) -> Iterator[tuple[str, Interval, Interval | None]]:
    """Of each prefill worker that began it: its title, when it last did, and when it had done, by its log."""
    for title, generation in ledger.prefilled.get(request.sent.id, {}).items():
        if generation.begun:
            begun = generation.begun[-1].at
            ends = (line.at for line in generation.ends + generation.finished if line.at.after_s >= begun.before_s)
            yield title, begun, min(ends, key=lambda at: at.after_s, default=None)


def _in_prefill(ledger: Ledger, request: Request, at: Interval) -> Iterator[str]:
    """The prefill workers that surely had it then and had not done; its client had no token."""
    if request.said and request.said[0][0] <= at.after_s:
        return
    for title, begun, done in _prefills(ledger, request):
        if begun.surely_before(at) and (done is None or at.surely_before(done)):
            yield title


def prefill_killed_in_prefill(ledger: Ledger, request: Request) -> bool:
    """A prefill worker was killed while it read its prompt."""
    for title, begun, done in _prefills(ledger, request):
        kill = killed_at(ledger.processes[title])
        over = request.over
        open_ = kill is not None and (over is None or over.after_s >= kill.before_s)
        if kill is not None and open_ and begun.surely_before(kill) and done is None:
            return True
    return False


def decode_killed_in_decode(ledger: Ledger, request: Request) -> bool:
    """In a disaggregated cluster, the worker that answered it was killed after its first token."""
    if not ledger.setting.prefill_workers or not request.said:
        return False
    first_s = request.said[0][0]
    return any(p.killed is not None and first_s < p.killed.before_s for p in placements(ledger, request))


def cancelled_in_prefill(ledger: Ledger, request: Request) -> bool:
    """Its client left while a prefill worker read its prompt."""
    return request.closed is not None and any(_in_prefill(ledger, request, request.closed.at))


def cancelled_before_decode(ledger: Ledger, request: Request) -> bool:
    """Its client left when its prompt had been read, and no token of the answer had come."""
    if request.closed is None or request.said or not request.sent.stream:
        return False
    close = request.closed.at
    return any(done is not None and done.surely_before(close) for _, _, done in _prefills(ledger, request))


def cancelled_in_decode(ledger: Ledger, request: Request) -> bool:
    """In a disaggregated cluster, its client left after the first token."""
    return bool(ledger.setting.prefill_workers and request.closed is not None and request.said)
