"""Resources: R1 gauges are back at their baseline at rest, R2 so is the router's bookkeeping, R3 no process is left, R5 nobody panics.

R1 leaves to others what others tell: a worker's gauge that goes on since a cancel is A3's, and while the worker's own
log has a generation without an end (A1, A2 or A3), or a request is still open (L1), a gauge above 0 is no leak.
"""

# ruff: noqa: ARG002  # a fold is given the ledger whether it needs it or not

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Final

from ftmodel.history import Event, Interval, LeftOver, LogLine, Sample, Usage
from ftmodel.invariants.base import Finding, Invariant, read, said, when
from ftmodel.invariants.cancellation import gauge_goes_on
from ftmodel.invariants.control import may_end
from ftmodel.invariants.growth import HANDLES, ROLES, Series, growth, told
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.outages import outages
from ftmodel.invariants.records import Incarnation

_OF_WORKERS: Final = {
    "inflight": "worker-inflight",
    "running": "worker-running",
    "waiting": "worker-waiting",
    "kv": "worker-kv",
}
GAUGES: Final = {
    "frontend": {
        "inflight": "frontend-inflight",
        "queued": "frontend-queued",
        "active": "frontend-active",
        "plane_inflight": "frontend-plane",
    },
    "worker": _OF_WORKERS,
    "prefill": {name: slug.replace("worker", "prefill") for name, slug in _OF_WORKERS.items()},
}
"""By role: gauges whose baseline is 0, and the slugs under which a leak of theirs is found."""

BOOKKEEPING: Final[Mapping[str, Mapping[str, str]]] = {
    "frontend": {"router_blocks": "blocks", "router_prefill": "prefill-tokens"},
    "worker": {},
    "prefill": {},
}
"""Likewise, what a router that counts takes the workers to hold."""

ZERO: Final = 1e-9


class _Return(Invariant):
    """Every gauge of every living, untouched process is back at 0 at rest, within `rest_bound_s`."""

    kinds = frozenset({"sample"})
    gauges: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    def __init__(self) -> None:
        super().__init__()
        self._zero: dict[tuple[str, str], Sample] = {}
        """By process and gauge, the last sample that showed 0."""

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Remember when each gauge was last at 0."""
        if isinstance(event, Sample):
            for name, value in event.values.items():
                if abs(value) <= ZERO:
                    self._zero[event.title, name] = event
        return ()

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge the last sample of every process that lives and is under no fault."""
        overs = [request.over for request in ledger.requests.values()]
        last_end = max((over for over in overs if over is not None), key=lambda at: at.after_s, default=None)
        if last_end is None:
            return
        for process in ledger.processes.values():
            from_s = _judged_from_s(process, last_end)
            if from_s is not None and process.title in ledger.last_sample:
                yield from self._process(ledger, process, last_end, from_s, all_over=None not in overs)

    def _process(
        self, ledger: Ledger, process: Incarnation, last_end: Interval, from_s: float, *, all_over: bool
    ) -> Iterator[Finding]:
        sample, bound_s = ledger.last_sample[process.title], ledger.setting.bounds.rest_bound_s
        late = all_over and sample.at.before_s >= from_s + bound_s and not ledger.stalled(from_s, bound_s)
        for name, slug in self.gauges[process.started.role].items():
            if name not in sample.values or sample.values[name] < 0:
                continue  # a gauge below zero is O3's
            zero = self._zero.get((process.title, name))
            if zero is not None and zero.at.after_s >= last_end.after_s:
                self.tally.evaluated += 1
            elif not late:
                self.tally.unknown += 1
            elif not _told_by_others(ledger, process):
                self.tally.evaluated += 1
                after_s = sample.at.before_s - last_end.after_s
                yield self.finding(
                    slug,
                    f"{process.title} {name}",
                    f"{name} of {process.title} was {sample.values[name]:g} at rest, {after_s:.1f} s after the last"
                    " request's end, expected 0",
                    f"client, {when(last_end)}: the last request's end",
                    read(zero, name) if zero else f"{process.title} metrics: {name} was never seen at 0",
                    read(sample, name),
                )


class GaugesReturn(_Return):
    """R1. Documented: the gauges count what is being processed (observability/metrics-catalog), and at rest nothing is."""

    id = "R1"
    sentence = "At rest, in-flight, queued and running counts and KV use are back at 0 on every process."
    gauges = GAUGES
    slugs = frozenset(slug for gauges in GAUGES.values() for slug in gauges.values())


class RouterForgets(_Return):
    """R2. Documented: the gauges tell the blocks and the prompt tokens that are active on each worker (metrics-catalog).

    It is not documented that what a worker had is dropped when the worker goes: if one has died, nothing is judged.
    """

    id = "R2"
    sentence = "At rest, the router takes no worker to hold a block or a prompt any more."
    needs = frozenset({"router bookkeeping"})
    gauges = BOOKKEEPING
    slugs = frozenset(BOOKKEEPING["frontend"].values())

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge the frontends' last samples, if every worker that was there still is."""
        if any(worker.died is not None or worker.faults for worker in ledger.all_workers):
            self.tally.unknown += 1
            return ()
        return super().at_rest(ledger)


def _judged_from_s(process: Incarnation, last_end: Interval) -> float | None:
    """From when on the bound runs for this process; None if it is not judged: dead, or under a fault.

    A process that was frozen and is thawed lives on: it is judged, the bound counted from the thaw.
    """
    faults = {fault.fault for fault in process.faults}
    if process.exited or not faults <= {"freeze-worker", "thaw-worker"}:
        return None
    thawed_s = max((end for _, end in process.frozen()), default=last_end.after_s)
    return None if thawed_s == math.inf else max(last_end.after_s, thawed_s)


def _told_by_others(ledger: Ledger, process: Incarnation) -> bool:
    if process.started.role == "frontend":
        return False
    generations = ledger.served.get(process.title, {}).values()
    unended = ledger.setting.engine_ids and any(len(g.ends) < len(g.begun) for g in generations)
    return unended or gauge_goes_on(ledger, process.title) is not None


class NoOrphan(Invariant):
    """R3. No process of a worker or a frontend outlives it, and none piles up what it was lent."""

    id = "R3"
    sentence = "No process is left when its worker or frontend has ended; no descriptors, threads or children pile up."
    kinds = frozenset({"left-over", "mark", "usage"})
    at_any_end = True
    slugs = frozenset({"orphan", *(f"{role}-{what}" for role in ROLES for what in HANDLES)})

    def __init__(self) -> None:
        super().__init__()
        self._series = Series()

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Judge what was left over, and keep what is used."""
        if isinstance(event, Usage):
            self._series.add(event)
        elif not isinstance(event, LeftOver):
            self.tally.evaluated += getattr(event, "stage", "") == "closed"
        elif event.of != "harness":
            pids = ", ".join(map(str, event.pids))
            message = f"{len(event.pids)} processes of {event.of} outlived it: {event.by[:80]}"
            yield self.finding("orphan", event.of, message, f"{event.of}, {when(event.at)}: pids {pids} alive")

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge what each process used while the cluster was quiet, over the requests that it had served."""
        for title, role, usages in self._series.judged(ledger):
            self.tally.evaluated += 1
            # A socket is a descriptor too: what leaks is told by its own name.
            grown = [g for what in HANDLES if (g := growth(usages, what, ledger.setting.bounds.leak_handles))]
            for one in grown if len(grown) < 2 else [g for g in grown if g.what != "fds"]:
                yield self.finding(f"{role}-{one.what}", f"{title} {one.what}", *told(title, one, usages))


class MemoryStays(Invariant):
    """R4. Wished for: a process that has served a request needs no more memory for it."""

    id = "R4"
    sentence = "Over many requests on one cluster, the memory of its processes does not grow."
    kinds = frozenset({"usage"})
    needs = frozenset({"real processes"})
    slugs = frozenset({f"{role}-memory" for role in ROLES})

    def __init__(self) -> None:
        super().__init__()
        self._series = Series()

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Keep what is used."""
        if isinstance(event, Usage):
            self._series.add(event)
        return ()

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each process that was looked at often enough."""
        for title, role, usages in self._series.judged(ledger):
            self.tally.evaluated += 1
            grown = growth(usages, "memory", ledger.setting.bounds.leak_bytes)
            if grown is not None:
                yield self.finding(f"{role}-memory", f"{title} memory", *told(title, grown, usages))


class NoPanic(Invariant):
    """R5. No panic, traceback or assertion, and no exit, beyond what an active fault on that process allows."""

    id = "R5"
    sentence = "No process panics, writes a traceback, fails an assertion or exits, except by a fault made on it."
    kinds = frozenset({"log"})
    at_any_end = True  # a process that exited is judged at rest alone: else it may have been the closing
    slugs = frozenset({"panic", "traceback", "assertion", "exited"})

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[LogLine] = []

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Keep the lines."""
        if isinstance(event, LogLine) and event.meaning in ("panic", "traceback", "assertion"):
            self._lines.append(event)
        return ()

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge the lines, now that all faults are known, and the exits."""
        self.tally.evaluated += len(ledger.processes)
        for line in self._lines:
            process = ledger.processes.get(line.title)
            if process is None or _excused(process, line) or _is_ordered(ledger, line):
                continue
            if line.meaning == "traceback" and _cannot_start(ledger, process):
                continue
            words = line.fields.get("message", "")
            message = f"{line.title} wrote a {line.meaning}{f': {str(words)[:120]}' if words else ''}"
            yield self.finding(line.meaning, line.title, message, said(line))
        if "rest" in ledger.marks:
            for process in ledger.processes.values():
                yield from self._exited(ledger, process)

    def _exited(self, ledger: Ledger, process: Incarnation) -> Iterator[Finding]:
        """A process that had been up and ended though no fault, verified or not, was made on it."""
        exited = process.exited
        up = bool(process.listed) or process.started.role == "frontend"
        if exited is None or not up or process.exit_ordered or process.faults:
            return
        if may_end(ledger, process) or _cannot_start(ledger, process):
            return
        how = f"signal {exited.signal}" if exited.signal is not None else f"exit code {exited.code}"
        message = f"{process.title} ended by itself ({how}), though no fault was made on it"
        yield self.finding("exited", process.title, message, f"{process.title}, {when(exited.at)}: {how}")


def _cannot_start(ledger: Ledger, process: Incarnation) -> bool:
    """It ended without ever having been up, and a service that it needs was out while it started."""
    came_up = bool(process.listed) or process.title in ledger.views
    if came_up or process.exited is None:
        return False
    began_s, ended_s = process.started.at.before_s, process.exited.at.after_s
    return any(outage.began.before_s <= ended_s and outage.back.after_s >= began_s for outage in outages(ledger))


def _is_ordered(ledger: Ledger, line: LogLine) -> bool:
    """The traceback of an engine that was told to fail a request, or that refused one that was its client's fault."""
    late_s = ledger.setting.bounds.abort_bound_s
    here = [r.erred.at for r in ledger.requests.values() if r.erred is not None and r.erred.title == line.title]
    for id_, generation in ledger.served.get(line.title, {}).items():
        request = ledger.by_id.get(id_)
        if request is not None and request.sent.wrong:
            here += [failed.at for failed in generation.failed]
    return line.meaning == "traceback" and any(
        at.could_overlap(line.at.before_s - late_s, line.at.after_s) for at in here
    )


def _excused(process: Incarnation, line: LogLine) -> bool:
    faults = (fault for fault in process.faults if fault.fault in ("kill-worker", "kill-engine", "freeze-worker"))
    return any(fault.at.before_s <= line.at.after_s for fault in faults)
