"""Placement: M2 moved only for a cause, M3 nobody else where nobody may, M4 one worker at a time.

Who owns what, so that one defect is one finding. A beginning on a further worker while the first one surely still
generates is M4's, where the engine logs ids; any other without a cause is M2's; one beyond the limit is M1's, and of a
request that must not migrate at all M3's. A line on a migration that did not happen is M6's, one of a request that its
client had left M5's, and one of a request that then failed is told by L2.

A worker that is thawed reads late what was sent to it before: what it begins then says nothing of the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise
from typing import Final

from ftmodel.history import LogLine
from ftmodel.invariants.base import Finding, Invariant, said, when
from ftmodel.invariants.duty import most_moves, touchable
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.outages import upset
from ftmodel.invariants.records import Generation, Incarnation, Moves, Request
from ftmodel.invariants.requests import course_of

LEAST_OF_A_GENERATION = 0.5
"""A worker that had less than this share of the shortest time an answer takes has surely not generated all of it."""


def beginnings(ledger: Ledger, request: Request) -> list[LogLine]:
    """The lines that tell where it began, by their time; only those before its client left."""
    titles = ledger.generations.get(request.sent.id, {}).values()
    lines = (line for generation in titles for line in generation.begun)
    return sorted((line for line in lines if line.at.surely_before(request.left_at)), key=lambda line: line.at.before_s)


EXIT_LAG_S: Final = 1.0
"""A process that ends by itself closes its connections before its end can be seen, on a busy machine well before."""


def _was_touched(ledger: Ledger, title: str, until_s: float) -> bool:
    process = ledger.processes.get(title)
    lag_s = EXIT_LAG_S if process is not None and process.exited is not None else 0.0
    return process is None or process.exit_ordered or process.touched_from_s <= until_s + lag_s


def both_at_once(ledger: Ledger, request: Request) -> tuple[LogLine, LogLine] | None:
    """Where it began on two workers that generated for it at once, longer than an abort takes, both untouched."""
    if not ledger.setting.engine_ids or request.is_stalled:
        return None
    spans = [
        (generation.begun[0], generation.begun[0].at.after_s, _surely_until_s(ledger, title, generation))
        for title, generation in ledger.generations.get(request.sent.id, {}).items()
        if len(generation.begun) == len(generation.ends) == 1
    ]
    spans.sort(key=lambda span: span[1])
    for (first, _, first_until_s), (second, second_from_s, second_until_s) in combinations(spans, 2):
        if min(first_until_s, second_until_s) - second_from_s > ledger.setting.bounds.abort_bound_s:
            return first, second
    return None


def _surely_until_s(ledger: Ledger, title: str, generation: Generation) -> float:
    """Up to when it was surely generated for on an untouched worker."""
    return min(generation.ends[0].at.before_s, ledger.touched_from_s(title))


class OnlyForACause(Invariant):
    """M2. Documented: triggers are an unreachable worker, a lost connection, a worker shut down (request migration)."""

    id = "M2"
    sentence = "A request is moved to another worker only if the one that serves it was hit or asked to stop."
    needs = frozenset({"migrate"})
    slugs = frozenset({"without-cause"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each request that began more than once, or was said to be migrated and then left."""
        for request in ledger.requests.values():
            if request.erred is None and most_moves(ledger, request):  # else it is M3's
                yield from self._again(ledger, request)

    def _again(self, ledger: Ledger, request: Request) -> Iterator[Finding]:
        begun = beginnings(ledger, request)
        pairs = list(pairwise(begun))
        if request.closed is not None and begun:  # what was answered is M6's, what failed L2's
            migrating = ledger.moves.get(request.sent.id, Moves()).migrating
            early = (line for line in migrating if line.at.surely_before(request.left_at))
            pairs += [(begun[-1], line) for line in early if begun[-1].at.surely_before(line.at)]
        if not pairs or (both_at_once(ledger, request) and len(begun) > 1):
            return
        found = [pair for pair in pairs if not self._has_cause(ledger, request, *pair)]
        if found and any(self._is_doubtful(ledger, request, *pair) for pair in found):
            self.tally.unknown += 1
            return
        self.tally.evaluated += 1
        for first, then in found[:1]:
            words = "was migrated from" if then.meaning == "migrating" else f"began on {then.title} after"
            yield self.finding(
                "without-cause",
                request.name,
                f"{request.name} {words} {first.title}, which nothing had touched by then",
                *course_of(ledger, request),
                said(first),
                said(then),
            )

    def _has_cause(self, ledger: Ledger, request: Request, first: LogLine, then: LogLine) -> bool:
        """The worker was hit; or a prefill worker, for then what it has read does not come; or the frontend."""
        frontend_s = ledger.touched_from_s(request.sent.frontend)
        prefills = (process.title for process in touchable(ledger, request, ledger.prefill_workers))
        hit = any(_was_touched(ledger, title, then.at.after_s) for title in (first.title, *prefills))
        return hit or frontend_s <= then.at.after_s

    def _is_doubtful(self, ledger: Ledger, request: Request, first: LogLine, then: LogLine) -> bool:
        """The machine slept, or the second worker may have begun late what was sent to it first.

        So does one that is frozen, and one that is hit right then: it had been sent the request, lost its place in the
        lists, and its engine comes to it when the request has begun elsewhere.
        """
        bounds, from_s, to_s = ledger.setting.bounds, request.sent.at.before_s, then.at.after_s
        process = ledger.processes.get(then.title)
        frozen = process is None or process.frozen_in(from_s, to_s, bounds.abort_bound_s) or upset(ledger, from_s, to_s)
        slept = ledger.stalled_s(from_s, to_s) > bounds.stall_share * bounds.abort_bound_s
        late = to_s - first.at.before_s <= bounds.abort_bound_s and _was_touched(ledger, then.title, first.at.after_s)
        return frozen or slept or late or not first.at.surely_before(then.at)


class NobodyElse(Invariant):
    """M3. Documented: without a limit, for n above 1, for guided decoding and beyond the maximal length nothing migrates.

    The error that the client gets instead is judged by P1.
    """

    id = "M3"
    sentence = "A request that must not migrate is seen by no second worker, and has no whole answer once its own died."
    needs = frozenset({"migrate"})
    slugs = frozenset({"second-worker", "beyond-length", "answered"})
    rests_on = frozenset({"begun"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each request that must not migrate, and each that had grown too long for it."""
        for request in ledger.requests.values():
            begun = beginnings(ledger, request)
            if not begun:
                continue
            if most_moves(ledger, request) == 0:
                yield from self._never(ledger, request, begun)
            elif ledger.setting.promise.max_length and len(begun) > 1:
                yield from self._too_long(ledger, request, begun)

    def _never(self, ledger: Ledger, request: Request, begun: list[LogLine]) -> Iterator[Finding]:
        titles = {line.title for line in begun}
        if len(titles) > 1 and upset(ledger, request.sent.at.before_s, begun[-1].at.after_s):
            self.tally.unknown += 1  # what was sent over a service may come late, when it was sent elsewhere before
            return
        if len(titles) > 1:
            self.tally.evaluated += 1
            message = f"{request.name} must not migrate and began on {' and '.join(sorted(titles))}"
            yield self.finding("second-worker", request.name, message, *course_of(ledger, request))
            return
        worker = ledger.processes.get(begun[0].title)
        if worker is None or worker.touched_from_s > ledger.life(request).after_s:
            return
        cut = worker.died is not None and _died_too_soon(ledger, request, worker, begun[0])
        if not cut or not request.whole:
            self.tally.evaluated += 1
        elif self.proven(ledger, "begun"):
            self.tally.evaluated += 1
            died = f"{worker.title}, {when(worker.died)}: died" if worker.died else ""
            message = (
                f"{request.name} was answered in full, though {worker.title} alone had it and died too soon for that"
            )
            yield self.finding("answered", request.name, message, died, *course_of(ledger, request))

    def _too_long(self, ledger: Ledger, request: Request, begun: list[LogLine]) -> Iterator[Finding]:
        """Where the engine tells how long the prompt is that it is given: with all tokens that were generated before.

        What begins with none of them was no migration: a frozen worker reads late what another has long begun.
        """
        longest = ledger.setting.promise.max_length
        moved = [line for line in begun[1:] if line.title != begun[0].title and line.fields.get("position")]
        lengths = [(line, line.fields.get("prompt_tokens")) for line in moved]
        known = [(line, length) for line, length in lengths if isinstance(length, int)]
        self.tally.evaluated += bool(known)
        for line, length in known:
            if length > longest:
                message = (
                    f"{request.name} was migrated to {line.title} with {length} tokens, expected at most {longest}"
                )
                yield self.finding("beyond-length", request.name, message, said(line), *course_of(ledger, request))
                return


def _died_too_soon(ledger: Ledger, request: Request, worker: Incarnation, begun: LogLine) -> bool:
    """True if this worker surely died before it can have generated the whole answer."""
    died, sent = worker.died, request.sent
    lengths = all(choice.finish == "length" for choice in request.choices.values())
    if died is None or sent.stop or request.erred is not None or not lengths or request.sent.wrong:
        return False
    had_s = died.after_s - begun.at.before_s
    return had_s < LEAST_OF_A_GENERATION * sent.max_tokens * ledger.setting.pace_min_s


class OneAtATime(Invariant):
    """M4. A migration moves a request: the worker before is gone, or has been told to stop (request migration)."""

    id = "M4"
    sentence = "At most one worker generates for a request at a time."
    needs = frozenset({"engine ids"})
    slugs = frozenset({"two-at-once"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each request that began on more than one worker."""
        for request in ledger.requests.values():
            titles = ledger.generations.get(request.sent.id, {})
            begun = [generation for generation in titles.values() if generation.begun]
            if len(begun) < 2 or request.is_stalled:
                continue
            self.tally.evaluated += 1
            both = both_at_once(ledger, request)
            if both is not None:
                first, second = both
                bound_s = ledger.setting.bounds.abort_bound_s
                shaken = upset(ledger, request.sent.at.before_s, second.at.after_s)
                if shaken or ledger.stalled(second.at.before_s, bound_s):
                    self.tally.unknown += 1
                    continue
                message = (
                    f"{first.title} and {second.title} generated for {request.name} at once, for over {bound_s:g} s"
                )
                ends = (line for generation in begun for line in generation.begun + generation.ends)
                yield self.finding("two-at-once", request.name, message, *map(said, ends))
