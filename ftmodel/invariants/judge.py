"""Folds a history into a judgement: the ledger first, then each invariant that applies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ftmodel.errors import StoreError
from ftmodel.history import Event, FaultMade, Mark, Setting, StepDone
from ftmodel.invariants import duty
from ftmodel.invariants.base import Finding, Invariant, missing_need
from ftmodel.invariants.harness import doubts
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.migration import redispatches
from ftmodel.invariants.situations import reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How often one invariant was decided, violated and not decidable; or why it says nothing here."""

    evaluated: int = 0
    violated: int = 0
    unknown: int = 0
    not_applicable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one example's history shows."""

    findings: tuple[Finding, ...]
    invariants: dict[str, Count]
    duty: dict[str, dict[str, int]]
    """L2: requests that nobody cancelled, by what was owed; `must_touched` is the part of `must` that faults touched.
    A1: cancels, by what was owed."""
    requests: dict[str, int]
    """By outcome: completed, cancelled, failed, unknown. The tester's own probes are judged, but not counted."""
    migrations: int
    aborts: int
    faults: dict[str, dict[str, int]]
    steps: dict[str, int]
    completed: tuple[str, ...]
    """Names of the requests that were answered in full, probes left out."""
    doubts: tuple[str, ...]
    """Why the harness, not the tested system, makes the verdict unknown; empty if it does not."""
    situations: dict[str, int] = field(default_factory=dict)
    """By id, how often each was reached; 0: never."""


class Judge:
    """Takes the events of one example one by one. `feed` returns what is newly found; `result` ends it."""

    def __init__(self, invariants: Sequence[type[Invariant]]) -> None:
        self._classes = tuple(invariants)
        self._ledger: Ledger | None = None
        self._applying: list[Invariant] = []
        self._lacking: dict[str, str] = {}
        self._findings: list[Finding] = []
        self._retired: set[tuple[str, str]] = set()
        self._made: Counter[str] = Counter()
        self._verified: Counter[str] = Counter()
        self._steps: Counter[str] = Counter()

    def feed(self, event: Event) -> tuple[Finding, ...]:
        """Take one event; the first must be the `Setting`. Raises StoreError if it is not."""
        ledger = self._ledger or self._begin(event)
        if not ledger.belongs(event):
            return ()
        ledger.see(event)
        self._count(event)
        new: list[Finding] = []
        for invariant in self._applying:
            if event.kind in invariant.kinds:
                new += self._keep(invariant.see(event, ledger))
        if isinstance(event, Mark) and event.stage == "closed":
            new += self._settle(ledger)
        return tuple(new)

    def result(self) -> Judgement:
        """What all of it shows. Decides what is decided at rest, unless the `closed` mark already did.

        Raises StoreError for a history without events.
        """
        ledger = self._ledger
        if ledger is None:
            raise StoreError("the history is empty: expected its first event to be the setting")
        self._settle(ledger)
        return Judgement(
            findings=tuple(self._findings),
            invariants=self._counts(),
            duty=_duties(ledger),
            requests=_outcomes(ledger),
            migrations=sum(redispatches(ledger, request) for request in ledger.requests.values()),
            aborts=_aborts(ledger),
            faults={kind: {"made": n, "verified": self._verified[kind]} for kind, n in sorted(self._made.items())},
            steps=dict(sorted(self._steps.items())),
            situations=reached(ledger),
            completed=tuple(r.name for r in ledger.requests.values() if r.whole and not r.sent.probe),
            doubts=doubts(ledger, self._applying),
        )

    def _begin(self, event: Event) -> Ledger:
        if not isinstance(event, Setting):
            raise StoreError(f"the history begins with {event.kind!r}: expected its first event to be the setting")
        self._ledger = ledger = Ledger(event)
        for cls in self._classes:
            need = missing_need(cls, event)
            if need is None:
                self._applying.append(cls())
            else:
                self._lacking[cls.id] = f"needs {need}"
        return ledger

    def _count(self, event: Event) -> None:
        match event:
            case FaultMade():
                self._made[event.fault] += 1
                self._verified[event.fault] += event.verified
            case StepDone():
                self._steps[event.deed] += 1
            case _:
                pass

    def _settle(self, ledger: Ledger) -> list[Finding]:
        if ledger.settled:
            return []
        ledger.settled = True
        ledger.memo.clear()
        rested = "rest" in ledger.marks
        judging = [invariant for invariant in self._applying if rested or invariant.at_any_end]
        return [finding for invariant in judging for finding in self._keep(invariant.at_rest(ledger))]

    def _keep(self, findings: Iterable[Finding]) -> list[Finding]:
        """The findings whose invariant and subject are not retired yet."""
        new = []
        for finding in findings:
            key = (finding.invariant, finding.subject)
            if key not in self._retired:
                self._retired.add(key)
                new.append(finding)
        self._findings += new
        return new

    def _counts(self) -> dict[str, Count]:
        violated = Counter(finding.invariant for finding in self._findings)
        counts = {cls_id: Count(not_applicable=why) for cls_id, why in self._lacking.items()}
        for invariant in self._applying:
            tally = invariant.tally
            counts[invariant.id] = Count(
                evaluated=tally.evaluated, violated=violated[invariant.id], unknown=tally.unknown
            )
        return {cls.id: counts[cls.id] for cls in self._classes}


def _duties(ledger: Ledger) -> dict[str, dict[str, int]]:
    completion = dict.fromkeys(("must", "must_touched", "may", "must_not"), 0)
    aborts = dict.fromkeys(("must", "may", "must_not"), 0)
    for request in ledger.requests.values():
        if request.sent.probe:
            continue
        if request.closed is not None or request.closed_after_end:
            aborts[duty.cancel_duty(ledger, request).value] += 1
        if request.closed is None:
            owed = duty.completion(ledger, request)
            completion[owed.value] += 1
            completion["must_touched"] += owed.value == "must" and owed.touched
    return {"L2": completion, "A1": aborts}


def _outcomes(ledger: Ledger) -> dict[str, int]:
    counts = dict.fromkeys(("completed", "cancelled", "failed", "unknown"), 0)
    for request in ledger.requests.values():
        if request.sent.probe:
            continue
        if request.closed is not None:
            counts["cancelled"] += 1
        elif request.ended is None:
            counts["unknown"] += 1
        else:
            counts["completed" if request.whole else "failed"] += 1
    return counts


def _aborts(ledger: Ledger) -> int:
    """Request ids with an abort; where the engine logs none, what the workers counted.

    A worker's counter can count ordinary ends too, so no more than the cancelled requests that began there.
    """
    if ledger.setting.engine_ids:
        return sum(any(g.aborted for g in titles.values()) for titles in ledger.generations.values())
    total = 0
    for worker in ledger.workers:
        here = (ledger.by_id.get(id_) for id_ in ledger.served.get(worker.title, {}))
        left = sum(request is not None and request.closed is not None for request in here)
        total += min(left, int(ledger.counted(worker.title, "cancellations") or 0))
    return total
