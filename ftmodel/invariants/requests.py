"""What happens to requests: L1 each ends, L2 completes if it must, L3 none hangs, O2 a failure is no success.

Who owns what, so that one defect is one finding: a request still open at rest past its due time is L1's alone. A
failure that the client was told of (a status, an error, a broken connection) is L2's where the request must complete;
how a told failure must look is P1's, judged where the request may fail. An answer that ends without telling that it is
incomplete is P1's in every case, and one whose content is wrong is T1's, T2's, T4's or P4's. In a compared run the told
failures of what is compared are X1's and X2's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ftmodel.history import Event, Interval, RequestSent, Setting
from ftmodel.invariants.base import Finding, Invariant, read, when
from ftmodel.invariants.duty import completion, known_and_untouched
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.outages import upset
from ftmodel.invariants.records import Request

STATUSES: Final = (404, 429, 500, 502, 503, 504, 529)
OVERLOADED: Final = (429, 529)
"""Statuses that say that the service is there and busy."""


def is_compared(setting: Setting, request: Request) -> bool:
    """True if this run is to show that the request completes though the plan was changed: its failures are X1's or X2's."""
    if request.status in OVERLOADED:
        return False
    return setting.variant == "without-faults" or (
        setting.variant == "one-more-worker" and request.name in setting.completed
    )


def failure(request: Request) -> str | None:
    """The failure that the client was told of, as a slug; None if it was told of none."""
    if request.ended is None:
        return None
    if request.ended.how == "refused":
        return "refused"
    if request.status is None:
        return "cut"
    if request.status != 200:
        return f"status-{request.status}" if request.status in STATUSES else "status-other"
    if request.error is not None:
        return "error-in-stream"
    return "cut" if request.ended.how == "cut" and not request.told_all else None


def outcome(request: Request) -> str:
    """How the request ended, in words."""
    if request.ended is None:
        return "never ended"
    slug = failure(request)
    if slug is None:
        return "was answered"
    if slug == "refused":
        return "was refused a connection"
    if slug == "cut":
        return "lost its connection"
    told = f": {request.error}" if request.error else ""
    return f"got status {request.status}{told}" if slug.startswith("status") else f"got an error in its stream{told}"


def course_of(ledger: Ledger, request: Request) -> Iterator[str]:
    """The request's way, as evidence: sending, placements, touches of those it could be on, end."""
    yield f"client, {when(request.sent.at)}: {request.name} sent through {request.sent.frontend}"
    for placed in (ledger.prefilled, ledger.generations):
        for title, generation in placed.get(request.sent.id, {}).items():
            yield from (f"{title} log line {line.line}, {when(line.at)}: begun" for line in generation.begun)
    for worker in ledger.prefill_workers:
        yield from (f"{worker.title}, {when(fault.at)}: {fault.fault}" for fault in worker.faults)
    for title in completion(ledger, request).t:
        yield from (f"{title}, {when(fault.at)}: {fault.fault}" for fault in ledger.processes[title].faults)
    if request.begun:
        yield f"client, {when(request.begun.at)}: status {request.begun.status}"
    if request.ended:
        yield f"client, {when(request.ended.at)}: {request.ended.how} {request.ended.detail}".rstrip()


def overdue_s(ledger: Ledger, request: Request) -> float | None:
    """When a request must have ended, however: due by its duty, and in any case `end_bound_s` after the heal.

    None if that is not known: something was touched, and nothing says that it was healed; or it may wait for what one
    holds that the engine was told to stall.
    """
    end_s = ledger.setting.bounds.end_bound_s + ledger.work_s(request)
    healed = ledger.marks.get("healed")
    if healed is None and any(process.touches for process in ledger.processes.values()):
        return None
    if ledger.may_wait_for_stalled(request):
        return None
    return max(completion(ledger, request).due_s, (healed.at if healed else request.sent.at).after_s + end_s)


class EveryRequestEnds(Invariant):
    """L1. A request open at rest though past its due time."""

    id = "L1"
    sentence = "Every request reaches an end: completed, error, or cancelled."
    slugs = frozenset({"never-ended"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each request that is still open."""
        for request in ledger.requests.values():
            if request.over is not None:
                self.tally.evaluated += 1
                continue
            if request.is_stalled:
                self.tally.unknown += 1
                continue
            due_s = overdue_s(ledger, request)
            if due_s is None or ledger.rest_s <= due_s or ledger.stalled(due_s - _bound_s(ledger), _bound_s(ledger)):
                self.tally.unknown += 1
                continue
            self.tally.evaluated += 1
            yield self.finding(
                "never-ended",
                request.name,
                f"{request.name} was still open at rest, {ledger.rest_s - due_s:.1f} s after it had to end",
                *course_of(ledger, request),
            )


def _bound_s(ledger: Ledger) -> float:
    return ledger.setting.bounds.end_bound_s


class MustComplete(Invariant):
    """L2. A request that must complete but was told of a failure; one that must not but was answered in full."""

    id = "L2"
    sentence = "A request that must complete completes; one that must not does not."
    slugs = frozenset(
        {f"status-{status}" for status in STATUSES} | {"status-other", "error-in-stream", "cut", "refused", "completed"}
    )

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each request that ended, by its duty."""
        for request in ledger.requests.values():
            if request.ended is None:
                continue
            owed = completion(ledger, request)
            if owed.value == "may" or (owed.value == "must" and is_compared(ledger.setting, request)):
                continue
            self.tally.evaluated += 1
            slug = failure(request)
            if owed.value == "must" and slug is not None:
                message = f"{request.name} {outcome(request)}, expected completion: {owed.why}"
                yield self.finding(slug, request.name, message, *course_of(ledger, request))
            elif owed.value == "must_not" and request.whole:
                message = f"{request.name} was answered in full though {owed.why} while it was open"
                yield self.finding("completed", request.name, message, *course_of(ledger, request))


class NoHang(Invariant):
    """L3. A wait for the next byte, longer than `hang_bound_s`, though a worker was there all that time."""

    id = "L3"
    sentence = "No open request waits longer than hang_bound_s for its next byte while a healthy worker is there."
    kinds = frozenset({"request-sent", "response-begun", "received", "request-ended", "client-closed"})
    slugs = frozenset({"hang"})

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, Interval] = {}
        self._gaps: list[tuple[str, Interval, float]] = []
        """Waits longer than the bound: request, last byte, and when the next was noticed."""

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Keep the waits that are longer than the bound."""
        if isinstance(event, RequestSent):
            self._last[event.request] = event.at
            return ()
        name: str = event.request  # type: ignore[union-attr]  # of the kinds that it wants, each has one
        last = self._last.get(name)
        if last is not None:
            self._gap(ledger, name, last, event.at.after_s)
            self._last[name] = event.at
            if event.kind in ("request-ended", "client-closed"):
                del self._last[name]
        return ()

    def _gap(self, ledger: Ledger, name: str, last: Interval, to_s: float) -> None:
        if to_s - last.after_s > ledger.setting.bounds.hang_bound_s:
            self._gaps.append((name, last, to_s))

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge those waits, now that faults and witnesses are known."""
        for name, last in self._last.items():
            due_s = overdue_s(ledger, ledger.requests[name])
            if due_s is not None and ledger.rest_s <= due_s:  # past it, the request is L1's
                self._gap(ledger, name, last, ledger.rest_s)
        self.tally.evaluated += len(ledger.requests)
        for name, last, to_s in self._gaps:
            yield from self._judge(ledger, ledger.requests[name], last, to_s)

    def _judge(self, ledger: Ledger, request: Request, last: Interval, to_s: float) -> Iterator[Finding]:
        again_s = (len(completion(ledger, request).t) + 1) * ledger.reading_s(request)
        work_s = again_s if request.sent.stream else again_s + ledger.work_s(request)
        bound_s = ledger.setting.bounds.hang_bound_s + work_s
        wait_s = to_s - last.after_s - ledger.stalled_s(last.after_s, to_s) - request.paused_in_s(last.after_s, to_s)
        if upset(ledger, last.before_s, to_s):
            return
        if request.is_stalled or wait_s <= bound_s or ledger.may_queue(request, last.before_s, to_s):
            return
        witness = known_and_untouched(ledger, request.sent.frontend, last, to_s)
        if witness is None or ledger.touched_from_s(request.sent.frontend) <= to_s:
            return
        if ledger.stalled(last.after_s, bound_s):
            self.tally.unknown += 1
            return
        yield self.finding(
            "hang",
            request.name,
            f"{request.name} waited {wait_s:.1f} s for its next byte, expected at most {bound_s:.1f} s: {witness} was"
            " there all the time",
            f"client, {when(last)}: last byte before the wait",
            *course_of(ledger, request),
        )


def failed_as_success(ledger: Ledger, frontend: str, mine: list[Request]) -> list[Request]:
    """The requests of this frontend that failed, if it counted more successes than the others can have been."""
    failed = [request for request in mine if failure(request) is not None and request.closed is None]
    counted = ledger.counted(frontend, "success") or 0.0
    return failed if counted > len(mine) - len(failed) else []


class FailureIsNoSuccess(Invariant):
    """O2. A frontend counted more successes than there were answers that can have been one: told failures are none.

    Where no request failed, more successes than requests are O1's.
    """

    id = "O2"
    sentence = "A failed request is never counted as a success."
    slugs = frozenset({"failed-as-success"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Compare each frontend's counter with what its clients saw."""
        for process in ledger.frontends:
            title = process.title
            counted = ledger.counted(title, "success")
            if counted is None or process.touches:
                continue
            self.tally.evaluated += 1
            mine = [request for request in ledger.requests.values() if request.sent.frontend == title]
            failed = failed_as_success(ledger, title, mine)
            if failed:
                most = len(mine) - len(failed)
                yield self.finding(
                    "failed-as-success",
                    title,
                    f"{title} counted {counted:g} successes, expected at most {most}: {len(failed)} of {len(mine)}"
                    " requests failed",
                    read(ledger.last_sample[title], "success"),
                    *(f"client: {request.name} {outcome(request)}" for request in failed[:5]),
                )
