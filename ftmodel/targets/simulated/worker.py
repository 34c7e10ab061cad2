"""A simulated worker: a queue, prefill, decode in slots, KV blocks, and its end, by drain or by death.

Tokens are not sent one by one: how far a job is follows from the time, so they go out in bursts that grow, which end at
each token that a client or an order waits for, and whenever something happens to the worker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from ftmodel.engines.counting.worker import Course, choice_key, course
from ftmodel.targets.simulated.discovery import Instance
from ftmodel.targets.simulated.hooks import Abort, Admit, Drain, Emit, Free
from ftmodel.targets.simulated.kernel import Channel
from ftmodel.targets.simulated.orders import Order
from ftmodel.targets.simulated.processes import KILLED, Process

if TYPE_CHECKING:
    from ftmodel.targets.simulated.clients import Request
    from ftmodel.targets.simulated.frontend import Call, Frontend

BLOCKS: Final = 80
BLOCK_TOKENS: Final = 64
"""A worker's KV cache: many short requests fit, one with the longest prompt does; one that is alone may take more."""
PREFILL_S_PER_TOKEN: Final = 0.00001
BURST_TOKENS: Final = 16
"""Tokens that are sent at once, at most."""
BOOT_S: Final = (0.15, 0.25)
CLEAN_UP_S: Final = 0.05
"""From the end of the last of what a draining worker holds to its exit."""
AN_INSTANT_S: Final = 1e-9
TRANSFER_S: Final = 0.002
"""What it takes to fetch the KV blocks of a prompt that a prefill worker has read."""
First = dict[int, int]
"""By choice: the first token, which comes with the prompt's reading."""


@dataclass(slots=True, eq=False)
class Stream:
    """One attempt of a frontend on a worker, seen from both."""

    call: Call
    frontend: Frontend
    worker: Worker
    up: Channel
    down: Channel
    position: int
    accepted: bool = False
    """The frontend knows that the worker has it."""
    dropped: bool = False
    """The frontend waits for nothing more from it."""
    job: Job | None = None
    first: First | None = None
    """What a prefill worker made of the prompt, if one read it."""


@dataclass(slots=True, eq=False)
class Job:
    """A request on one worker."""

    stream: Stream
    request: Request
    key: bytes
    prompt_tokens: int
    position: int
    max_tokens: int
    choices: tuple[tuple[bytes, Course], ...]
    sent: int = 0
    """Tokens of each choice that went out from here."""
    state: Literal["queued", "prefill", "decoding", "stalled", "over"] = "queued"
    first_s: float = 0.0
    """When the first token from here is ready, or would have been if it had never been preempted or frozen."""
    turn: int = 0
    """Raised when what was planned for it holds no longer."""
    burst: int = 1
    blocks: int = 0
    started: int = 0
    """The number of its start on this worker."""

    @property
    def id(self) -> str:
        """The request's."""
        return self.request.id

    @property
    def end(self) -> int:
        """The position behind its last token."""
        return self.position + self.max_tokens


class Worker(Process):
    """One life of a worker."""

    instance: Instance

    def boot(self) -> None:
        """Start: register after a while."""
        self.instance = Instance(self.cluster.new_identity(self.title), self)
        self.running: list[Job] = []
        self.waiting: list[Job] = []
        self.blocks_used = 0
        self.streams: dict[Stream, None] = {}
        """Those that it holds; in the order of their arrival."""
        self.refusing = False
        self._starts = 0
        self.values = {"cancellations": 0.0, "inflight": 0.0}
        self.later(self.kernel.random.uniform(*BOOT_S), self._ready)

    def _ready(self) -> None:
        self.ready = True
        if not self.draining:
            self.cluster.discovery.register(self.instance)
            self._renew_later()

    def _renew_later(self) -> None:
        self.later(self.cluster.discovery.renew_every_s, self._renew)

    def _renew(self) -> None:
        if self.instance.leased:
            self.cluster.discovery.renew(self.instance)
            self._renew_later()

    # -- requests

    def receive(self, stream: Stream) -> None:
        """A frontend sends a request."""
        if not self.ready or self.refusing:
            self.send(stream.down, stream.frontend, stream.frontend.refused, stream)
            return
        call, request = stream.call, stream.call.request
        key = request.key.encode()
        keys = tuple(choice_key(key, index) for index in range(request.step.n))
        job = stream.job = Job(
            stream=stream,
            request=request,
            key=key,
            prompt_tokens=call.prompt_tokens + stream.position,
            position=stream.position,
            max_tokens=self.asked(stream),
            choices=tuple((one, course(one)) for one in keys),
        )
        self.cluster.hooks.do(Admit(self.cluster, self), self._admit, job)

    def asked(self, stream: Stream) -> int:
        """How many tokens of each choice it is to make of a request."""
        return max(0, stream.call.request.step.max_tokens - stream.position)

    def reading_s(self, job: Job) -> float:
        """How long its prompt takes until the first token is there."""
        if job.stream.first is not None:
            return TRANSFER_S
        return self.cluster.prefill_s + job.prompt_tokens * PREFILL_S_PER_TOKEN

    def order_of(self, job: Job) -> Order | None:
        """The tester's order that stands for this request."""
        return self.cluster.orders.next(job.id)

    def _admit(self, job: Job) -> None:
        stream, step = job.stream, job.request.step
        self.streams[stream] = None
        self.count("inflight")
        self.log("arrived", job.id, instance_id=self.instance.identity)
        asked = {"min_tokens": step.min_tokens} if step.min_tokens else {}
        asked |= {"stop": len(job.request.stop)} if job.request.stop else {}
        self.log(
            "begun", job.id, position=job.position, prompt_tokens=job.prompt_tokens, max_tokens=job.max_tokens, n=step.n,
            **asked,
        )  # fmt: skip
        self.send(stream.down, stream.frontend, stream.frontend.accepted, stream)
        self.waiting.append(job)
        self.start_waiting()

    def start_waiting(self) -> None:
        """Start what waits, in its order, while there are slots and blocks."""
        while self.waiting and len(self.running) < self.cluster.slots:
            job = self.waiting[0]
            blocks = _blocks(job)
            if self.running and self.blocks_used + blocks > BLOCKS:
                return
            self.waiting.pop(0)
            self.running.append(job)
            self._hold(job, blocks)
            self._starts += 1
            job.started = self._starts
            job.state = "prefill"
            job.turn += 1
            prefill_s = self.reading_s(job)
            job.first_s = self.kernel.now + prefill_s - job.sent * self.cluster.pace_s
            self.later(prefill_s, self._go_on, job, job.turn)

    def _hold(self, job: Job, blocks: int) -> None:
        self.blocks_used += blocks - job.blocks
        job.blocks = blocks

    # -- tokens

    def _go_on(self, job: Job, turn: int) -> None:
        """The moment has come to send what is ready."""
        if turn != job.turn or job.state not in ("prefill", "decoding"):
            return
        self.flush(job)
        if job.state == "prefill":  # it was frozen meanwhile
            self.later(job.first_s + job.sent * self.cluster.pace_s - self.kernel.now, self._go_on, job, job.turn)

    def flush(self, job: Job) -> None:
        """Send what is ready, do as ordered, and plan what comes next."""
        if job.state not in ("prefill", "decoding"):
            return
        ready = math.floor((self.kernel.now - job.first_s) / self.cluster.pace_s + AN_INSTANT_S) + 1
        until = min(job.max_tokens, max(ready, job.sent))
        order = self.order_of(job)
        if order is not None and job.position + until >= order.position:
            until = max(job.sent, order.position - job.position)
        if until > job.sent or ready > 0:
            job.state = "decoding"
            self._emit(job, until, ordered=order is not None and job.position + until >= order.position)
        if job.state == "decoding":
            self._plan(job)

    def _emit(self, job: Job, until: int, *, ordered: bool) -> None:
        first, job.sent = job.position + job.sent, until
        tokens = {i: token_ids_of(path, first, job.position + until) for i, (_, path) in enumerate(job.choices)}
        if job.stream.first is not None and first == job.position:
            for index, token in job.stream.first.items():
                if tokens[index]:
                    tokens[index][0] = token
        if ordered:
            self._say(job, tokens, None)
            self._obey(job)
        elif until >= job.max_tokens:
            self._say(job, tokens, "length")
            self._over(job, "ended", tokens=job.sent * len(job.choices), reason="length")
        elif tokens[0]:
            self._say(job, tokens, None)
        if job.state == "decoding":
            self._grow(job)

    def _say(self, job: Job, tokens: dict[int, list[int]], finish: str | None) -> None:
        if tokens[0] or finish is not None:
            self.cluster.hooks.do(Emit(self.cluster, self, job), partial(self.transmit, job), tokens, finish)

    def transmit(self, job: Job, tokens: dict[int, list[int]], finish: str | None) -> None:
        """Send tokens to the frontend."""
        stream = job.stream
        self.send(stream.down, stream.frontend, stream.frontend.received, stream, tokens, finish)

    def _grow(self, job: Job) -> None:
        """It needs more blocks as it grows; where there are none, who started last waits again."""
        needed = _blocks(job)
        if self.blocks_used + needed - job.blocks > BLOCKS and len(self.running) > 1:
            for victim in sorted(self.running, key=lambda other: -other.started):
                self._preempt(victim)
                if victim is job:
                    return
                if self.blocks_used + needed - job.blocks <= BLOCKS:
                    break
        self._hold(job, needed)

    def _preempt(self, job: Job) -> None:
        job.state = "queued"
        job.turn += 1
        self.free(job, "preempted")
        self.waiting.insert(0, job)

    def _plan(self, job: Job) -> None:
        """Send again when the burst is full, or at the next token that somebody waits for."""
        job.burst = min(BURST_TOKENS, 2 * job.burst)
        target = min(job.sent + job.burst, job.max_tokens)
        done = job.position + job.sent
        for k in job.request.awaited:
            if done < k < job.position + target:
                target = k - job.position
        order = self.order_of(job)
        if order is not None and done <= order.position < job.position + target:
            target = max(order.position - job.position, job.sent + 1)
        job.turn += 1
        at_s = job.first_s + (target - 1) * self.cluster.pace_s
        self.later(max(0.0, at_s - self.kernel.now), self._go_on, job, job.turn)

    def _obey(self, job: Job) -> None:
        """Die or fail as the tester's order says."""
        order = self.cluster.orders.take(job.id)
        what = "armed-death" if order.how == "die" else "armed-error"
        self.log(what, job.id, position=job.position + job.sent, how=order.how)
        match order.how:
            case "die":
                job.state = "over"  # nothing more of it goes out
                self.die(signal=KILLED)
            case "stall":
                job.state = "stalled"
                job.turn += 1
            case how:
                if how == "error":
                    self.log("traceback")
                self._over(job, "failed", error=how)
                stream = job.stream
                self.send(stream.down, stream.frontend, stream.frontend.engine_failed, stream, how)

    # -- ends

    def _over(self, job: Job, how: Literal["ended", "aborted", "failed"], **fields: object) -> None:
        """It has one end; its slot and its blocks are free, and the next one starts."""
        job.state = "over"
        job.turn += 1
        self.log(how, job.id, **fields)
        self.log("finished", job.id)
        self.free(job, how)
        self.streams.pop(job.stream, None)
        self.count("inflight", -1)
        self.start_waiting()
        self.leave_if_idle()

    def free(self, job: Job, cause: Literal["ended", "aborted", "failed", "preempted"]) -> None:
        """Give back its slot, or its place in the queue, and its blocks."""
        self.cluster.hooks.do(Free(self.cluster, self, cause), self._free, job)

    def _free(self, job: Job) -> None:
        for jobs in (self.running, self.waiting):
            if job in jobs:
                jobs.remove(job)
        self._hold(job, 0)

    def told_to_kill(self, stream: Stream) -> None:
        """A frontend says that nobody waits for this any more, or its connection is gone."""
        job = stream.job
        if job is None or job.state == "over":
            return
        if job.state == "decoding":
            self.flush(job)
        if not self.alive:
            return
        if job in self.running or job in self.waiting:
            at = Abort(self.cluster, "worker", self, job.id)
            self.cluster.hooks.do(at, self.abort, job)

    def abort(self, job: Job) -> None:
        """End a job that nobody waits for."""
        if job.state == "over":
            return
        self.count("cancellations")
        self.log("signalled", job.id)
        self._over(job, "aborted", tokens=job.sent * len(job.choices), reason="killed")

    # -- faults

    def freeze(self) -> None:
        """Stop doing anything: what was generated has gone out."""
        self._flush_all()
        super().freeze()
        self._frozen_s = self.kernel.now

    def thaw(self) -> None:
        """Go on: each job is as far as it was."""
        for job in self.running:
            job.first_s += self.kernel.now - self._frozen_s
        super().thaw()

    def stop(self) -> None:
        """SIGTERM: leave the list, finish what it has, exit. The second ends it at once."""
        if self.draining:
            self.die(signal=None, code=1)
        else:
            self.draining = True
            self.cluster.hooks.do(Drain(self.cluster, self), self._drain)

    def _drain(self) -> None:
        self.cluster.discovery.deregister(self.instance)
        self.later(self.cluster.promises.grace_s.value, self._refuse)
        self.leave_if_idle()

    def _refuse(self) -> None:
        self.refusing = True

    def leave_if_idle(self) -> None:
        """Exit soon, if it is to and holds nothing."""
        if self.draining and not self.streams:
            self.later(CLEAN_UP_S, self.leave_now)

    def leave_now(self) -> None:
        """Exit, if nothing has come meanwhile."""
        if not self.streams:
            self.die(signal=None, code=0)

    def die(self, signal: int | None, code: int | None = None) -> None:
        """End at once: what was generated has gone out."""
        if self.alive and not self.frozen:
            self._flush_all()
        super().die(signal, code)

    def _flush_all(self) -> None:
        for job in list(self.running):
            if self.alive:
                self.flush(job)

    def leave(self) -> None:
        """Its frontends see their connections break."""
        for stream in self.streams:
            self.send(stream.down, stream.frontend, stream.frontend.broken, stream)

    # -- what it tells

    def sample(self) -> dict[str, float]:
        """Its counters and the engine's gauges."""
        running, waiting = float(len(self.running)), float(len(self.waiting))
        return self.values | {"running": running, "waiting": waiting, "kv": self.blocks_used / BLOCKS}


def _blocks(job: Job) -> int:
    return -(-(job.prompt_tokens + job.sent + 1) // BLOCK_TOKENS)


def token_ids_of(path: Course, start: int, end: int) -> list[int]:
    """The ids at these positions of an answer; those of words are counted out at once."""
    script = path.script
    if script.width == 1:
        at, step, size, first = path.start, path.step, script.size, script.first
        return [first + (at + place * step) % size for place in range(start, end)]
    places = range(start // script.width, -(-end // script.width))
    text = "".join([chr(script.first + (path.start + place * path.step) % script.size) for place in places])
    skip = start - places.start * script.width
    return list(text.encode()[skip : skip + end - start])
