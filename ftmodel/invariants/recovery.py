"""T5: how long a stream that must go on stands still over a fault."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from ftmodel.history import Interval
from ftmodel.invariants.base import Finding, Invariant, when
from ftmodel.invariants.duty import completion
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Request
from ftmodel.invariants.requests import course_of


class RecoversInTime(Invariant):
    """T5. Each worker that was touched can cost one detection, and then the request is placed anew.

    Waits longer than `hang_bound_s` are L3's, and what was frozen is: a stream on it waits for the thaw.
    """

    id = "T5"
    sentence = (
        "Over a fault the gap between two tokens stays within detect_bound_s for each touched worker, and one more."
    )
    needs = frozenset({"migrate"})
    slugs = frozenset({"slow-recovery"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each stream that must complete, was on a worker that was touched, and completed."""
        for request in ledger.requests.values():
            if not request.sent.stream or not request.whole or completion(ledger, request).value != "must":
                continue
            touched_s = _touched_s(ledger, request)
            if touched_s is None or self._is_excused(ledger, request):
                continue
            self.tally.evaluated += 1
            for from_s, to_s in _gaps(request, touched_s):
                yield from self._judge(ledger, request, from_s, to_s)

    def _is_excused(self, ledger: Ledger, request: Request) -> bool:
        life, bound_s = ledger.life(request), ledger.setting.bounds.detect_bound_s
        t = (ledger.processes[title] for title in completion(ledger, request).t)
        frozen = any(process.frozen_in(life.before_s, life.after_s, bound_s) for process in t)
        return frozen or ledger.crowd(request) > ledger.setting.slots

    def _judge(self, ledger: Ledger, request: Request, from_s: float, to_s: float) -> Iterator[Finding]:
        bounds, t = ledger.setting.bounds, completion(ledger, request).t
        bound_s = (len(t) + 1) * (bounds.detect_bound_s + ledger.reading_s(request))
        wait_s = to_s - from_s - ledger.stalled_s(from_s, to_s) - _paused_s(request, from_s, to_s)
        if not bound_s < wait_s <= bounds.hang_bound_s:
            return
        if ledger.stalled(from_s, bound_s) or _is_queueing(ledger, from_s, to_s):
            self.tally.unknown += 1
            return
        yield self.finding(
            "slow-recovery",
            request.name,
            f"{request.name} waited {wait_s:.1f} s for its next token over a fault, expected at most {bound_s:.1f} s:"
            f" {len(t)} of its workers were touched",
            f"client, {when(Interval(from_s, from_s))}: last token before the wait",
            f"client, {when(Interval(to_s, to_s))}: next token",
            *course_of(ledger, request),
        )


def _touched_s(ledger: Ledger, request: Request) -> float | None:
    """The first moment when a worker on which it had begun was touched; None if none was before its end."""
    titles = [title for title, g in ledger.generations.get(request.sent.id, {}).items() if g.begun]
    first_s = min((ledger.touched_from_s(title) for title in titles), default=float("inf"))
    return first_s if first_s <= ledger.life(request).after_s else None


def _gaps(request: Request, touched_s: float) -> Iterator[tuple[float, float]]:
    """From one piece of its text to the next, where the touch came before the next."""
    for (from_s, _), (to_s, _) in pairwise(request.said):
        if to_s >= touched_s:
            yield from_s, to_s


def _paused_s(request: Request, from_s: float, to_s: float) -> float:
    """How long of that time its client read nothing, by its own will."""
    return sum(max(0.0, min(pause.after_s, to_s) - max(pause.before_s, from_s)) for pause in request.pauses)


def _is_queueing(ledger: Ledger, from_s: float, to_s: float) -> bool:
    """Some engine was seen to let requests wait meanwhile: then the gap may be of that."""
    return any(
        sample.values.get("waiting", 0.0) > 0 and sample.at.could_overlap(from_s, to_s)
        for worker in ledger.workers
        for sample in worker.running
    )
