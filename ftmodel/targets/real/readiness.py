"""Readiness: a worker is ready when every frontend lists it and the model, and it has answered a request through each.

A worker on the list is not routable yet, and a request right after may still be refused. So probes are sent until each
worker has answered one; that makes it a witness. Probes are requests like any other: told, judged, counted apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ftmodel.errors import HarnessError
from ftmodel.history import Answered, Event, Interval
from ftmodel.steps import Submit
from ftmodel.targets.real.clock import Clock
from ftmodel.targets.real.cluster import Cluster, Incarnation
from ftmodel.targets.real.requests import Clients, Request

LOOK_EVERY_S: Final = 0.020
PROBE_BOUND_S: Final = 0.100
"""A probe that is not answered so soon went to a worker that is busy, or gone; another is sent."""
PAUSES: Final = 60
"""The longest pause between two probes is this part of what the engine may take to boot: a slow one gets few."""
PAUSES_APART: Final = 10
"""The same where prompts are read by workers of their own, of which each probe takes some time."""


class Readiness:
    """Follows workers and frontends of one example until they are ready."""

    def __init__(self, cluster: Cluster, clients: Clients, clock: Clock, push: Callable[[Event], None]) -> None:
        self.probes: list[Request] = []
        self._pending: list[Request] = []
        """Probes of which it is not noted yet who answered them."""
        self.joining: set[asyncio.Task[None]] = set()
        """Workers that were started while the example runs, and are not ready yet."""
        self._cluster = cluster
        self._clients = clients
        self._clock = clock
        self._push = push
        self._bound_s = cluster.engine.boot_bound_s
        self._longest_pause_s = self._bound_s / (PAUSES_APART if cluster.prefill_workers else PAUSES)

    async def boot(self) -> None:
        """Wait until every worker is ready. Raises HarnessError that says which is not, and where its log is."""
        try:
            async with asyncio.timeout(self._bound_s):
                pairs = [
                    (life, gate) for life in self._cluster.workers_alive() for gate in self._cluster.gates.values()
                ]
                await asyncio.gather(*(self._until_ready(life, gate) for life, gate in pairs))
        except TimeoutError:
            raise HarnessError(self._late()) from None

    def join(self, life: Incarnation) -> None:
        """Follow a worker or a frontend that joins; if it never gets ready, the invariants say so."""
        worker = life.role != "frontend"
        others = self._cluster.frontends_alive() if worker else self._cluster.workers_alive()
        for other in others:
            task = asyncio.create_task(self._follow(*((life, other) if worker else (other, life))))
            self.joining.add(task)
            task.add_done_callback(self.joining.discard)

    async def _follow(self, life: Incarnation, frontend: Incarnation) -> None:
        with suppress(TimeoutError, HarnessError):
            async with asyncio.timeout(self._bound_s):
                await self._until_ready(life, frontend)

    async def _until_ready(self, life: Incarnation, frontend: Incarnation) -> None:
        """Until this worker has answered through this frontend, or one of the two has ended or drains.

        Raises HarnessError if one ended though no fault was made on it.
        """
        while _serve(life, frontend) and not await self._cluster.is_listed(life, frontend):
            await asyncio.sleep(LOOK_EVERY_S)
        pause_s = LOOK_EVERY_S
        while _serve(life, frontend) and frontend.title not in life.answered:
            await asyncio.gather(self._until_answered(self._probe(frontend)), asyncio.sleep(pause_s))
            pause_s = min(self._longest_pause_s, 1.5 * pause_s)  # few probes, however long it takes
        for process in (life, frontend):
            if not process.alive and not process.hit:
                raise HarnessError(self._late())

    def _probe(self, frontend: Incarnation) -> Request:
        name = f"probe{len(self.probes) + 1}"
        request = Request(name, Submit(name=name, max_tokens=1, stream=False, prompt_chars=20), probe=True)
        self.probes.append(request)
        self._pending.append(request)
        self._clients.send(request, frontend.title, frontend.url)
        return request

    async def _until_answered(self, probe: Request) -> None:
        """Wait for a probe's end, at most for PROBE_BOUND_S, and note which workers have answered one by then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PROBE_BOUND_S):
                await probe.ended.wait()
        self._cluster.poll_logs()
        for whole in [probe for probe in self._pending if probe.whole]:
            self._pending.remove(whole)
            for title in self._cluster.holders.get(whole.id, ()):
                self._note(self._cluster.lives[title], whole.frontend)

    def _note(self, life: Incarnation, frontend: str) -> None:
        if frontend not in life.answered:
            life.answered.add(frontend)
            now_s = self._clock.now()
            self._push(Answered(at=Interval(now_s, now_s), frontend=frontend, title=life.title))

    def _late(self) -> str:
        for life in self._cluster.lives.values():
            if not life.alive:
                return f"{life.title} ended while the cluster was starting ({life.process.exit}); see {life.log.path}"
        gates = self._cluster.gates.values()
        late = next((w for w in self._cluster.workers_alive() if len(w.answered) < len(gates)), None)
        if late is None:
            return f"the cluster was not ready {self._bound_s:g} s after its start; see {self._cluster.logs}"
        what = "was not listed" if late.identity is None else "had not answered"
        return f"{late.title} {what} {self._bound_s:g} s after its start; see {late.log.path}"


def _serve(life: Incarnation, frontend: Incarnation) -> bool:
    """True while both live. One that has ended is nobody's to speak to; one that was asked to stop need not answer."""
    return life.alive and frontend.alive and not frontend.hit
