"""Several examples at once, each on a cluster of its own: a plan depends on nothing that was observed, so none waits.

A lane plays one example after the other. An example that has done its steps and is to wait longer than a lease leaves
its lane to the next, and comes to its end beside it.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ftmodel import planfile, runner
from ftmodel.errors import HarnessError
from ftmodel.runner import Examples
from ftmodel.session import AS_DRAWN, Compared, Proof, Session
from ftmodel.steps import Plan, Step
from ftmodel.topology import Topology

LANES_PER_CORE: Final = 3
WINDOW: Final = 20
"""Plans that are drawn before the first of them is run: enough to choose from, few enough to begin soon."""
PATIENT: Final = 8
"""Patient examples that come to their end at once, beside the lanes, where the machine bears as many."""
WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_instances")
WATCHES_PER_EXAMPLE: Final = 12
"""Inotify instances of an example with two frontends (five each were seen, with discovery over files)."""
WATCHES_SHARE: Final = 0.75
"""How many of the user's instances all examples may take together; without one left a frontend ends at its start."""


class Lanes:
    """A context. On leaving it each example has come to its end; after an exception each is abandoned at once."""

    def __init__(self, session: Session, examples: Examples) -> None:
        self._session = session
        self._examples = examples
        # Ports that a topology sets bear one cluster at a time.
        self._alone = any(top.http_port is not None or top.system_port is not None for top in session.topologies)
        lanes, patient = (1, 1) if self._alone else room()
        self._lanes = threading.Semaphore(lanes)
        self._patient = threading.Semaphore(patient)
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._session.interrupt()
        try:
            for thread in self._threads:
                thread.join()
        except BaseException:
            self._session.interrupt()
            for thread in self._threads:
                thread.join()
            raise
        if error is None:
            self._raise_errors()

    def start(self, name: str, topology: Topology, plan: Plan, proof: Proof, *, compared: Compared = AS_DRAWN) -> None:
        """Begin an example as soon as a lane is free. Raises what went wrong in an earlier one (a full disk)."""
        self._lanes.acquire()
        try:
            self._raise_errors()
        except BaseException:
            self._lanes.release()
            raise
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(
            target=self._play, args=(name, topology, plan, proof, compared), name=f"example {name}"
        )
        self._threads.append(thread)
        thread.start()

    def _raise_errors(self) -> None:
        if self._errors:
            raise self._errors[0]
        if self._session.failure:
            raise HarnessError(self._session.failure)

    def _play(self, name: str, topology: Topology, plan: Plan, proof: Proof, compared: Compared) -> None:
        held = [self._lanes]

        def steps_done() -> None:
            if plan.patience == "long" and not self._alone:
                self._patient.acquire()
                held.append(self._patient)
                held.remove(self._lanes)
                self._lanes.release()

        try:
            outcome, _ = runner.play(
                self._session, topology, plan, proof, name, self._examples.watcher,
                steps_done=steps_done, compared=compared, rules=self._examples.rules,
            )  # fmt: skip
            self._examples.add(outcome)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that started this one
            self._errors.append(error)
        finally:
            for lane in held:
                lane.release()


class Drawn:
    """Begins an example for each plan that is drawn, by turns over the topologies, until there are enough."""

    def __init__(
        self,
        lanes: Lanes,
        proofs: Sequence[tuple[Topology, Proof]],
        *,
        count: int | None,
        until_s: float | None = None,
        prefix: str = "",
    ) -> None:
        """`count` examples, or as many as begin before `until_s` on the monotonic clock; `prefix` begins their names."""
        self._lanes = lanes
        self._proofs = proofs
        self._count = count
        self._until_s = until_s
        self._prefix = prefix
        self._opened = 0
        self._whole: list[Drawing] = []

    def __call__(self, head: Plan) -> Drawing | None:
        """Open the next example with the values drawn for its head, or None if there were enough."""
        if self._is_late() or (self._count is not None and self._opened >= self._count):
            return None
        topology, proof = self._proofs[self._opened % len(self._proofs)]
        self._opened += 1
        return Drawing(self, f"{self._prefix}{self._opened:03d}", topology, proof, mended(head, topology))

    def _is_late(self) -> bool:
        return self._until_s is not None and time.monotonic() > self._until_s

    def add(self, drawing: Drawing) -> None:
        """A plan is whole. They are begun by the window, the patient ones first: what takes longest begins first."""
        self._whole.append(drawing)
        if len(self._whole) >= WINDOW:
            self.begin()

    def begin(self) -> None:
        """Begin what was drawn so far, as lanes get free. Raises what went wrong in an earlier example."""
        window, self._whole = self._whole, []
        for drawing in sorted(window, key=lambda drawing: drawing.plan.patience):
            if self._is_late():
                return
            self._lanes.start(drawing.name, drawing.topology, drawing.plan, drawing.proof)


class Drawing:
    """One example that is being drawn; it can be begun when its plan is whole."""

    def __init__(self, drawn: Drawn, name: str, topology: Topology, proof: Proof, head: Plan) -> None:
        self.name = name
        self.topology = topology
        self.proof = proof
        self._drawn = drawn
        self._head = head
        self._steps: list[Step] = []

    @property
    def plan(self) -> Plan:
        """The plan as drawn so far."""
        return planfile.with_steps(self._head, self._steps)

    def apply(self, step: Step) -> None:
        """Put a step at the plan's end."""
        self._steps.append(step)

    def end(self) -> None:
        """No more steps."""
        if self._steps:
            self._drawn.add(self)

    def abandon(self) -> None:
        """The drawing was interrupted: begin nothing."""


def room(watches: Path = WATCHES) -> tuple[int, int]:
    """How many lanes this machine bears, and how many patient examples beside them: at least one of each."""
    at_once = int(WATCHES_SHARE * int(watches.read_text()) / WATCHES_PER_EXAMPLE)
    lanes = min(LANES_PER_CORE * (os.cpu_count() or 1), 2 * at_once // 3)
    return max(1, lanes), max(1, min(PATIENT, at_once - lanes))


def mended(head: Plan, topology: Topology) -> Plan:
    """The head of a plan with the nearest values that this topology admits."""
    return dataclasses.replace(
        head,
        topology=topology.name,
        workers=_nearest(head.workers, topology.workers),
        frontends=_nearest(head.frontends, topology.frontends),
        migration_limit=_nearest(head.migration_limit, topology.migration_limits),
    )


def _nearest(wanted: int, allowed: Sequence[int]) -> int:
    return min(allowed, key=lambda value: (abs(value - wanted), value))
