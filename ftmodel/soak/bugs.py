"""What is found, by signature: how often, whether it was seen again on a fresh cluster, and what may be spent on that."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["found", "confirmed", "not reproduced"]
REPLAYS: Final = 4
"""Of a finding's plan, at once; until it was seen again, or `REPLAYS_MOST` were made."""
REPLAYS_MOST: Final = 12
SHARE: Final = 0.25
"""Of the lanes' time, what confirming and shrinking may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One signature. `example` shows it first; its plan is what is replayed."""

    signature: str
    known: bool
    """It is on the list of known issues: counted and shown, neither confirmed nor shrunk."""
    example: str
    folder: str
    message: str
    count: int = 0
    """Examples in which it was found, replays left out."""
    replays: int = 0
    seen: int = 0
    """Of the replays of its plan, each on a fresh cluster: in which it was seen again."""
    state: State = "found"

    @property
    def wants_replays(self) -> bool:
        """It is neither confirmed nor given up."""
        return not self.known and self.state == "found"


def found(bug: Bug | None, signature: str, *, known: bool, example: str, folder: str, message: str) -> Bug:
    """It was found in a further example, whose cluster was fresh too: what its replays did not show is confirmed.

    One that is not known there takes the place of one that is.
    """
    if bug is None or (bug.known and not known):
        count = bug.count if bug is not None else 0
        bug = Bug(signature=signature, known=known, example=example, folder=folder, message=message, count=count)
    state: State = "confirmed" if bug.state == "not reproduced" else bug.state
    return dataclasses.replace(bug, count=bug.count + 1, state=state)


def replayed(bug: Bug, *, seen: bool) -> Bug:
    """Its plan was replayed on a fresh cluster.

    Seen once more is confirmed; never in all replays is not reproduced, unless it was found in several examples.
    """
    replays, again = bug.replays + 1, bug.seen + seen
    if again or (replays >= REPLAYS_MOST and bug.count > 1):
        state: State = "confirmed"
    else:
        state = "not reproduced" if replays >= REPLAYS_MOST else "found"
    return dataclasses.replace(bug, replays=replays, seen=again, state=state)


@dataclass(slots=True)
class Purse:
    """Seconds that lanes have spent on examples, in all, and on those that confirm or shrink."""

    all_s: float = 0.0
    again_s: float = 0.0

    def spend(self, seconds: float, *, again: bool) -> None:
        """An example took so long."""
        self.all_s += seconds
        self.again_s += seconds if again else 0.0

    @property
    def allows(self) -> bool:
        """True while what confirms and shrinks has had less than its share."""
        return self.again_s < SHARE * self.all_s
