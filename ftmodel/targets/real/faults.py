"""Makes faults on the processes of one example, and verifies each: a fault counts only if it happened."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ftmodel.errors import HarnessError
from ftmodel.history import EngineErred, Event, FaultMade, Interval, LogLine
from ftmodel.targets.real.armed import Orders
from ftmodel.targets.real.clock import Clock
from ftmodel.targets.real.cluster import Cluster, Incarnation
from ftmodel.targets.real.processes import Descendant
from ftmodel.targets.real.requests import Request

VERIFY_BOUND_S: Final = 5.0
"""From a fault to the moment when it was seen to have happened."""
LOOK_EVERY_S: Final = 0.005


class VoidError(Exception):
    """The step cannot be done: its subject does not exist, or its anchor never came. The message says why."""


class Faults:
    """Kills, stops, freezes and thaws processes. What was begun is told even if nobody waits for it any more."""

    def __init__(self, cluster: Cluster, clock: Clock, orders: Orders, push: Callable[[Event], None]) -> None:
        self.last_s = 0.0
        """When the last fault was made."""
        self._cluster = cluster
        self._warden = cluster.ground.warden
        self._clock = clock
        self._orders = orders
        self._push = push
        self._blamed: set[str] = set()
        """Workers whose death at a token was told."""

    async def kill(self, step: str, life: Incarnation) -> str:
        """SIGKILL the process group; verified by its end."""
        async with life.busy:
            life.hit = True
            at = await self._cluster.kill(life)
            self._tell(f"kill-{_what(life)}", step, life, at, verified=not life.alive)
        return life.title

    async def kill_engine(self, step: str, life: Incarnation, part: str) -> str:
        """SIGKILL a process inside the worker; verified by its end. Raises VoidError if it has none such."""
        name = self._cluster.engine.parts.get(part)
        if name is None:
            raise VoidError(f"a worker of the {self._cluster.engine.name} engine has no {part} process of its own")
        async with life.busy:
            inner = next((d for d in await self._below(life) if d.command == name and d.state != "Z"), None)
            handle = _opened(inner) if inner else None
            if inner is None or handle is None:
                raise VoidError(f"{life.title} has no {part} process now ({name})")
            life.hit = True
            before_s = self._clock.now()
            try:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            except ProcessLookupError:
                raise VoidError(f"the {part} process of {life.title} ended by itself") from None
            finally:
                os.close(handle)
            at = self._clock.since(before_s)
            verified = False
            with suppress(TimeoutError):
                async with asyncio.timeout(VERIFY_BOUND_S):
                    while any(d.pid == inner.pid and d.state not in "ZX" for d in await self._below(life)):
                        await asyncio.sleep(LOOK_EVERY_S)
                    verified = True
            self._tell("kill-engine", step, life, at, verified=verified)
        return f"{life.title} {inner.command} {inner.pid}"

    async def _below(self, life: Incarnation) -> list[Descendant]:
        """The processes of this worker's session, itself left out."""
        below = await self._warden.descendants()
        return [row for row in below if row.session == life.process.pid and row.pid != life.process.pid]

    async def stop(self, step: str, life: Incarnation) -> str:
        """SIGTERM the process; verified by its having taken the signal, or its end.

        Not its group: whoever stops a service signals the process that he started, and that tells those below it.
        """
        async with life.busy:
            if life.frozen:
                raise VoidError(f"{life.title} is frozen and would not hear the signal")
            life.hit = True
            at = self._clock.of_monotonic(await self._warden.signal(life.process, signal.SIGTERM, group=False))
            verified = False
            with suppress(TimeoutError):
                async with asyncio.timeout(VERIFY_BOUND_S):
                    while life.alive and _is_pending(life.process.pid, signal.SIGTERM):
                        await asyncio.sleep(LOOK_EVERY_S)
                    verified = True
            self._tell(f"stop-{_what(life)}", step, life, at, verified=verified)
            if life.role == "frontend":  # what it says of itself in its drain, which may be short
                await self._cluster.ask_health_of(life)
        return life.title

    async def freeze(self, step: str, life: Incarnation) -> str:
        """SIGSTOP the process group; verified by the state of its threads."""
        async with life.busy:
            if life.frozen:
                raise VoidError(f"{life.title} is frozen already")
            life.hit = life.frozen = True
            at = self._clock.of_monotonic(await self._warden.signal(life.process, signal.SIGSTOP))
            stopped = await self._warden.stops(life.process)
            self._tell(f"freeze-{_what(life)}", step, life, at, verified=stopped or not life.alive)
        return life.title

    async def thaw(self, step: str, life: Incarnation) -> str:
        """SIGCONT the process group; verified likewise."""
        async with life.busy:
            if not life.frozen:
                raise VoidError(f"{life.title} is not frozen")
            at = self._clock.of_monotonic(await self._warden.signal(life.process, signal.SIGCONT))
            life.frozen = False
            goes_on = await self._warden.stops(life.process, stopped=False)
            self._tell(f"thaw-{_what(life)}", step, life, at, verified=goes_on or not life.alive)
        return life.title

    # -- death at a token

    async def order(self, step: str, request: Request, position: int, how: str) -> None:
        """Have the engine die or fail at a token, which a client would see too late; wait until a worker does.

        Raises VoidError if the request ends before. Cancelled, it takes the order back, unless it is too late for that.
        """
        self._orders.give(step, request.id, position, how)
        try:
            while not request.ended.is_set() and not self._orders.is_taken(step, request.id):
                await asyncio.sleep(LOOK_EVERY_S)
        except asyncio.CancelledError:
            if self._orders.withdraw(step, request.id):
                raise
        if self._orders.withdraw(step, request.id):
            raise VoidError(f"{request.name} ended before token {position}")

    async def died_at_token(self, step: str, request: Request) -> str:
        """The worker that took the order is dead: tell it. Raises HarnessError if none is."""
        try:
            async with asyncio.timeout(VERIFY_BOUND_S):
                while (life := self._fallen(request)) is None:
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            raise HarnessError(f"a worker took the order to die at a token of {request.name} and lives") from None
        life.hit = True
        self._blamed.add(life.title)
        self._tell("kill-worker", step, life, self._death(life), verified=True)
        return life.title

    async def erred_at_token(self, step: str, request: Request, how: str) -> str:
        """The worker that took the order has failed the request: tell it. Raises HarnessError if none has."""
        try:
            async with asyncio.timeout(VERIFY_BOUND_S):
                while (word := self._last_word(request, how)) is None:
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            raise HarnessError(f"a worker took the order to fail {request.name} ({how}) and has not") from None
        self.last_s = self._clock.now()
        self._push(EngineErred(at=word.at, request=request.name, title=word.title, how=how, step=step))  # type: ignore[arg-type]
        return word.title

    def _last_word(self, request: Request, how: str) -> LogLine | None:
        self._cluster.poll_logs()
        lines = (line for lines in self._cluster.last_words.values() for line in lines)
        mine = (line for line in lines if line.id == request.id and line.meaning == "armed-error")
        return next((line for line in mine if line.fields.get("how") == how), None)

    def _fallen(self, request: Request) -> Incarnation | None:
        """The dead worker that said it would die for this request, and whose death no other step has told."""
        self._cluster.poll_logs()
        for title, lines in self._cluster.last_words.items():
            life = self._cluster.lives[title]
            told = any(line.id == request.id and line.meaning == "armed-death" for line in lines)
            if told and not life.alive and title not in self._blamed:
                return life
        return None

    def _death(self, life: Incarnation) -> Interval:
        """From the worker's own last word to its end."""
        exit_ = life.process.exit
        assert exit_ is not None
        end = self._clock.of_monotonic(exit_.at)
        words = [line for line in self._cluster.last_words[life.title] if line.meaning == "armed-death"]
        return Interval(min(words[-1].at.before_s, end.after_s), end.after_s)

    def _tell(self, fault: str, step: str, life: Incarnation, at: Interval, *, verified: bool) -> None:
        self.last_s = self._clock.now()
        self._push(FaultMade(at=at, fault=fault, title=life.title, step=step, verified=verified))  # type: ignore[arg-type]


def _what(life: Incarnation) -> str:
    """What a fault on it is named after: the service that it is, a frontend, or a worker of whichever role."""
    if life.role == "service":
        return life.title.partition("-")[0]
    return "frontend" if life.role == "frontend" else "worker"


def _opened(inner: Descendant) -> int | None:
    """A handle on a process, which no other can take the place of; None if it is gone."""
    try:
        handle = os.pidfd_open(inner.pid)
    except ProcessLookupError:
        return None
    with suppress(OSError):
        if Path(f"/proc/{inner.pid}/comm").read_text().strip() == inner.command:
            return handle
    os.close(handle)
    return None


def _is_pending(pid: int, signum: int) -> bool:
    """True while a signal has been sent to a process and no thread of it has taken it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False  # it has ended
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(mask & 1 << (signum - 1) for mask in masks)
