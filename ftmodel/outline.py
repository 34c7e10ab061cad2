"""What the plan so far says is there: slots and requests. Only for drawing; it may be wrong, and is harmless then.

It has no router and no clock, and is never told what was observed: the same draws give the same outline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ftmodel.steps import (
    SLOTS,
    Cancel,
    EngineError,
    FreezeWorker,
    Heal,
    KillEngine,
    KillFrontend,
    KillWorker,
    OnService,
    Patience,
    ServiceName,
    Settle,
    Slot,
    SlowReader,
    StartFrontend,
    StartWorker,
    Step,
    StopFrontend,
    StopWorker,
    Subject,
    Submit,
    ThawWorker,
    VictimOf,
)

SlotState = Literal["up", "empty", "frozen"]


@dataclass(slots=True)
class Outline:
    """Names and counts, folded over the steps drawn so far."""

    workers: int
    patience: Patience
    frontends: int = 1
    prefills: int = 0
    """Prefill workers that the cluster begins with."""
    prefill_slots: dict[int, SlotState] = field(default_factory=dict)
    gates: dict[int, bool] = field(default_factory=dict)
    """Of each frontend, whether it is up."""
    slots: dict[int, SlotState] = field(default_factory=dict)
    services: dict[ServiceName, SlotState] = field(default_factory=dict)
    """Of each service that some cluster of the run stands on, whether it is up."""
    lost: int = 0
    """Workers that were hit through a request: some slot is empty or frozen, nobody knows which."""
    open: dict[str, Submit] = field(default_factory=dict)
    """Requests that may be under way: submitted since the last settle."""
    cancelled: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    """Requests whose client stops reading at some time, or whose engine fails them."""
    count: int = 0
    last: Step | None = None

    def __post_init__(self) -> None:
        self.slots = {slot: "up" if slot <= self.workers else "empty" for slot in range(1, SLOTS + 1)}
        self.prefill_slots = dict.fromkeys(range(1, self.prefills + 1), "up")
        self.gates = dict.fromkeys(range(1, self.frontends + 1), True)

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
        self._fold(step)
        self.lost = min(self.lost, len(self.with_state("up")))

    def _fold(self, step: Step) -> None:
        match step:
            case Submit():
                self.open[step.name] = step
            case Cancel():
                self.cancelled.add(step.request)
            case SlowReader() | EngineError():
                self.paused.add(step.request)
            case Settle():
                self.open.clear()
            case Heal():
                self._heal()
            case _:
                self._befall(step)

    def _befall(self, step: Step) -> None:
        match step:
            case StartWorker(role="prefill"):
                self._join_prefill(step.slot)
            case StartWorker():
                self._join(step.slot)
            case KillWorker() | KillEngine() | StopWorker():
                self._lose(step.worker, "empty")
            case FreezeWorker():
                self._lose(step.worker, "frozen")
            case ThawWorker(worker=Slot(slot, "prefill")):
                self.prefill_slots[slot] = "up"
            case ThawWorker(worker=Slot(slot)):
                self.slots[slot] = "up"
            case KillFrontend() | StopFrontend():
                self.gates[step.frontend] = False
            case StartFrontend():
                self.gates[step.frontend] = True
            case OnService():
                after: dict[str, SlotState] = {"kill": "empty", "stop": "empty", "freeze": "frozen"}
                self.services[step.service] = after.get(step.deed, "up")
            case _:
                pass

    def _join(self, slot: int) -> None:
        """A worker joins in this slot, or in one that is empty: known to be, or lost through a request."""
        empty = self.with_state("empty")
        slot = slot or (0 if self.lost or not empty else empty[0])
        if self.slots.get(slot, "up") == "up":
            self.lost = max(0, self.lost - 1)
        else:
            self.slots[slot] = "up"

    def _join_prefill(self, slot: int) -> None:
        """Likewise; one that was hit through a request is not told from the others, so the first is."""
        empty = [number for number, state in self.prefill_slots.items() if state == "empty"]
        if slot or empty:
            self.prefill_slots[slot or empty[0]] = "up"

    def _lose(self, subject: Subject, state: SlotState) -> None:
        if getattr(subject, "role", "worker") == "prefill":
            up = [number for number, now in self.prefill_slots.items() if now == "up"]
            slot = subject.slot if isinstance(subject, Slot) else next(iter(up), 0)
            if slot in self.prefill_slots:
                self.prefill_slots[slot] = state
        elif isinstance(subject, Slot):
            self.slots[subject.slot] = state
        elif not isinstance(subject, VictimOf):
            self.lost += 1

    def _heal(self) -> None:
        self.lost = 0
        self.gates = dict.fromkeys(self.gates, True)
        self.services = dict.fromkeys(self.services, "up")
        self.prefill_slots = dict.fromkeys(self.prefill_slots, "up")
        for slot, state in self.slots.items():
            if slot <= self.workers or state == "frozen":
                self.slots[slot] = "up"
