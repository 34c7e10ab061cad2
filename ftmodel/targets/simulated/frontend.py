"""A simulated frontend: it answers clients, finds workers, chooses one by turns, shuns the failed, and migrates.

It may choose among those that discovery tells of, less those that it shuns, if any are left; whom it shuns it forgets at each
change of discovery, and some seconds after it began to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from ftmodel.engines.model import CONTEXT_TOKENS
from ftmodel.history import Item
from ftmodel.steps import WorkerRole
from ftmodel.targets.simulated.answers import Answer
from ftmodel.targets.simulated.discovery import Change, Instance
from ftmodel.targets.simulated.hooks import Abort, Drain, HandOff, Migrate, Respond, Route
from ftmodel.targets.simulated.kernel import Channel
from ftmodel.targets.simulated.processes import Process
from ftmodel.targets.simulated.worker import First, Stream

if TYPE_CHECKING:
    from ftmodel.targets.simulated.clients import Request

BOOT_S: Final = (0.08, 0.15)
Why = Literal["refused", "timeout", "broken", "lapsed"]
STATUSES: Final = {
    "malformed-json": 400,
    "unknown-model": 404,
    "negative-max-tokens": 400,
    "prompt-too-long": 400,
}
"""By what is wrong with a request."""
FAILED: Final = 503
"""When no worker could be reached."""
ENGINE_FAILED: Final = 500
COUNTERS: Final = (
    "inflight", "queued", "active", "plane_inflight", "disconnected", "cancellations", "migrations",
    "cancellations_completion_stream", "cancellations_completion_unary", "cancellations_chat_stream",
    "cancellations_chat_unary", "started", "success", "failed", "cancelled", "not_found",
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Call:
    """A request as its frontend has it."""

    request: Request
    prompt_tokens: int
    left: int
    """How often it may still be sent to a worker."""
    answers: tuple[Answer, ...] = ()
    stream: Stream | None = None
    status: int = 0
    """That the client was told; 0: none yet."""
    queued: bool = True
    over: bool = False
    received: int = 0
    """Tokens of the first choice that came from workers."""
    text: list[list[str]] = field(default_factory=list)
    """By choice: what a client that asked for no stream is told at the end."""

    @property
    def may_move(self) -> bool:
        """It can go on elsewhere: not with several choices, nor where a grammar shapes it."""
        return self.request.step.n == 1 and not self.request.step.guided


class Frontend(Process):
    """One life of a frontend."""

    def boot(self) -> None:
        """Start: listen after a while."""
        self.listed: dict[str, Instance] = {}
        """By identity: the workers that discovery has told of."""
        self.shunned: set[str] = set()
        self.calls: dict[Request, Call] = {}
        self.turn = self.kernel.random.randrange(4)
        self.prefill_turn = 0
        self._forgets = 0
        self._channels: dict[str, tuple[Channel, Channel]] = {}
        self.values = dict.fromkeys(COUNTERS, 0.0)
        self.values["context"] = float(CONTEXT_TOKENS)
        self.later(self.kernel.random.uniform(*BOOT_S), self._ready)

    def _ready(self) -> None:
        self.ready = True
        self.cluster.discovery.watch(self)

    @property
    def accepts(self) -> bool:
        """It takes connections."""
        return self.alive and self.ready

    # -- discovery

    def changed(self, instance: Instance, change: Change) -> None:
        """A worker joined, left by itself, or its lease lapsed, be it on the list or not."""
        if change == "joined":
            self.listed[instance.identity] = instance
            self.shunned.clear()
            return
        if self.listed.pop(instance.identity, None) is not None:
            self.shunned.clear()
        if change == "lapsed":
            for call in list(self.calls.values()):
                if call.stream is not None and call.stream.worker is instance.worker:
                    self._lost(call.stream, "lapsed")

    def _shun(self, stream: Stream) -> None:
        self.shunned.add(stream.worker.instance.identity)
        self._forgets += 1
        self.later(self.cluster.promises.shun_s.value, self._forget, self._forgets)

    def _forget(self, number: int) -> None:
        if number == self._forgets:
            self.shunned.clear()

    # -- requests

    def arrived(self, request: Request) -> None:
        """A client's request has come."""
        call = Call(request, request.prompt_tokens, self.cluster.limit + 1)
        self.calls[request] = call
        for name in ("started", "inflight", "active", "queued"):
            self.count(name, call=call)
        if self.draining:
            self.fail(call, FAILED, "the service is shutting down")
        elif request.wrong is not None:
            if request.wrong == "unknown-model":
                self.count("not_found", call=call)
            self.fail(call, STATUSES[request.wrong], f"refused: {request.wrong}")
        else:
            stops = request.stop
            call.answers = tuple(Answer(stops) for _ in range(request.step.n))
            call.text = [[] for _ in call.answers]
            self.dispatch(call, 0)

    def dispatch(self, call: Call, position: int) -> None:
        """Send it to a worker, to go on at this token."""
        call.left -= 1
        self.send_to(call, position, "prefill" if self.cluster.apart else "worker")

    def send_to(self, call: Call, position: int, role: WorkerRole, first: First | None = None) -> None:
        """Send it to a worker of this role; to one that decodes, with what a prefill worker made of its prompt."""
        listed = self.listed_as(role)
        candidates = [one for one in listed if one.identity not in self.shunned] or listed
        chosen = self.cluster.hooks.do(Route(self.cluster, self, call), self.choose, candidates)
        if chosen is None:
            self.fail(call, FAILED if self.listed else 404, "no worker is there")
            return
        self.log("selected", call.request.id, worker_id=int(chosen.identity))
        up, down = self.channels_to(chosen)
        stream = call.stream = Stream(call, self, chosen.worker, up, down, position, first=first)
        self.count("plane_inflight", call=call)
        stream.up.send(self._reach, stream)
        self.later(self.cluster.promises.request_timeout_s.value, self._late, stream)

    def listed_as(self, role: WorkerRole) -> list[Instance]:
        """The workers of this role that discovery has told of, by identity."""
        return [one for _, one in sorted(self.listed.items()) if one.worker.role == role]

    def choose(self, candidates: list[Instance]) -> Instance | None:
        """The next one in turn."""
        if not candidates:
            return None
        if candidates[0].worker.role == "prefill":
            self.prefill_turn += 1
            return candidates[self.prefill_turn % len(candidates)]
        self.turn += 1
        return candidates[self.turn % len(candidates)]

    def channels_to(self, instance: Instance) -> tuple[Channel, Channel]:
        """To a worker, and back."""
        title = instance.worker.title
        if title not in self._channels:
            self._channels[title] = (Channel(self.kernel), Channel(self.kernel))
        return self._channels[title]

    def _reach(self, stream: Stream) -> None:
        """At the worker's end: it takes the connection, or nobody is there."""
        if stream.worker.alive:
            stream.worker.hear(stream.worker.receive, stream)
        else:
            stream.down.send(self.hear, self.refused, stream)

    # -- what workers say

    def accepted(self, stream: Stream) -> None:
        """The worker has it."""
        stream.accepted = True

    def refused(self, stream: Stream) -> None:
        """Nobody was there, or the worker takes nothing new."""
        self._lost(stream, "refused")

    def broken(self, stream: Stream) -> None:
        """The connection to the worker is gone."""
        self._lost(stream, "broken" if stream.accepted else "refused")

    def _late(self, stream: Stream) -> None:
        if not stream.accepted and not stream.dropped:
            self._lost(stream, "timeout")

    def received(self, stream: Stream, tokens: dict[int, list[int]], finish: str | None) -> None:
        """Tokens have come."""
        call = stream.call
        if stream.dropped or call.over:
            return
        if call.queued:
            call.queued = False
            self.count("queued", -1, call=call)
        call.received += len(tokens.get(0, ()))
        items: list[Item] = []
        count = 0
        for index, answer in enumerate(call.answers):
            if answer.finish is not None:
                continue
            before = answer.tokens
            text = answer.take(tokens.get(index, []), finish)
            count += answer.tokens - before if index == 0 else 0
            if call.request.step.stream:
                items += [Item("text", text, index)] if text else []
                items += [Item("finish", answer.finish, index)] if answer.finish is not None else []
            else:
                call.text[index].append(text)
        ends = all(answer.finish is not None for answer in call.answers)
        if ends and finish is None:  # at a stop string: the worker need not go on
            self.kill(stream)
        if ends:
            self._whole(call, items, count)
        elif items:
            self.respond(call, 200, tuple(items), count)

    def _whole(self, call: Call, items: list[Item], count: int) -> None:
        """The answer is complete."""
        step = call.request.step
        tokens = sum(answer.tokens for answer in call.answers)
        usage = Item("usage", str(call.prompt_tokens), count=tokens)
        if step.stream:
            items += [usage] if step.usage else []
            items.append(Item("done"))
        else:
            for index, answer in enumerate(call.answers):
                text = "".join(call.text[index])
                items += [Item("text", text, index)] if text else []
                items += [Item("finish", answer.finish or "", index)]
            items.append(usage)
        self.over(call, "success")
        self.respond(call, 200, tuple(items), count, ends=True)

    def was_read(self, stream: Stream, first: First) -> None:
        """A prefill worker has read the prompt: a worker that decodes goes on."""
        if stream.dropped or stream.call.over:
            return
        self._drop(stream)
        at = HandOff(self.cluster, self, stream)
        self.cluster.hooks.do(at, partial(self.send_to, stream.call, stream.position, "worker"), first)

    def engine_failed(self, stream: Stream, how: str) -> None:
        """The worker lives, but its engine failed the request."""
        call = stream.call
        if stream.dropped or call.over:
            return
        if how == "no-finish":
            self._lost(stream, "broken")
        elif how == "cancelled" and call.request.step.stream:
            items = [Item("finish", "cancelled", index) for index in range(len(call.answers))]
            self.over(call, "success")
            self.respond(call, 200, (*items, Item("done")), 0, ends=True)
        else:
            self.fail(call, ENGINE_FAILED, f"the engine failed: {how}")

    # -- migration

    def _lost(self, stream: Stream, why: Why) -> None:
        """An attempt failed: shun its worker, and go on elsewhere if that may be."""
        call = stream.call
        if stream.dropped or call.over:
            return
        self._drop(stream)
        self._shun(stream)
        if why != "refused":
            self.kill(stream)
        if stream.worker.role == "prefill":
            self.fail(call, FAILED, f"the prefill worker was lost: {why}")
            return
        at = Migrate(self.cluster, self, call, why)
        self.cluster.hooks.do(at, partial(self.move, call, why), call.received, call.left)

    def move(self, call: Call, why: Why, position: int, left: int) -> None:
        """Send it to another worker, if the limit, its length and what it is allow that."""
        longest = self.cluster.longest
        too_long = longest and call.received > 0 and call.prompt_tokens + position > longest
        if not call.may_move or too_long:
            self.fail(call, FAILED, "the worker was lost, and this request is not migrated")
            return
        meaning = "migrating" if why in ("broken", "lapsed") else "retrying"
        self.count("migrations", call=call)
        self.log(meaning, call.request.id, error=f"worker {why}")
        if left < 1:
            self.log("given-up", call.request.id, error=f"worker {why}")
            self.fail(call, FAILED, "migration limit exhausted")
            return
        call.left = left
        self.dispatch(call, position)

    def _drop(self, stream: Stream) -> None:
        """Wait for nothing more from this attempt."""
        stream.dropped = True
        if stream.call.stream is stream:
            stream.call.stream = None
        self.count("plane_inflight", -1, call=stream.call)

    def kill(self, stream: Stream) -> None:
        """Tell the worker that nobody waits for it any more."""
        stream.up.send(stream.worker.hear, stream.worker.told_to_kill, stream)

    # -- ends

    def fail(self, call: Call, status: int, why: str) -> None:
        """Tell the client that it failed."""
        self.over(call, "failed")
        error = Item("error", why)
        streaming = call.status == 200
        self.respond(call, status, (error, Item("done")) if streaming else (error,), 0, ends=True)

    def over(self, call: Call, how: Literal["success", "failed"]) -> None:
        """Count its end, once."""
        if call.over:
            return
        call.over = True
        if call.stream is not None:
            self._drop(call.stream)
        if call.queued:
            call.queued = False
            self.count("queued", -1, call=call)
        self.count(how, call=call)
        self.count("inflight", -1, call=call)
        self.count("active", -1, call=call)
        self.calls.pop(call.request, None)
        self._leave_if_idle()

    def respond(self, call: Call, status: int, items: tuple[Item, ...], tokens: int, *, ends: bool = False) -> None:
        """Send the client the next part of its answer, with so many tokens; the first part brings the status."""
        at = Respond(self.cluster, self, call)
        self.cluster.hooks.do(at, partial(self._respond, call, tokens), status, items, ends)

    def _respond(self, call: Call, tokens: int, status: int, items: tuple[Item, ...], ends: bool) -> None:  # noqa: FBT001
        request, clients = call.request, self.cluster.clients
        assert request.channel is not None
        send = partial(request.channel.send, clients.hear, request)
        if not call.status:
            call.status = status
            send(clients.head, status)
        if items:
            send(clients.body, items, tokens)
        if ends:
            send(clients.eof)

    def client_gone(self, request: Request) -> None:
        """A client has closed its connection."""
        call = self.calls.get(request)
        if call is not None:
            self.cluster.hooks.do(Abort(self.cluster, "frontend", self, request.id), partial(self._client_gone, call))

    def _client_gone(self, call: Call) -> None:
        step, stream = call.request.step, call.stream
        self.log("client-gone", call.request.id)
        kind = f"cancellations_{step.api}_{'stream' if step.stream else 'unary'}"
        for name in ("disconnected", "cancellations", kind, "cancelled"):
            self.count(name, call=call)
        if stream is not None:
            self.log("kill", call.request.id, control_msg="Kill")
            self.kill(stream)
        self.over(call, "failed")

    # -- its own end

    def stop(self) -> None:
        """SIGTERM: take nothing new, and exit when what was admitted is over, or its time."""
        if self.draining:
            self.die(signal=None, code=1)
            return
        self.draining = True
        self.cluster.hooks.do(Drain(self.cluster, self), self._drain)

    def _drain(self) -> None:
        self.later(self.cluster.promises.frontend_drain_s.value, self._exit)
        self._leave_if_idle()

    def _leave_if_idle(self) -> None:
        if self.draining and not self.calls:
            self.later(0.0, self._exit_if_idle)

    def _exit_if_idle(self) -> None:
        if not self.calls:
            self._exit()

    def _exit(self) -> None:
        self.kernel.after(0.005, self.die, None, 0)

    def leave(self) -> None:
        """Its clients and workers see their connections break."""
        for call in self.calls.values():
            assert call.request.channel is not None
            call.request.channel.send(self.cluster.clients.hear, call.request, self.cluster.clients.cut)
            if call.stream is not None:
                self.kill(call.stream)

    # -- what it tells

    def sample(self) -> dict[str, float]:
        """Its counters, and what its workers have registered."""
        slots = float(self.cluster.slots * len(self.listed_as("worker")))
        return self.values | {"max_seqs": slots}

    def lists(self) -> tuple[list[Instance], bool]:
        """The instances that it shows, and whether the model is on its list of models."""
        listed = [] if self.draining else list(self.listed.values())
        return listed, bool(self.listed_as("worker"))
