"""Aborts that nobody asked for: A2 no abort without a cancel, A4 a cancel concerns one request alone.

Who owns what. An abort of a request that nobody left is A4's where a cancel explains it: of another request on the same
worker, about that time, or of this one after its end. Any other is A2's, and so are two aborts of one request, ends
without a beginning and generations without an end. Where the answer failed and its client was told, the failure is L2's
or P1's, and one that ends too early as if it were whole is T2's: the frontend may have cancelled what was left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ftmodel.history import LogLine
from ftmodel.invariants.base import Finding, Invariant, said, when
from ftmodel.invariants.cancellation import deadline_s, left, may_be_dropped
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Generation, Request


class OnlyCancelAborts(Invariant):
    """A2. An abort belongs to a request that its client left and that began there; each generation has one end."""

    id = "A2"
    sentence = "Only a request that its client left is aborted, once, where it began; each beginning has one end."
    needs = frozenset({"engine ids"})
    slugs = frozenset({"uncancelled", "double", "unknown", "more-ended", "never-ended"})
    rests_on = frozenset({"begun", "ended"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge what each worker's log says of each request id."""
        for id_, titles in ledger.generations.items():
            for title, generation in titles.items():
                request = ledger.by_id.get(id_)
                name = request.name if request else id_
                found = self._judge(ledger, title, request, name, generation)
                self.tally.evaluated += bool(generation.ends)
                if found:
                    slug, message = found
                    lines = generation.begun + generation.ends
                    close = [left(request)] if request and request.closed else []
                    yield self.finding(slug, name, message, *map(said, lines), *close)

    def _judge(
        self, ledger: Ledger, title: str, request: Request | None, name: str, generation: Generation
    ) -> tuple[str, str] | None:
        begun, ends, aborted = len(generation.begun), generation.ends, generation.aborted
        if request is not None and any(disturbed(ledger, request, title, line) for line in aborted):
            return None  # A4's
        if aborted and not begun:
            known = self.proven(ledger, "begun")
            return ("unknown", f"{title} aborted {name}, which never began there") if known else None
        if len(aborted) > begun:
            return "double", f"{title} aborted {name} {len(aborted)} times, expected once"
        if request is not None and any(_uncancelled(ledger, request, title, line) for line in aborted):
            return "uncancelled", f"{title} aborted {name}, which its client had not left"
        if len(ends) > begun > 0 and not self._ran_on(ledger, request, generation):
            words = ", ".join(line.meaning for line in ends)
            return "more-ended", f"{title} began {name} {begun} times, but ended it {len(ends)} times: {words}"
        if request is None:
            return None
        if begun > len(ends) and self._abandoned(ledger, request, title):
            return "never-ended", f"{title} never ended {name}, though its client's connection had ended"
        return None

    def _ran_on(self, ledger: Ledger, request: Request | None, generation: Generation) -> bool:
        """An ordinary end too long after a cancel is A3's."""
        if request is None:
            return False
        return any(line.at.before_s > deadline_s(ledger, request) for line in generation.ended)

    def _abandoned(self, ledger: Ledger, request: Request, title: str) -> bool:
        over, bound_s = request.over, ledger.setting.bounds.abort_bound_s
        if request.closed is not None or request.erred or over is None or not ledger.untouched(title):
            return False
        if ledger.rest_s <= over.after_s + bound_s or ledger.stalled(over.after_s, bound_s):
            self.tally.unknown += 1
            return False
        if not self.proven(ledger, "ended"):
            return False
        self.tally.evaluated += 1
        return True


def _uncancelled(ledger: Ledger, request: Request, title: str, line: LogLine) -> bool:
    """True if nobody had left by then and neither worker nor frontend was touched (a drain past its grace aborts too).

    A client that left right after may have missed that its answer had failed.
    """
    if ledger.touched_from_s(title) <= line.at.after_s or may_be_dropped(ledger, request, line.at.after_s):
        return False
    return line.at.after_s + ledger.setting.bounds.abort_bound_s < request.left_at.before_s


class OthersGoOn(Invariant):
    """A4. Documented (fault-tolerance/request-cancellation): a cancel is propagated to the request's own contexts.

    A request that its client left twice, or after the end, is over: its generation has the ordinary end that it had.
    """

    id = "A4"
    sentence = "Cancelling after the end changes nothing, and the other requests on that worker go on."
    needs = frozenset({"engine ids"})
    slugs = frozenset({"after-end", "neighbour"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each request that was left after its end, and each that was beside a cancelled one."""
        for id_, titles in ledger.generations.items():
            request = ledger.by_id.get(id_)
            if request is None:
                continue
            for title, generation in titles.items():
                beside = next(_cancels_beside(ledger, request, title, generation), None)
                self.tally.evaluated += request.closed_after_end or beside is not None
                for line in generation.aborted:
                    yield from self._judge(ledger, request, title, line)

    def _judge(self, ledger: Ledger, request: Request, title: str, line: LogLine) -> Iterable[Finding]:
        cause = disturbed(ledger, request, title, line)
        if cause is request and request.over is not None:
            message = f"{title} aborted {request.name}, which its client left only after the end"
            yield self.finding("after-end", request.name, message, f"client, {when(request.over)}: the end", said(line))
        elif cause is not None:
            message = f"{title} aborted {request.name}, which its client had not left, when {cause.name} was cancelled"
            yield self.finding("neighbour", request.name, message, left(cause), said(line))


def disturbed(ledger: Ledger, request: Request, title: str, line: LogLine) -> Request | None:
    """The request whose cancel explains this abort, which nobody asked for: itself, left after its end, or another."""
    if not _uncancelled(ledger, request, title, line):
        return None
    if request.closed_after_end and request.over is not None and not line.at.surely_before(request.over):
        return request
    generation = ledger.generations[request.sent.id][title]
    for other in _cancels_beside(ledger, request, title, generation):
        if line.at.could_overlap(other.left_at.before_s, deadline_s(ledger, other)):
            return other
    return None


def _cancels_beside(ledger: Ledger, request: Request, title: str, generation: Generation) -> Iterator[Request]:
    """The other requests that clients left while they and this one were on this worker."""
    if not generation.begun:
        return
    over_s = ledger.life(request).after_s
    for id_, theirs in ledger.served.get(title, {}).items():
        other = ledger.by_id.get(id_)
        if other is None or other is request or other.closed is None or not theirs.begun:
            continue
        beside = generation.begun[0].at.surely_before(other.left_at) and other.left_at.before_s <= over_s
        if beside and theirs.begun[0].at.surely_before(other.left_at):
            yield other
