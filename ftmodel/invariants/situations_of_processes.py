"""What befell workers and frontends while requests ran, and what clients and engines did to the others.

Each function counts how often the situation surely was; races alone go by the middles of the intervals.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

from ftmodel.history import FaultMade, Interval
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Incarnation, Request
from ftmodel.invariants.requests import OVERLOADED
from ftmodel.invariants.situations_of_requests import middle_s, races
from ftmodel.invariants.whereabouts import Placement, freezes, killed_at, placements, placements_on, verified


def drawn(ledger: Ledger) -> list[Request]:
    """The requests that were drawn: not the tester's own, and none that is wrong."""
    return [r for r in ledger.requests.values() if not r.sent.probe and not r.sent.wrong]


def is_open(request: Request, at: Interval) -> bool:
    """Sent surely before, and its client noticed no end before."""
    over = request.over
    return request.sent.at.surely_before(at) and (over is None or over.after_s >= at.after_s)


def _alive(process: Incarnation, from_s: float, to_s: float) -> bool:
    """Surely alive all that time."""
    died = process.died
    return process.started.at.after_s <= from_s and (died is None or died.before_s >= to_s)


def _surely_gone(process: Incarnation, at: Interval) -> bool:
    """Not alive at any time of it."""
    died = process.died
    return (died is not None and died.surely_before(at)) or at.surely_before(process.started.at)


def _late(ledger: Ledger, processes: list[Incarnation]) -> list[Incarnation]:
    """Those that were started after the cluster was ready."""
    ready = ledger.marks.get("ready")
    return [p for p in processes if ready is not None and ready.at.after_s <= p.started.at.before_s]


def _predecessor(process: Incarnation, among: list[Incarnation]) -> Incarnation | None:
    """The last life in the same place."""
    started = process.started
    earlier = [p for p in among if p.started.slot == started.slot and p.started.at.before_s < started.at.before_s]
    return max(earlier, key=lambda p: p.started.at.before_s, default=None)


# --- workers die ------------------------------------------------------------------------------------------------


def two_kills(ledger: Ledger) -> int:
    """Two workers killed within 5 ms."""
    kills = [kill for worker in ledger.workers if (kill := killed_at(worker)) is not None]
    return sum(races(a, b) for a, b in itertools.pairwise(sorted(kills, key=middle_s)))


def two_requests_on_dying_worker(ledger: Ledger) -> int:
    """Workers that were killed under two requests or more."""
    return sum(
        sum(placement.killed is not None for placement in placements_on(ledger, worker.title)) >= 2
        for worker in ledger.workers
    )


def killed_while_frozen(ledger: Ledger) -> int:
    """Workers that were killed while frozen."""
    return sum(
        kill is not None and any(f.surely_before(kill) and thaw is None for f, thaw in freezes(worker))
        for worker in ledger.workers
        for kill in [killed_at(worker)]
    )


def killed_while_draining(ledger: Ledger) -> int:
    """Workers that were killed after they were asked to stop."""
    return sum(
        kill is not None and any(stop.at.surely_before(kill) for stop in verified(worker, "stop-worker"))
        for worker in ledger.workers
        for kill in [killed_at(worker)]
    )


# --- workers come and go ----------------------------------------------------------------------------------------


def started_while_requests_run(ledger: Ledger) -> int:
    """Workers that were started while a request was open."""
    requests = drawn(ledger)
    late = _late(ledger, ledger.workers)
    return sum(any(is_open(request, worker.started.at) for request in requests) for worker in late)


def back_within_lease(ledger: Ledger) -> int:
    """Workers that were started in the place of one that had died less than a lease before."""
    lease_s = ledger.setting.bounds.lease_s
    return sum(worker.started.at.after_s - died.before_s < lease_s for worker, died in _returns(ledger))


def _returns(ledger: Ledger) -> Iterator[tuple[Incarnation, Interval]]:
    """Each worker that came after another in its place, and when that one had died."""
    for worker in _late(ledger, ledger.workers):
        before = _predecessor(worker, ledger.workers)
        if before is not None and before.died is not None:
            yield worker, before.died


def back_on_port(ledger: Ledger) -> int:
    """Workers that were started on the port of one that had died."""
    late = _late(ledger, ledger.workers)
    return sum(
        worker.started.port != 0 and before is not None and before.started.port == worker.started.port
        for worker in late
        for before in [_predecessor(worker, ledger.workers)]
    )


def all_gone_and_back(ledger: Ledger) -> int:
    """Times when no worker was left, and one came back and answered."""
    workers = ledger.workers
    late = [worker for worker in _late(ledger, workers) if worker.answered]
    count = 0
    for worker in workers:
        if worker.died is None:
            continue
        gone = Interval(worker.died.after_s, worker.died.after_s)
        others = (other for other in workers if other is not worker)
        back = any(worker.died.surely_before(other.started.at) for other in late)
        count += back and all(
            (other.died is not None and other.died.after_s <= gone.after_s) or gone.surely_before(other.started.at)
            for other in others
        )
    return count


def submitted_with_no_worker(ledger: Ledger) -> int:
    """Requests that were sent while no worker lived."""
    return sum(all(_surely_gone(w, request.sent.at) for w in ledger.workers) for request in drawn(ledger))


def submitted_beside_a_ghost(ledger: Ledger) -> int:
    """Requests that were sent while a dead worker was still on their frontend's list."""
    dead = [(worker.title, worker.died) for worker in ledger.workers if worker.died is not None]
    count = 0
    for request in drawn(ledger):
        view = ledger.views.get(request.sent.frontend)
        count += view is not None and any(
            died.surely_before(request.sent.at) and view.first_showing(title, request.sent.at.after_s) is not None
            for title, died in dead
        )
    return count


def rolled(ledger: Ledger) -> int:
    """1 if every worker of the beginning was replaced by one that answered, and never none was left."""
    late = _late(ledger, ledger.workers)
    first = [worker for worker in ledger.workers if worker not in late]
    replaced = all(
        worker.died is not None and any(new.answered and _predecessor(new, first) is worker for new in late)
        for worker in first
    )
    return int(bool(first) and replaced and all_gone_and_back(ledger) == 0)


# --- freezes ----------------------------------------------------------------------------------------------------


def _thawed(ledger: Ledger) -> Iterator[tuple[Incarnation, Interval, Interval]]:
    """Each freeze that was undone while a request was open for some of it: whose, when made, and when undone."""
    requests = drawn(ledger)
    for worker in ledger.workers:
        for freeze, thaw in freezes(worker):
            if thaw is not None and any(
                r.sent.at.after_s < thaw.before_s and (r.over is None or r.over.before_s > freeze.after_s)
                for r in requests
            ):
                yield worker, freeze, thaw


def freeze_shorter_than_timeout(ledger: Ledger) -> int:
    """Freezes that were surely undone before a request to the worker could time out."""
    bound_s = ledger.setting.promise.request_timeout_s
    return sum(thaw.after_s - freeze.before_s < bound_s for _, freeze, thaw in _thawed(ledger))


def freeze_longer_than_lease(ledger: Ledger) -> int:
    """Freezes that surely lasted longer than the lease."""
    lease_s = ledger.setting.bounds.lease_s
    return sum(thaw.before_s - freeze.after_s > lease_s > 0 for _, freeze, thaw in _thawed(ledger))


def thaw_after_migration(ledger: Ledger) -> int:
    """Thaws of a worker whose request had begun elsewhere meanwhile."""
    return sum(
        any(held.is_open(freeze) and _moved(ledger, held, freeze, thaw) for held in placements_on(ledger, worker.title))
        for worker, freeze, thaw in _thawed(ledger)
    )


def _moved(ledger: Ledger, held: Placement, freeze: Interval, thaw: Interval) -> bool:
    return any(
        freeze.surely_before(other.begun.at) and other.begun.at.surely_before(thaw) and other.title != held.title
        for other in placements(ledger, held.request)
    )


# --- drains -----------------------------------------------------------------------------------------------------


def _drained(ledger: Ledger) -> Iterator[tuple[FaultMade, list[Placement]]]:
    """The first SIGTERM of each worker that got one, and what was open on it then."""
    for worker in ledger.workers:
        for stop in verified(worker, "stop-worker")[:1]:
            yield stop, [held for held in placements_on(ledger, worker.title) if held.is_open(stop.at)]


def drained_with_open_requests(ledger: Ledger) -> int:
    """Workers that were asked to stop while they held a request."""
    return sum(bool(held) for _, held in _drained(ledger))


def drain_outlives_grace(ledger: Ledger) -> int:
    """Such workers that held a request of theirs longer than they still serve."""
    grace_s = ledger.setting.promise.serves_on_s
    return sum(
        any(p.over is not None and p.over.before_s > stop.at.after_s + grace_s > stop.at.after_s for p in held)
        for stop, held in _drained(ledger)
    )


def second_sigterm(ledger: Ledger) -> int:
    """Processes that were asked to stop twice."""
    stops = {"stop-worker": ledger.all_workers, "stop-frontend": ledger.frontends}
    return sum(len(verified(process, stop)) >= 2 for stop, processes in stops.items() for process in processes)


def submitted_while_draining(ledger: Ledger) -> int:
    """Requests that were sent while a worker drained."""
    spans = [(stop.at, worker.died) for worker in ledger.workers for stop in verified(worker, "stop-worker")[:1]]
    return sum(
        any(
            stop.surely_before(request.sent.at) and (died is None or request.sent.at.surely_before(died))
            for stop, died in spans
        )
        for request in drawn(ledger)
    )


# --- frontends --------------------------------------------------------------------------------------------------


def frontend_killed_with_open_requests(ledger: Ledger) -> int:
    """Frontends that were killed while they answered a request."""
    return _hit_with_open_requests(ledger, "kill-frontend")


def frontend_drained_with_open_requests(ledger: Ledger) -> int:
    """Frontends that were asked to stop while they answered a request."""
    return _hit_with_open_requests(ledger, "stop-frontend")


def _hit_with_open_requests(ledger: Ledger, fault: Literal["kill-frontend", "stop-frontend"]) -> int:
    requests = drawn(ledger)
    return sum(
        any(request.sent.frontend == frontend.title and is_open(request, made.at) for request in requests)
        for frontend in ledger.frontends
        for made in verified(frontend, fault)[:1]
    )


def frontend_restarted(ledger: Ledger) -> int:
    """Frontends that came back in their place while a worker lived on."""
    count = 0
    for frontend in _late(ledger, ledger.frontends):
        before = _predecessor(frontend, ledger.frontends)
        died = before.died if before is not None else None
        count += died is not None and any(
            _alive(worker, died.before_s, frontend.started.at.after_s) for worker in ledger.workers
        )
    return count


def other_frontend_goes_on(ledger: Ledger) -> int:
    """Requests that completed though another frontend than theirs was killed or asked to stop while they were open."""
    hits = [
        (frontend.title, made.at)
        for frontend in ledger.frontends
        for fault in ("kill-frontend", "stop-frontend")
        for made in verified(frontend, fault)
    ]
    return sum(
        request.whole and any(request.sent.frontend != title and is_open(request, at) for title, at in hits)
        for request in drawn(ledger)
    )


# --- clients and engines ----------------------------------------------------------------------------------------


def cancelled_after_end(ledger: Ledger) -> int:
    """Clients that wanted to leave when all was over."""
    late = sum(deed.deed == "cancel" and deed.subject == "over before" for deed in ledger.deeds)
    return late + sum(request.closed_after_end for request in drawn(ledger))


def slow_reader(ledger: Ledger) -> int:
    """Requests whose client stopped reading for a while."""
    return sum(bool(request.pauses) for request in drawn(ledger))


def bad_request_beside_good(ledger: Ledger) -> int:
    """Requests that are wrong and were sent while another was open."""
    good = drawn(ledger)
    wrong = (request for request in ledger.requests.values() if request.sent.wrong)
    return sum(any(is_open(other, request.sent.at) for other in good) for request in wrong)


def engine_error(ledger: Ledger) -> int:
    """Requests that the engine failed, as it was told to."""
    return sum(request.erred is not None and not request.is_stalled for request in drawn(ledger))


def queued_in_engine(ledger: Ledger) -> int:
    """Workers on which a request waited for a slot or for KV blocks."""
    return sum(any(sample.values.get("waiting", 0) > 0 for sample in worker.running) for worker in ledger.workers)


def overload_then_accepted(ledger: Ledger) -> int:
    """Requests that were refused for want of capacity, and after which one of the same frontend completed."""
    requests = drawn(ledger)
    whole = [request for request in requests if request.whole]
    return sum(
        request.status in OVERLOADED
        and request.over is not None
        and any(
            other.sent.frontend == request.sent.frontend and request.over.surely_before(other.sent.at)
            for other in whole
        )
        for request in requests
    )
