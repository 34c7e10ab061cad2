"""What the plan so far says is there: slots and requests. Only for drawing; it may be wrong, and is harmless then.

It has no router and no clock, and is never told what was observed: the same draws give the same outline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ftmodel.steps import (
    SLOTS,
    Cancel,
    FreezeWorker,
    Heal,
    KillWorker,
    Patience,
    Settle,
    Slot,
    StartWorker,
    Step,
    StopWorker,
    Subject,
    Submit,
    ThawWorker,
)

SlotState = Literal["up", "empty", "frozen"]


@dataclass(slots=True)
class Outline:
    """Names and counts, folded over the steps drawn so far."""

    workers: int
    patience: Patience
    slots: dict[int, SlotState] = field(default_factory=dict)
    lost: int = 0
    """Workers that were hit through a request: some slot is empty or frozen, nobody knows which."""
    open: dict[str, Submit] = field(default_factory=dict)
    """Requests that may be under way: submitted since the last settle."""
    cancelled: set[str] = field(default_factory=set)
    count: int = 0
    last: Step | None = None

    def __post_init__(self) -> None:
        self.slots = {slot: "up" if slot <= self.workers else "empty" for slot in range(1, SLOTS + 1)}

    def with_state(self, state: SlotState) -> list[int]:
        """The slots in this state, lowest first."""
        return [slot for slot, now in self.slots.items() if now == state]

    @property
    def alive(self) -> int:
        """How many workers are up, if every step did what it says."""
        return len(self.with_state("up")) - self.lost

    def uncancelled(self) -> list[Submit]:
        """Requests under way that no step cancels, latest first."""
        return [submit for name, submit in reversed(self.open.items()) if name not in self.cancelled]

    def add(self, step: Step) -> None:
        """Fold one more step."""
        self.count += 1
        self.last = step
        match step:
            case Submit():
                self.open[step.name] = step
            case Cancel():
                self.cancelled.add(step.request)
            case StartWorker():
                if self.slots[step.slot] == "up":  # so one was lost from it
                    self.lost = max(0, self.lost - 1)
                self.slots[step.slot] = "up"
            case KillWorker() | StopWorker():
                self._lose(step.worker, "empty")
            case FreezeWorker():
                self._lose(step.worker, "frozen")
            case ThawWorker(worker=Slot(slot)):
                self.slots[slot] = "up"
            case Settle():
                self.open.clear()
            case Heal():
                self._heal()

    def _lose(self, subject: Subject, state: SlotState) -> None:
        if isinstance(subject, Slot):
            self.slots[subject.slot] = state
        else:
            self.lost += 1

    def _heal(self) -> None:
        self.lost = 0
        for slot, state in self.slots.items():
            if slot <= self.workers or state == "frozen":
                self.slots[slot] = "up"
