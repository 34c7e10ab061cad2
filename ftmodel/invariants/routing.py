"""Routing: C1 nothing new goes to the dead or the draining, C5 a draining worker lets go in good order.

Who owns what: a request that begins on a draining worker is C5's; one that was sent there in vain is C1's. While a list
still shows a dead worker, that is C7's. A request of a draining worker that must complete is L2's, any other is C5's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from ftmodel.history import Interval, LogLine
from ftmodel.invariants.base import Finding, Invariant, said, when
from ftmodel.invariants.duty import completion
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.outages import upset
from ftmodel.invariants.records import Generation, Incarnation, Moves, Request, View
from ftmodel.invariants.requests import course_of, failure, outcome


class NothingToTheDead(Invariant):
    """C1. Documented: an instance leaves the list with its lease or at its shutdown, and is not routed to then.

    Judged by the frontend's own lines: whom it chose; and, where it tells only of attempts that succeeded, that an
    attempt failed though every worker that could be on its list lived untouched and had answered before.
    """

    id = "C1"
    sentence = "No new request goes to a dead worker once its lease is over, nor to a draining one that left the list."
    needs = frozenset({"lease"})
    slugs = frozenset({"dead", "draining", "failed-attempt"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each choice of a frontend, then each request that was sent when the dead were long dead."""
        owners: dict[str, list[Incarnation]] = {}
        for worker in ledger.all_workers:
            if worker.identity:
                owners.setdefault(worker.identity, []).append(worker)
        for request in ledger.requests.values():
            lines = [line for line in ledger.selected.get(request.sent.id, []) if self._is_judged(ledger, line)]
            found = [finding for line in lines for finding in self._chosen(ledger, request, line, owners)]
            yield from found[:1] or self._in_vain(ledger, request)

    def _is_judged(self, ledger: Ledger, line: LogLine) -> bool:
        """True if some worker was dead for long, or off the list for long, and the frontend untouched."""
        if upset(ledger, line.at.before_s, line.at.after_s):
            return False
        gone = any(_is_long_gone(ledger, worker, line) for worker in ledger.all_workers)
        return gone and ledger.touched_from_s(line.title) > line.at.after_s

    def _chosen(
        self, ledger: Ledger, request: Request, line: LogLine, owners: dict[str, list[Incarnation]]
    ) -> Iterator[Finding]:
        chosen = owners.get(str(line.fields.get("worker_id", "")), [])
        if len(chosen) != 1:
            self.tally.unknown += 1
            return
        worker = chosen[0]
        self.tally.evaluated += 1
        if not _is_long_gone(ledger, worker, line):
            return
        if worker.died is not None and line.at.before_s > worker.died.after_s:
            yield self.finding(
                "dead",
                request.name,
                f"{line.title} chose {worker.title} for {request.name} {line.at.before_s - worker.died.after_s:.1f} s"
                f" after its death, expected at most {ledger.setting.bounds.list_bound_s:g} s",
                f"{worker.title}, {when(worker.died)}: died",
                said(line),
            )
        elif not _began_there(ledger, request, worker):
            stop = worker.touches[0]
            yield self.finding(
                "draining",
                request.name,
                f"{line.title} chose {worker.title} for {request.name} {line.at.before_s - stop.after_s:.1f} s after it"
                " was asked to stop, when it had long left the list",
                f"{worker.title}, {when(stop)}: asked to stop",
                said(line),
            )

    def _in_vain(self, ledger: Ledger, request: Request) -> Iterator[Finding]:
        """An attempt that failed though nobody who was hit can have been on the list."""
        frontend, sent = request.sent.frontend, request.sent.at
        lines = ledger.moves.get(request.sent.id, Moves()).lines
        until = next((line for line in lines if line.meaning == "retrying"), None)
        until_s = until.at.after_s if until else ledger.life(request).after_s
        if (
            upset(ledger, sent.before_s, until_s)
            or not _only_healthy(ledger, frontend, sent, until_s)
            or request.erred
            or request.sent.wrong
        ):
            return
        if ledger.stalled_s(sent.before_s, until_s) > 0 or ledger.crowd(request) > ledger.setting.slots:
            self.tally.unknown += 1
            return
        self.tally.evaluated += 1
        left = request.closed is not None and until is not None and not until.at.surely_before(request.left_at)
        if until is not None and not left:
            yield self.finding(
                "failed-attempt",
                request.name,
                f"{frontend} failed to send {request.name} to a worker, though all that it could still list lived"
                " untouched and had answered before",
                *course_of(ledger, request),
                said(until),
            )


def _is_long_gone(ledger: Ledger, worker: Incarnation, line: LogLine) -> bool:
    """True if it was surely dead for longer than the list bound, or off this list for longer than the detect bound."""
    bounds, view = ledger.setting.bounds, ledger.views.get(line.title)
    if view is None:
        return False
    if worker.died is not None:
        over_s = worker.died.after_s + bounds.list_bound_s
        shown = line.at.before_s > over_s and _is_shown(ledger, line.title, worker, over_s)  # C7's
        if line.at.before_s > over_s and not shown and not ledger.stalled(worker.died.after_s, bounds.list_bound_s):
            return True
    stop = _asked_to_stop(worker)
    if stop is None or (worker.died is not None and worker.died.before_s <= line.at.after_s):
        return False
    absent = view.first_lacking(worker.title, stop.after_s)
    if absent is None or ledger.stalled(view.afters_s[absent], bounds.detect_bound_s):
        return False
    return line.at.before_s > max(view.afters_s[absent], _serves_until_s(ledger, stop)) + bounds.detect_bound_s


def _is_shown(ledger: Ledger, frontend: str, worker: Incarnation, from_s: float) -> bool:
    """True if the list showed it, or was not seen, after this time."""
    key = ("shown", frontend, worker.title, from_s)
    if key not in ledger.memo:
        view = ledger.views.get(frontend)
        ledger.memo[key] = view is None or view.first_showing(worker.title, from_s) is not None
    known: bool = ledger.memo[key]
    return known


def _only_healthy(ledger: Ledger, frontend: str, sent: Interval, until_s: float) -> bool:
    """Somebody died long ago, and every other worker lived untouched and had answered through this frontend before."""
    if ledger.touched_from_s(frontend) <= until_s:
        return False
    bound_s = ledger.setting.bounds.list_bound_s
    dead = living = 0
    for worker in ledger.all_workers:
        if worker.started.at.before_s > until_s:
            continue
        if worker.died is not None and worker.died.after_s + bound_s < sent.before_s:
            if _is_shown(ledger, frontend, worker, worker.died.after_s + bound_s):
                return False
            dead += 1
            continue
        answered = worker.answered.get(frontend)
        if answered is None or not answered.surely_before(sent) or worker.touched_from_s <= until_s:
            return False
        living += 1
    return dead > 0 and living > 0


def _asked_to_stop(worker: Incarnation) -> Interval | None:
    """When it was asked to stop, if that was verified and nothing else was done to it."""
    stops = [fault for fault in worker.faults if fault.fault == "stop-worker"]
    alone = len(stops) == 1 == len(worker.faults) and stops[0].verified
    return stops[0].at if alone else None


def _serves_until_s(ledger: Ledger, stop: Interval) -> float:
    """Up to when a worker that was asked to stop may take new requests."""
    return stop.after_s + ledger.setting.promise.serves_on_s


def _began_there(ledger: Ledger, request: Request, worker: Incarnation) -> bool:
    generation = ledger.placed(request.sent.id, worker.title).get(worker.title)
    return generation is not None and bool(generation.begun)


class DrainsInOrder(Invariant):
    """C5. Documented (graceful shutdown): after a short grace it takes nothing new, waits for what it holds, and exits.

    No exit code is documented.
    """

    id = "C5"
    sentence = "A draining worker takes no new work, finishes what it has or gives it on, and exits when that is done."
    slugs = frozenset({"still-listed", "takes-work", "drops-work", "never-exits"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each worker that was asked to stop, and nothing else."""
        for worker in ledger.all_workers:
            stop = _asked_to_stop(worker)
            if stop is None or (worker.exited is not None and worker.exited.at.before_s <= stop.before_s):
                continue
            if upset(ledger, stop.before_s, worker.exited.at.after_s if worker.exited else ledger.rest_s):
                self.tally.unknown += 1  # it cannot say that it leaves
                continue
            for frontend, view in ledger.views.items():
                yield from self._listed(ledger, worker, stop, frontend, view)
            yield from self._takes(ledger, worker, stop)
            yield from self._drops(ledger, worker, stop)
            yield from self._exits(ledger, worker, stop)

    def _listed(
        self, ledger: Ledger, worker: Incarnation, stop: Interval, frontend: str, view: View
    ) -> Iterator[Finding]:
        """It deregisters first of all (documented); what it exits of by itself is no longer judged."""
        bound_s = ledger.setting.bounds.leave_bound_s
        end_s = min(ledger.touched_from_s(frontend), worker.exited.at.before_s if worker.exited else math.inf)
        late = [i for i in view.since(stop.after_s + bound_s) if view.afters_s[i] < end_s]
        if not late:
            return
        if ledger.stalled(stop.after_s, bound_s):
            self.tally.unknown += 1
            return
        self.tally.evaluated += 1
        shown = next((i for i in late if view.shows(i, worker.title)), None)
        if shown is not None:
            yield self.finding(
                "still-listed",
                worker.title,
                f"{frontend} listed {worker.title} {view.befores_s[shown] - stop.after_s:.1f} s after it was asked to"
                f" stop, expected at most {bound_s:g} s",
                f"{worker.title}, {when(stop)}: asked to stop",
                f"{frontend}, {view.befores_s[shown]:.3f} s: lists {', '.join(sorted(view.titles[shown]))}",
            )

    def _takes(self, ledger: Ledger, worker: Incarnation, stop: Interval) -> Iterator[Finding]:
        over_s = _serves_until_s(ledger, stop) + ledger.setting.bounds.detect_bound_s
        end_s = worker.exited.at.before_s if worker.exited else ledger.rest_s
        if end_s <= over_s:
            return  # it was gone before it could do wrong
        if ledger.stalled(stop.after_s, over_s - stop.after_s):
            self.tally.unknown += 1
            return
        for request in ledger.requests.values():
            frontend_s = ledger.touched_from_s(request.sent.frontend)
            if not over_s < request.sent.at.before_s <= end_s:
                continue
            self.tally.evaluated += 1
            generation = ledger.placed(request.sent.id, worker.title).get(worker.title, Generation())
            late = next((line for line in generation.begun if frontend_s > line.at.after_s), None)
            if late is not None:
                yield self.finding(
                    "takes-work",
                    worker.title,
                    f"{worker.title} took {request.name}, sent {request.sent.at.before_s - stop.after_s:.1f} s after it"
                    f" was asked to stop, expected none sent later than {over_s - stop.after_s:g} s after that",
                    f"{worker.title}, {when(stop)}: asked to stop",
                    said(late),
                )
                return

    def _drops(self, ledger: Ledger, worker: Incarnation, stop: Interval) -> Iterator[Finding]:
        grace_s = ledger.setting.promise.grace_s
        for id_, generation in ledger.served.get(worker.title, {}).items():
            request = ledger.by_id.get(id_)
            if request is None or not grace_s or not self._is_held(ledger, worker, request, generation, stop):
                continue
            self.tally.evaluated += 1
            if failure(request) is not None and completion(ledger, request).value != "must":
                yield self.finding(
                    "drops-work",
                    request.name,
                    f"{request.name} {outcome(request)}: {worker.title} was asked to stop with it and has {grace_s:g} s"
                    " to finish it",
                    *course_of(ledger, request),
                )

    def _is_held(
        self, ledger: Ledger, worker: Incarnation, request: Request, generation: Generation, stop: Interval
    ) -> bool:
        """True if this worker surely held it when it was asked to stop, and nothing but the stop can have ended it."""
        life, over = ledger.life(request), request.over
        held = bool(generation.begun) and generation.begun[-1].at.surely_before(stop)
        placed = sum(bool(other.begun) for other in ledger.placed(request.sent.id, worker.title).values()) == 1
        others = ledger.workers if ledger.prefills(worker.title) else ledger.prefill_workers
        placed = placed and all(other.touched_from_s > life.after_s for other in others)
        if request.closed is not None or over is None or not stop.surely_before(over) or not held or not placed:
            return False
        if any(line.at.before_s <= stop.after_s for line in generation.ends + generation.finished):
            return False
        blamed = request.status is not None and 400 <= request.status < 500  # P2's
        owed = not request.sent.wrong and request.erred is None and not blamed
        in_time = over.after_s < stop.before_s + ledger.setting.promise.grace_s
        healthy = ledger.touched_from_s(request.sent.frontend) > life.after_s
        return owed and in_time and healthy and not ledger.stalled(stop.before_s, over.after_s - stop.before_s)

    def _exits(self, ledger: Ledger, worker: Incarnation, stop: Interval) -> Iterator[Finding]:
        bound_s = ledger.setting.bounds.exit_bound_s
        done_s = _done_s(ledger, worker)
        from_s = max(_serves_until_s(ledger, stop), done_s)
        end_s = worker.exited.at.before_s if worker.exited else ledger.rest_s
        if done_s == math.inf or (worker.exited is None and end_s <= from_s + bound_s):
            self.tally.unknown += 1
        elif end_s <= from_s + bound_s:
            self.tally.evaluated += 1
        elif ledger.stalled(from_s, bound_s):
            self.tally.unknown += 1
        else:
            self.tally.evaluated += 1
            yield self.finding(
                "never-exits",
                worker.title,
                f"{worker.title} still lived {end_s - stop.after_s:.1f} s after it was asked to stop and"
                f" {end_s - from_s:.1f} s after the last of what it held, expected at most {bound_s:g} s",
                f"{worker.title}, {when(stop)}: asked to stop",
                f"{worker.title}, {worker.exited.at.after_s:.3f} s: exited" if worker.exited else "never seen to exit",
            )


def _done_s(ledger: Ledger, worker: Incarnation) -> float:
    """When the last of what it held was over there; infinity if that is not known."""
    return max((_over_s(ledger, id_, g) for id_, g in ledger.served.get(worker.title, {}).items()), default=0.0)


def _over_s(ledger: Ledger, id_: str, generation: Generation) -> float:
    ends = generation.ends if ledger.setting.engine_ids else generation.finished
    if len(ends) >= len(generation.begun):
        return max((line.at.after_s for line in ends), default=0.0)
    request = ledger.by_id.get(id_)
    if ledger.setting.engine_ids or request is None or request.over is None:
        return math.inf
    return request.over.after_s + ledger.setting.bounds.abort_bound_s
