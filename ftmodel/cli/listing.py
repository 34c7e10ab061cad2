"""What `ftmodel list` shows."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ftmodel import topology
from ftmodel.errors import UsageError
from ftmodel.invariants import INVARIANTS
from ftmodel.invariants.situations import SITUATIONS
from ftmodel.profiles import PROFILES
from ftmodel.steps import KINDS, about
from ftmodel.targets.simulated import catalogue

WHAT = ("invariants", "steps", "topologies", "profiles", "situations", "defects")


def rows(what: str) -> list[dict[str, Any]]:
    """The rows of one list. Raises UsageError for a list that does not exist."""
    match what:
        case "invariants":
            return [
                {"id": cls.id, "sentence": cls.sentence, "signatures": sorted(f"{cls.id}/{s}" for s in cls.slugs)}
                for cls in INVARIANTS
            ]
        case "steps":
            return [{"kind": kind, "about": about(kind)} for kind in KINDS]
        case "topologies":
            return [{"name": name, "about": topology.find(name).about} for name in topology.presets()]
        case "profiles":
            return [
                {"name": p.name, "examples": p.examples or "until --for is over", "steps": p.steps, "about": p.about}
                for p in PROFILES
            ]
        case "situations":
            return [{"id": situation.id, "sentence": situation.sentence} for situation in SITUATIONS]
        case "defects":
            return [
                {"id": one.id, "hook": one.hook, "hard": "hard" if one.hard else "", "sentence": one.sentence}
                for one in catalogue.ours()
            ]
        case _:
            raise UsageError(f"list {what!r}: unknown, expected one of {', '.join(WHAT)}; try: ftmodel list invariants")


def table(listed: list[dict[str, Any]]) -> Table:
    """The rows as a table."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for key in listed[0]:
        shown.add_column(key, no_wrap=key in ("id", "kind", "name"), overflow="fold")
    for listed_row in listed:
        shown.add_row(*(_cell(value) for value in listed_row.values()))
    return shown


def _cell(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else " ".join(str(value).split())
