"""The target `real`: does the steps of a plan on processes, arms those whose anchor lies ahead, verifies every fault."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ftmodel.bounds import Bounds
from ftmodel.engines import Engine
from ftmodel.errors import HarnessError
from ftmodel.history import Answered, FaultMade, History, Interval, Mark, Setting, Stall, StepDone, StepVoid
from ftmodel.steps import (
    After,
    Anchor,
    Cancel,
    End,
    FreezeWorker,
    Heal,
    HolderOf,
    KillWorker,
    NotHolderOf,
    Now,
    Plan,
    Sent,
    Settle,
    Slot,
    StartWorker,
    Step,
    StopWorker,
    Subject,
    Submit,
    ThawWorker,
    Token,
)
from ftmodel.systems import System
from ftmodel.targets.real.armed import Orders
from ftmodel.targets.real.clock import Clock, Loop
from ftmodel.targets.real.cluster import BOOT_BOUND_S, FRONTEND, Cluster, Ground, Incarnation
from ftmodel.targets.real.processes import ProcessGoneError
from ftmodel.targets.real.requests import Clients, Request
from ftmodel.topology import Topology

SETTLE_BOUND_S: Final = 15.0
"""A settle gives up after so long: the cluster is not quiet, which is no error."""
VERIFY_BOUND_S: Final = 5.0
"""From a fault to the moment when it was seen to have happened."""
QUIET_S: Final = 3.0
"""At the end of the steps, armed ones are given up when no open request has had a byte for so long."""
PROBE_EVERY_S: Final = 0.100
REST_EVERY_S: Final = 0.100
GAUGES: Final = ("inflight", "queued", "active", "plane_inflight", "running", "waiting", "kv")


class VoidError(Exception):
    """The step cannot be done: its subject does not exist, or its anchor never came. The message says why."""


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
        self._setting = setting
        self._topology = topology
        self._engine = engine
        self._system = system
        self._cluster = Cluster(
            ground, system, engine, topology, workers=plan.workers, migration_limit=plan.migration_limit,
            folder=folder, logs=logs, clock=self._clock, push=self.history.push,
        )  # fmt: skip
        self._clients: Clients | None = None
        self._orders = Orders(folder / "armed")
        self._requests: dict[str, Request] = {}
        self._done: dict[str, asyncio.Future[bool]] = {}
        """Of each step: done (True) or void (False)."""
        self._armed: dict[str, asyncio.Task[None]] = {}
        self._joining: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._starting: set[int] = set()
        self._died_armed: set[str] = set()
        self._last_fault_s = 0.0
        self._probes = 0

    # -- the verbs

    def apply(self, step: Step) -> None:
        """Do the step, or arm it. Raises HarnessError."""
        self._loop.call(self._apply(step))

    def start(self) -> None:
        """Boot the cluster and wait until it is ready. Raises HarnessError."""
        self._loop.call(self._start())

    def finish(self) -> None:
        """Bring the example to rest, by its patience. Raises HarnessError."""
        self._loop.call(self.finishing())

    def close(self) -> None:
        """End every process of the cluster."""
        self._loop.call(self.closing())

    def processes(self) -> tuple[Incarnation, ...]:
        """Every process of the cluster so far, dead ones included."""
        return tuple(self._cluster.lives.values())

    # -- start

    async def _start(self) -> None:
        self._loop.on_stall.append(self.on_stall)
        self.history.push(self._setting(Interval(self._clock.now(), self._clock.now())))
        before_s = self._clock.now()
        await self._cluster.start()
        self._clients = Clients(
            url=self._cluster.url,
            frontend=FRONTEND,
            model=self._topology.model,
            header=self._system.request_id_header,
            count=self._engine.count,
            clock=self._clock,
            push=self.history.push,
        )
        try:
            async with asyncio.timeout(BOOT_BOUND_S):
                await asyncio.gather(*(self._until_ready(life) for life in self._cluster.workers_alive()))
        except TimeoutError:
            raise HarnessError(self._not_ready()) from None
        self.history.push(Mark(at=self._clock.since(before_s), stage="ready"))

    def _not_ready(self) -> str:
        missing = [life for life in self._cluster.lives.values() if not life.alive]
        if missing:
            exit_ = missing[0].process.exit
            return f"{missing[0].title} ended while the cluster was starting ({exit_}); see {missing[0].log.path}"
        late = [life for life in self._cluster.workers_alive() if not life.answered]
        what = "was not listed" if late and late[0].identity is None else "has not answered"
        return f"{late[0].title if late else 'the cluster'} {what} {BOOT_BOUND_S:g} s after its start; see {self._cluster.logs}"

    async def _until_ready(self, life: Incarnation) -> None:
        """Wait until the worker is listed and has answered a request of ours through the frontend."""
        while life.alive and not await self._cluster.is_listed(life):
            await asyncio.sleep(REST_EVERY_S / 5)
        pause_s = PROBE_EVERY_S / 5
        while life.alive and not life.answered:
            await asyncio.gather(self._until_begun(self._probe()), asyncio.sleep(pause_s))
            pause_s = min(5 * PROBE_EVERY_S, 1.5 * pause_s)  # few probes, however long it takes
        if not life.alive and not life.hit:
            raise HarnessError(self._not_ready())

    def _probe(self) -> Request:
        assert self._clients is not None
        self._probes += 1
        step = Submit(name=f"probe{self._probes}", max_tokens=1, stream=False, prompt_chars=20)
        request = Request(step.name, step, probe=True)
        self._requests[step.name] = request
        self._clients.send(request)
        return request

    async def _until_begun(self, probe: Request) -> None:
        """Wait until a probe has ended, at most for PROBE_EVERY_S, and note which worker answered it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PROBE_EVERY_S):
                await probe.ended.wait()
        self._cluster.poll_logs()
        for title in self._cluster.holders.get(probe.id, ()):
            life = self._cluster.lives[title]
            if probe.whole and not life.answered:
                life.answered = True
                now_s = self._clock.now()
                self.history.push(Answered(at=Interval(now_s, now_s), frontend=FRONTEND, title=title))

    # -- steps

    async def _apply(self, step: Step) -> None:
        if self._failure is not None:
            raise HarnessError(f"the example failed before: {self._failure}")
        self._done[step.name] = asyncio.get_running_loop().create_future()
        if isinstance(step, Submit):
            self._requests[step.name] = Request(step.name, step)
        task = asyncio.create_task(self._carry_out(step))
        if isinstance(step, Settle):
            await task
        elif isinstance(step.at, Now) and step.skew_ms == 0:
            await asyncio.wait({task}, timeout=VERIFY_BOUND_S)
        if not task.done():
            self._armed[step.name] = task
            task.add_done_callback(lambda _task: self._armed.pop(step.name, None))

    async def _carry_out(self, step: Step) -> None:
        before_s = self._clock.now()
        done = self._done[step.name]
        try:
            await self._moment(step)
            before_s = self._clock.now()
            subject = await self._do(step)
            self.history.push(StepDone(at=self._clock.since(before_s), step=step.name, deed=step.kind, subject=subject))
            done.set_result(True)
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
        if isinstance(step, Submit):
            request = self._requests[step.name]
            if not request.sent.done():
                request.sent.cancel()
                request.ended.set()
                request.wake()

    async def _moment(self, step: Step) -> None:
        """Wait for the step's anchor and its skew. A kill that the engine itself can time is not waited for."""
        if not self._engine_times(step):
            await self._anchor(step.at)
        if step.skew_ms:
            await asyncio.sleep(step.skew_ms / 1000)

    def _engine_times(self, step: Step) -> bool:
        return (
            self._engine.arms
            and isinstance(step, KillWorker)
            and isinstance(step.at, Token)
            and step.at.k > 0
            and step.skew_ms == 0
            and step.worker == HolderOf(step.at.request)
        )

    async def _anchor(self, at: Anchor) -> None:
        match at:
            case Now():
                return
            case Sent(name):
                await self._sent(self._known(name))
            case Token(name, k):
                request = self._known(name)
                await self._sent(request)
                await request.token(k)
            case End(name):
                request = self._known(name)
                await self._sent(request)
                await request.ended.wait()
            case After(name):
                other = self._done.get(name)
                if other is None or not await asyncio.shield(other):
                    raise VoidError(f"{name} was not done")

    async def _sent(self, request: Request) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.shield(request.sent)
        if request.sent.cancelled() or not request.sent.done():
            raise VoidError(f"{request.name} was never sent")

    def _known(self, name: str) -> Request:
        if name not in self._requests:
            raise VoidError(f"there is no request {name}")
        return self._requests[name]

    async def _do(self, step: Step) -> str:
        match step:
            case Submit():
                return self._submit(step)
            case Cancel():
                return await self._cancel(step)
            case StartWorker():
                return await self._start_worker(step.slot)
            case KillWorker():
                return await self._kill_worker(step)
            case StopWorker():
                return await self._stop_worker(step)
            case FreezeWorker():
                return await self._freeze_worker(step)
            case ThawWorker():
                return await self._thaw_worker(step, self._resolve(step.worker))
            case Settle():
                return await self._settle()
            case Heal():
                return await self._heal()

    def _resolve(self, subject: Subject) -> Incarnation:
        """The living worker that is meant now. Raises VoidError."""
        match subject:
            case Slot(slot):
                life = self._cluster.slots.get(slot)
                if life is None or not life.alive:
                    raise VoidError(f"slot {slot} has no living worker")
                return life
            case HolderOf(name):
                life = self._cluster.holder(self._known(name).id)
                if life is None:
                    raise VoidError(f"no living worker serves {name}")
                return life
            case NotHolderOf(name):
                holder = self._cluster.holder(self._known(name).id)
                for life in self._cluster.workers_alive():
                    if life is not holder:
                        return life
                raise VoidError(f"no living worker but the one that serves {name}")

    def _submit(self, step: Submit) -> str:
        assert self._clients is not None
        request = self._requests[step.name]
        self._clients.send(request)
        return request.id

    async def _cancel(self, step: Cancel) -> str:
        assert self._clients is not None
        request = self._known(step.request)
        await self._sent(request)
        left = await self._clients.cancel(request, step.how)
        return request.id if left else "over before"

    async def _start_worker(self, slot: int) -> str:
        life = self._cluster.slots.get(slot)
        if life is not None and life.alive:
            raise VoidError(f"slot {slot} has a living worker, {life.title}")
        if slot in self._starting:
            raise VoidError(f"a worker is being started in slot {slot}")
        self._starting.add(slot)
        try:
            new = await self._cluster.start_worker(slot)
        finally:
            self._starting.discard(slot)
        self._join(new)
        return new.title

    def _join(self, life: Incarnation) -> None:
        """Follow a worker that joins until it has answered; if it never does, the invariants say so."""
        task = asyncio.create_task(self._follow(life))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def _follow(self, life: Incarnation) -> None:
        with suppress(TimeoutError, HarnessError):
            async with asyncio.timeout(BOOT_BOUND_S):
                await self._until_ready(life)

    # -- faults

    async def _kill_worker(self, step: KillWorker) -> str:
        if self._engine_times(step) and isinstance(step.at, Token):
            return await self._kill_at_token(step, step.at)
        life = self._resolve(step.worker)
        life.hit = True
        at = await self._cluster.kill(life)
        self._fault(step, life, at, verified=not life.alive)
        return life.title

    async def _kill_at_token(self, step: KillWorker, at: Token) -> str:
        """Tell the engine to die by itself at the token; the client would see it too late."""
        request = self._known(at.request)
        before = {title for title, life in self._cluster.lives.items() if not life.alive}
        self._orders.give(step.name, request.id, at.k)
        try:
            await self._sent(request)
            while not request.ended.is_set() and not self._orders.is_taken(step.name, request.id):
                await asyncio.sleep(REST_EVERY_S / 20)
        finally:
            withdrawn = self._orders.withdraw(step.name, request.id)
        if withdrawn:
            raise VoidError(f"{at.request} ended before token {at.k}")
        life = await self._dead_by(request, before)
        self._fault(step, life, self._death(life, request.id), verified=True)
        return life.title

    async def _dead_by(self, request: Request, before: set[str]) -> Incarnation:
        try:
            async with asyncio.timeout(VERIFY_BOUND_S):
                while True:
                    for title in self._cluster.holders.get(request.id, ()):
                        life = self._cluster.lives[title]
                        if title not in before and not life.alive and title not in self._died_armed:
                            self._died_armed.add(title)
                            life.hit = True
                            return life
                    await asyncio.sleep(REST_EVERY_S / 20)
        except TimeoutError:
            raise HarnessError(f"a worker took the order to die at a token of {request.name} and lives") from None

    def _death(self, life: Incarnation, request_id: str) -> Interval:
        """From the worker's own last word to its end."""
        exit_ = life.process.exit
        assert exit_ is not None
        end = self._clock.of_monotonic(exit_.at)
        self._cluster.poll_logs()
        for event in reversed(list(self.history)):
            if event.kind == "log" and event.title == life.title and event.meaning == "armed-death":
                return Interval(min(event.at.before_s, end.after_s), end.after_s)
        return end

    async def _stop_worker(self, step: StopWorker) -> str:
        life = self._resolve(step.worker)
        life.stopped = life.hit = True
        at = self._clock.of_monotonic(await self._cluster.ground.warden.signal(life.process, signal.SIGTERM))
        verified = False
        with suppress(TimeoutError):
            async with asyncio.timeout(VERIFY_BOUND_S):
                while life.alive:
                    listed = await self._cluster.ask_list()
                    if listed is not None and life.title not in listed.titles:
                        break
                    await asyncio.sleep(REST_EVERY_S / 5)
                verified = True
        self._fault(step, life, at, verified=verified)
        return life.title

    async def _freeze_worker(self, step: FreezeWorker) -> str:
        life = self._resolve(step.worker)
        life.hit = True
        life.frozen = True
        at = self._clock.of_monotonic(await self._cluster.ground.warden.signal(life.process, signal.SIGSTOP))
        self._fault(step, life, at, verified=await self._cluster.ground.warden.stops(life.process))
        return life.title

    async def _thaw_worker(self, step: Step, life: Incarnation) -> str:
        if not life.frozen:
            raise VoidError(f"{life.title} is not frozen")
        at = self._clock.of_monotonic(await self._cluster.ground.warden.signal(life.process, signal.SIGCONT))
        life.frozen = False
        goes_on = await self._cluster.ground.warden.stops(life.process, stopped=False)
        self._fault(step, life, at, verified=goes_on, of="thaw-worker")
        return life.title

    def _fault(self, step: Step, life: Incarnation, at: Interval, *, verified: bool, of: str | None = None) -> None:
        self._last_fault_s = self._clock.now()
        fault = FaultMade(at=at, fault=of or step.kind, title=life.title, step=step.name, verified=verified)  # type: ignore[arg-type]
        self.history.push(fault)

    # -- calm

    async def _settle(self) -> str:
        """Wait until no request is open and no step is armed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_BOUND_S):
                while self._open() or self._armed:
                    await asyncio.sleep(REST_EVERY_S / 5)
        open_ = self._open()
        return f"{len(open_)} requests still open" if open_ else ""

    def _open(self) -> list[Request]:
        return [request for request in self._requests.values() if request.open]

    async def _heal(self) -> str:
        """Thaw what is frozen, and start a worker in each of the topology's empty slots."""
        healed = []
        for life in list(self._cluster.workers_alive()):
            if life.frozen:
                healed.append(await self._thaw_worker(Heal(name="heal"), life))
        for slot in range(1, self._plan.workers + 1):
            life_now = self._cluster.slots.get(slot)
            if (life_now is None or not life_now.alive) and slot not in self._starting:
                healed.append(await self._start_worker(slot))
        return " ".join(healed)

    # -- the end

    async def finishing(self) -> None:
        """See `finish`."""
        if self._failure is not None:
            raise HarnessError(str(self._failure))
        self._mark("steps-done")
        await self._let_armed_fire()
        bounds = self.history[0].bounds if isinstance(self.history[0], Setting) else None
        assert bounds is not None
        if self._plan.patience == "long":
            until_s = self._last_fault_s + max(bounds.lease_s, bounds.hang_bound_s) + 5
            await asyncio.sleep(max(0.0, until_s - self._clock.now()))
        self._mark("heal")
        before_s = self._clock.now()
        await self._heal()
        if self._joining:
            await asyncio.wait(self._joining)
        self.history.push(Mark(at=self._clock.since(before_s), stage="healed"))
        if self._plan.patience == "long":
            await asyncio.sleep(bounds.list_bound_s)
        await self._until_ended(self._clock.now() + bounds.end_bound_s)
        await self._until_rest(bounds)
        self._mark("rest")
        if self._failure is not None:
            raise HarnessError(str(self._failure))

    def _mark(self, stage: str) -> None:
        now_s = self._clock.now()
        self.history.push(Mark(at=Interval(now_s, now_s), stage=stage))  # type: ignore[arg-type]

    async def _let_armed_fire(self) -> None:
        """Armed steps still fire while something moves; what waits for a request that is stuck is given up."""
        began_s = self._clock.now()
        while self._armed and self._clock.now() < began_s + 2 * SETTLE_BOUND_S:
            heard_s = max([began_s, *(request.heard_s for request in self._open())])
            if self._clock.now() > heard_s + QUIET_S:
                break
            await asyncio.sleep(REST_EVERY_S / 5)
        for task in list(self._armed.values()):
            task.cancel()
        if self._armed:
            await asyncio.wait(list(self._armed.values()))

    async def _until_ended(self, due_s: float) -> None:
        """Wait until every request has ended, or is past the time that it is given."""
        setting = self.history[0]
        assert isinstance(setting, Setting)
        while open_ := self._open():
            longest = max(request.step.max_tokens for request in open_)
            if self._clock.now() > due_s + 4 * longest * setting.pace_s:
                return
            await asyncio.sleep(REST_EVERY_S)

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

    async def closing(self) -> None:
        """See `close`."""
        if self.on_stall in self._loop.on_stall:
            self._loop.on_stall.remove(self.on_stall)
        tasks = [*self._armed.values(), *self._joining]
        tasks += [request.task for request in self._requests.values() if request.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._clients is not None:
            await self._clients.close()
        await self._cluster.close()
        self._mark("closed")

    def on_stall(self, from_s: float, to_s: float) -> None:
        """The tester or the warden was not scheduled; both in time.monotonic() seconds."""
        at = self._clock.of_monotonic(Interval(from_s, to_s))
        self.history.push(Stall(at=at, who="tester"))


