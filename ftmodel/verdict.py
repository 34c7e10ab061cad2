"""The verdict of a run: what all its examples show together, as one JSON object and as an exit code."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from ftmodel.invariants import INVARIANTS
from ftmodel.invariants.base import Finding
from ftmodel.invariants.situations import SITUATIONS
from ftmodel.known import Issue
from ftmodel.rates import Rate
from ftmodel.runner import Outcome, Value

EXIT_CODES: Final[dict[Value, int]] = {"holds": 0, "violated": 1, "unknown": 2}
WRONG_USE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One signature: how often it was found, and the first example that shows it."""

    signature: str
    invariant: str
    count: int
    outcome: Outcome
    finding: Finding
    issue: Issue | None = None
    """The known issue that covers it, if one does wherever it was found."""

    @property
    def known(self) -> bool:
        """Counted and shown, but it fails nothing."""
        return self.issue is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of all examples of a run."""

    value: Value
    seed: int | None
    target: Literal["real"]
    system: dict[str, str]
    topologies: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    violations: tuple[Violation, ...]
    doubts: tuple[str, ...]
    """Why it is unknown, or what else the harness could not do."""
    store: Path
    seconds: float
    rates: Mapping[int, Mapping[str, Rate]]
    """Where one plan was run several times: by how many of its first steps were run, how often each signature was seen."""

    @property
    def exit_code(self) -> int:
        """0 holds, 1 violated, 2 unknown."""
        return EXIT_CODES[self.value]


def combine(
    outcomes: Sequence[Outcome],
    *,
    seed: int | None,
    system: dict[str, str],
    topologies: Sequence[str],
    store: Path,
    doubts: Sequence[str] = (),
    seconds: float = 0.0,
    rates: Mapping[int, Mapping[str, Rate]] | None = None,
) -> Verdict:
    """The verdict of these outcomes: violated if any is, else unknown if any is (or if `doubts` says so), else holds.

    Known issues alone hold.
    """
    ordered = sorted(outcomes, key=lambda outcome: str(outcome.folder))
    why = [*doubts, *(_doubt(outcome) for outcome in ordered if outcome.value == "unknown")]
    values = {outcome.value for outcome in ordered}
    drawn = any(not outcome.scripted for outcome in ordered)
    value: Value = "violated" if "violated" in values else "unknown" if why or not drawn else "holds"
    return Verdict(
        value=value,
        seed=seed,
        target="real",
        system=system,
        topologies=tuple(topologies),
        outcomes=tuple(ordered),
        violations=_violations(ordered),
        doubts=tuple(why),
        store=store,
        seconds=seconds,
        rates=rates or {},
    )


def _doubt(outcome: Outcome) -> str:
    judged = outcome.judgement
    return f"{outcome.folder}: {outcome.failure or '; '.join(judged.doubts if judged else ())}"


def _violations(outcomes: Sequence[Outcome]) -> tuple[Violation, ...]:
    first: dict[str, tuple[Outcome, Finding]] = {}
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        for finding in outcome.judgement.findings if outcome.judgement else ():
            counts[finding.signature] += 1
            shown = first.setdefault(finding.signature, (outcome, finding))
            if finding.signature in shown[0].known and finding.signature not in outcome.known:
                first[finding.signature] = (outcome, finding)  # what is not known is shown, of releases that differ
    return tuple(
        Violation(
            signature=signature,
            invariant=finding.invariant,
            count=counts[signature],
            outcome=outcome,
            finding=finding,
            issue=outcome.known.get(signature),
        )
        for signature, (outcome, finding) in sorted(first.items())
    )


def row(verdict: Verdict) -> dict[str, Any]:
    """The verdict as the JSON object that `--json` prints and verdict.json holds."""
    drawn = [outcome for outcome in verdict.outcomes if not outcome.scripted]
    judged = [outcome.judgement for outcome in drawn if outcome.judgement is not None]
    return {
        "verdict": verdict.value,
        "seed": verdict.seed,
        "target": verdict.target,
        "system": verdict.system,
        "topologies": list(verdict.topologies),
        "examples": sum(not outcome.scripted for outcome in verdict.outcomes),
        "seconds": round(verdict.seconds, 1),
        "steps": _sum(judgement.steps for judgement in judged),
        "faults": _sum_nested(judgement.faults for judgement in judged),
        "requests": _sum(judgement.requests for judgement in judged),
        "duty": _sum_nested(judgement.duty for judgement in judged),
        "migrations": sum(judgement.migrations for judgement in judged),
        "aborts": sum(judgement.aborts for judgement in judged),
        "situations": {situation.id: 0 for situation in SITUATIONS}
        | _sum(judgement.situations for judgement in judged),
        "invariants": {name: _counts(name, verdict) for name in _judged_by(verdict)},
        "bounds": _bounds(verdict),
        "violations": [_violation(violation) for violation in verdict.violations],
        "doubts": list(verdict.doubts),
        "store": str(verdict.store),
        **_rates(verdict.rates),
    }


def _rates(rates: Mapping[int, Mapping[str, Rate]]) -> dict[str, Any]:
    """Of the whole plan by signature; and of its first steps by their number, where those were run."""
    told = {count: {signature: rate.row() for signature, rate in of.items()} for count, of in rates.items()}
    if not told:
        return {}
    return {"rates": told[max(told)], **({"prefixes": told} if len(told) > 1 else {})}


def _bounds(verdict: Verdict) -> dict[str, float]:
    """By which liveness was judged; the longest, where topologies differ."""
    found: dict[str, float] = {}
    for outcome in verdict.outcomes:
        for name, value in dataclasses.asdict(outcome.setting.bounds).items() if outcome.setting else ():
            found[name] = max(found.get(name, 0.0), value)
    return found


def example_row(outcome: Outcome) -> dict[str, Any]:
    """One example's own verdict.json."""
    judged = outcome.judgement
    return {
        "verdict": outcome.value,
        "topology": outcome.plan.topology,
        "patience": outcome.plan.patience,
        "seconds": round(outcome.seconds, 1),
        "failure": outcome.failure,
        "doubts": list(judged.doubts) if judged else [],
        "findings": [
            {
                "signature": finding.signature,
                "known": finding.signature in outcome.known,
                "subject": finding.subject,
                "message": finding.message,
                "evidence": list(finding.evidence),
            }
            for finding in (judged.findings if judged else ())
        ],
    }


def _violation(violation: Violation) -> dict[str, Any]:
    return {
        "signature": violation.signature,
        "invariant": violation.invariant,
        "known": violation.known,
        "count": violation.count,
        "example": str(violation.outcome.folder),
        "message": violation.finding.message,
        **({"reason": violation.issue.reason, "link": violation.issue.link} if violation.issue else {}),
    }


def _judged_by(verdict: Verdict) -> list[str]:
    """The invariants by which it was judged, in their order; all of ours where nothing was."""
    judged = [outcome.judgement.invariants for outcome in verdict.outcomes if outcome.judgement is not None]
    return list(dict.fromkeys(name for ids in judged for name in ids)) or [cls.id for cls in INVARIANTS]


def _counts(invariant: str, verdict: Verdict) -> dict[str, Any]:
    """Counts over the examples to which it applies; why not, if it applies to none."""
    drawn = [outcome for outcome in verdict.outcomes if not outcome.scripted]
    judged = [outcome.judgement.invariants for outcome in drawn if outcome.judgement is not None]
    counts = [ids[invariant] for ids in judged if invariant in ids]
    applied = [count for count in counts if not count.not_applicable]
    if counts and not applied:
        return {"not_applicable": counts[0].not_applicable}
    return {
        "evaluated": sum(count.evaluated for count in applied),
        "violated": sum(count.violated for count in applied),
        "unknown": sum(count.unknown for count in applied),
    }


def _sum(rows: Any) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in rows:
        total.update(one)
    return dict(total)


def _sum_nested(rows: Any) -> dict[str, dict[str, int]]:
    total: dict[str, Counter[str]] = {}
    for one in rows:
        for key, counts in one.items():
            total.setdefault(key, Counter()).update(counts)
    return {key: dict(counts) for key, counts in total.items()}
