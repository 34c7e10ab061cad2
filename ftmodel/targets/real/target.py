"""The target `real`: does the steps of a plan on processes, and arms those whose anchor lies ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ftmodel.bounds import Bounds
from ftmodel.engines import Engine
from ftmodel.errors import HarnessError
from ftmodel.history import HarnessFailed, History, Interval, Mark, Setting, Stall, StepDone, StepVoid, Usage
from ftmodel.steps import (
    ROLE_NAMES,
    SLOTS,
    After,
    Anchor,
    BadRequest,
    Begun,
    Cancel,
    End,
    EngineError,
    FreezeWorker,
    Gone,
    Heal,
    HolderOf,
    KillEngine,
    KillFrontend,
    KillWorker,
    NotHolderOf,
    Now,
    OnService,
    Plan,
    Sent,
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
    Token,
    VictimOf,
    WorkerRole,
)
from ftmodel.systems import System
from ftmodel.targets.real.armed import Orders
from ftmodel.targets.real.clock import Clock, Loop
from ftmodel.targets.real.cluster import Cluster, Ground, Incarnation
from ftmodel.targets.real.faults import VERIFY_BOUND_S, Faults, VoidError
from ftmodel.targets.real.processes import ProcessGoneError
from ftmodel.targets.real.readiness import Readiness
from ftmodel.targets.real.requests import Clients, Request, bad
from ftmodel.targets.real.usage import used
from ftmodel.topology import Topology

SETTLE_BOUND_S: Final = 15.0
"""A settle gives up after so long: the cluster is not quiet, which is no error."""
QUIET_S: Final = 3.0
"""At the end of the steps, armed ones are given up when no open request has had a byte for so long."""
LOOK_EVERY_S: Final = 0.020
REST_EVERY_S: Final = 0.100
GAUGES: Final = ("inflight", "queued", "active", "plane_inflight", "running", "waiting", "kv")


class RealTarget:
    """One example on a fresh cluster of real processes. Its verbs are called from one thread, and wait for the loop."""

    def __init__(
        self,
        loop: Loop,
        ground: Ground,
        system: System,
        engine: Engine,
        topology: Topology,
        plan: Plan,
        *,
        setting: Callable[[Interval], Setting],
        folder: Path,
        logs: Path,
    ) -> None:
        self.history = History()
        self._loop = loop
        self._clock = Clock()
        self._plan = plan
        self._engine = engine
        self._system = system
        self._topology = topology
        self._cluster = Cluster(
            ground, system, engine, topology, workers=plan.workers, prefill_workers=plan.prefill_workers,
            frontends=plan.frontends, migration_limit=plan.migration_limit, folder=folder, logs=logs, clock=self._clock, push=self.history.push,
        )  # fmt: skip
        self._faults = Faults(self._cluster, self._clock, Orders(folder / "armed"), self.history.push)
        self._setting = setting(Interval(self._clock.now(), self._clock.now()))
        self._clients: Clients | None = None
        self._readiness: Readiness | None = None
        self._requests: dict[str, Request] = {}
        self._done: dict[str, asyncio.Future[bool]] = {}
        """Of each step: done (True) or void (False)."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """Of each step that is armed or under way."""
        self._waiting: set[str] = set()
        """Steps whose moment has not come."""
        self._starting: set[tuple[str, int | str]] = set()
        self._sleeping: set[str] = set()
        """Of those, steps on services whose anchor has come and whose skew runs: how long an outage lasts is drawn."""
        self._victims: dict[str, Incarnation] = {}
        """Of each step that was done to a process: which."""
        self._back_s = 0.0
        """When a service was last started again."""
        self._failure: HarnessError | None = None

    # -- the verbs

    def apply(self, step: Step) -> None:
        """Do the step, or arm it. Raises HarnessError."""
        self._loop.call(self._apply(step))

    def start(self) -> None:
        """Boot the cluster and wait until it is ready. Raises HarnessError."""
        self._loop.call(self._start())

    def finish(self) -> None:
        """Bring the example to rest, by its patience. Raises HarnessError."""
        self._loop.call(self._finish())

    def close(self) -> None:
        """End every process of the cluster."""
        self._loop.call(self._close(), always=True)

    def fail(self, why: str) -> None:
        """Note in the history that the tester could not go on."""
        self._loop.call(self._fail(why))

    def processes(self) -> tuple[Incarnation, ...]:
        """Every process of the cluster so far, dead ones included."""
        return tuple(self._cluster.lives.values())

    def url(self, frontend: int = 1) -> str:
        """Where the frontend in this place answers."""
        return self._cluster.gates[frontend].url

    # -- start

    async def _start(self) -> None:
        self._loop.on_stall.append(self._stalled)
        self.history.push(self._setting)
        before_s = self._clock.now()
        await self._cluster.start()
        self._clients = Clients(
            model=self._cluster.model_name, header=self._system.request_id_header, count=self._engine.count, clock=self._clock, push=self.history.push,
        )  # fmt: skip
        self._readiness = Readiness(self._cluster, self._clients, self._clock, self.history.push)
        await self._readiness.boot()
        self.history.push(Mark(at=self._clock.since(before_s), stage="ready"))

    def _stalled(self, from_s: float, to_s: float) -> None:
        """Tester or warden was not scheduled; both in time.monotonic() seconds."""
        self.history.push(Stall(at=self._clock.of_monotonic(Interval(from_s, to_s)), who="tester"))

    # -- steps

    async def _apply(self, step: Step) -> None:
        self._raise_failure()
        self._done[step.name] = asyncio.get_running_loop().create_future()
        if isinstance(step, Submit):
            self._requests[step.name] = self._request(step)
        elif isinstance(step, BadRequest):
            self._requests[step.name] = Request(step.name, bad(step), wrong=step.wrong)
        task = asyncio.create_task(self._carry_out(step))
        if isinstance(step, Settle):
            await task
        elif isinstance(step.at, Now) and step.skew_ms == 0 and not isinstance(step, SlowReader):
            await asyncio.wait({task}, timeout=VERIFY_BOUND_S)
        if not task.done():
            self._tasks[step.name] = task
            task.add_done_callback(lambda _task: self._tasks.pop(step.name, None))

    def _request(self, step: Submit) -> Request:
        request = Request(step.name, step)
        if step.stop_at and self._engine.stop is not None:
            request.stop = (self._engine.stop(request.key, step.stop_at),)
        return request

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise HarnessError(str(self._failure))

    async def _carry_out(self, step: Step) -> None:
        """Wait for the step's moment, then do it. Only the waiting can be cancelled: what was begun is told."""
        before_s = self._clock.now()
        try:
            self._waiting.add(step.name)
            try:
                await self._moment(step)
            finally:
                self._waiting.discard(step.name)
            before_s = self._clock.now()
            subject = await asyncio.shield(self._do(step))
            self.history.push(StepDone(at=self._clock.since(before_s), step=step.name, deed=step.kind, subject=subject))
            self._done[step.name].set_result(True)
        except (VoidError, LookupError, ProcessGoneError) as void:
            self._void(step, before_s, str(void) or "its anchor never came")
        except asyncio.CancelledError:
            self._void(step, before_s, "its anchor had not come when the example ended")
        except HarnessError as error:
            self._void(step, before_s, f"the harness failed: {error}")
            self._failure = error

    def _void(self, step: Step, before_s: float, why: str) -> None:
        self.history.push(StepVoid(at=self._clock.since(before_s), step=step.name, deed=step.kind, why=why))
        self._done[step.name].set_result(False)
        if isinstance(step, Submit | BadRequest):
            request = self._requests[step.name]
            if not request.sent.done():
                request.sent.cancel()
                request.ended.set()
                request.wake()

    async def _moment(self, step: Step) -> None:
        """Wait for the step's anchor and its skew. Raises VoidError or LookupError if it never comes."""
        if isinstance(step, EngineError) and not self._is_orderable(step):
            raise VoidError(f"the {self._engine.name} engine cannot fail a request then")
        if self._engine_times(step):
            assert isinstance(step.at, Token)
            # Before the request is sent: an early token would be gone otherwise.
            how = step.how if isinstance(step, EngineError) else "die"
            await self._faults.order(step.name, self._known(step.at.request), step.at.k, how)
            return
        await self._anchor(step.at)
        if step.skew_ms:
            self._sleeping |= {step.name} if isinstance(step, OnService) else set()
            await asyncio.sleep(step.skew_ms / 1000)
            self._sleeping.discard(step.name)
        worker = getattr(step, "worker", None)
        if isinstance(worker, HolderOf | NotHolderOf):
            await self._until_held(self._known(worker.request), worker.role)

    def _engine_times(self, step: Step) -> bool:
        """True for what the engine itself can time: a kill, or a failure, at a token."""
        if isinstance(step, EngineError):
            return True
        mine = isinstance(step, KillWorker) and isinstance(step.at, Token) and step.worker == HolderOf(step.at.request)
        return mine and self._is_orderable(step)

    def _is_orderable(self, step: Step) -> bool:
        of_request = not isinstance(step, EngineError) or step.at == Token(step.request, getattr(step.at, "k", 0))
        at_token = isinstance(step.at, Token) and step.at.k > 0 and step.skew_ms == 0
        return self._engine.arms and at_token and of_request

    async def _anchor(self, at: Anchor) -> None:
        match at:
            case Now():
                return
            case After(name):
                other = self._done.get(name)
                if other is None or not await asyncio.shield(other):
                    raise VoidError(f"{name} was not done")
            case Gone(name):
                await self._anchor(After(name))
                if name not in self._victims:
                    raise VoidError(f"{name} was done to no process")
                await self._victims[name].process.wait()
            case Sent(name) | Begun(name) | Token(name) | End(name):
                request = self._known(name)
                await self._until_sent(request)
                if isinstance(at, Begun):
                    first: WorkerRole = "prefill" if self._plan.prefill_workers else "worker"
                    if not await self._until_held(request, first):
                        raise VoidError(f"no {first} worker began {name} before it was over")
                elif isinstance(at, Token):
                    await request.token(at.k)
                elif isinstance(at, End):
                    await request.ended.wait()

    async def _until_sent(self, request: Request) -> None:
        await asyncio.wait({request.sent})
        if request.sent.cancelled():
            raise VoidError(f"{request.name} was never sent")

    async def _until_held(self, request: Request, role: WorkerRole) -> bool:
        """Wait until some worker of this role has begun the request: one that was just sent is nobody's yet.

        False if it was over before.
        """
        while not self._was_begun(request, role):
            if not request.open:
                return False
            await asyncio.sleep(LOOK_EVERY_S)
        return True

    def _was_begun(self, request: Request, role: WorkerRole) -> bool:
        return any(self._cluster.lives[title].role == role for title in self._cluster.holders.get(request.id, ()))

    def _known(self, name: str) -> Request:
        if name not in self._requests:
            raise VoidError(f"there is no request {name}")
        return self._requests[name]

    def _do(self, step: Step) -> Awaitable[str]:
        match step:
            case Submit() | BadRequest():
                return self._submit(step)
            case Cancel():
                return self._cancel(step)
            case SlowReader():
                return self._pause(step)
            case EngineError():
                return self._faults.erred_at_token(step.name, self._known(step.request), step.how)
            case Settle():
                return self._settle(step)
            case Heal():
                return self._heal()
            case _:
                return self._do_to_process(step)

    def _do_to_process(self, step: Step) -> Awaitable[str]:
        match step:
            case StartWorker():
                return self._start_worker(step.slot, step.role, again=step.port == "predecessor")
            case StartFrontend():
                return self._start_frontend(step.frontend)
            case OnService(deed="start"):
                return self._start_service(step.service)
            case OnService():
                life = self._victims[step.name] = self._service(step.service)
                return self._made(step, life)
            case KillWorker() if self._engine_times(step) and isinstance(step.at, Token):
                return self._faults.died_at_token(step.name, self._known(step.at.request))
            case KillWorker() | KillEngine() | StopWorker() | FreezeWorker() | ThawWorker():
                life = self._victims[step.name] = self._resolve(step.worker)
                return self._made(step, life)
            case KillFrontend() | StopFrontend():
                life = self._victims[step.name] = self._frontend(step.frontend)
                return self._made(step, life)
        raise VoidError(f"{step.kind}: not understood")

    def _made(self, step: Step, life: Incarnation) -> Awaitable[str]:
        match step.kind.partition("-")[0]:
            case "stop":
                return self._faults.stop(step.name, life)
            case "freeze":
                return self._faults.freeze(step.name, life)
            case "thaw":
                return self._faults.thaw(step.name, life)
            case KillEngine():
                return self._faults.kill_engine(step.name, life, step.part)
            case _:
                return self._faults.kill(step.name, life)

    def _service(self, name: ServiceName) -> Incarnation:
        """The living service of this name. Raises VoidError."""
        life = self._cluster.services.get(name)
        if life is None:
            raise VoidError(f"the cluster has no {name}")
        if not life.alive:
            raise VoidError(f"{name} does not live")
        return life

    async def _start_service(self, name: ServiceName) -> str:
        """Start a service that has ended. Raises VoidError."""
        life = self._cluster.services.get(name)
        if life is None:
            raise VoidError(f"the cluster has no {name}")
        if life.alive or ("service", name) in self._starting:
            raise VoidError(f"{name} lives: {life.title}")
        self._starting.add(("service", name))
        try:
            return (await self._cluster.start_service(name)).title
        finally:
            self._back_s = self._clock.now()
            self._starting.discard(("service", name))

    def _frontend(self, place: int) -> Incarnation:
        """The living frontend in this place. Raises VoidError."""
        life = self._cluster.gates.get(place)
        if life is None or not life.alive:
            raise VoidError(f"frontend {place} does not live")
        return life

    def _resolve(self, subject: Subject) -> Incarnation:
        """The living worker that is meant now. Raises VoidError."""
        match subject:
            case Slot(slot, role):
                life = self._cluster.slots_of(role).get(slot)
                if life is None or not life.alive:
                    raise VoidError(f"slot {slot} has no living {ROLE_NAMES[role]}")
                return life
            case HolderOf(name, role):
                request = self._known(name)
                life = self._cluster.holder(request.id, role, over=request.ended.is_set())
                if life is None:
                    raise VoidError(f"no living {ROLE_NAMES[role]} serves {name}")
                return life
            case NotHolderOf(name, role):
                holder = self._cluster.holder(self._known(name).id, role)
                for life in self._cluster.workers_alive(role):
                    if life is not holder:
                        return life
                raise VoidError(f"no living {ROLE_NAMES[role]} but the one that serves {name}")
            case VictimOf(name):
                life = self._victims.get(name)
                if life is None or not life.alive:
                    raise VoidError(f"the process of {name} does not live")
                return life

    async def _submit(self, step: Submit | BadRequest) -> str:
        assert self._clients is not None
        request = self._requests[step.name]
        if request.wrong == "prompt-too-long" and not self._engine.context_tokens:
            raise VoidError(f"no prompt is too long for the {self._engine.name} engine")
        frontend = self._cluster.gates[min(step.frontend, max(self._cluster.gates))]
        self._clients.send(request, frontend.title, frontend.url)
        return request.id

    async def _pause(self, step: SlowReader) -> str:
        assert self._clients is not None
        request = self._known(step.request)
        await self._until_sent(request)
        if not request.step.stream or not request.open:
            raise VoidError(f"{request.name} is no open stream")
        await self._clients.pause(request, step.pause_ms / 1000)
        return request.id

    async def _cancel(self, step: Cancel) -> str:
        assert self._clients is not None
        request = self._known(step.request)
        await self._until_sent(request)
        left = await self._clients.cancel(request, step.how)
        return request.id if left else "over before"

    async def _start_worker(self, slot: int, role: WorkerRole = "worker", *, again: bool = False) -> str:
        if role == "prefill" and not self._plan.prefill_workers:
            raise VoidError("the cluster has no prefill workers")
        slot = slot or self._empty_slot(role)
        life = self._cluster.slots_of(role).get(slot)
        plane_port = life.plane_port if life is not None and again else 0
        starting = self._cluster.start_worker(slot, role=role, plane_port=plane_port)
        return await self._start_anew(ROLE_NAMES[role], slot, life, starting)

    def _empty_slot(self, role: WorkerRole) -> int:
        """The lowest in which no worker of this role lives or is being started. Raises VoidError."""
        for slot in range(1, SLOTS + 1):
            life = self._cluster.slots_of(role).get(slot)
            if (life is None or not life.alive) and (ROLE_NAMES[role], slot) not in self._starting:
                return slot
        raise VoidError(f"every slot has a living {ROLE_NAMES[role]}")

    async def _start_frontend(self, place: int) -> str:
        if place not in self._cluster.gates:
            raise VoidError(f"the cluster has no frontend {place}")
        life = self._cluster.gates[place]
        return await self._start_anew("frontend", place, life, self._cluster.start_frontend(place))

    async def _start_anew(
        self, role: str, place: int, life: Incarnation | None, starting: Coroutine[Any, Any, Incarnation]
    ) -> str:
        """Start a process where none lives, and follow it until it is ready. Raises VoidError."""
        assert self._readiness is not None
        why = ""
        if life is not None and life.alive:
            why = f"{role} {place} lives: {life.title}"
        elif (role, place) in self._starting:
            why = f"{role} {place} is being started"
        if why:
            starting.close()
            raise VoidError(why)
        self._starting.add((role, place))
        try:
            new = await starting
        finally:
            self._starting.discard((role, place))
        self._readiness.join(new)
        return new.title

    # -- calm

    async def _settle(self, step: Step) -> str:
        """Wait until no request is open and no other step is armed or under way."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_BOUND_S):
                while self._open() or self._tasks.keys() - {step.name}:
                    await asyncio.sleep(LOOK_EVERY_S)
        open_ = self._open()
        if not open_:
            self._weigh()
        return f"{len(open_)} requests still open" if open_ else ""

    def _weigh(self) -> None:
        """Put down what each process uses while the cluster is quiet."""
        for life in [life for life in self._cluster.lives.values() if life.alive and not life.frozen]:
            before_s, now = self._clock.now(), used(life.process.pid)
            if now is not None:
                self.history.push(
                    Usage(
                        at=self._clock.since(before_s), title=life.title, requests=len(self._requests),
                        memory=now.memory, fds=now.fds, sockets=now.sockets, threads=now.threads, children=now.children,
                    )
                )  # fmt: skip

    def _open(self) -> list[Request]:
        return [request for request in self._requests.values() if request.under_way]

    async def _heal(self) -> str:
        """Thaw what is frozen, and start a process in each of the topology's empty places; services first."""
        healed: list[str] = []
        for name, service in self._cluster.services.items():
            with suppress(VoidError):
                healed += await self._thawed([service]) or [await self._start_service(name)]
        healed += await self._thawed(self._cluster.workers_alive())
        for place in range(1, self._plan.frontends + 1):
            with suppress(VoidError):
                healed.append(await self._start_frontend(place))
        for slot in range(1, self._plan.workers + 1):
            with suppress(VoidError):
                healed.append(await self._start_worker(slot))
        for slot in range(1, self._plan.prefill_workers + 1):
            with suppress(VoidError):
                healed.append(await self._start_worker(slot, "prefill"))
        return " ".join(healed)

    async def _thawed(self, lives: Iterable[Incarnation]) -> list[str]:
        """Thaw those of them that live and are frozen: their titles."""
        thawed: list[str] = []
        for life in [life for life in lives if life.alive and life.frozen]:
            with suppress(VoidError, ProcessGoneError):
                thawed.append(await self._faults.thaw("heal", life))
        return thawed

    # -- the end

    async def _finish(self) -> None:
        self._raise_failure()
        self._mark("steps-done")
        bounds = self._setting.bounds
        await self._let_armed_fire()
        if self._plan.patience == "long":
            until_s = self._faults.last_s + max(bounds.lease_s, bounds.hang_bound_s) + 5
            await asyncio.sleep(max(0.0, until_s - self._clock.now()))
        self._mark("heal")
        before_s = self._clock.now()
        await self._heal()
        await self._outlast_outages(bounds)
        assert self._readiness is not None
        if self._readiness.joining:
            await asyncio.wait(self._readiness.joining)
        self.history.push(Mark(at=self._clock.since(before_s), stage="healed"))
        if self._plan.patience == "long":
            await asyncio.sleep(bounds.list_bound_s)
        await self._until_ended(self._clock.now() + bounds.end_bound_s)
        await self._until_rest(bounds)
        self._mark("rest")
        self._raise_failure()
        for life in self._cluster.lives.values():
            if life.log.overflowed:
                raise HarnessError(f"{life.log.path}: longer than is read of a log; what it says further is not known")

    async def _outlast_outages(self, bounds: Bounds) -> None:
        """After an outage of the control plane some processes end as late as a lease later: wait for that, heal again."""
        lives = self._cluster.lives.values()
        if any(life.role == "service" and life.hit for life in lives) and self._topology.discovery != "file":
            over_s = max(self._back_s, self._faults.last_s) + bounds.list_bound_s
            await asyncio.sleep(max(0.0, over_s - self._clock.now()))
            await self._heal()

    async def _fail(self, why: str) -> None:
        now_s = self._clock.now()
        self.history.push(HarnessFailed(at=Interval(now_s, now_s), why=why))

    def _mark(self, stage: str) -> None:
        now_s = self._clock.now()
        self.history.push(Mark(at=Interval(now_s, now_s), stage=stage))  # type: ignore[arg-type]

    async def _let_armed_fire(self) -> None:
        """Armed steps still fire while something moves; what waits for a request that is stuck is given up."""
        began_s = self._clock.now()
        while self._tasks and self._clock.now() < began_s + 2 * SETTLE_BOUND_S:
            heard_s = max([began_s, *(request.heard_s for request in self._open())])
            if self._clock.now() > heard_s + QUIET_S and not self._sleeping & self._tasks.keys():
                break
            await asyncio.sleep(LOOK_EVERY_S)
        for name in self._waiting & self._tasks.keys():
            self._tasks[name].cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _until_ended(self, due_s: float) -> None:
        """Wait until every request has ended, or is past the time that it is given."""
        while open_ := self._open():
            longest = max(request.step.max_tokens for request in open_)
            if self._clock.now() > due_s + 4 * longest * self._setting.pace_s:
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def _until_rest(self, bounds: Bounds) -> None:
        """Sample until every gauge is back at zero and every request has an end in its worker's log, or time is over."""
        began_s = self._clock.now()
        while True:
            self._cluster.poll_logs()
            before_s = self._clock.now()
            sampled = await self._cluster.sample()
            raised = any(values.get(gauge) for values in sampled.values() for gauge in GAUGES)
            unended = any(life.held for life in self._cluster.workers_alive() if not life.frozen)
            owed = raised or (unended and before_s < began_s + bounds.abort_bound_s)
            if before_s > began_s + bounds.rest_bound_s or not owed:
                break
            await asyncio.sleep(REST_EVERY_S)
        await asyncio.sleep(2 * REST_EVERY_S)
        self._cluster.poll_logs()

    async def _close(self) -> None:
        if self._stalled in self._loop.on_stall:
            self._loop.on_stall.remove(self._stalled)
        tasks = [*self._tasks.values(), *(self._readiness.joining if self._readiness else ())]
        requests = [*self._requests.values(), *(self._readiness.probes if self._readiness else ())]
        tasks += [request.task for request in requests if request.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._clients is not None:
            await self._clients.close()
        await self._cluster.close()
        self._mark("closed")
