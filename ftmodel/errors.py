"""The exceptions of ftmodel, and the exit codes that the command line gives them.

    FtmodelError
    +-- UsageError          exit 3: wrong use; the message shows the value, what was expected, what to type next
    |   +-- PlanError       a plan file that cannot be read
    |   +-- TopologyError   an unknown topology, or one that is impossible
    |   +-- StoreError      a store that cannot be written or read
    +-- HarnessError        exit 2: the tester itself could not do its work (a port taken, a worker that never booted)

A violation is not an exception: it is a result (`ftmodel.runner.Verdict`).
"""

from __future__ import annotations


class FtmodelError(Exception):
    """Root of everything that ftmodel raises on purpose."""


class UsageError(FtmodelError):
    """Wrong use: the caller can mend it."""


class PlanError(UsageError):
    """A plan that cannot be read: the message names file, step, field, value and what was expected."""


class TopologyError(UsageError):
    """A topology that does not exist or cannot exist."""


class StoreError(UsageError):
    """A store that cannot be written (a full disk) or read (a newer format)."""


class HarnessError(FtmodelError):
    """The tester failed, not the tested system: the verdict is unknown."""
