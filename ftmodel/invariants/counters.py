"""Counters: A5 cancels by kind of request, O1 requests by outcome, O3 counters rise and gauges are not negative.

Who owns what: the number of cancels in total is A1's; only where that is right does A5 judge how it is split. Failures
that are counted as successes are O2's; O1 judges the rest: whether each request was counted once, and as what its client
saw. A gauge that is below zero is O3's, one that stays above it is R1's or R2's. A frontend that a fault touched may
have lost count of what was under way: A5 and O1 leave it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ftmodel.history import Event, Sample
from ftmodel.invariants.base import Finding, Invariant, read
from ftmodel.invariants.cancellation import counted_cancels, deadline_s, left, open_to_question
from ftmodel.invariants.duty import cancel_duty, known_and_untouched
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Request
from ftmodel.invariants.requests import failed_as_success, failure, outcome

COUNTERS: Final = {
    "frontend": (
        "cancellations",
        "cancellations_completion_stream",
        "cancellations_completion_unary",
        "cancellations_chat_stream",
        "cancellations_chat_unary",
        "migrations",
        "started",
        "success",
        "failed",
        "cancelled",
        "not_found",
    ),
    "worker": ("cancellations",),
    "prefill": ("cancellations",),
}
"""By role, the metrics that only rise (`ftmodel.systems.METRICS`)."""


class CancelsByKind(Invariant):
    """A5. Documented: the counter of cancels bears endpoint and request type (fault-tolerance/request-cancellation)."""

    id = "A5"
    sentence = "Cancels are counted under the endpoint and the type of the request that was cancelled."
    slugs = frozenset({"split"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each untouched frontend whose count of cancels is right in total."""
        for process in ledger.frontends:
            title, total = process.title, ledger.counted(process.title, "cancellations")
            mine = [request for request in ledger.requests.values() if request.sent.frontend == title]
            if total is None or process.touches or total not in counted_cancels(ledger, mine):
                continue
            kinds = {f"cancellations_{api}_{how}" for api in ("completion", "chat") for how in ("stream", "unary")}
            told = {kind: ledger.counted(title, kind) or 0.0 for kind in sorted(kinds)}
            if total and not any(told.values()):
                self.tally.unknown += 1  # this release names them otherwise
                continue
            for kind, counted in told.items():
                yield from self._kind(ledger, title, kind, counted, [r for r in mine if _kind_of(r) == kind])

    def _kind(
        self, ledger: Ledger, title: str, kind: str, counted: float, requests: list[Request]
    ) -> Iterator[Finding]:
        cancels = [request for request in requests if request.closed is not None]
        # One that failed and is counted all the same is too many in total, which is A1's.
        failed = sum(request.closed is None and failure(request) is not None for request in requests)
        exact, last = counted_cancels(ledger, requests), ledger.last_sample[title]
        expected = range(exact.start, exact.stop + failed)
        if expected.start <= counted < expected.stop:
            self.tally.evaluated += 1
            return
        deadline = max((deadline_s(ledger, request) for request in cancels), default=0.0)
        if last.at.before_s <= deadline or any(open_to_question(ledger, request) for request in cancels):
            self.tally.unknown += 1
            return
        self.tally.evaluated += 1
        message = f"{title} counted {counted:g} as {kind}, expected {_words(expected)}"
        yield self.finding("split", title, message, read(last, kind), *map(left, cancels[:10]))


def _kind_of(request: Request) -> str:
    return f"cancellations_{request.sent.api}_{'stream' if request.sent.stream else 'unary'}"


def _words(expected: range) -> str:
    least, most = expected.start, expected.stop - 1
    return f"{least}" if least == most else f"{least} to {most}"


# --- O1 ---------------------------------------------------------------------------------------------------------

Bounds = tuple[int, int]
NO: Final[Bounds] = (0, 0)
MAY: Final[Bounds] = (0, 1)
ONE: Final[Bounds] = (1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """How often one request can be counted, least and most, under each name."""

    started: Bounds = MAY
    success: Bounds = NO
    failed: Bounds = MAY
    cancelled: Bounds = MAY
    not_found: Bounds = NO

    @property
    def over(self) -> Bounds:
        """As over, in whichever way."""
        return min(1, self.success[0] + self.failed[0]), min(1, self.success[1] + self.failed[1])


def as_counted(ledger: Ledger, request: Request) -> Counted:
    """What the counters of its frontend can say of this request, by what its client saw.

    Where its client left, or the connection broke, it may have been counted as anything, or not at all. What is sent on
    after its client left, which is M5's, may fail there by itself. What fails before its handler is called (malformed, or
    on a path that is not served) need not be counted.
    """
    arrived = ONE if request.status == 200 else MAY
    if request.closed is not None:
        if cancel_duty(ledger, request).value == "must":
            if any(line.at.after_s > request.closed.at.before_s for line in ledger.selected.get(request.sent.id, ())):
                return Counted(started=ONE, failed=ONE)
            return Counted(started=ONE, failed=ONE, cancelled=ONE)
        return Counted(started=arrived, success=MAY)
    if request.ended is None or request.erred is not None:
        return Counted(started=arrived, success=MAY, not_found=MAY)
    if request.whole:
        return Counted(started=ONE, success=ONE, failed=NO, cancelled=NO)
    if request.status == 200:
        told = request.error is not None and request.ended.how == "eof"
        return Counted(started=ONE, failed=ONE) if told else Counted(started=ONE, success=MAY)
    if request.sent.wrong == "unknown-model" and request.status == 404 and _served(ledger, request):
        return Counted(started=ONE, failed=ONE, cancelled=NO, not_found=ONE)
    return Counted(not_found=MAY)


def _served(ledger: Ledger, request: Request) -> bool:
    """True if a worker was there all the time, so that the paths of the API were served."""
    until_s = ledger.life(request).after_s
    return known_and_untouched(ledger, request.sent.frontend, request.sent.at, until_s) is not None


class CountedAsSeen(Invariant):
    """O1. Documented: `requests_total` is the number of requests; by status and error type since its labels are there.

    A client that left counts as an error, cancelled; one that asked for a model that is not there as not found.
    """

    id = "O1"
    sentence = "Each request is counted once, and as what its client saw: success, cancelled, not found, failed."
    slugs = frozenset({"undercounted", "overcounted", "wrong-status"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each untouched frontend."""
        overs = [request.over.after_s for request in ledger.requests.values() if request.over is not None]
        last_s, bound_s = max(overs, default=0.0), ledger.setting.bounds.abort_bound_s
        for process in ledger.frontends:
            title, sample = process.title, ledger.last_sample.get(process.title)
            if process.touches or sample is None or "success" not in sample.values:
                continue
            mine = [request for request in ledger.requests.values() if request.sent.frontend == title]
            if failed_as_success(ledger, title, mine):
                continue  # O2's
            off = _off(ledger, title, mine)
            if off is not None and (sample.at.before_s <= last_s + bound_s or ledger.stalled(last_s, bound_s)):
                self.tally.unknown += 1
                continue
            self.tally.evaluated += 1
            if off is not None:
                slug, name, words = off
                metrics = [read(sample, name) for name in ("started", "success", "failed") if name in sample.values]
                seen = [f"client: {request.name} {outcome(request)}" for request in mine if not request.whole]
                yield self.finding(slug, title, f"{title} {words}", read(sample, name), *metrics, *seen[:10])


def _off(ledger: Ledger, title: str, mine: list[Request]) -> tuple[str, str, str] | None:
    """Slug, metric and words of the first counter that is not within its bounds.

    An old history has no other counter than that of successes.
    """
    told = {name: ledger.counted(title, name) or 0.0 for name in ("started", "success", "failed", "cancelled")}
    told["not_found"] = ledger.counted(title, "not_found") or 0.0
    bounds = [as_counted(ledger, request) for request in mine]
    spans = {name: _sum([getattr(counted, name) for counted in bounds]) for name in (*told, "over")}
    if "started" not in ledger.last_sample[title].values:
        low, words = spans["success"].start, _words(spans["success"])
        lacking = told["success"] < low
        return (
            ("undercounted", "success", f"counted {told['success']:g} successes, expected {words}") if lacking else None
        )
    told["over"] = told["success"] + told["failed"]
    for name in ("over", "started", "success", "failed", "cancelled", "not_found"):
        counted, span = told[name], spans[name]
        if span.start <= counted < span.stop:
            continue
        words = f"counted {counted:g} of {len(mine)} requests as {name}, expected {_words(span)}"
        if name not in ("over", "started"):
            return "wrong-status", name, words
        metric = "success" if name == "over" else name
        return ("undercounted" if counted < span.start else "overcounted"), metric, words
    return None


def _sum(bounds: list[Bounds]) -> range:
    return range(sum(low for low, _ in bounds), sum(high for _, high in bounds) + 1)


# --- O3 ---------------------------------------------------------------------------------------------------------


class CountersRise(Invariant):
    """O3. A counter of a process only rises, a count is never below zero (Prometheus), and a gauge tells the registration.

    Documented (observability/metrics-catalog): the gauges of a model's configuration are what a worker has registered.
    The frontend's migration limit is not judged by its gauge of that name: the gauge is said to be the worker's too. Nor
    are the blocks of its KV cache, which a history does not tell; the slots are, as a multiple: one for each set.
    """

    id = "O3"
    sentence = "Counters only rise while a process lives, no metric is negative, and a configuration gauge is true."
    kinds = frozenset({"sample"})
    at_any_end = True
    slugs = frozenset({"counter-fell", "negative", "wrong-configuration"})

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, Sample] = {}

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Hold each sample against the one before."""
        if not isinstance(event, Sample):
            return
        process = ledger.processes.get(event.title)
        before = self._last.get(event.title)
        self._last[event.title] = event
        if process is None:
            return
        self.tally.evaluated += 1
        for name, value in event.values.items():
            if value < 0:
                message = f"{name} of {event.title} was {value:g}, expected 0 at least"
                yield self.finding("negative", f"{event.title} {name}", message, read(event, name))
        if before is not None and before.at.surely_before(event.at):
            yield from self._fell(process.started.role, before, event)
        yield from self._configuration(event, ledger.setting.slots)

    def _fell(self, role: str, before: Sample, sample: Sample) -> Iterator[Finding]:
        for name in COUNTERS[role]:
            if sample.values.get(name, 0.0) < before.values.get(name, 0.0) and name in sample.values:
                message = f"{name} of {sample.title} fell from {before.values[name]:g} to {sample.values[name]:g}"
                yield self.finding(
                    "counter-fell", f"{sample.title} {name}", message, read(before, name), read(sample, name)
                )

    def _configuration(self, sample: Sample, slots: int) -> Iterator[Finding]:
        told = sample.values.get("max_seqs", 0.0)
        if told > 0 and slots > 0 and told % slots:
            message = f"{sample.title} says that a worker takes {told:g} requests at once, expected {slots}"
            yield self.finding("wrong-configuration", f"{sample.title} max_seqs", message, read(sample, "max_seqs"))
