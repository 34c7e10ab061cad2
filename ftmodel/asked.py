"""What a test asks for, by its class or by its marker: the topology, the rules, the values of the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from ftmodel import known
from ftmodel import topology as topologies
from ftmodel.errors import UsageError
from ftmodel.invariants import INVARIANTS, Invariant
from ftmodel.pytest_plugin import Chosen
from ftmodel.runner import Rules
from ftmodel.steps import FRONTENDS, SLOTS, Plan
from ftmodel.topology import Topology

MARKER_OPTIONS: Final = (
    "topology", "workers", "prefill_workers", "frontends", "migration_limit", "patience", "invariants", "known_issues",
)  # fmt: skip
DEFAULT_TOPOLOGY: Final = "counting"


def named(names: str | Sequence[str]) -> list[str]:
    """Names of topologies, given as one or as several."""
    return [names] if isinstance(names, str) else list(names)


def found(name: str, folder: Path) -> Topology:
    """The topology of a preset's name, or of a file's path as seen from this folder. Raises TopologyError."""
    return topologies.find(str(folder / name) if name.endswith(".toml") else name)


def rules_of(invariants: Sequence[type[Invariant]], known_issues: str | None, folder: Path, chosen: Chosen) -> Rules:
    """By what a test's examples are judged. Raises UsageError."""
    twice = [name for name, count in Counter(cls.id for cls in invariants).items() if count > 1]
    if twice:
        raise UsageError(f"invariants: id {twice[0]} is given twice, expected an id of its own for each")
    path = chosen.known_issues or (folder / known_issues if known_issues is not None else None)
    if path is None and (chosen.root / known.DEFAULT).is_file():
        path = chosen.root / known.DEFAULT
    return Rules(invariants=tuple(invariants), issues=known.load(path, invariants) if path is not None else ())


def marked(item: pytest.Item) -> dict[str, Any]:
    """The options that a test's markers give, the nearest one first. Raises UsageError."""
    options: dict[str, Any] = {"topology": DEFAULT_TOPOLOGY, "invariants": INVARIANTS, "known_issues": None}
    for mark in reversed(list(item.iter_markers("ftmodel"))):
        unknown = [name for name in mark.kwargs if name not in MARKER_OPTIONS]
        if mark.args or unknown:
            raise UsageError(
                f"{item.nodeid}: marker ftmodel: got {', '.join([*map(repr, mark.args), *unknown])}, expected some of"
                f" {', '.join(f'{name}=' for name in MARKER_OPTIONS)}"
            )
        options |= mark.kwargs
    return options


def head_of(top: Topology, options: dict[str, Any]) -> Plan:
    """A plan without steps, with the values that were asked for. Raises UsageError."""
    patience = options.get("patience", "short")
    if patience not in ("short", "long"):
        raise UsageError(f"marker ftmodel: patience: got {patience!r}, expected short or long")
    return Plan(
        topology=top.name,
        workers=_asked(options, "workers", range(1, SLOTS + 1), top.workers, 2),
        prefill_workers=_asked(
            options,
            "prefill_workers",
            range(1, SLOTS + 1) if top.prefill_workers else range(1),
            top.prefill_workers or (0,),
            1,
        ),
        frontends=_asked(options, "frontends", range(1, FRONTENDS + 1), top.frontends, 1),
        migration_limit=_asked(options, "migration_limit", range(1 << 16), top.migration_limits, 3),
        patience=patience,
    )


def _asked(options: dict[str, Any], name: str, allowed: range, listed: Sequence[int], usual: int) -> int:
    value = options.get(name, usual if usual in listed else listed[0])
    if not isinstance(value, int) or value not in allowed:
        raise UsageError(f"marker ftmodel: {name}: got {value!r}, expected {allowed[0]} to {allowed[-1]}")
    return value
