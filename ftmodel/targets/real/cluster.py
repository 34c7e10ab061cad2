"""The processes of one example: services, frontends and the workers in their slots, their lists, logs and metrics."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

import httpx

from ftmodel import engines
from ftmodel.engines import Engine
from ftmodel.errors import HarnessError
from ftmodel.history import Event, Exited, Identified, Interval, LeftOver, Listed, LogLine, Sample, Started, Told
from ftmodel.services import needed
from ftmodel.steps import ServiceName, WorkerRole
from ftmodel.systems import Command, MetricRow, Pattern, Place, Role, System, concerns
from ftmodel.targets.logs import spoken
from ftmodel.targets.real import metrics
from ftmodel.targets.real.backing import Backing
from ftmodel.targets.real.clock import Clock
from ftmodel.targets.real.logs import LogFile
from ftmodel.targets.real.ports import NO_TLS, Ports
from ftmodel.targets.real.processes import Launch, Process, ProcessGoneError, Warden
from ftmodel.topology import Component, Topology

WORKER_ROLES: Final = get_args(WorkerRole)
KILL_BOUND_S: Final = 30.0
"""From SIGKILL to the end of a process."""
POLL_S: Final = 0.020
LIST_EVERY_S: Final = 0.250
MODELS_EVERY: Final = 4
"""Once a frontend lists the model, it is asked for its models at every fourth question for its list alone."""
SAMPLE_EVERY_S: Final = 1.0
HEALTH_EVERY_S: Final = 2.0
ASK_BOUND_S: Final = 2.0
"""A process that does not answer a question about itself so long is not asked further this time."""
KEPT: Final = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TZ")
"""What the processes under test get of the tester's environment; all else is the system's and the cluster's own."""


@dataclass(slots=True)
class Incarnation:
    """One life of a process."""

    title: str
    role: Role | Literal["service"]
    slot: int
    process: Process
    port: int
    log: LogFile
    rows: tuple[MetricRow, ...]
    identity: str | None = None
    """Its identity on the frontend's list, once known."""
    answered: set[str] = field(default_factory=set)
    """Titles of the frontends through which it has answered a request of the tester's."""
    plane_port: int = 0
    """A worker's port on the request plane."""
    ports: tuple[int, ...] = ()
    """Further ports of its engine."""
    is_healthy: bool = False
    """Its own health endpoint has said so, where it is asked."""
    asked: int = 0
    """How often a frontend was asked for its list."""
    has_model: bool = False
    """A frontend listed the model when it was last asked."""
    frozen: bool = False
    hit: bool = False
    """Some fault hit it."""
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a fault on it is made and verified: another must not undo it in between."""
    held: set[str] = field(default_factory=set)
    """Ids of the requests that it began and did not end, as its log tells."""

    @property
    def alive(self) -> bool:
        """True until its end was reported."""
        return self.process.alive

    @property
    def url(self) -> str:
        """Where it listens: for clients, if it is a frontend; for questions about itself."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the examples of a run share: the warden, the interpreter, the ports, the model."""

    warden: Warden
    python: Path
    release: tuple[int, int]
    ports: Ports
    model: Path
    cold_start: bool = False
    programs: dict[ServiceName, Path] = field(default_factory=dict)
    """Of the services that the examples' clusters stand on."""
    shared: Path = Path()
    """A folder that all examples share."""
    models: Mapping[str, Path] = field(default_factory=dict)
    """By topology: the model that its workers serve, where it is not the common one."""
    devices: Mapping[str, str] = field(default_factory=dict)
    """By topology: on what its engine runs, where that makes a difference."""


class Cluster:
    """The processes of one example. Used from the loop alone."""

    def __init__(
        self,
        ground: Ground,
        system: System,
        engine: Engine,
        topology: Topology,
        *,
        workers: int,
        prefill_workers: int,
        frontends: int,
        migration_limit: int,
        folder: Path,
        logs: Path,
        clock: Clock,
        push: Callable[[Event], None],
    ) -> None:
        self.ground = ground
        self.system = system
        self.engine = engine
        self.topology = topology
        self.workers = workers
        self.prefill_workers = prefill_workers
        self.frontends = frontends
        self.migration_limit = migration_limit
        self.folder = folder
        self.logs = logs
        self.clock = clock
        self.push = push
        self._model = ground.models.get(topology.name, ground.model)
        self.model_name = system.served(topology, self._model, ground.release)
        self.lives: dict[str, Incarnation] = {}
        self.slots: dict[int, Incarnation] = {}
        """The latest incarnation of each slot of a worker."""
        self.prefills: dict[int, Incarnation] = {}
        """The same of the prefill workers."""
        self.gates: dict[int, Incarnation] = {}
        """The latest incarnation of each frontend."""
        self.services: dict[ServiceName, Incarnation] = {}
        """The latest incarnation of each service."""
        self.backing = Backing(needed(topology), ground.programs, ground.ports, folder)
        self.holders: dict[str, list[str]] = {}
        """Titles of the incarnations that began a request id, in order."""
        self.last_words: dict[str, list[LogLine]] = {}
        """By title: what a worker said before it did as it was ordered, at a token."""
        # No connection is kept: to look through those that are costs more than a new one on loopback.
        self.client = httpx.AsyncClient(
            timeout=httpx.Timeout(ASK_BOUND_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
            verify=NO_TLS,
        )
        dialect = system.dialect(ground.release)
        of_engine = tuple(row for row in engine.patterns if row.since <= ground.release < row.until)
        self._patterns = spoken(dialect.patterns, of_engine)
        self._rows = (*dialect.metrics, *engine.metrics)
        self._watching: list[asyncio.Task[None]] = []

    # -- start

    async def start(self) -> None:
        """Start services, then frontends and workers, and follow their logs and lists. Raises HarnessError."""
        for name in ("kv", "home", "tmp", "armed"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        await asyncio.gather(*(self.start_service(name) for name in self.backing.services))
        first = [self._spawn("frontend", place) for place in range(1, self.frontends + 1)]
        first += [self._spawn("worker", slot) for slot in range(1, self.workers + 1)]
        first += [self._spawn("prefill", slot) for slot in range(1, self.prefill_workers + 1)]
        await asyncio.gather(*first)
        self._watching += [
            asyncio.create_task(self._follow_logs()),
            asyncio.create_task(self._follow_lists()),
            asyncio.create_task(self._follow_metrics()),
            asyncio.create_task(self._follow_health()),
        ]

    async def start_worker(self, slot: int, *, role: WorkerRole = "worker", plane_port: int = 0) -> Incarnation:
        """Start a worker in an empty slot, on this port of the request plane if one is given; it is not ready yet.

        Raises HarnessError.
        """
        return await self._spawn(role, slot, plane_port=plane_port)

    async def start_frontend(self, place: int) -> Incarnation:
        """Start a frontend in the place of one that has ended; it is not ready yet. Raises HarnessError."""
        return await self._spawn("frontend", place)

    async def start_service(self, name: ServiceName) -> Incarnation:
        """Start a service, the first time or again, and wait until it serves, or a fault ends it. Raises HarnessError."""
        lives = sum(life.title.partition("-")[0] == name for life in self.lives.values())
        title = name if lives == 0 else f"{name}-{lives + 1}"
        log = self.logs / f"{title}.log"
        env = {kept: os.environ[kept] for kept in KEPT if kept in os.environ}
        env |= {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp")}
        env["FTMODEL_STORE"] = str(self.logs.absolute())
        before_s = self.clock.now()
        process = await self.ground.warden.spawn(
            Launch(title=title, how="exec", argv=self.backing.command(name), env=env, cwd=self.folder, log=log)
        )
        life = Incarnation(
            title=title, role="service", slot=0, process=process, port=self.backing.ports[name],
            log=LogFile(log, title, (), self.clock), rows=(),
        )  # fmt: skip
        self.lives[title] = self.services[name] = life
        at = self.clock.since(before_s)
        self.push(Started(at=at, title=title, role="service", slot=0, pid=process.pid, port=life.port))
        self._watching.append(asyncio.create_task(self._await_exit(life)))
        if await self.backing.until_serving(name, life, log):
            self.push(Told(at=self.clock.since(before_s), title=title, health=200, live=200))
        return life

    async def _spawn(self, role: Role, slot: int, *, plane_port: int = 0) -> Incarnation:
        title = self._title(role, slot)
        port = self.ground.ports.take(self._wanted_port(role, slot) if title.count("-") < 2 else None)
        if role != "frontend":
            plane_port = self.ground.ports.take(plane_port or None)
        ports = tuple(self.ground.ports.take() for _ in range(self._own_ports(role)))
        place = Place(
            python=self.ground.python, scratch=self.folder, model=self._model, http_port=port, system_port=port,
            plane_port=plane_port, services=self.backing.ports, ports=ports, shared=self.ground.shared,
            device=self.ground.devices.get(self.topology.name, ""),
        )  # fmt: skip
        command = self.system.launch(role, self.topology, self.engine, place, self.migration_limit, self.ground.release)
        before_s = self.clock.now()
        process = await self.ground.warden.spawn(self._launch(title, role, command))
        life = Incarnation(
            title=title,
            role=role,
            slot=slot,
            process=process,
            port=port,
            log=LogFile(self.logs / f"{title}.log", title, self._for(role), self.clock),
            rows=tuple(row for row in self._rows if concerns(row, role)),
            plane_port=plane_port,
            ports=ports,
        )
        self.lives[title] = life
        {"frontend": self.gates, "worker": self.slots, "prefill": self.prefills}[role][slot] = life
        at = self.clock.since(before_s)
        self.push(Started(at=at, title=title, role=role, slot=slot, pid=process.pid, port=plane_port or port))
        self._watching.append(asyncio.create_task(self._await_exit(life)))
        return life

    def _wanted_port(self, role: Role, slot: int) -> int | None:
        """The port that the topology names for the process in this place, if it does."""
        first = self.topology.http_port if role == "frontend" else self.topology.system_port
        if first is None or not self.topology.prefill_workers or role == "frontend":
            return first and first + slot - 1
        most = max(self.topology.workers)  # prefill workers' ports follow
        if role == "worker":
            return first + slot - 1 if slot <= most else None
        return first + most + slot - 1

    def _own_ports(self, role: Role) -> int:
        """How many ports a process takes for its engine."""
        handoff = engines.handoff_of(self.topology) if role == "prefill" else None
        return 0 if role == "frontend" else self.engine.ports + (handoff.ports if handoff else 0)

    def _title(self, role: Role, slot: int) -> str:
        base = {"frontend": f"frontend-{slot}", "worker": f"w{slot}", "prefill": f"p{slot}"}[role]
        lives = sum(1 for life in self.lives.values() if life.role == role and life.slot == slot)
        return base if lives == 0 else f"{base}-{lives + 1}"

    def _launch(self, title: str, role: Role, command: Command) -> Launch:
        env = {name: os.environ[name] for name in KEPT if name in os.environ}
        env |= {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp"), **command.env}
        env["FTMODEL_STORE"] = str(self.logs.absolute())
        shown = f"ftmodel {self.folder.name} {title}"
        log = self.logs / f"{title}.log"
        component: Component = getattr(self.topology, role)
        if command.forks and not self.ground.cold_start and not component.env:  # some of it is read at the imports
            return Launch(
                title=shown, how="fork", module=command.module, function=command.function, argv=command.argv,
                env=env, cwd=self.folder, log=log,
            )  # fmt: skip
        run = [command.module] if command.module.endswith(".py") else ["-m", command.module.removesuffix(".main")]
        argv = (str(self.ground.python), *run, *command.argv)
        return Launch(title=shown, how="exec", argv=argv, env=env, cwd=self.folder, log=log)

    def _for(self, role: Role) -> tuple[Pattern, ...]:
        return tuple(pattern for pattern in self._patterns if concerns(pattern, role))

    async def _await_exit(self, life: Incarnation) -> None:
        exit_ = await life.process.wait()
        at = self.clock.of_monotonic(exit_.at)
        self.push(Exited(at=at, title=life.title, code=exit_.code, signal=exit_.signal))
        if life.role in WORKER_ROLES:  # clients still speak to a frontend's: it must be nobody else's
            self._give_back(life)

    def _give_back(self, life: Incarnation) -> None:
        for port in (life.port, life.plane_port, *life.ports):
            self.ground.ports.give_back(port)

    # -- who is there

    def slots_of(self, role: WorkerRole) -> dict[int, Incarnation]:
        """The latest incarnation of each slot of this role."""
        return self.prefills if role == "prefill" else self.slots

    def workers_alive(self, *roles: WorkerRole) -> Iterator[Incarnation]:
        """The living workers of these roles, or of both, by slot."""
        places = (self.slots_of(role) for role in roles or WORKER_ROLES)
        return (slots[slot] for slots in places for slot in sorted(slots) if slots[slot].alive)

    def _answering(self) -> Iterator[Incarnation]:
        """The living, unfrozen frontends and workers."""
        return (life for life in self.lives.values() if life.alive and not life.frozen and life.role != "service")

    def frontends_alive(self) -> list[Incarnation]:
        """The living frontends, by place."""
        return [self.gates[place] for place in sorted(self.gates) if self.gates[place].alive]

    def holder(self, request_id: str, role: WorkerRole = "worker", *, over: bool = False) -> Incarnation | None:
        """The living worker that began this request last, and did not end it; of one that is over, the last alone."""
        self.poll_logs()
        for title in reversed(self.holders.get(request_id, [])):
            life = self.lives[title]
            if life.role == role and life.alive and (over or request_id in life.held):
                return life
        return None

    # -- readiness

    async def is_listed(self, life: Incarnation, frontend: Incarnation) -> bool:
        """True if the worker is on this frontend's list of instances, and the model on its list of models."""
        if life.identity is None:
            with suppress(httpx.HTTPError):
                answer = await self.client.get(life.url + self.system.metrics_path)
                if answer.status_code == httpx.codes.OK:
                    self._identify(life, answer.text)
        if self.engine.own_health and not life.is_healthy:
            life.is_healthy = await self._status(life, self.system.health_path) == httpx.codes.OK
        listed = await self.ask_list(frontend)
        is_healthy = life.is_healthy or not self.engine.own_health
        return is_healthy and listed is not None and life.title in listed.titles and listed.models

    def _identify(self, life: Incarnation, page: str) -> None:
        """Learn under which id it is listed, from its metrics page, and tell it once."""
        identity = self.system.identity(page)
        if life.identity is None and identity is not None and life.alive:
            life.identity = identity
            now_s = self.clock.now()
            self.push(Identified(at=Interval(now_s, now_s), title=life.title, identity=identity))

    async def ask_list(self, frontend: Incarnation) -> Listed | None:
        """Ask a frontend for its list and push it; None if it does not answer."""
        before_s = self.clock.now()
        frontend.asked += 1
        try:
            if not frontend.has_model or frontend.asked % MODELS_EVERY == 0:
                health, frontend.has_model = await asyncio.gather(
                    self.client.get(frontend.url + self.system.list_path), self._lists_model(frontend)
                )
            else:
                health = await self.client.get(frontend.url + self.system.list_path)
            identities = self.system.instances(health.json())
        except (httpx.HTTPError, ValueError, AttributeError):
            return None
        titles = {life.identity: life.title for life in self.lives.values() if life.identity is not None}
        listed = Listed(
            at=self.clock.since(before_s),
            frontend=frontend.title,
            titles=tuple(sorted(titles[identity] for identity in identities if identity in titles)),
            strangers=tuple(sorted(identity for identity in identities if identity not in titles)),
            models=frontend.has_model,
        )
        self.push(listed)
        return listed

    async def _lists_model(self, frontend: Incarnation) -> bool:
        models = await self.client.get(frontend.url + self.system.models_path)
        return any(row.get("id") == self.model_name for row in models.json().get("data") or ())

    # -- logs

    def poll_logs(self) -> None:
        """Read what every log has gained."""
        for life in self.lives.values():
            for line in life.log.poll():
                self._heed(life, line)
                self.push(line)

    def _heed(self, life: Incarnation, line: LogLine) -> None:
        if life.role not in WORKER_ROLES or not line.id:
            return
        if line.meaning == "begun":
            life.held.add(line.id)
            self.holders.setdefault(line.id, []).append(life.title)
        elif line.meaning in ("armed-death", "armed-error"):
            self.last_words.setdefault(life.title, []).append(line)
        elif line.meaning in ("ended", "aborted", "failed", "finished"):
            life.held.discard(line.id)

    async def _follow_logs(self) -> None:
        while True:
            self.poll_logs()
            await asyncio.sleep(POLL_S)

    async def _follow_lists(self) -> None:
        while True:
            await asyncio.sleep(LIST_EVERY_S)
            asked = [life for life in self.frontends_alive() if not life.frozen]
            await asyncio.gather(*(self.ask_list(life) for life in asked))

    # -- metrics

    async def sample(self) -> dict[str, dict[str, float]]:
        """Read the metrics of every living, unfrozen process, push them, and return them by title."""
        asked = list(self._answering())
        found = await asyncio.gather(*(self._sample(life) for life in asked))
        return {life.title: values for life, values in zip(asked, found, strict=True) if values is not None}

    async def _sample(self, life: Incarnation) -> dict[str, float] | None:
        before_s = self.clock.now()
        try:
            answer = await self.client.get(life.url + self.system.metrics_path)
        except httpx.HTTPError:
            return None
        if answer.status_code != 200:
            return None
        values = metrics.read(answer.text, life.rows)
        if life.role in WORKER_ROLES:
            self._identify(life, answer.text)
        self.push(Sample(at=self.clock.since(before_s), title=life.title, values=values))
        return values

    async def _follow_metrics(self) -> None:
        while True:
            await self.sample()
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def _follow_health(self) -> None:
        while True:
            await self.ask_health()
            await asyncio.sleep(HEALTH_EVERY_S)

    async def ask_health(self) -> None:
        """Ask every living, unfrozen process that has answered before for its health, and push what it says."""
        asked = list(self._answering())
        await asyncio.gather(*(self.ask_health_of(life) for life in asked))

    async def ask_health_of(self, life: Incarnation) -> None:
        """Ask one process for its health, and push what it says."""
        before_s = self.clock.now()
        paths = (self.system.health_path, self.system.live_path)
        health, live = await asyncio.gather(*(self._status(life, path) for path in paths))
        self.push(Told(at=self.clock.since(before_s), title=life.title, health=health, live=live))

    async def _status(self, life: Incarnation, path: str) -> int:
        try:
            return (await self.client.get(life.url + path)).status_code
        except httpx.HTTPError:
            return 0

    # -- end

    async def kill(self, life: Incarnation) -> Interval:
        """SIGKILL a process's group and wait until it is gone: from the signal to its end. Raises ProcessGoneError."""
        sent = self.clock.of_monotonic(await self.ground.warden.signal(life.process, signal.SIGKILL))
        async with asyncio.timeout(KILL_BOUND_S):
            exit_ = await life.process.wait()
        return Interval(sent.before_s, max(sent.after_s, self.clock.of_monotonic(exit_.at).after_s))

    async def close(self) -> None:
        """End every process of this cluster, tell what was left of those that had ended, and remove its folder."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        self._watching = []
        await self._tell_left_over()
        for life in self.lives.values():
            if life.alive:
                with suppress(ProcessGoneError):
                    await self.kill(life)
            self._give_back(life)
        self.backing.close()
        self.poll_logs()
        await self.client.aclose()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def _tell_left_over(self) -> None:
        """A worker that has ended must have left no process of its session behind."""
        before_s = self.clock.now()
        gone = {life.process.pid: life for life in self.lives.values() if not life.alive}
        try:
            below = await self.ground.warden.descendants()
        except HarnessError:
            return  # the warden's death is told by itself
        for pid, life in gone.items():
            left = [row for row in below if row.session == pid and row.pid != pid and row.state != "Z"]
            if left:
                at = self.clock.since(before_s)
                self.push(LeftOver(at=at, of=life.title, pids=tuple(r.pid for r in left), by=left[0].command))
                for row in left:
                    with suppress(ProcessLookupError):
                        os.kill(row.pid, signal.SIGKILL)
