"""What is found, by signature: how often, whether it was seen again on a fresh cluster, what it was made smaller to.

And what may be spent on that.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Final, Literal

State = Literal["found", "confirmed", "not reproduced"]
Shrinking = Literal["", "done", "out of time", "not reproduced", "failed"]
REPLAYS: Final = 4
"""Of a finding's plan, at once; until it was seen again, or `REPLAYS_MOST` were made."""
REPLAYS_MOST: Final = 12
SHARE: Final = 0.25
"""Of the lanes' time, what confirming and shrinking may take."""
SHRINK_SHARE: Final = 0.05
"""Of a soak's time, what making one finding smaller may take ..."""
SHRINK_LEAST_S: Final = 30.0
"""... but so long at least ..."""
SHRINK_MOST_S: Final = 600.0
"""... and so long at most."""
QUICKER: Final = 0.5
"""An example that takes so much of the time of the first one shows the finding better."""
TRIES: Final = 3
"""A finding at whose shrinking so many lanes died is left as it is."""
SHRINK_RUNS: Final = 10
"""A plan that cannot be replayed so often in the time for it is left as it is: one of a cluster that lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One signature. `example` shows it; its plan is what is replayed and made smaller, its folder is kept apart."""

    signature: str
    known: bool
    """It is on the list of known issues: counted and shown, neither confirmed nor shrunk."""
    example: str
    steps: int
    """Of its plan."""
    seconds: float
    """What one run of it takes."""
    message: str
    count: int = 0
    """Examples in which it was found, replays left out."""
    replays: int = 0
    seen: int = 0
    """Of the replays of its plan, each on a fresh cluster: in which it was seen again."""
    state: State = "found"
    shrunk: Shrinking = ""
    """How making it smaller ended; empty until then."""
    to_steps: int = 0
    """Of the smallest plan."""
    rate: str = ""
    """How often that failed, by runs that chose nothing."""
    why: str = ""
    """Why it was left as it is, if so."""
    spent_s: float = 0.0
    """Of a lane's time, on making it smaller so far."""
    tries: int = 0

    @property
    def folder(self) -> str:
        """Where its example lies, below the soak's folder, with all that was made of it."""
        return f"findings/{self.signature.replace('/', '-')}"

    @property
    def wants_replays(self) -> bool:
        """It is neither confirmed nor given up."""
        return not self.known and self.state == "found"

    @property
    def wants_shrinking(self) -> bool:
        """It is confirmed, and was not yet made smaller to the end."""
        return not self.known and self.state == "confirmed" and not self.shrunk


def found(
    bug: Bug | None, signature: str, *, known: bool, example: str, steps: int, seconds: float, message: str
) -> Bug:
    """It was found in a further example, whose cluster was fresh too: what its replays did not show is confirmed.

    One that is not known there takes the place of one that is, and a much quicker one that of one that was not yet replayed.
    """
    shown = {"example": example, "steps": steps, "seconds": seconds, "message": message}
    if bug is None or (bug.known and not known):
        count = bug.count if bug is not None else 0
        bug = Bug(signature=signature, known=known, count=count, **shown)  # type: ignore[arg-type]
    elif known == bug.known and bug.state == "found" and not bug.replays and seconds < QUICKER * bug.seconds:
        bug = dataclasses.replace(bug, **shown)  # type: ignore[arg-type]
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


def budget_s(bug: Bug, soak_s: float) -> float:
    """What is left of the time for making it smaller, in a soak of so many seconds."""
    whole_s = min(SHRINK_MOST_S, max(SHRINK_LEAST_S, SHRINK_SHARE * soak_s))
    return max(0.0, whole_s - bug.spent_s)


def left_as_it_is(bug: Bug, soak_s: float, width: int) -> Bug | None:
    """The bug, if it is not made smaller (any more), and why not; else None. `width`: examples of a lane at once."""
    if bug.tries >= TRIES:
        return dataclasses.replace(bug, shrunk="failed", why=f"{bug.tries} lanes ended while it was made smaller")
    if bug.seconds * SHRINK_RUNS / width > budget_s(bug, soak_s) and not bug.tries:
        why = f"a run of its {bug.steps} steps took {bug.seconds:.0f} s"
        return dataclasses.replace(bug, shrunk="out of time", why=why)
    return None


@dataclass(slots=True)
class Purse:
    """Seconds of lanes: that there were, and that were spent on confirming and shrinking, or are promised to that."""

    all_s: float = 0.0
    again_s: float = 0.0
    promised: dict[int, float] = field(default_factory=dict)
    """By round."""

    def live(self, seconds: float) -> None:
        """There were so many more, of all lanes."""
        self.all_s += seconds

    def spend(self, seconds: float) -> None:
        """So many were spent on confirming or shrinking."""
        self.again_s += seconds

    @property
    def left_s(self) -> float:
        """What may be spent on that now."""
        return SHARE * self.all_s - self.again_s - sum(self.promised.values())
