"""Cancellation: A1 a client's leaving is signalled and aborts, A3 the engine stops working.

One law stands behind it, per worker and request id: begun = ended + aborted + (1 if the worker died with it open).

Who owns what. After a cancel that must abort: no end at all is A1/missing, an abort too late is A1/late, an ordinary
end too late is A3/ran-on. Any other generation of a left request that never ends, and a gauge that goes on counting a
request whose abort was logged, are A3/still-running; a gauge that had come down in between is R1's. Ends of requests
that nobody left are A2's and A4's (`unasked.py`). The frontend's counter is A1's in total, A5's by kind of request.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from ftmodel.history import Sample
from ftmodel.invariants.base import Finding, Invariant, read, said, when
from ftmodel.invariants.duty import abort, cancel_duty, titles_of
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Generation, Incarnation, Request
from ftmodel.invariants.requests import failure

FOREIGN_ID_S = 30.0
"""A request that is none of the plan's (a readiness probe) is taken to be over after this time."""


def must_aborts(ledger: Ledger) -> list[tuple[Request, str]]:
    """Every cancel that owes an abort, and the worker that owes it. Only valid at rest."""
    if "must aborts" not in ledger.memo:
        ledger.memo["must aborts"] = [
            (request, title)
            for request in ledger.requests.values()
            if request.closed is not None
            for title in titles_of(ledger, request)
            if abort(ledger, request, title).value == "must"
        ]
    known: list[tuple[Request, str]] = ledger.memo["must aborts"]
    return known


def deadline_s(ledger: Ledger, request: Request) -> float:
    """When a left request's work must have stopped; never, if nobody left it."""
    return request.left_at.after_s + ledger.setting.bounds.abort_bound_s


def left(request: Request) -> str:
    """The client's leaving, as evidence."""
    how = request.closed.how if request.closed else "never"
    return f"client, {when(request.left_at)}: left {request.name} ({how})"


def open_to_question(ledger: Ledger, request: Request) -> bool:
    """True if the bound had not run out at rest, or the tester slept through too much of it."""
    bound_s = ledger.setting.bounds.abort_bound_s
    deadline = deadline_s(ledger, request)
    return ledger.rest_s <= deadline or ledger.stalled(deadline - bound_s, bound_s)


def counted_cancels(ledger: Ledger, requests: list[Request]) -> range:
    """What a frontend may count of these as cancelled: each id once, so [must, must + may]. A cut one may count too."""
    cancels = [request for request in requests if request.closed is not None]
    cuts = sum(request.ended is not None and request.ended.how == "cut" for request in requests)
    musts = sum(cancel_duty(ledger, request).value == "must" for request in cancels)
    return range(musts, len(cancels) + cuts + 1)


class CancelAborts(Invariant):
    """A1. Documented: a closed connection is signalled once and counted once; the engine must free what it held."""

    id = "A1"
    sentence = "A client that leaves is signalled to the worker and its request aborted there, in time."
    slugs = frozenset({"missing", "late", "no-kill", "counter", "counter-low", "counter-high"})
    rests_on = frozenset({"aborted", "kill"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each cancel at its worker, then what the frontends logged and counted."""
        if ledger.setting.engine_ids:
            for request, title in must_aborts(ledger):
                yield from self._aborted(ledger, request, title)
        else:
            for worker in ledger.all_workers:
                yield from self._worker_counter(ledger, worker)
        for frontend in ledger.frontends:
            if not frontend.touches:
                yield from self._kills(ledger, frontend.title)
                yield from self._frontend_counter(ledger, frontend.title)

    def _aborted(self, ledger: Ledger, request: Request, title: str) -> Iterator[Finding]:
        generation = ledger.placed(request.sent.id, title)[title]
        bound_s, deadline = ledger.setting.bounds.abort_bound_s, deadline_s(ledger, request)
        if generation.aborted:
            first = generation.aborted[0]
            late_s = first.at.before_s - deadline
            if late_s > 0 and ledger.stalled(deadline - bound_s, bound_s):
                self.tally.unknown += 1
                return
            self.tally.evaluated += 1
            if late_s > 0:
                message = f"{title} aborted {request.name} {late_s + bound_s:.1f} s after its client left"
                yield self.finding(
                    "late", request.name, f"{message}, expected within {bound_s:g} s", left(request), said(first)
                )
        elif generation.ends or open_to_question(ledger, request):
            self.tally.unknown += 1  # it ended otherwise: too late is A3's
        elif self.proven(ledger, "aborted"):
            self.tally.evaluated += 1
            message = f"{title} never aborted {request.name}, expected within {bound_s:g} s after its client left"
            yield self.finding("missing", request.name, message, left(request), *map(said, generation.begun))

    def _kills(self, ledger: Ledger, frontend: str) -> Iterator[Finding]:
        """A Kill or Stop for each cancel, unless the worker itself shows that it was told: its connection may be dropped.

        Documented (fault-tolerance/request-cancellation): a worker sees a stop, a kill or a dropped connection.
        """
        owed = [
            (request, title)
            for request, title in must_aborts(ledger)
            if request.sent.frontend == frontend and not ledger.prefills(title)  # whose counter tells as much
        ]
        if not owed:
            return
        musts = {request.name: request for request, title in owed if not self._told(ledger, request, title)}
        kills = ledger.kills.get(frontend, 0)
        if kills >= len(musts):
            self.tally.evaluated += 1
        elif any(open_to_question(ledger, request) for request in musts.values()):
            self.tally.unknown += 1
        elif self.proven(ledger, "kill"):
            self.tally.evaluated += 1
            message = f"{frontend} logged {kills} control messages, expected at least {len(musts)}"
            yield self.finding("no-kill", frontend, message, *map(left, musts.values()))

    def _told(self, ledger: Ledger, request: Request, title: str) -> bool:
        generation = ledger.placed(request.sent.id, title)[title]
        return bool(generation.aborted or generation.signalled)

    def _frontend_counter(self, ledger: Ledger, frontend: str) -> Iterator[Finding]:
        mine = [request for request in ledger.requests.values() if request.sent.frontend == frontend]
        cancels = [request for request in mine if request.closed is not None]
        yield from self._counter(ledger, frontend, cancels, counted_cancels(ledger, mine))

    def _worker_counter(self, ledger: Ledger, worker: Incarnation) -> Iterator[Finding]:
        """At least the aborts that it owes; at most each request that began there and was left, or failed, once."""
        if worker.touches or not worker.listed:
            return
        here = ledger.served.get(worker.title, {})
        begun = [request for request in ledger.requests.values() if request.sent.id in here]
        cancels = [request for request in begun if request.closed is not None]
        told = sum(request.closed is None and may_be_dropped(ledger, request) for request in begun)
        musts = sum(title == worker.title for _, title in must_aborts(ledger))
        counts = range(musts, len(cancels) + told + 1)
        if "begun" in ledger.setting.proven or counts.stop > 1:
            yield from self._counter(ledger, worker.title, cancels, counts, low="counter-low", high="counter-high")

    def _counter(
        self,
        ledger: Ledger,
        title: str,
        cancels: list[Request],
        expected: range,
        *,
        low: str = "counter",
        high: str = "counter",
    ) -> Iterator[Finding]:
        """The cancellation counter of a process, where it is exported."""
        counted = ledger.counted(title, "cancellations")
        if counted is None:
            return
        last = ledger.last_sample[title]
        deadline = max((deadline_s(ledger, request) for request in cancels), default=0.0)
        if expected.start <= counted < expected.stop:
            self.tally.evaluated += 1
        elif last.at.before_s <= deadline or any(open_to_question(ledger, request) for request in cancels):
            self.tally.unknown += 1
        else:
            self.tally.evaluated += 1
            least, most = expected.start, expected.stop - 1
            words = f"{least}" if least == most else f"{least} to {most}"
            message = f"{title} counted {counted:g} cancellations, expected {words}"
            slug = low if counted < least else high
            yield self.finding(slug, title, message, read(last, "cancellations"), *map(left, cancels[:10]))


def may_be_dropped(ledger: Ledger, request: Request, by_s: float = math.inf) -> bool:
    """True if its frontend may have dropped it by then, though nobody left.

    Because it failed, or its engine was told to fail it, or the frontend was touched; or because it met a stop string:
    the frontend looks for those, and has the worker end there, which logs and counts it like any other kill.
    """
    gone_s = min(by_s, ledger.life(request).after_s + ledger.setting.bounds.abort_bound_s)
    told = bool(request.sent.stop) or request.erred is not None
    return told or failure(request) is not None or ledger.touched_from_s(request.sent.frontend) <= gone_s


class WorkStops(Invariant):
    """A3. Documented: the engine must free what a cancelled request held. Judged by its log and its running gauge."""

    id = "A3"
    sentence = "After a cancel the engine stops working for that request, by its log and by its gauges."
    slugs = frozenset({"ran-on", "still-running"})
    rests_on = frozenset({"ended", "aborted"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each cancel that must abort, by the engine's log and by its gauge."""
        musts = must_aborts(ledger)
        for request, title in musts:
            yield from self._ran_on(ledger, request, title)
        if ledger.setting.engine_ids:
            yield from self._unended(ledger, {(request.name, title) for request, title in musts})
        for title in sorted({title for _, title in musts}):
            sample = gauge_goes_on(ledger, title)
            if sample is not None:
                names = [request.name for request, at in musts if at == title]
                message = (
                    f"{title} still ran {sample.values['running']:g} requests after the cancels of {', '.join(names)},"
                    f" expected at most {_others_open(ledger, title, sample)}"
                )
                lefts = (left(ledger.requests[name]) for name in names)
                yield self.finding("still-running", title, message, *lefts, read(sample, "running"))

    def _ran_on(self, ledger: Ledger, request: Request, title: str) -> Iterator[Finding]:
        generation = ledger.placed(request.sent.id, title)[title]
        bound_s, deadline = ledger.setting.bounds.abort_bound_s, deadline_s(ledger, request)
        late = [line for line in generation.ended if line.at.before_s > deadline]
        if late and ledger.stalled(deadline - bound_s, bound_s):
            self.tally.unknown += 1
            return
        self.tally.evaluated += 1
        if not late:
            return
        after_s = late[0].at.before_s - deadline + bound_s
        message = f"{title} generated {request.name} to its end, {after_s:.1f} s after its client had left"
        yield self.finding("ran-on", request.name, message, left(request), said(late[0]))

    def _unended(self, ledger: Ledger, musts: set[tuple[str, str]]) -> Iterator[Finding]:
        """Generations of left requests, owed no abort, that have no end at all."""
        for request in ledger.requests.values():
            if request.closed is None:
                continue
            for title, generation in ledger.generations.get(request.sent.id, {}).items():
                if (request.name, title) in musts or not ledger.untouched(title):
                    continue
                yield from self._unended_there(ledger, request, title, generation)

    def _unended_there(self, ledger: Ledger, request: Request, title: str, generation: Generation) -> Iterator[Finding]:
        if len(generation.ends) >= len(generation.begun):
            self.tally.evaluated += 1
            return
        bound_s = ledger.setting.bounds.abort_bound_s
        from_s = max(deadline_s(ledger, request) - bound_s, generation.begun[-1].at.after_s)
        if ledger.rest_s <= from_s + bound_s or ledger.stalled(from_s, bound_s):
            self.tally.unknown += 1
        elif self.proven(ledger, "ended", "aborted"):
            self.tally.evaluated += 1
            message = f"{title} never ended {request.name}, which its client had left"
            yield self.finding("still-running", request.name, message, left(request), *map(said, generation.begun))


def gauge_goes_on(ledger: Ledger, title: str) -> Sample | None:
    """The sample that shows this worker's running gauge above what can be open there since a cancel that must abort.

    None if the gauge came down to what surely was open at any time after the cancel: what it counts later is not the
    cancel's.
    """
    key = ("gauge goes on", title)
    if key not in ledger.memo:
        cancels = (request for request, at in must_aborts(ledger) if at == title)
        samples = (_goes_on_after(ledger, title, request) for request in cancels)
        ledger.memo[key] = next((sample for sample in samples if sample), None)
    known: Sample | None = ledger.memo[key]
    return known


def _goes_on_after(ledger: Ledger, title: str, request: Request) -> Sample | None:
    close, deadline = request.left_at, deadline_s(ledger, request)
    if ledger.stalled(close.after_s, ledger.setting.bounds.abort_bound_s):
        return None
    for sample in ledger.processes[title].running:
        if sample.at.before_s < close.after_s or ledger.touched_from_s(title) <= sample.at.after_s:
            continue
        running = sample.values["running"]
        if running <= sum(_is_open(other, g, sample) for other, g in _beside(ledger, title, request)):
            return None
        if sample.at.before_s > deadline and running > _others_open(ledger, title, sample):
            return sample
    return None


def _others_open(ledger: Ledger, title: str, sample: Sample) -> int:
    """How many ids can be open on this worker at the sample, by its log and by what the clients saw."""
    generations = ledger.served.get(title, {}).items()
    return sum(_can_be_open(ledger, id_, generation, sample) for id_, generation in generations)


def _beside(ledger: Ledger, title: str, request: Request) -> Iterator[tuple[Request, Generation]]:
    """The other requests of clients on this worker."""
    for id_, generation in ledger.served.get(title, {}).items():
        other = ledger.by_id.get(id_)
        if other is not None and other is not request:
            yield other, generation


def _is_open(request: Request, generation: Generation, sample: Sample) -> bool:
    """True if it surely ran there at the sample: begun before, and ended by nobody until after it."""
    ends = [line.at for line in generation.ends + generation.finished]
    ends += [request.over] if request.over else []
    begun = bool(generation.begun) and generation.begun[-1].at.surely_before(sample.at)
    return begun and all(sample.at.surely_before(end) for end in ends)


def _can_be_open(ledger: Ledger, id_: str, generation: Generation, sample: Sample) -> bool:
    if not generation.begun or generation.begun[0].at.before_s > sample.at.after_s:
        return False
    bound_s, from_s = ledger.setting.bounds.abort_bound_s, sample.at.before_s
    request = ledger.by_id.get(id_)
    if request is None:
        return from_s <= generation.begun[-1].at.after_s + FOREIGN_ID_S
    if ledger.setting.engine_ids:
        if len(generation.ends) < len(generation.begun):
            return True
        ends_s = max(line.at.after_s for line in generation.ends)
        if request.closed is not None and ends_s <= deadline_s(ledger, request):
            return from_s <= deadline_s(ledger, request)
        return from_s <= ends_s + bound_s
    over = request.over
    return over is None or from_s <= over.after_s + bound_s
