"""Counts over examples: what one judgement counts, as a JSON object, and the sum of many such."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from ftmodel.invariants import INVARIANTS, Judgement
from ftmodel.invariants.situations import SITUATIONS

FLAT: Final = ("steps", "requests", "situations")
NESTED: Final = ("faults", "duty")
MEASURED: Final = ("coverage", "latency")
"""Counted too, and told by the page alone."""
NUMBERS: Final = ("migrations", "aborts")


def counted(judgement: Judgement, measures: Mapping[str, Any]) -> dict[str, Any]:
    """What this judgement and these measures count; zeros are left out."""
    invariants = {
        name: {"not_applicable": count.not_applicable}
        if count.not_applicable
        else {"evaluated": count.evaluated, "violated": count.violated, "unknown": count.unknown}
        for name, count in judgement.invariants.items()
    }
    return {
        **{name: {key: n for key, n in getattr(judgement, name).items() if n} for name in FLAT},
        **{name: getattr(judgement, name) for name in NESTED},
        **{name: getattr(judgement, name) for name in NUMBERS},
        **{name: measures.get(name, {}) for name in MEASURED},
        "invariants": invariants,
    }


@dataclasses.dataclass(slots=True)
class Totals:
    """The sum so far. Examples whose harness failed count as examples alone."""

    examples: int = 0
    seconds: float = 0.0
    numbers: Counter[str] = dataclasses.field(default_factory=Counter)
    flat: dict[str, Counter[str]] = dataclasses.field(
        default_factory=lambda: {name: Counter() for name in (*FLAT, "coverage")}
    )
    nested: dict[str, dict[str, Counter[str]]] = dataclasses.field(
        default_factory=lambda: {name: {} for name in (*NESTED, "latency")}
    )
    invariants: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    lacking: dict[str, str] = dataclasses.field(default_factory=dict)
    """Of invariants: why they say nothing of some topology."""

    def add(self, row: Mapping[str, Any], seconds: float) -> None:
        """Add what one judgement counted; an empty row for an example without one."""
        self.examples += 1
        self.seconds += seconds
        for name in NUMBERS:
            self.numbers[name] += row.get(name, 0)
        for name in self.flat:
            self.flat[name].update(row.get(name, {}))
        for name in self.nested:
            for key, counts in row.get(name, {}).items():
                self.nested[name].setdefault(key, Counter()).update(counts)
        for name, counts in row.get("invariants", {}).items():
            if "not_applicable" in counts:
                self.lacking[name] = counts["not_applicable"]
            else:
                self.invariants.setdefault(name, Counter()).update(counts)

    @property
    def verified(self) -> int:
        """Faults that were seen to have happened."""
        return sum(counts["verified"] for counts in self.nested["faults"].values())

    @property
    def reached(self) -> dict[str, int]:
        """Situations that were reached, and how often."""
        return dict(self.flat["situations"])

    def as_json(self) -> dict[str, Any]:
        """As the verdict has it."""
        names = [cls.id for cls in INVARIANTS if cls.id in self.invariants or cls.id in self.lacking]
        return {
            "examples": self.examples,
            "steps": dict(sorted(self.flat["steps"].items())),
            "faults": {kind: dict(counts) for kind, counts in sorted(self.nested["faults"].items())},
            "requests": dict(self.flat["requests"]),
            "duty": {name: dict(counts) for name, counts in self.nested["duty"].items()},
            "migrations": self.numbers["migrations"],
            "aborts": self.numbers["aborts"],
            "situations": {situation.id: self.flat["situations"][situation.id] for situation in SITUATIONS},
            "invariants": {
                name: dict(self.invariants[name]) if name in self.invariants else {"not_applicable": self.lacking[name]}
                for name in names
            },
        }
