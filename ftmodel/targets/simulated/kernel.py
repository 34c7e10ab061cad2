"""Virtual time: a queue of what happens next, signals that are waited for, tasks that wait, channels that keep order.

Of what happens at the same moment the order is drawn from the seed, but on one channel nothing overtakes anything.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator
from typing import Any

from ftmodel.history import Interval

Action = Callable[..., object]


class Kernel:
    """The clock, in seconds since the example began, and the queue."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = random.Random(seed)  # noqa: S311 - the same course each time
        self._queue: list[tuple[float, float, int, Action, tuple[Any, ...]]] = []
        self._count = 0

    def after(self, delay_s: float, action: Action, *args: Any, lot: float | None = None) -> None:
        """Have an action come so much later; of those with one lot at one moment the earlier asked for comes first."""
        self._count += 1
        drawn = self.random.random() if lot is None else lot
        heapq.heappush(self._queue, (self.now + delay_s, drawn, self._count, action, args))

    def run(self, until: Callable[[], bool], limit_s: float) -> None:
        """Let time pass until that is so, or the clock shows `limit_s`."""
        queue = self._queue
        while not until():
            if not queue or queue[0][0] > limit_s:
                self.now = max(self.now, limit_s)
                return
            self.now, _, _, action, args = heapq.heappop(queue)
            action(*args)

    def since(self, before_s: float) -> Interval:
        """From then to now."""
        return Interval(before_s, self.now)

    def moment(self) -> Interval:
        """Now."""
        return Interval(self.now, self.now)


class Signal:
    """Is given once. Who waits for it goes on at that moment, in an order that the seed draws."""

    def __init__(self, kernel: Kernel) -> None:
        self.given = False
        self._kernel = kernel
        self._waiting: list[Action] = []

    def give(self) -> None:
        """Let go who waits."""
        self.given = True
        waiting, self._waiting = self._waiting, []
        for action in waiting:
            self._kernel.after(0.0, action)

    def then(self, action: Action) -> None:
        """Have this come once the signal is given."""
        if self.given:
            self._kernel.after(0.0, action)
        else:
            self._waiting.append(action)


Waits = Generator[float | Signal, None, None]
"""What a task does: it yields the seconds, or the signal, that it waits for."""


class NeverCameError(Exception):
    """Raised in a task that is called off while it waits."""


class Task:
    """Something that goes on beside the rest, from its making on."""

    def __init__(self, kernel: Kernel, waits: Waits) -> None:
        self.done = Signal(kernel)
        self._kernel = kernel
        self._waits = waits
        self._turn = 0
        self._go(0)

    def call_off(self) -> None:
        """End its waiting: NeverCameError is raised where it waits."""
        if not self.done.given:
            self._go(self._turn, NeverCameError())

    def _go(self, turn: int, error: Exception | None = None) -> None:
        if turn != self._turn or self.done.given:
            return
        self._turn += 1
        try:
            wait = next(self._waits) if error is None else self._waits.throw(error)
        except StopIteration:
            self.done.give()
            return
        now = self._turn
        if isinstance(wait, Signal):
            wait.then(lambda: self._go(now))
        else:
            self._kernel.after(wait, self._go, now)


class Channel:
    """A connection: what is sent over it takes a while, and arrives in its order."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._delay_s = kernel.random.uniform(LEAST_DELAY_S, MOST_DELAY_S)
        self._lot = kernel.random.random()

    def send(self, action: Action, *args: Any) -> None:
        """Have an action come at the other end."""
        self._kernel.after(self._delay_s, action, *args, lot=self._lot)


LEAST_DELAY_S = 0.0002
MOST_DELAY_S = 0.0015
"""Between these lies what a connection takes, one way, on one machine."""
