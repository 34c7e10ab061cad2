"""The axes along which topologies of one cluster differ, and the topologies that differ from a given one along one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ftmodel.errors import UsageError
from ftmodel.invariants.agreement import AxisName
from ftmodel.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One key of a topology that a promise says makes no difference to clients."""

    name: AxisName
    key: str
    other: Callable[[str], str]
    """From the key's value, the one to compare it with."""

    def from_(self, base: Topology) -> Topology:
        """The topology that differs from this one along the axis alone; its name tells how."""
        value = self.other(getattr(base, self.key))
        changed: dict[str, Any] = {"name": f"{base.name}-{value}", self.key: value}
        return dataclasses.replace(base, **changed)


AXES: Final = (
    Axis(name="discovery", key="discovery", other=lambda value: "etcd" if value == "file" else "file"),
    Axis(name="request-plane", key="request_plane", other=lambda value: "nats" if value == "tcp" else "tcp"),
    Axis(name="router", key="router_mode", other=lambda value: "round-robin" if value == "kv" else "kv"),
)
ANY: Final[AxisName] = "topology"
"""Between topologies that differ in more than one of these keys, or in others."""


def find(names: str) -> tuple[Axis, ...]:
    """The axes of these names, separated by commas. Raises UsageError for one that does not exist."""
    known = {axis.name: axis for axis in AXES}
    found = []
    for name in names.split(","):
        axis = next((axis for axis in AXES if axis.name == name.strip()), None)
        if axis is None:
            raise UsageError(
                f"axis {name.strip()!r}: unknown, expected one of {', '.join(known)}; try: --axis {AXES[0].name}"
            )
        found.append(axis)
    return tuple(dict.fromkeys(found))


def between(one: Topology, other: Topology) -> AxisName:
    """The one axis along which these differ, or `ANY`.

    The plane of events follows that of the requests where a file leaves it out, so it counts as a part of it.
    """
    plain = {
        name
        for name in Topology.__dataclass_fields__
        if name not in ("name", "about") and getattr(one, name) != getattr(other, name)
    }
    if "request_plane" in plain:
        plain.discard("event_plane")
    return next((axis.name for axis in AXES if plain == {axis.key}), ANY)


def common(topologies: Sequence[Topology]) -> Topology:
    """The first of these, with the free values that all of them admit. Raises UsageError if there are none."""
    first = topologies[0]
    admitted: dict[str, Any] = {}
    for key in ("workers", "frontends", "migration_limits"):
        values = tuple(value for value in getattr(first, key) if all(value in getattr(top, key) for top in topologies))
        if not values:
            named = "; ".join(f"{top.name} has {getattr(top, key)}" for top in topologies)
            raise UsageError(
                f"key {key}: {named}: expected a value that all of them admit; try: ftmodel list topologies"
            )
        admitted[key] = values
    return dataclasses.replace(first, **admitted)
