"""Readiness: probes are sent until each worker has answered one through each frontend, which makes it a witness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ftmodel.history import Answered
from ftmodel.steps import Submit
from ftmodel.targets.simulated.clients import Request
from ftmodel.targets.simulated.cluster import Cluster
from ftmodel.targets.simulated.frontend import Frontend
from ftmodel.targets.simulated.kernel import Task, Waits
from ftmodel.targets.simulated.worker import Worker

LOOK_EVERY_S: Final = 0.020
PROBE_BOUND_S: Final = 0.100
"""A probe that is not answered so soon went to a worker that is busy, or gone; another is sent."""


class Readiness:
    """Follows workers and frontends of one example until they are ready."""

    def __init__(self, cluster: Cluster, request: Callable[[Submit], Request], bound_s: float) -> None:
        """`request` makes a request of a step; `bound_s` is the most that is waited for one that starts."""
        self.probes: list[Request] = []
        self.joining: list[Task] = []
        self._cluster = cluster
        self._request = request
        self._bound_s = bound_s
        self._answered: set[tuple[str, str]] = set()

    def follow(self, life: Worker | Frontend) -> None:
        """Follow a worker or a frontend that joins; if it never gets ready, the invariants say so."""
        pairs: list[tuple[Worker, Frontend]]
        if isinstance(life, Worker):
            pairs = [(life, frontend) for frontend in self._cluster.frontends_alive()]
        else:
            pairs = [(worker, life) for worker in self._cluster.workers_alive()]
        self.joining += [Task(self._cluster.kernel, self._until_ready(*pair)) for pair in pairs]

    @property
    def late(self) -> list[Task]:
        """Those that are not ready yet."""
        return [task for task in self.joining if not task.done.given]

    def _until_ready(self, worker: Worker, frontend: Frontend) -> Waits:
        kernel, until_s = self._cluster.kernel, self._cluster.kernel.now + self._bound_s
        while self._serve(worker, frontend, until_s) and not self._is_listed(worker, frontend):
            yield LOOK_EVERY_S
        bound_s = PROBE_BOUND_S + (self._cluster.prefill_s if self._cluster.apart else 0.0)
        pause_s = LOOK_EVERY_S
        while self._serve(worker, frontend, until_s) and (frontend.title, worker.title) not in self._answered:
            probe, sent_s = self._probe(frontend), kernel.now
            while not probe.ended.given and kernel.now < sent_s + bound_s:
                yield LOOK_EVERY_S / 4
            self._note()
            yield max(0.0, sent_s + pause_s - kernel.now)
            pause_s = min(0.5, 1.5 * pause_s)

    def _serve(self, worker: Worker, frontend: Frontend, until_s: float) -> bool:
        alive = worker.alive and frontend.alive and not frontend.hit
        return alive and self._cluster.kernel.now < until_s

    def _is_listed(self, worker: Worker, frontend: Frontend) -> bool:
        listed = self._cluster.ask_list(frontend)
        return listed is not None and worker.title in listed.titles and listed.models

    def _probe(self, frontend: Frontend) -> Request:
        name = f"probe{len(self.probes) + 1}"
        probe = self._request(Submit(name=name, max_tokens=1, stream=False, prompt_chars=20))
        probe.probe = True
        self.probes.append(probe)
        self._cluster.clients.send(probe, frontend)
        return probe

    def _note(self) -> None:
        """Note which workers have answered a probe."""
        self._cluster.poll_logs()
        for probe in [probe for probe in self.probes if probe.whole]:
            for worker in self._cluster.holders.get(probe.id, ()):
                pair = (probe.frontend, worker.title)
                if pair not in self._answered:
                    self._answered.add(pair)
                    at = self._cluster.kernel.moment()
                    self._cluster.push(Answered(at=at, frontend=probe.frontend, title=worker.title))
