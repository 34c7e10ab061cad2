"""Targets do the steps of a plan on a cluster and tell what happened, as events."""

from __future__ import annotations

from typing import Protocol

from ftmodel.history import History
from ftmodel.steps import Step


class Target(Protocol):
    """A cluster that steps are done to. Made for one example, and closed with it."""

    history: History

    def start(self) -> None:
        """Boot the cluster and wait until it is ready. Raises HarnessError."""

    def apply(self, step: Step) -> None:
        """Do the step, or arm it if its anchor lies ahead. Only `settle` waits.

        Raises HarnessError if the tester cannot go on; nothing for whatever the cluster does.
        """

    def finish(self) -> None:
        """No more steps: wait by the example's patience, heal, wait until it is at rest. The history is whole then.

        Raises HarnessError.
        """

    def fail(self, why: str) -> None:
        """Note in the history that the tester could not go on."""

    def close(self) -> None:
        """End every process of the cluster and remove what it left. May be called at any time, and again."""
