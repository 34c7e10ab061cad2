"""The simulated cluster: its processes, discovery and clients, and what the tester reads of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from ftmodel.engines import Engine
from ftmodel.history import Event, Identified, Interval, Listed, Sample, Started, Told
from ftmodel.steps import WorkerRole
from ftmodel.systems import Pattern, Role, System, concerns
from ftmodel.targets.logs import spoken
from ftmodel.targets.simulated.clients import Clients, Request
from ftmodel.targets.simulated.discovery import Discovery
from ftmodel.targets.simulated.frontend import Frontend
from ftmodel.targets.simulated.hooks import Hooks, Planted, Tell
from ftmodel.targets.simulated.kernel import Kernel
from ftmodel.targets.simulated.orders import Orders
from ftmodel.targets.simulated.prefill import PrefillWorker
from ftmodel.targets.simulated.processes import Process
from ftmodel.targets.simulated.worker import Worker
from ftmodel.topology import Topology

POLL_S: Final = 0.020
LIST_EVERY_S: Final = 0.250
SAMPLE_EVERY_S: Final = 1.0
HEALTH_EVERY_S: Final = 2.0
ASKING_S: Final = 0.001
"""What a question to a process takes, to and fro."""
ROLES: Final[tuple[Role, ...]] = ("frontend", "worker", "prefill")
FIRST_PID: Final = 1000
FIRST_PORT: Final = 20000


class Cluster:
    """Everything of one example. Nothing in it happens but by its kernel."""

    def __init__(
        self,
        system: System,
        release: tuple[int, int],
        engine: Engine,
        topology: Topology,
        *,
        seed: int,
        migration_limit: int,
        planted: Sequence[Planted],
        push: Callable[[Event], None],
    ) -> None:
        self.kernel = Kernel(seed)
        self.hooks = Hooks(planted, self.kernel.random.random)
        self.notes: dict[Any, Any] = {}
        """Of the planted defects: what they have to remember."""
        self.push = push
        self.engine = engine
        self.promises = system.promises(topology, release)
        self.limit = migration_limit
        self.longest = topology.migration_max_length or 0
        options = {**engine.options, **topology.options}
        self.pace_s = float(options["pace_ms"]) / 1000
        self.prefill_s = float(options["prefill_ms"]) / 1000
        self.slots = int(options["slots"])
        self.apart = bool(topology.prefill_workers)
        """Prefill workers read the prompts."""
        self.discovery = Discovery(self, self.promises.lease_s.value)
        self.orders = Orders(self.kernel)
        self.clients = Clients(self)
        self.lives: dict[str, Process] = {}
        self.workers: dict[int, Worker] = {}
        """The latest life of each slot."""
        self.prefills: dict[int, Worker] = {}
        """The same of the prefill workers."""
        self.gates: dict[int, Frontend] = {}
        """The latest life of each frontend."""
        self.holders: dict[str, list[Worker]] = {}
        """By request id: the workers that began it, in order, as their logs tell."""
        self.held: set[tuple[str, str]] = set()
        """Title and request id: begun there and not ended, likewise."""
        self._seed = seed
        dialect = system.dialect(release)
        of_engine = tuple(row for row in engine.patterns if row.since <= release < row.until)
        self._patterns = spoken(dialect.patterns, of_engine)
        rows = (*dialect.metrics, *engine.metrics)
        self._exported: dict[Role, tuple[str, ...]] = {
            role: tuple(row.name for row in rows if concerns(row, role)) for role in ROLES
        }
        self._by_meaning: dict[tuple[Role, str], Pattern | None] = {}
        self._identified: set[str] = set()
        self._poll_due = False
        self._read_s = 0.0

    # -- processes

    def start_worker(self, slot: int, role: WorkerRole = "worker", *, port: int = 0) -> Worker:
        """Start a worker in an empty slot, on this port if one is given; it is not ready yet."""
        made, letter = (PrefillWorker, "p") if role == "prefill" else (Worker, "w")
        worker = self.slots_of(role)[slot] = made(self, role, slot, self._title(f"{letter}{slot}"), *self._place(port))
        self._started(worker)
        worker.boot()
        return worker

    def start_frontend(self, place: int) -> Frontend:
        """Start a frontend; it is not ready yet."""
        title = self._title(f"frontend-{place}")
        frontend = self.gates[place] = Frontend(self, "frontend", place, title, *self._place(0))
        self._started(frontend)
        frontend.boot()
        return frontend

    def _title(self, base: str) -> str:
        count = sum(title == base or title.startswith(f"{base}-") for title in self.lives)
        return f"{base}-{count + 1}" if count else base

    def _place(self, port: int) -> tuple[int, int]:
        """Its pid and its port."""
        return FIRST_PID + len(self.lives), port or FIRST_PORT + len(self.lives)

    def _started(self, process: Process) -> None:
        self.lives[process.title] = process
        self.push(
            Started(
                at=self.kernel.moment(), title=process.title, role=process.role, slot=process.slot, pid=process.pid,
                port=process.port,
            )
        )  # fmt: skip

    def new_identity(self, title: str) -> str:
        """The id of an incarnation, as it is listed: 63 bits, in decimal."""
        digest = hashlib.blake2b(f"{self._seed} {title}".encode(), digest_size=8).digest()
        return str(int.from_bytes(digest, "big") >> 1)

    def slots_of(self, role: WorkerRole) -> dict[int, Worker]:
        """The workers of this role: the latest life of each slot."""
        return self.prefills if role == "prefill" else self.workers

    def workers_alive(self, *roles: WorkerRole) -> Iterator[Worker]:
        """The living workers of these roles, or of either, by slot; those that answer first."""
        for lives in map(self.slots_of, roles or ("worker", "prefill")):
            yield from (lives[slot] for slot in sorted(lives) if lives[slot].alive)

    def frontends_alive(self) -> list[Frontend]:
        """The living frontends, by place."""
        return [self.gates[place] for place in sorted(self.gates) if self.gates[place].alive]

    def frontend_of(self, request: Request) -> Frontend:
        """The frontend that a request was sent through."""
        frontend = self.lives[request.frontend]
        assert isinstance(frontend, Frontend)
        return frontend

    def was_begun(self, request_id: str, role: WorkerRole) -> bool:
        """True if the log of a worker of this role tells that it has begun this request."""
        return any(worker.role == role for worker in self.holders.get(request_id, ()))

    def holder(self, request_id: str, role: WorkerRole = "worker", *, over: bool = False) -> Worker | None:
        """The living worker that began this request last, and did not end it; of one that is over, the last alone."""
        self.poll_logs()
        for worker in reversed(self.holders.get(request_id, [])):
            if worker.role == role and worker.alive and (over or (worker.title, request_id) in self.held):
                return worker
        return None

    # -- logs

    def patterns(self, role: Role) -> tuple[Pattern, ...]:
        """What is understood of the log of a process of this role."""
        return tuple(pattern for pattern in self._patterns if concerns(pattern, role))

    def pattern(self, role: Role, meaning: str) -> Pattern | None:
        """The wording by which a process of this role tells something; None if this release has none."""
        key = (role, meaning)
        if key not in self._by_meaning:
            self._by_meaning[key] = next((p for p in self.patterns(role) if p.meaning == meaning), None)
        return self._by_meaning[key]

    def someone_wrote(self) -> None:
        """A log has gained a line: it is read soon."""
        if not self._poll_due:
            self._poll_due = True
            self.kernel.after(self.kernel.random.uniform(0.0, POLL_S), self._poll)

    def _poll(self) -> None:
        self._poll_due = False
        self.poll_logs()

    def poll_logs(self) -> None:
        """Read what every log has gained."""
        read, self._read_s = self.kernel.since(self._read_s), self.kernel.now
        for process in self.lives.values():
            if process.lines:
                texts, process.lines = process.lines, []
                for text in texts:
                    for line in process.reader.take(text, read):
                        self._heed(process, line.meaning, line.id)
                        self.push(line)

    def _heed(self, process: Process, meaning: str, id_: str) -> None:
        if not isinstance(process, Worker) or not id_:
            return
        if meaning == "begun":
            self.held.add((process.title, id_))
            self.holders.setdefault(id_, []).append(process)
        elif meaning in ("ended", "aborted", "failed", "finished"):
            self.held.discard((process.title, id_))

    # -- what the tester asks

    def follow(self) -> None:
        """Ask for lists, metrics and health from now on, each at its pace."""
        self._every(LIST_EVERY_S, self._ask_lists)
        self._every(SAMPLE_EVERY_S, self.sample)
        self._every(HEALTH_EVERY_S, self._ask_health)

    def _every(self, seconds: float, ask: Callable[[], object]) -> None:
        ask()
        self.kernel.after(seconds, self._every, seconds, ask)

    def _asked(self) -> list[Process]:
        """Those that can answer."""
        return [process for process in self.lives.values() if process.alive and not process.frozen]

    def _at(self) -> Interval:
        return Interval(self.kernel.now - ASKING_S, self.kernel.now)

    def _ask_lists(self) -> None:
        for frontend in self.frontends_alive():
            self.ask_list(frontend)

    def ask_list(self, frontend: Frontend) -> Listed | None:
        """Ask a frontend for its list and push it; None if it does not answer."""
        if not frontend.accepts or frontend.frozen:
            return None
        instances, models = frontend.lists()
        shown = self.hooks.do(Tell(self, frontend, "list"), lambda: [one.identity for one in instances])
        known = {
            w.instance.identity: w.title for w in self.lives.values() if self._identify(w) and isinstance(w, Worker)
        }
        listed = Listed(
            at=self._at(), frontend=frontend.title,
            titles=tuple(sorted(known[identity] for identity in shown if identity in known)),
            strangers=tuple(sorted(identity for identity in shown if identity not in known)),
            models=self.hooks.do(Tell(self, frontend, "models"), lambda: models),
        )  # fmt: skip
        self.push(listed)
        return listed

    def _identify(self, process: Process) -> bool:
        """Learn under which id a worker is listed, once it tells; True if it is known."""
        if process.title in self._identified:
            return True
        if isinstance(process, Worker) and process.alive and process.ready and not process.frozen:
            self._identified.add(process.title)
            self.push(Identified(at=self.kernel.moment(), title=process.title, identity=process.instance.identity))
            return True
        return False

    def sample(self) -> dict[str, dict[str, float]]:
        """Read the metrics of every process that answers, push them, and return them by title."""
        found = {}
        for process in self._asked():
            if process.ready:
                values, names = process.sample(), self._exported[process.role]
                found[process.title] = {name: values[name] for name in names if name in values}
                self.push(Sample(at=self._at(), title=process.title, values=found[process.title]))
        return found

    def _ask_health(self) -> None:
        for process in self._asked():
            self.ask_health_of(process)

    def ask_health_of(self, process: Process) -> None:
        """Ask one process for its health, and push what it says."""
        health, live = process.health() if process.alive else (0, 0)
        health = self.hooks.do(Tell(self, process, "health"), lambda: health)
        live = self.hooks.do(Tell(self, process, "live"), lambda: live)
        self.push(Told(at=self._at(), title=process.title, health=health, live=live))
