"""The target `simulated`: does the steps of a plan on a simulated cluster, and arms those whose anchor lies ahead.

What it does, and in which order it tells it, is what the target `real` does: the same contract tests hold for both.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Final

from ftmodel.bounds import Bounds
from ftmodel.engines import Engine
from ftmodel.history import (
    EngineErred,
    FaultMade,
    HarnessFailed,
    History,
    Interval,
    LeftOver,
    Mark,
    Setting,
    StepDone,
    StepVoid,
)
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
from ftmodel.targets.simulated.clients import Request, bad, request_id
from ftmodel.targets.simulated.cluster import Cluster
from ftmodel.targets.simulated.frontend import Frontend
from ftmodel.targets.simulated.hooks import Planted
from ftmodel.targets.simulated.kernel import NeverCameError, Signal, Task, Waits
from ftmodel.targets.simulated.orders import Order
from ftmodel.targets.simulated.processes import KILLED
from ftmodel.targets.simulated.readiness import Readiness
from ftmodel.targets.simulated.worker import BLOCK_TOKENS, BLOCKS, Worker
from ftmodel.topology import Topology

BETWEEN_STEPS_S: Final = 0.001
"""From one step to the next, if nothing is waited for."""
STEP_BOUND_S: Final = 5.0
"""A step that is done at once is waited for so long at most."""
DYING_S: Final = 0.004
"""From SIGKILL to the moment when the process is seen gone."""
LINE_S: Final = 0.002
"""What an engine was ordered to do is as exact as the stamp of its line."""
SETTLE_BOUND_S: Final = 15.0
"""A settle gives up after so long: the cluster is not quiet, which is no error."""
QUIET_S: Final = 3.0
"""At the end of the steps, armed ones are given up when no open request has had a byte for so long."""
LOOK_EVERY_S: Final = 0.020
REST_EVERY_S: Final = 0.100
GAUGES: Final = ("inflight", "queued", "active", "plane_inflight", "running", "waiting", "kv")

Doing = Generator[float | Signal, None, str]
"""Does a step, and returns to what it was resolved."""


class VoidError(Exception):
    """The step cannot be done: its subject does not exist, or its anchor never came. The message says why."""


class SimulatedTarget:
    """One example on a simulated cluster. The same arguments give the same history, byte for byte."""

    def __init__(
        self,
        system: System,
        release: tuple[int, int],
        engine: Engine,
        topology: Topology,
        plan: Plan,
        *,
        setting: Callable[[Interval], Setting],
        seed: int,
        planted: Sequence[Planted] = (),
    ) -> None:
        self.history = History()
        self._plan = plan
        self._seed = seed
        self._cluster = Cluster(
            system, release, engine, topology, seed=seed, migration_limit=plan.migration_limit, planted=planted,
            push=self.history.push,
        )  # fmt: skip
        self._kernel = self._cluster.kernel
        self._engine = engine
        self._setting = replace(
            setting(self._kernel.moment()), cache_tokens=BLOCKS * BLOCK_TOKENS, block_tokens=BLOCK_TOKENS
        )
        self._readiness = Readiness(self._cluster, self._new_request, self._setting.bounds.boot_bound_s)
        self._requests: dict[str, Request] = {}
        self._done: dict[str, Signal] = {}
        """Of each step: given when it is done or void."""
        self._void: set[str] = set()
        self._tasks: dict[str, Task] = {}
        self._waiting: set[str] = set()
        """Steps whose moment has not come."""
        self._orders: dict[str, Order] = {}
        self._starting: set[tuple[str, int]] = set()
        self._victims: dict[str, Worker | Frontend] = {}
        self._fault_s = 0.0
        """When the last fault was made."""

    # -- the verbs

    def start(self) -> None:
        """Boot the cluster and wait until it is ready."""
        self.history.push(self._setting)
        for place in range(1, self._plan.frontends + 1):
            self._cluster.start_frontend(place)
        for slot in range(1, self._plan.workers + 1):
            self._cluster.start_worker(slot)
        for slot in range(1, self._plan.prefill_workers + 1):
            self._cluster.start_worker(slot, "prefill")
        self._cluster.follow()
        for worker in self._cluster.workers_alive():
            self._readiness.follow(worker)
        before_s, bound_s = self._kernel.now, self._setting.bounds.boot_bound_s
        self._kernel.run(lambda: not self._readiness.late, before_s + bound_s)
        self._mark("ready", before_s)

    def apply(self, step: Step) -> None:
        """Do the step, or arm it. Only `settle` lets much time pass."""
        self._done[step.name] = Signal(self._kernel)
        if isinstance(step, Submit):
            self._requests[step.name] = self._new_request(step)
        elif isinstance(step, BadRequest):
            request = self._requests[step.name] = self._new_request(bad(step))
            request.wrong = step.wrong
        task = Task(self._kernel, self._carry_out(step))
        if not task.done.given:
            self._tasks[step.name] = task
        now = isinstance(step.at, Now) and step.skew_ms == 0 and not isinstance(step, SlowReader)
        if now or isinstance(step, Settle):
            bound_s = SETTLE_BOUND_S if isinstance(step, Settle) else STEP_BOUND_S
            self._kernel.run(lambda: task.done.given, self._kernel.now + bound_s + 1.0)
        self._pass(BETWEEN_STEPS_S)

    def finish(self) -> None:
        """No more steps: wait by the example's patience, heal, wait until it is at rest."""
        self._mark("steps-done")
        bounds = self._setting.bounds
        self._let_armed_fire()
        if self._plan.patience == "long":
            until_s = self._fault_s + max(bounds.lease_s, bounds.hang_bound_s) + 5
            self._pass(max(0.0, until_s - self._kernel.now))
        self._mark("heal")
        before_s = self._kernel.now
        healing = Task(self._kernel, self._heal_only())
        self._kernel.run(lambda: healing.done.given, self._kernel.now + bounds.boot_bound_s)
        self._kernel.run(lambda: not self._readiness.late, self._kernel.now + bounds.boot_bound_s + 1.0)
        self._mark("healed", before_s)
        if self._plan.patience == "long":
            self._pass(bounds.list_bound_s)
        self._until_ended(self._kernel.now + bounds.end_bound_s)
        self._until_rest(bounds)
        self._mark("rest")

    def fail(self, why: str) -> None:
        """Note in the history that the tester could not go on."""
        self.history.push(HarnessFailed(at=self._kernel.moment(), why=why))

    def close(self) -> None:
        """Nothing is left of a simulated cluster but its history; what outlived its process is told."""
        for life in self._cluster.lives.values():
            if life.orphans and not life.alive:
                left = LeftOver(at=self._kernel.moment(), of=life.title, pids=life.orphans, by=f"child of {life.title}")
                self.history.push(left)
        self._mark("closed")

    # -- time

    def _pass(self, seconds: float) -> None:
        self._kernel.run(lambda: False, self._kernel.now + seconds)

    def _mark(self, stage: str, before_s: float | None = None) -> None:
        at = self._kernel.moment() if before_s is None else self._kernel.since(before_s)
        self.history.push(Mark(at=at, stage=stage))  # type: ignore[arg-type]

    # -- steps

    def _new_request(self, step: Submit) -> Request:
        id_ = request_id(self._seed, step.name)
        request = Request(step.name, step, id_, Signal(self._kernel), Signal(self._kernel))
        if step.stop_at and self._engine.stop is not None:
            request.stop = (self._engine.stop(request.key, step.stop_at),)
        return request

    def _carry_out(self, step: Step) -> Waits:
        before_s = self._kernel.now
        try:
            self._waiting.add(step.name)
            try:
                yield from self._moment(step)
            finally:
                self._waiting.discard(step.name)
            before_s = self._kernel.now
            subject = yield from self._do(step)
            at = self._kernel.since(before_s)
            self.history.push(StepDone(at=at, step=step.name, deed=step.kind, subject=subject))
        except VoidError as void:
            self._is_void(step, before_s, str(void))
        except NeverCameError:
            self._is_void(step, before_s, "its anchor had not come when the example ended")
        finally:
            self._tasks.pop(step.name, None)
            self._done[step.name].give()

    def _is_void(self, step: Step, before_s: float, why: str) -> None:
        self.history.push(StepVoid(at=self._kernel.since(before_s), step=step.name, deed=step.kind, why=why))
        self._void.add(step.name)
        if isinstance(step, Submit | BadRequest):
            request = self._requests[step.name]
            if not request.sent.given:
                request.void = True
                request.sent.give()
                self._cluster.clients.over(request)

    def _moment(self, step: Step) -> Waits:
        """Wait for the step's anchor and its skew. Raises VoidError if it never comes."""
        if isinstance(step, EngineError) and not _is_orderable(step):
            raise VoidError("an engine fails a request at a token of it")
        if _engine_times(step):
            assert isinstance(step.at, Token)
            how = step.how if isinstance(step, EngineError) else "die"
            yield from self._until_ordered(step.name, self._known(step.at.request), step.at.k, how)
            return
        yield from self._anchor(step.at)
        if step.skew_ms:
            yield step.skew_ms / 1000
        worker = getattr(step, "worker", None)
        if isinstance(worker, HolderOf | NotHolderOf):
            yield from self._until_held(self._known(worker.request), worker.role)

    def _until_held(self, request: Request, role: WorkerRole) -> Waits:
        """Wait until some worker of this role has begun the request, or it is over."""
        while request.open and not self._cluster.was_begun(request.id, role):
            yield LOOK_EVERY_S

    def _until_ordered(self, step: str, request: Request, position: int, how: str) -> Waits:
        """Have the engine die or fail at a token, which a client would see too late; wait until a worker does."""
        order = self._orders[step] = self._cluster.orders.give(step, request.id, position, how)  # type: ignore[arg-type]
        request.ended.then(order.over.give)
        try:
            yield order.over
        finally:
            self._cluster.orders.withdraw(request.id, order)
        if not order.taken:
            raise VoidError(f"{request.name} ended before token {position}")

    def _anchor(self, at: Anchor) -> Waits:
        match at:
            case Now():
                return
            case After(name):
                yield from self._after(name)
            case Gone(name):
                yield from self._after(name)
                if name not in self._victims:
                    raise VoidError(f"{name} was done to no process")
                yield self._victims[name].gone
            case Sent(name) | Begun(name) | Token(name) | End(name):
                request = self._known(name)
                yield from self._until_sent(request)
                if isinstance(at, Begun):
                    first: WorkerRole = "prefill" if self._cluster.apart else "worker"
                    yield from self._until_held(request, first)
                    if not self._cluster.was_begun(request.id, first):
                        raise VoidError(f"no {first} worker began {name} before it was over")
                elif isinstance(at, Token):
                    yield from self._until_token(request, at.k)
                elif isinstance(at, End):
                    yield request.ended

    def _after(self, name: str) -> Waits:
        if name in self._done:
            yield self._done[name]
        if name not in self._done or name in self._void:
            raise VoidError(f"{name} was not done")

    def _until_sent(self, request: Request) -> Waits:
        yield request.sent
        if request.void:
            raise VoidError(f"{request.name} was never sent")

    def _until_token(self, request: Request, k: int) -> Waits:
        signal = self._cluster.clients.token(request, k)
        if signal is not None:
            if not request.ended.given:
                yield signal
            if not request.begun or request.tokens < k:
                raise VoidError("its anchor never came")

    def _known(self, name: str) -> Request:
        if name not in self._requests:
            raise VoidError(f"there is no request {name}")
        return self._requests[name]

    def _do(self, step: Step) -> Doing:
        match step:
            case Submit() | BadRequest():
                return self._submit(step)
            case Cancel():
                return (yield from self._cancel(step))
            case SlowReader():
                return (yield from self._pause(step))
            case EngineError():
                return self._erred(step)
            case Settle():
                return (yield from self._settle(step))
            case Heal():
                return (yield from self._heal())
            case _:
                return (yield from self._do_to_process(step))

    def _do_to_process(self, step: Step) -> Doing:
        match step:
            case StartWorker():
                return self._start_worker(step.slot, step.role, again=step.port == "predecessor")
            case StartFrontend():
                return self._start_frontend(step.frontend)
            case KillWorker() if _engine_times(step) and isinstance(step.at, Token):
                return self._died_at_token(step, self._known(step.at.request))
            case KillWorker() | StopWorker() | FreezeWorker() | ThawWorker():
                return (yield from self._made(step, self._resolve(step.worker)))
            case KillFrontend() | StopFrontend():
                return (yield from self._made(step, self._frontend(step.frontend)))
            case KillEngine():
                raise VoidError("a simulated worker is one process")
            case OnService():
                raise VoidError(f"the cluster has no {step.service}")
        raise VoidError(f"{step.kind}: not understood")

    # -- faults

    def _made(self, step: Step, life: Worker | Frontend) -> Doing:
        """Make a fault on a process, and tell it."""
        deed = step.kind.partition("-")[0]
        why = {"stop": life.frozen and "is frozen and would not hear the signal", "freeze": life.frozen and "is frozen"}
        if why.get(deed) or (deed == "thaw" and not life.frozen):
            raise VoidError(f"{life.title} {why.get(deed) or 'is not frozen'}")
        self._victims[step.name] = life
        life.hit = life.hit or deed != "thaw"
        before_s = self._kernel.now
        yield self._kernel.random.uniform(0.0, DYING_S / 2)
        if not life.alive:
            raise VoidError(f"{life.title} ended by itself")
        match deed:
            case "kill":
                life.die(signal=KILLED)
                yield DYING_S / 2
            case "stop":
                life.stop()
            case "freeze":
                life.freeze()
            case _:
                life.thaw()
        kind = "frontend" if isinstance(life, Frontend) else "worker"
        self._tell(f"{deed}-{kind}", step.name, life, self._kernel.since(before_s))
        if deed == "stop" and isinstance(life, Frontend):  # what it says of itself in its drain, which may be short
            self._cluster.ask_health_of(life)
        return life.title

    def _died_at_token(self, step: KillWorker, request: Request) -> str:
        self._cluster.poll_logs()
        life = self._cluster.holders[request.id][-1]
        life.hit = True
        self._victims[step.name] = life
        self._tell("kill-worker", step.name, life, self._kernel.since(self._kernel.now - LINE_S))
        return life.title

    def _erred(self, step: EngineError) -> str:
        self._cluster.poll_logs()
        title = self._cluster.holders[self._known(step.request).id][-1].title
        self._fault_s = self._kernel.now
        at = self._kernel.since(self._kernel.now - LINE_S)
        self.history.push(EngineErred(at=at, request=step.request, title=title, how=step.how, step=step.name))
        return title

    def _tell(self, fault: str, step: str, life: Worker | Frontend, at: Interval) -> None:
        self._fault_s = self._kernel.now
        self.history.push(FaultMade(at=at, fault=fault, title=life.title, step=step, verified=True))  # type: ignore[arg-type]

    def _frontend(self, place: int) -> Frontend:
        """The living frontend in this place. Raises VoidError."""
        life = self._cluster.gates.get(place)
        if life is None or not life.alive:
            raise VoidError(f"frontend {place} does not live")
        return life

    def _resolve(self, subject: Subject) -> Worker:
        """The living worker that is meant now. Raises VoidError."""
        match subject:
            case Slot(slot, role):
                life = self._cluster.slots_of(role).get(slot)
                if life is None or not life.alive:
                    raise VoidError(f"slot {slot} has no living {ROLE_NAMES[role]}")
                return life
            case HolderOf(name, role):
                request = self._known(name)
                life = self._cluster.holder(request.id, role, over=request.ended.given)
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
                victim = self._victims.get(name)
                if not isinstance(victim, Worker) or not victim.alive:
                    raise VoidError(f"the process of {name} does not live")
                return victim

    # -- requests and starts

    def _submit(self, step: Submit | BadRequest) -> str:
        request = self._requests[step.name]
        frontend = self._cluster.gates[min(step.frontend, max(self._cluster.gates))]
        self._cluster.clients.send(request, frontend)
        return request.id

    def _pause(self, step: SlowReader) -> Doing:
        request = self._known(step.request)
        yield from self._until_sent(request)
        if not request.step.stream or not request.open or request.paused:
            raise VoidError(f"{request.name} is no open stream that is read")
        yield from self._cluster.clients.pause(request, step.pause_ms / 1000)
        return request.id

    def _cancel(self, step: Cancel) -> Doing:
        request = self._known(step.request)
        yield from self._until_sent(request)
        return request.id if self._cluster.clients.leave(request, step.how) else "over before"

    def _start_worker(self, slot: int, role: WorkerRole = "worker", *, again: bool = False) -> str:
        if role == "prefill" and not self._plan.prefill_workers:
            raise VoidError("the cluster has no prefill workers")
        slot = slot or self._empty_slot(role)
        life = self._cluster.slots_of(role).get(slot)
        if life is not None and life.alive:
            raise VoidError(f"{ROLE_NAMES[role]} {slot} lives: {life.title}")
        new = self._cluster.start_worker(slot, role, port=life.port if life is not None and again else 0)
        self._readiness.follow(new)
        return new.title

    def _empty_slot(self, role: WorkerRole) -> int:
        """The lowest in which no worker of this role lives. Raises VoidError."""
        for slot in range(1, SLOTS + 1):
            life = self._cluster.slots_of(role).get(slot)
            if life is None or not life.alive:
                return slot
        raise VoidError(f"every slot has a living {ROLE_NAMES[role]}")

    def _start_frontend(self, place: int) -> str:
        life = self._cluster.gates.get(place)
        if life is None:
            raise VoidError(f"the cluster has no frontend {place}")
        if life.alive:
            raise VoidError(f"frontend {place} lives: {life.title}")
        new = self._cluster.start_frontend(place)
        self._readiness.follow(new)
        return new.title

    # -- calm

    def _settle(self, step: Step) -> Doing:
        until_s = self._kernel.now + SETTLE_BOUND_S
        while self._kernel.now < until_s and (self._open() or self._tasks.keys() - {step.name}):
            yield LOOK_EVERY_S
        open_ = self._open()
        return f"{len(open_)} requests still open" if open_ else ""

    def _open(self) -> list[Request]:
        return [request for request in self._requests.values() if request.under_way]

    def _heal(self) -> Doing:
        """Thaw what is frozen, and start a process in each of the topology's empty places."""
        healed: list[str] = []
        for worker in [worker for worker in self._cluster.workers_alive() if worker.frozen]:
            before_s = self._kernel.now
            yield DYING_S / 2
            if worker.frozen:
                worker.thaw()
                self._tell("thaw-worker", "heal", worker, self._kernel.since(before_s))
                healed.append(worker.title)
        gates, cluster = self._cluster.gates, self._cluster
        dead = [place for place in range(1, self._plan.frontends + 1) if not gates[place].alive]
        healed += [self._start_frontend(place) for place in dead]
        counts: tuple[tuple[WorkerRole, int], ...] = (
            ("worker", self._plan.workers),
            ("prefill", self._plan.prefill_workers),
        )
        for role, count in counts:
            empty = [slot for slot in range(1, count + 1) if not cluster.slots_of(role)[slot].alive]
            healed += [self._start_worker(slot, role) for slot in empty]
        return " ".join(healed)

    def _heal_only(self) -> Waits:
        yield from self._heal()

    # -- the end

    def _let_armed_fire(self) -> None:
        """Armed steps still fire while something moves; what waits for a request that is stuck is given up."""
        began_s = self._kernel.now
        while self._tasks and self._kernel.now < began_s + 2 * SETTLE_BOUND_S:
            heard_s = max([began_s, *(request.heard_s for request in self._open())])
            if self._kernel.now > heard_s + QUIET_S:
                break
            self._pass(LOOK_EVERY_S)
        for name in [name for name in self._tasks if name in self._waiting]:
            self._tasks[name].call_off()
        self._kernel.run(lambda: not self._tasks, self._kernel.now + SETTLE_BOUND_S)

    def _until_ended(self, due_s: float) -> None:
        """Wait until every request has ended, or is past the time that it is given."""
        while open_ := self._open():
            longest = max(request.step.max_tokens for request in open_)
            if self._kernel.now > due_s + 4 * longest * self._setting.pace_s:
                return
            self._pass(LOOK_EVERY_S)

    def _until_rest(self, bounds: Bounds) -> None:
        """Sample until every gauge is back at zero and every request has an end in its worker's log, or time is over."""
        began_s = self._kernel.now
        while True:
            self._cluster.poll_logs()
            now_s = self._kernel.now
            sampled = self._cluster.sample()
            raised = any(values.get(gauge) for values in sampled.values() for gauge in GAUGES)
            alive = {worker.title for worker in self._cluster.workers_alive() if not worker.frozen}
            unended = any(title in alive for title, _ in self._cluster.held)
            owed = raised or (unended and now_s < began_s + bounds.abort_bound_s)
            if now_s > began_s + bounds.rest_bound_s or not owed:
                break
            self._pass(REST_EVERY_S)
        self._pass(2 * REST_EVERY_S)
        self._cluster.poll_logs()


def _is_orderable(step: Step) -> bool:
    of_request = not isinstance(step, EngineError) or step.at == Token(step.request, getattr(step.at, "k", 0))
    return isinstance(step.at, Token) and step.at.k > 0 and step.skew_ms == 0 and of_request


def _engine_times(step: Step) -> bool:
    """True for what the engine itself can time: a kill, or a failure, at a token."""
    if isinstance(step, EngineError):
        return True
    mine = isinstance(step, KillWorker) and isinstance(step.at, Token) and step.worker == HolderOf(step.at.request)
    return mine and _is_orderable(step)


def release_of(system: System) -> tuple[int, int]:
    """The release whose dialect simulated clusters speak: the newest that is known."""
    return max(dialect.since for dialect in system.dialects if not dialect.lacks)


def refuses(topology: Topology) -> str:
    """Why this topology cannot be simulated, beginning with the key; empty if it can."""
    only = {"engine": "counting", "discovery": "file", "request_plane": "tcp", "router_mode": "round-robin"}
    for key, value in only.items():
        if getattr(topology, key) != value:
            return f"{key}: got {getattr(topology, key)!r}, expected {value!r}: no other is simulated"
    return ""
