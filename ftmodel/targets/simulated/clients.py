"""Clients: each sends one request to a frontend, reads what comes, and tells what it saw; or it leaves before the end."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from ftmodel.engines.model import CONTEXT_TOKENS
from ftmodel.history import (
    ClientClosed,
    Interval,
    Item,
    ReaderPaused,
    Received,
    RequestEnded,
    RequestSent,
    ResponseBegun,
)
from ftmodel.steps import BadRequest, Submit, Wrong
from ftmodel.targets.simulated.kernel import Action, Channel, Kernel, Signal, Waits

if TYPE_CHECKING:
    from ftmodel.targets.simulated.cluster import Cluster
    from ftmodel.targets.simulated.frontend import Frontend

PROMPT_TOO_LONG_CHARS: Final = 2 * CONTEXT_TOKENS
SENDING_S: Final = 0.0005
"""From the beginning of a request's sending to its end."""


@dataclass(slots=True, eq=False)
class Request:
    """One request of a client, and the moments that steps wait for."""

    name: str
    step: Submit
    id: str
    sent: Signal
    ended: Signal
    probe: bool = False
    wrong: Wrong | None = None
    stop: tuple[str, ...] = ()
    frontend: str = ""
    channel: Channel | None = None
    began_s: float = 0.0
    begun: bool = False
    void: bool = False
    """It was never sent."""
    whole: bool = False
    tokens: int = 0
    """Tokens that the client has, of the first choice."""
    heard_s: float = 0.0
    left: bool = False
    paused: bool = False
    missed: list[tuple[Action, tuple[object, ...]]] = field(default_factory=list)
    """What came while its client read nothing."""
    awaited: dict[int, Signal] = field(default_factory=dict)
    """By token: the signal for those who wait for it."""

    @property
    def key(self) -> str:
        """The prompt's last line, different for each request of each example."""
        return f"request {self.name} {self.id[:8]}:"

    @property
    def open(self) -> bool:
        """Sent and not over."""
        return self.sent.given and not self.void and not self.ended.given

    @property
    def under_way(self) -> bool:
        """Being sent, or sent and not over."""
        return self.channel is not None and not self.ended.given

    @property
    def prompt_tokens(self) -> int:
        """As long as the prompt is: at least as asked for, its key and two ends of lines."""
        return max(self.step.prompt_chars, len(self.key) + 2)


def request_id(seed: int, name: str) -> str:
    """The id of the request of this name: another for each seed, the same whatever else the plan has."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


def bad(step: BadRequest) -> Submit:
    """What a bad request would be if nothing were wrong with it."""
    chars = PROMPT_TOO_LONG_CHARS if step.wrong == "prompt-too-long" else 40
    return Submit(
        name=step.name, api=step.api, stream=step.stream, frontend=step.frontend, prompt_chars=chars, max_tokens=8
    )


class Clients:
    """All clients of an example."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._kernel: Kernel = cluster.kernel
        self._push = cluster.push

    def send(self, request: Request, frontend: Frontend) -> None:
        """Send a request through this frontend."""
        request.frontend, request.channel = frontend.title, Channel(self._kernel)
        request.began_s = self._kernel.now
        request.channel.send(self._connect, request, frontend)

    def _connect(self, request: Request, frontend: Frontend) -> None:
        self._kernel.after(SENDING_S, self._sent, request, frontend)

    def _sent(self, request: Request, frontend: Frontend) -> None:
        step = request.step
        self._push(
            RequestSent(
                at=self._kernel.since(request.began_s), request=request.name, id=request.id, frontend=frontend.title,
                api=step.api, stream=step.stream, prompt_tokens=request.prompt_tokens, max_tokens=step.max_tokens,
                n=step.n, key=request.key, min_tokens=step.min_tokens, stop=request.stop, guided=step.guided,
                logprobs=step.logprobs, usage=step.usage, wrong=request.wrong or "", probe=request.probe,
            )
        )  # fmt: skip
        request.heard_s = self._kernel.now
        request.sent.give()
        if frontend.accepts:
            frontend.hear(frontend.arrived, request)
        else:
            self._end(request, "refused", "connection refused")

    # -- what comes

    def hear(self, request: Request, action: Action, *args: object) -> None:
        """Something comes over the client's connection: now, or when it reads again."""
        if request.paused:
            request.missed.append((action, args))
        elif not request.left and not request.ended.given:
            action(request, *args)

    def head(self, request: Request, status: int) -> None:
        """The head of the answer."""
        at = Interval(request.began_s, self._kernel.now)
        request.begun, request.heard_s = True, self._kernel.now
        self._push(ResponseBegun(at=at, request=request.name, status=status))
        self._wake(request)

    def body(self, request: Request, items: tuple[Item, ...], tokens: int) -> None:
        """A part of the answer, with so many tokens of the first choice."""
        at = Interval(request.heard_s, self._kernel.now)
        request.heard_s = self._kernel.now
        self._push(Received(at=at, request=request.name, items=items))
        request.tokens += tokens
        self._wake(request)

    def eof(self, request: Request) -> None:
        """The end of the body."""
        request.whole = True
        self._end(request, "eof", "")

    def cut(self, request: Request) -> None:
        """The connection broke."""
        self._end(request, "cut", "connection reset")

    def _end(self, request: Request, how: Literal["eof", "cut", "refused"], detail: str) -> None:
        at = Interval(request.heard_s, self._kernel.now)
        self._push(RequestEnded(at=at, request=request.name, how=how, detail=detail))
        self.over(request)

    def over(self, request: Request) -> None:
        """Nothing more comes: let go who waits for what never will."""
        request.ended.give()
        for signal in request.awaited.values():
            signal.give()
        request.awaited.clear()

    def _wake(self, request: Request) -> None:
        for k in [k for k in request.awaited if request.tokens >= k]:
            request.awaited.pop(k).give()

    # -- what it does by itself

    def leave(self, request: Request, how: Literal["close", "timeout"]) -> bool:
        """Close the connection now. False if the request was over before."""
        if not request.open or request.left:
            return False
        assert request.channel is not None
        request.left = True
        frontend = self._cluster.frontend_of(request)
        self._push(ClientClosed(at=self._kernel.moment(), request=request.name, how=how))
        request.channel.send(frontend.hear, frontend.client_gone, request)
        self.over(request)
        return True

    def pause(self, request: Request, seconds: float) -> Waits:
        """Read nothing for so long, or until the request is over."""
        before_s = self._kernel.now
        request.paused = True
        while not request.ended.given and self._kernel.now < before_s + seconds:
            yield min(0.05, before_s + seconds - self._kernel.now)
        request.paused = False
        self._push(ReaderPaused(at=self._kernel.since(before_s), request=request.name))
        missed, request.missed = request.missed, []
        for action, args in missed:
            self.hear(request, action, *args)

    def token(self, request: Request, k: int) -> Signal | None:
        """What is given when the client has token k, 0 for the head, or never will; None if it has it."""
        if request.begun and request.tokens >= k:
            return None
        return request.awaited.setdefault(k, Signal(self._kernel))
