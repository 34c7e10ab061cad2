"""What an invariant is: a fold over events that ends in findings.

An invariant sees each event once, and only the kinds that it wants; it is asked again when the example is at rest. What
all of them need is folded once, in the `Ledger`; an invariant keeps for itself only what nobody else reads.

To add one: derive from `Invariant` in the module of its subject, put it into the tuple in `ftmodel.invariants`, and add
a mutation that only it catches (tests/unit/test_mutations.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ftmodel.history import Event, Interval, LogLine, Sample, Setting
from ftmodel.invariants.ledger import Ledger

Need = Literal[
    "migrate", "engine ids", "lease", "exact text", "router bookkeeping", "a control plane service",
    "a compared run (ftmodel compare EXAMPLE)", "runs on several topologies (ftmodel agree)",
    "real processes",
]  # fmt: skip
"""What an invariant may need of the system and the engine under test to say anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A violation: what was observed and expected, about whom, and where it can be seen."""

    invariant: str
    slug: str
    subject: str
    """The request or the process that it is about; once found, the pair of invariant and subject is retired."""
    message: str
    evidence: tuple[str, ...]
    """Short strings, each with process and time."""

    @property
    def signature(self) -> str:
        """What makes two findings the same bug: of a closed set, never a number or an id."""
        return f"{self.invariant}/{self.slug}"


@dataclass(slots=True)
class Tally:
    """How often an invariant was really decided, how often it could not be, and for want of which log meanings."""

    evaluated: int = 0
    unknown: int = 0
    unproven: set[str] = field(default_factory=set)


class Invariant:
    """One rule about the tested system. A subclass gives the class variables and overrides `see`, `at_rest` or both."""

    id: ClassVar[str]
    sentence: ClassVar[str]
    kinds: ClassVar[frozenset[str]] = frozenset()
    """Kinds of events that `see` wants."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    slugs: ClassVar[frozenset[str]] = frozenset()
    rests_on: ClassVar[frozenset[str]] = frozenset()
    """Log meanings whose absence it takes as evidence: not proven by a control run, the decision is unknown."""

    at_any_end: ClassVar[bool] = False
    """`at_rest` holds for an example that broke off too: it judges what was seen, not what is missing."""

    def __init__(self) -> None:
        self.tally = Tally()

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:  # noqa: ARG002  # for those who override it
        """Take one event; the ledger has already taken it."""
        return ()

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:  # noqa: ARG002
        """Decide what can only be decided when all is over."""
        return ()

    def finding(self, slug: str, subject: str, message: str, *evidence: str) -> Finding:
        """A finding of this invariant. Raises ValueError for a slug outside its closed set."""
        if slug not in self.slugs:
            raise ValueError(f"{self.id}: slug {slug!r}: expected one of {', '.join(sorted(self.slugs))}")
        return Finding(invariant=self.id, slug=slug, subject=subject, message=message, evidence=evidence)

    def proven(self, ledger: Ledger, *meanings: str) -> bool:
        """True if a control run has seen all of these log meanings; else the decision is counted as unknown."""
        missing = set(meanings) - set(ledger.setting.proven)
        self.tally.unproven |= missing
        self.tally.unknown += bool(missing)
        return not missing


def missing_need(invariant: type[Invariant], setting: Setting) -> Need | None:
    """The first thing that the invariant needs and this setting lacks."""
    has: dict[Need, bool] = {
        "migrate": setting.promise.recovery == "migrate",
        "engine ids": setting.engine_ids,
        "lease": setting.bounds.lease_s > 0,
        "exact text": setting.exact_text,
        "a compared run (ftmodel compare EXAMPLE)": setting.variant != "as-drawn",
        "runs on several topologies (ftmodel agree)": False,  # no history has them
        "a control plane service": setting.promise.outage_s > 0,
        "real processes": not setting.simulated,
        "router bookkeeping": setting.router_mode == "kv",
    }
    return next((need for need in sorted(invariant.needs) if not has[need]), None)


# --- evidence, in words -----------------------------------------------------------------------------------------


def when(at: Interval) -> str:
    """The interval as a person reads it: one time if it is a moment."""
    if at.after_s - at.before_s < 0.001:
        return f"{at.after_s:.3f} s"
    return f"{at.before_s:.3f}-{at.after_s:.3f} s"


def said(line: LogLine) -> str:
    """A log line as evidence."""
    return f"{line.title} log line {line.line}, {when(line.at)}: {line.meaning} {line.id}".rstrip()


def read(sample: Sample, name: str) -> str:
    """A metric as evidence."""
    value = sample.values.get(name)
    return f"{sample.title} metrics, {when(sample.at)}: {name} = {'absent' if value is None else format(value, 'g')}"
