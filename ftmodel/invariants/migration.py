"""Migration: M1 not beyond the limit, M5 never after a cancel, M6 logged, and only when it happened.

A further worker for a request that must not migrate at all is M3's (`placement.py`), not M1's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ftmodel.history import Interval, LogLine
from ftmodel.invariants.base import Finding, Invariant, read, said, when
from ftmodel.invariants.duty import most_moves, touchable
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.outages import upset
from ftmodel.invariants.placement import beginnings
from ftmodel.invariants.records import Moves, Request
from ftmodel.invariants.requests import course_of


def redispatches(ledger: Ledger, request: Request) -> int:
    """How often the request surely was sent to a further worker.

    By the workers' logs: the incarnations on which it began, less one. By the frontend's: its lines on migrating and
    retrying; it writes one when an attempt failed, whether or not another follows, so the last line of a request that
    was not answered proves none.
    """
    titles = ledger.generations.get(request.sent.id, {})
    begun = sum(bool(generation.begun) for generation in titles.values())
    lines = len(ledger.moves.get(request.sent.id, Moves()).lines)
    return max(begun - 1, lines if request.told_all else lines - 1, 0)


class WithinTheLimit(Invariant):
    """M1. Documented: not above the limit; the counter counts attempts, retries of a new request too."""

    id = "M1"
    sentence = "A request is migrated and retried at most as often as the limit allows, and so the counter says."
    needs = frozenset({"migrate"})
    slugs = frozenset({"over-limit", "counter"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each request, then each frontend's counter."""
        for request in ledger.requests.values():
            self.tally.evaluated += 1
            moved, limit = redispatches(ledger, request), most_moves(ledger, request)
            if moved > limit and not (limit == 0 and len({line.title for line in beginnings(ledger, request)}) > 1):
                message = f"{request.name} was sent to a further worker {moved} times, expected at most {limit}"
                lines = ledger.moves.get(request.sent.id, Moves()).lines
                yield self.finding("over-limit", request.name, message, *course_of(ledger, request), *map(said, lines))
        for process in ledger.frontends:
            yield from self._counter(ledger, process.title)

    def _counter(self, ledger: Ledger, frontend: str) -> Iterator[Finding]:
        counted = ledger.counted(frontend, "migrations")
        if counted is None:
            return
        self.tally.evaluated += 1
        mine = [request for request in ledger.requests.values() if request.sent.frontend == frontend]
        # An attempt that fails is counted even if the limit forbids another: one more than the limit, unless answered.
        most = sum(most_moves(ledger, request) + (not request.told_all) for request in mine)
        if counted > most:
            yield self.finding(
                "counter",
                frontend,
                f"{frontend} counted {counted:g} migrations, expected at most {most} for {len(mine)} requests",
                read(ledger.last_sample[frontend], "migrations"),
            )


class NotAfterCancel(Invariant):
    """M5. Documented: a cancelled request is not migrated. A frozen worker may read it only after its thaw."""

    id = "M5"
    sentence = "A request that its client has left begins nowhere any more and is not migrated."
    slugs = frozenset({"begun-after-cancel", "migrating-after-cancel"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each cancelled request."""
        for request in ledger.requests.values():
            if request.closed is None:
                continue
            self.tally.evaluated += 1
            close = request.closed.at
            left = f"client, {when(close)}: left {request.name}"
            for slug, line in self._late(ledger, request, close):
                late_s = line.at.before_s - close.after_s
                words = "began on" if slug == "begun-after-cancel" else "was migrated by"
                message = f"{request.name} {words} {line.title} {late_s:.1f} s after its client had left"
                if upset(ledger, close.before_s, line.at.after_s) or ledger.stalled(
                    close.after_s, ledger.setting.bounds.abort_bound_s
                ):
                    self.tally.unknown += 1
                else:
                    yield self.finding(slug, request.name, message, left, said(line))

    def _late(self, ledger: Ledger, request: Request, close: Interval) -> Iterator[tuple[str, LogLine]]:
        bound_s = ledger.setting.bounds.abort_bound_s
        id_ = request.sent.id
        for title, generation in (*ledger.prefilled.get(id_, {}).items(), *ledger.generations.get(id_, {}).items()):
            process = ledger.processes.get(title)
            for line in generation.begun:
                frozen = process is None or process.frozen_in(close.before_s, line.at.after_s, bound_s)
                if line.at.before_s > close.after_s + bound_s and not frozen:
                    yield "begun-after-cancel", line
        for line in ledger.moves.get(request.sent.id, Moves()).migrating:
            if line.at.before_s > close.after_s + bound_s:
                yield "migrating-after-cancel", line


class LoggedMigration(Invariant):
    """M6. A migration is logged by the frontend, and only a migration is."""

    id = "M6"
    sentence = "A migration is logged by the frontend, and only then."
    needs = frozenset({"migrate"})
    slugs = frozenset({"unlogged", "without-migration"})
    rests_on = frozenset({"begun", "migrating", "retrying"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Hold the workers' logs against the frontend's."""
        for request in ledger.requests.values():
            yield from self._unlogged(ledger, request)
            yield from self._without(ledger, request)

    def _unlogged(self, ledger: Ledger, request: Request) -> Iterator[Finding]:
        titles = ledger.generations.get(request.sent.id, {})
        begun = sorted((g.begun[0] for g in titles.values() if g.begun), key=lambda line: line.at.before_s)
        if len(begun) < 2:
            return
        if ledger.moves.get(request.sent.id, Moves()).lines:
            self.tally.evaluated += 1
            return
        killed = ledger.touched_from_s(request.sent.frontend) <= ledger.life(request).after_s
        shaken = upset(ledger, request.sent.at.before_s, begun[-1].at.after_s)
        if ledger.anonymous_moves.get(request.sent.frontend) or killed or shaken:
            self.tally.unknown += 1  # a line without an id may be this one's, and one that was killed wrote no more
            return
        answering = request.begun is not None and request.begun.at.surely_before(begun[1].at)
        if not self.proven(ledger, "migrating", *(() if answering else ("retrying",))):
            return
        self.tally.evaluated += 1
        words = " and ".join(line.title for line in begun)
        message = f"{request.name} began on {words}, but {request.sent.frontend} logged no migration of it"
        yield self.finding("unlogged", request.name, message, *map(said, begun))

    def _without(self, ledger: Ledger, request: Request) -> Iterator[Finding]:
        migrating = ledger.moves.get(request.sent.id, Moves()).migrating
        if not migrating or not request.whole or not self.proven(ledger, "begun"):
            return
        self.tally.evaluated += 1
        begun = [line for g in ledger.generations.get(request.sent.id, {}).values() for line in g.begun]
        first = migrating[0]
        if upset(ledger, request.sent.at.before_s, first.at.after_s):
            return
        if not begun or any(not line.at.surely_before(first.at) for line in begun):
            return
        hit = any(ledger.touched_from_s(line.title) <= ledger.life(request).after_s for line in begun)
        if hit or touchable(ledger, request, ledger.prefill_workers):
            return
        message = f"{first.title} logged a migration of {request.name}, which stayed on {begun[-1].title} to its end"
        yield self.finding("without-migration", request.name, message, said(first), *map(said, begun))
