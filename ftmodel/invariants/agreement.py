"""X3: the same plan agrees over the topologies that a promise says are alike to clients.

What is compared is what is owed: whether a request that must complete (`duty`) on both sides did, whether its text is
right, and which other invariants were violated. Each is a yes or a no that a run's own judge gives, since keys of
prompts, and a mocker's words, are of one run. Not compared is what may differ: times, which worker served, what became of
a request that may fail, and an invariant that one side had no occasion to decide.

A defect that strikes now and then strikes one of two runs without being of either topology. So two runs that differ only
raise a suspicion, and fresh runs of both sides decide: their counts of failures must differ by more than chance gives
(Fisher's exact test). In each run the failure stays L2's, T1's or whose it is; X3 tells that the topology makes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from ftmodel.errors import StoreError
from ftmodel.history import Event, Setting
from ftmodel.invariants.base import Finding, Invariant
from ftmodel.invariants.duty import completion
from ftmodel.invariants.judge import Judgement
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.requests import course_of

AxisName = Literal["discovery", "request-plane", "router", "topology"]
"""In what the two sides differ; `topology`: in several of these, or in something else."""
What = Literal["outcome", "text", "verdict"]

CHANCE_MOST: Final = 0.005
"""The most likely that counts of failures differ so much, or more, where both sides fail alike."""
FRESH_LEAST: Final = next(n for n in range(1, 100) if math.comb(2 * n, n) * CHANCE_MOST >= 1)
"""With fewer fresh runs of each side nothing is decided: not even if all of one fail and none of the other."""
OUTCOMES: Final = ("L1", "L2", "P1")
TEXTS: Final = ("T1", "T2", "T4", "P4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What can be right on one side and wrong on the other."""

    what: What
    subject: str
    """A request's name; of a verdict, the signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How it was in one run."""

    wrong: str = ""
    """In words; empty if it was right."""
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run of the plan shows."""

    name: str
    topology: str
    seen: Mapping[Point, Seen]
    decided: frozenset[str]
    """The invariants that were decided."""

    def at(self, point: Point) -> Seen | None:
        """How this point was here; None if nothing can be said of it."""
        if point.what == "verdict" and point.subject.partition("/")[0] in self.decided:
            return self.seen.get(point, Seen())
        return self.seen.get(point)


def run_of(name: str, events: Iterable[Event], judgement: Judgement, known: Iterable[str] = ()) -> Run:
    """What a judged history shows, without the signatures that are known: they fail nothing here either."""
    ledger = _folded(events)
    findings = [finding for finding in judgement.findings if finding.signature not in set(known)]
    seen: dict[Point, Seen] = {}
    for finding in findings:
        if finding.invariant not in OUTCOMES + TEXTS or finding.subject not in _owed(ledger):
            point = Point(what="verdict", subject=finding.signature)
            said = Seen(wrong=f"{finding.subject}: {finding.message}", evidence=finding.evidence)
            seen.setdefault(point, said)
    hidden = {finding.subject for finding in judgement.findings if finding not in findings}
    for subject in _owed(ledger) - hidden:
        seen |= _of_request(ledger, subject, [finding for finding in findings if finding.subject == subject])
    decided = (id_ for id_, count in judgement.invariants.items() if count.evaluated and id_[0] not in "HX")
    return Run(name=name, topology=ledger.setting.topology, seen=seen, decided=frozenset(decided))


def _folded(events: Iterable[Event]) -> Ledger:
    first, *rest = events
    if not isinstance(first, Setting):
        raise StoreError(f"the history begins with {first.kind!r}: expected its first event to be the setting")
    ledger = Ledger(first)
    for event in rest:
        if ledger.belongs(event):
            ledger.see(event)
    ledger.settled = True
    return ledger


def _owed(ledger: Ledger) -> set[str]:
    """The requests that must complete, the tester's own probes left out."""
    requests = (request for request in ledger.requests.values() if not request.sent.probe)
    return {request.name for request in requests if completion(ledger, request).value == "must"}


def _of_request(ledger: Ledger, name: str, findings: Sequence[Finding]) -> dict[Point, Seen]:
    """Its outcome, if it is known; its text, if it was answered in full."""
    request, course = ledger.requests[name], tuple(course_of(ledger, ledger.requests[name]))
    ended = next((finding.message for finding in findings if finding.invariant in OUTCOMES), "")
    texts = next((finding.message for finding in findings if finding.invariant in TEXTS), "")
    seen: dict[Point, Seen] = {}
    if ended or request.whole:
        seen[Point(what="outcome", subject=name)] = Seen(wrong=ended, evidence=course)
    if request.whole:
        seen[Point(what="text", subject=name)] = Seen(wrong=texts, evidence=course)
    return seen


# --- two sides --------------------------------------------------------------------------------------------------


def compared(one: Run, other: Run) -> int:
    """How many requests can be compared."""
    return sum(point.what == "outcome" and point in other.seen for point in one.seen)


def suspected(one: Run, other: Run) -> tuple[Point, ...]:
    """The points at which one run is right and the other wrong."""
    both = ((point, one.at(point), other.at(point)) for point in {**one.seen, **other.seen})
    return tuple(point for point, here, there in both if here and there and bool(here.wrong) != bool(there.wrong))


def chance(failed: int, of: int, failed_more: int, of_more: int) -> float:
    """How likely the second of two sides that fail alike has so many of all their failures, or more (Fisher)."""
    failures, runs = failed + failed_more, of + of_more
    ways = sum(
        math.comb(of_more, k) * math.comb(of, failures - k) for k in range(failed_more, min(of_more, failures) + 1)
    )
    return ways / math.comb(runs, failures)


class TopologiesAgree(Invariant):
    """X3. Decided over several histories (`compare`), so in none alone.

    Documented: discovery, request plane and router mode are choices of a deployment (discovery plane, request plane,
    router guide); what is promised of requests (fault-tolerance/request-migration) holds whatever was chosen.
    """

    id = "X3"
    sentence = "The same plan agrees over nats and tcp, over etcd and file, over round-robin and kv routing."
    needs = frozenset({"runs on several topologies (ftmodel agree)"})
    slugs = frozenset({f"{axis}-{what}" for axis in get_args(AxisName) for what in get_args(What)})

    def compare(self, axis: AxisName, point: Point, ones: Sequence[Run], others: Sequence[Run]) -> Finding | None:
        """Judge a suspicion by fresh runs of both sides: the finding, if the second fails more often than by chance."""
        here, there = _at(point, ones), _at(point, others)
        if math.comb(len(here) + len(there), len(here)) * CHANCE_MOST < 1:
            self.tally.unknown += 1
            return None
        right = [(run, seen) for run, seen in here if not seen.wrong]
        wrong = [(run, seen) for run, seen in there if seen.wrong]
        if chance(len(here) - len(right), len(here), len(wrong), len(there)) > CHANCE_MOST:
            return None
        (good, well), (bad, ill) = right[0], wrong[0]
        message = (
            f"wrong in {len(wrong)} of {len(there)} runs on {bad.topology} ({ill.wrong}), expected the same as on"
            f" {good.topology}: right in {len(right)} of {len(here)}"
        )
        evidence = [f"{run.name}: {line}" for run, seen in ((good, well), (bad, ill)) for line in seen.evidence]
        return self.finding(f"{axis}-{point.what}", point.subject, message, *evidence)


def _at(point: Point, runs: Sequence[Run]) -> list[tuple[Run, Seen]]:
    return [(run, seen) for run in runs if (seen := run.at(point)) is not None]
