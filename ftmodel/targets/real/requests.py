"""Clients: each request is a task that sends, reads, and tells what it saw; a cancel closes its socket."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from ftmodel.engines.model import CONTEXT_TOKENS
from ftmodel.history import (
    ClientClosed,
    Event,
    Interval,
    Item,
    ReaderPaused,
    Received,
    RequestEnded,
    RequestSent,
    ResponseBegun,
)
from ftmodel.steps import BadRequest, Submit, Wrong
from ftmodel.targets.real import answers
from ftmodel.targets.real.clock import Clock
from ftmodel.targets.real.ports import NO_TLS

CONNECT_BOUND_S: Final = 10.0
PROMPT_TOO_LONG_CHARS: Final = 2 * CONTEXT_TOKENS
_FILLER: Final = "The quick brown fox jumps over the lazy dog. "
_PATHS: Final = {"completion": "/v1/completions", "chat": "/v1/chat/completions"}


def prompt(chars: int, key: str) -> str:
    """A prompt of at least so many characters whose last line is the key, which ends with a newline."""
    filler = (_FILLER * (chars // len(_FILLER) + 1))[: max(0, chars - len(key) - 2)]
    return f"{filler}\n{key}\n"


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True)
class Request:
    """One request of a client, and the moments that steps wait for."""

    name: str
    step: Submit
    probe: bool = False
    wrong: Wrong | None = None
    stop: tuple[str, ...] = ()
    frontend: str = ""
    """Title of the frontend that it is sent through."""
    url: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    sent: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done when sent; cancelled if it never was."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Over: the body's end, a break, or the client's own close."""
    begun: bool = False
    whole: bool = False
    tokens: int = 0
    """Tokens that the client has, of the first choice."""
    heard_s: float = 0.0
    """When the last bytes came."""
    closing: str | None = None
    task: asyncio.Task[None] | None = None
    reading: asyncio.Event = field(default_factory=_set_event)
    """Cleared while its client reads nothing."""
    waiting: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The prompt's last line, different for each request of each example."""
        return f"request {self.name} {self.id[:8]}:"

    @property
    def open(self) -> bool:
        """Sent and not over."""
        return self.sent.done() and not self.sent.cancelled() and not self.ended.is_set()

    @property
    def under_way(self) -> bool:
        """Being sent, or sent and not over."""
        return self.task is not None and not self.ended.is_set()

    async def token(self, k: int) -> None:
        """Wait until the client has token k; k = 0: the answer's head. Raises LookupError if that never comes."""
        if self.ended.is_set() and not self._has(k):
            raise LookupError
        if not self._has(k):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting.append((k, waiter))
            await waiter

    def _has(self, k: int) -> bool:
        return self.begun and (k == 0 or self.tokens >= k)

    def wake(self) -> None:
        """Let go who waits for what has come; if all is over, who waits for what never will."""
        for k, waiter in self.waiting:
            if waiter.done():
                continue
            if self._has(k):
                waiter.set_result(None)
            elif self.ended.is_set():
                waiter.set_exception(LookupError())
        self.waiting = [(k, waiter) for k, waiter in self.waiting if not waiter.done()]


class Clients:
    """Sends requests to frontends and tells what came back."""

    def __init__(
        self,
        *,
        model: str,
        header: str,
        count: Callable[[str], int],
        clock: Clock,
        push: Callable[[Event], None],
    ) -> None:
        self._model = model
        self._header = header
        self._count = count
        self._clock = clock
        self._push = push
        # No connection is used twice: what a client's close does must not depend on who used it before.
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT_BOUND_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
            verify=NO_TLS,
        )

    async def close(self) -> None:
        """Close what is open."""
        await self._http.aclose()

    def send(self, request: Request, frontend: str, url: str) -> None:
        """Start sending a request through the frontend of this title, which listens at this URL."""
        request.frontend, request.url = frontend, url
        request.task = asyncio.create_task(self._run(request))

    async def cancel(self, request: Request, how: str) -> bool:
        """The client leaves now. False if the request was over before: then nothing was done."""
        if not request.open or request.task is None or request.closing is not None:
            return False
        request.closing = how
        before_s = self._clock.now()
        request.task.cancel()
        await request.ended.wait()
        if request.closing == how and not request.whole:
            self._push(ClientClosed(at=self._clock.since(before_s), request=request.name, how=how))  # type: ignore[arg-type]
            return True
        return False

    async def pause(self, request: Request, seconds: float) -> None:
        """The client reads nothing for so long, or until the request is over."""
        before_s = self._clock.now()
        request.reading.clear()
        try:
            async with asyncio.timeout(seconds):
                await request.ended.wait()
        except TimeoutError:
            pass
        finally:
            request.reading.set()
            self._push(ReaderPaused(at=self._clock.since(before_s), request=request.name))

    async def _run(self, request: Request) -> None:
        before_s = self._clock.now()
        try:
            await self._exchange(request, before_s)
        except asyncio.CancelledError:
            if request.closing is None:
                raise
        except httpx.HTTPError as error:
            how = "cut" if request.sent.done() else "refused"
            self._sent(request, before_s)
            self._ended(request, self._clock.since(before_s), how, f"{type(error).__name__}: {error}")
        finally:
            if not request.sent.done():
                request.sent.cancel()
            request.ended.set()
            request.wake()

    async def _exchange(self, request: Request, before_s: float) -> None:
        step = request.step

        async def trace(name: str, _info: object) -> None:
            if name == "http11.send_request_body.complete":
                self._sent(request, before_s)

        async with self._http.stream(
            "POST",
            request.url + _PATHS[step.api],
            content=body(request, self._model),
            headers={self._header: request.id, "content-type": "application/json"},
            extensions={"trace": trace},
        ) as response:
            heard_s = self._clock.now()
            request.begun, request.heard_s = True, heard_s
            self._push(ResponseBegun(at=Interval(before_s, heard_s), request=request.name, status=response.status_code))
            request.wake()
            if step.stream and response.status_code == httpx.codes.OK:
                await self._read_stream(request, response)
            else:
                self._take(
                    request,
                    heard_s,
                    tuple(answers.chunk((await response.aread()).decode("utf-8", "replace"), request.id, self._model)),
                )
            # From here on the client has seen the body's end: a cancel that comes now changes nothing.
            request.whole = True
            self._ended(request, self._clock.since(request.heard_s), "eof", "")

    async def _read_stream(self, request: Request, response: httpx.Response) -> None:
        stream = answers.Stream(request.id, self._model)
        async for data in response.aiter_raw():
            await request.reading.wait()
            self._take(request, request.heard_s, stream.feed(data))
        if rest := stream.end():
            self._take(request, request.heard_s, rest)

    def _take(self, request: Request, before_s: float, items: tuple[Item, ...]) -> None:
        request.heard_s = self._clock.now()
        if not items:
            return
        self._push(Received(at=Interval(before_s, request.heard_s), request=request.name, items=items))
        request.tokens += sum(self._count(i.value) for i in items if i.what == "text" and i.choice == 0)
        request.wake()

    def _sent(self, request: Request, before_s: float) -> None:
        if request.sent.done():
            return
        step = request.step
        self._push(
            RequestSent(
                at=self._clock.since(before_s),
                request=request.name,
                id=request.id,
                frontend=request.frontend,
                api=step.api,
                stream=step.stream,
                prompt_tokens=len(prompt(step.prompt_chars, request.key)),
                max_tokens=step.max_tokens,
                n=step.n,
                key=request.key,
                min_tokens=step.min_tokens,
                stop=request.stop,
                guided=step.guided,
                logprobs=step.logprobs,
                usage=step.usage,
                wrong=request.wrong or "",
                probe=request.probe,
            )
        )
        request.sent.set_result(None)

    def _ended(self, request: Request, at: Interval, how: str, detail: str) -> None:
        self._push(RequestEnded(at=at, request=request.name, how=how, detail=detail))  # type: ignore[arg-type]


def bad(step: BadRequest) -> Submit:
    """What a bad request would be if nothing were wrong with it."""
    chars = PROMPT_TOO_LONG_CHARS if step.wrong == "prompt-too-long" else 40
    return Submit(
        name=step.name, api=step.api, stream=step.stream, frontend=step.frontend, prompt_chars=chars, max_tokens=8
    )


def body(request: Request, model: str) -> bytes:
    """The body of a request."""
    if request.wrong == "malformed-json":
        return b'{"model": "' + model.encode() + b'", "prompt": '
    said = asked(request.step, model, request.key, request.stop)
    if request.wrong == "unknown-model":
        said["model"] = f"no-{model}"
    elif request.wrong == "negative-max-tokens":
        said["max_tokens"] = -1
    return json.dumps(said).encode()


def asked(step: Submit, model: str, key: str, stop: tuple[str, ...]) -> dict[str, Any]:
    """What the body of a request says that is not wrong."""
    text = prompt(step.prompt_chars, key)
    said: dict[str, Any] = (
        {"prompt": text} if step.api == "completion" else {"messages": [{"role": "user", "content": text}]}
    )
    # Several choices at temperature 0 are refused: they could not differ.
    said |= {"n": step.n, "temperature": 1.0} if step.n != 1 else {"temperature": 0.0}
    # Where the end of the sequence is ignored, stop strings are not looked at either.
    said |= {"stop": list(stop)} if stop else {"ignore_eos": True}
    if step.min_tokens:
        said["min_tokens"] = step.min_tokens
    if step.guided:
        said["guided_json"] = {"type": "object"}
    if step.logprobs:
        said |= {"logprobs": True, "top_logprobs": 1} if step.api == "chat" else {"logprobs": 1}
    if step.usage and step.stream:
        said["stream_options"] = {"include_usage": True}
    return {"model": model, **said, "max_tokens": step.max_tokens, "stream": step.stream}
