"""What a soak is to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ftmodel.known import Issue
from ftmodel.soak.lane import Setup
from ftmodel.soak.rounds import Round
from ftmodel.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One command's worth of it."""

    topologies: tuple[Topology, ...]
    lanes: int
    seconds: float
    """How long it goes on. What is under way then still comes to its end."""
    seed: int
    steps: int
    setup: Setup
    """Of each lane, but for its name."""
    issues: tuple[Issue, ...] = ()
    only: Round | None = None
    """Play this round alone."""

    @property
    def folder(self) -> Path:
        """The soak's."""
        return Path(self.setup.folder)
