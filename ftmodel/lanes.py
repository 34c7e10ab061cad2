"""Several examples at once, each on a cluster of its own: a plan depends on nothing that was observed, so none waits.

A lane plays one example after the other. An example that has done its steps and is to wait longer than a lease leaves
its lane to the next, and comes to its end beside it. What takes longest begins first, so plans are drawn ahead.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ftmodel import engines, planfile, runner
from ftmodel.errors import HarnessError
from ftmodel.runner import Examples, Outcome
from ftmodel.session import AS_DRAWN, Compared, Proof, Session
from ftmodel.steps import FRONTENDS, Plan, Step
from ftmodel.store import Run
from ftmodel.targets.real.ports import claim
from ftmodel.topology import Topology

LANES_PER_CORE: Final = 3
PATIENT: Final = 10
"""Patient examples that come to their end at once, beside the lanes."""
AHEAD: Final = 64
"""Plans that are drawn and not begun, at most."""
LOOK_EVERY_S: Final = 0.2
"""Another tester tells nobody that it has given its seats back: so often they are looked for."""
WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_instances")
WATCHES_PER_SEAT: Final = 5
"""Inotify instances of a frontend with discovery over files; its workers take none (seen on 1.4 and 1.6)."""
SEATS_OF_ONE_THAT_KNOWS_BLOCKS: Final = 2
"""A frontend with a kv router, or with prefill workers, takes up to ten instances (9 and 10 on 1.6, 6 on 1.4)."""
_SEATS_OF_ONE_EXAMPLE: Final = FRONTENDS * SEATS_OF_ONE_THAT_KNOWS_BLOCKS
WATCHES_SHARE: Final = 0.75
"""How many of the user's instances clusters may take together; without one left a frontend ends at its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a machine bears at once."""

    lanes: int
    """Examples that do their steps."""
    seats: int
    """For frontends whose discovery is over files, of all testers together."""

    @property
    def patient_seats(self) -> int:
        """Of the seats, those that several patient examples may take: the lanes need the others."""
        return max(FRONTENDS, self.seats - self.lanes)


def room(watches: Path = WATCHES) -> Room:
    """What this machine bears: at least one example with as many frontends as there can be."""
    seats = int(WATCHES_SHARE * int(watches.read_text()) / WATCHES_PER_SEAT)
    lanes = min(LANES_PER_CORE * (os.cpu_count() or 1), seats)
    return Room(lanes=max(1, lanes), seats=max(_SEATS_OF_ONE_EXAMPLE, seats))


class Seats:
    """The seats for frontends on this machine, and which of them this tester has."""

    def __init__(self, count: int) -> None:
        self._count = count

    def take(self, wanted: int) -> list[socket.socket] | None:
        """So many seats, to be closed when they are no longer needed; None if there are not enough now."""
        taken: list[socket.socket] = []
        for number in range(self._count):
            if len(taken) == wanted:
                break
            seat = claim(f"seat-{os.getuid()}-{number}")
            taken += [seat] if seat is not None else []
        if len(taken) == wanted:
            return taken
        for seat in taken:
            seat.close()
        return None


@dataclass(slots=True, kw_only=True)
class Example:
    """One that waits, is played, or comes to its end."""

    name: str
    topology: Topology
    plan: Plan
    proof: Proof
    compared: Compared
    run: Run | None = None
    """Where it is kept, if not where the session's are."""
    seats: tuple[socket.socket, ...] = ()
    in_lane: bool = False

    @property
    def is_patient(self) -> bool:
        """Its end takes long."""
        return self.plan.patience == "long"

    @property
    def wants(self) -> int:
        """Seats that it needs."""
        if self.topology.discovery != "file" or self.topology.target != "real":
            return 0
        knows_blocks = self.topology.router_mode == "kv" or bool(self.topology.prefill_workers)
        return self.plan.frontends * (SEATS_OF_ONE_THAT_KNOWS_BLOCKS if knows_blocks else 1)


class Lanes:
    """A context. On leaving it each example has come to its end; after an exception each is abandoned at once.

    What has not begun before `until_s` on the monotonic clock is dropped. Used from one thread.
    """

    def __init__(
        self, session: Session, examples: Examples, *, until_s: float | None = None, width: int | None = None
    ) -> None:
        """`width`: examples that do their steps at once, at most; as many as the machine bears where it is left out."""
        self._session = session
        self._examples = examples
        self._until_s = until_s
        # Ports that a topology sets bear one cluster at a time, and so does a machine that an engine fills.
        self._alone = any(top.http_port is not None or top.system_port is not None for top in session.topologies)
        self._alone |= any(engines.of(top).alone for top in session.topologies)
        self._room = room()
        self._lanes = 1 if self._alone else min(self._room.lanes, width or self._room.lanes)
        self._seats = Seats(self._room.seats)
        self._waiting: list[Example] = []
        self._begun: dict[threading.Thread, Example] = {}
        self._errors: list[BaseException] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._session.interrupt()
            else:
                self.begin()
            self._join()
        except BaseException:
            self._session.interrupt()
            self._join()
            raise
        if error is None:
            self._raise_errors()

    @property
    def width(self) -> int:
        """Examples that do their steps at once, at most."""
        return self._lanes

    @property
    def late(self) -> bool:
        """True once nothing more is begun."""
        return self._until_s is not None and time.monotonic() > self._until_s

    def start(self, name: str, topology: Topology, plan: Plan, proof: Proof, *, compared: Compared = AS_DRAWN) -> None:
        """Have an example begin when there is room for it. Waits while too many do.

        Raises what went wrong in an earlier one (a full disk).
        """
        self._waiting.append(Example(name=name, topology=topology, plan=plan, proof=proof, compared=compared))
        self._begin_while(lambda: len(self._waiting) >= AHEAD)

    def play(self, name: str, topology: Topology, plan: Plan, proof: Proof, *, run: Run | None = None) -> Outcome:
        """Play an example in this thread as soon as there is room for it; several threads may. Raises as `runner.play`.

        `run`: where it is kept, if not where the session's are.
        """
        example = Example(name=name, topology=topology, plan=plan, proof=proof, compared=AS_DRAWN, run=run)
        with self._changed:
            while not self._fits(example):
                self._raise_errors()
                self._changed.wait(LOOK_EVERY_S)
            self._begun[threading.current_thread()] = example
        try:
            return self._played(example)
        finally:
            self._leave(example)

    def drop(self, is_unwanted: Callable[[str], bool]) -> list[str]:
        """Of what was started and has not begun, drop what has such a name. From any thread; returns the names."""
        with self._changed:
            unwanted = [example for example in self._waiting if is_unwanted(example.name)]
            self._waiting = [example for example in self._waiting if example not in unwanted]
            self._changed.notify()
        return [example.name for example in unwanted]

    def begin(self) -> None:
        """Wait until all that was started has begun. Raises what went wrong in an earlier one."""
        self._begin_while(lambda: bool(self._waiting))

    def _begin_while(self, waits: Callable[[], bool]) -> None:
        with self._changed:
            self._begin_what_fits()
            while waits():
                self._changed.wait(LOOK_EVERY_S)
                self._begin_what_fits()

    def _begin_what_fits(self) -> None:
        """The patient ones first: what takes longest begins first."""
        self._raise_errors()
        if self.late:
            self._waiting.clear()
        for example in sorted(self._waiting, key=lambda example: not example.is_patient):
            if self._fits(example):
                self._waiting.remove(example)
                self._begin(example)

    def _fits(self, example: Example) -> bool:
        """True if there is room; then the example has it."""
        begun = list(self._begun.values())
        if sum(other.in_lane for other in begun) >= self._lanes:
            return False
        patient = [other for other in begun if other.is_patient]
        seated = sum(len(other.seats) for other in patient)
        full = len(patient) >= PATIENT or seated + example.wants > self._room.patient_seats
        if example.is_patient and patient and full:
            return False
        seats = self._seats.take(example.wants)
        if seats is None:
            return False
        example.seats, example.in_lane = tuple(seats), True
        return True

    def _begin(self, example: Example) -> None:
        thread = threading.Thread(target=self._play, args=(example,), name=f"example {example.name}")
        self._begun[thread] = example
        thread.start()

    def _raise_errors(self) -> None:
        if self._errors:
            raise self._errors[0]
        if self._session.failure:
            raise HarnessError(self._session.failure)

    def _join(self) -> None:
        for thread in list(self._begun):
            thread.join()

    def _play(self, example: Example) -> None:
        try:
            self._examples.add(self._played(example))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that started this one
            self._errors.append(error)
        finally:
            self._leave(example)

    def _played(self, example: Example) -> Outcome:
        def steps_done() -> None:
            if example.is_patient and not self._alone:
                with self._changed:
                    example.in_lane = False
                    self._changed.notify()

        outcome, _ = runner.play(
            self._session, example.topology, example.plan, example.proof, example.name, self._examples.watcher,
            steps_done=steps_done, compared=example.compared, rules=self._examples.rules, run=example.run,
        )  # fmt: skip
        return outcome

    def _leave(self, example: Example) -> None:
        with self._changed:
            for seat in example.seats:
                seat.close()
            del self._begun[threading.current_thread()]
            self._changed.notify()


class Drawn:
    """Begins an example for each plan that is drawn, by turns over the topologies, until there are enough."""

    def __init__(
        self,
        lanes: Lanes,
        proofs: Sequence[tuple[Topology, Proof]],
        *,
        count: int | None,
        prefix: str = "",
    ) -> None:
        """`count` examples, or as many as begin before the lanes are late; `prefix` begins their names."""
        self._lanes = lanes
        self._proofs = proofs
        self._count = count
        self._prefix = prefix
        self._opened = 0

    def __call__(self, head: Plan) -> Drawing | None:
        """Open the next example with the values drawn for its head, or None if there were enough."""
        if self._lanes.late or (self._count is not None and self._opened >= self._count):
            return None
        topology, proof = self._proofs[self._opened % len(self._proofs)]
        self._opened += 1
        return Drawing(self, f"{self._prefix}{self._opened:03d}", topology, proof, mended(head, topology))

    def add(self, drawing: Drawing) -> None:
        """A plan is whole. Raises what went wrong in an earlier example."""
        self._lanes.start(drawing.name, drawing.topology, drawing.plan, drawing.proof)


class Collected:
    """Keeps each plan that is drawn, until there are enough: nothing is begun yet."""

    def __init__(self, topology: Topology, count: int) -> None:
        self.plans: list[Plan] = []
        self._topology = topology
        self._count = count

    def __call__(self, head: Plan) -> Drawing | None:
        """Open the next plan with the values drawn for its head, or None if there were enough."""
        if len(self.plans) >= self._count:
            return None
        return Drawing(self, f"{len(self.plans) + 1:03d}", self._topology, Proof(), mended(head, self._topology))

    def add(self, drawing: Drawing) -> None:
        """A plan is whole."""
        self.plans.append(drawing.plan)


class Drawing:
    """One example that is being drawn; it can be begun when its plan is whole."""

    def __init__(self, drawn: Drawn | Collected, name: str, topology: Topology, proof: Proof, head: Plan) -> None:
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


def mended(head: Plan, topology: Topology) -> Plan:
    """The head of a plan with the nearest values that this topology admits."""
    return dataclasses.replace(
        head,
        topology=topology.name,
        workers=_nearest(head.workers, topology.workers),
        prefill_workers=_nearest(head.prefill_workers, topology.prefill_workers or (0,)),
        frontends=_nearest(head.frontends, topology.frontends),
        migration_limit=_nearest(head.migration_limit, topology.migration_limits),
    )


def _nearest(wanted: int, allowed: Sequence[int]) -> int:
    return min(allowed, key=lambda value: (abs(value - wanted), value))
