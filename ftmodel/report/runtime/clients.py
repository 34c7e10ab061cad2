"""Clients of a script: each request is a thread that sends, reads, and keeps what it saw and when."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ftmodel.history import Item
from ftmodel.targets.real.answers import Stream, chunk
from ftmodel.targets.real.requests import prompt

PATHS = {"completion": "/v1/completions", "chat": "/v1/chat/completions"}


@dataclass
class Request:
    """One request, and what its client has of it. Times are those of the cluster's clock."""

    name: str
    id: str
    """The same in each trial: an engine's text can be a function of it."""
    api: str = "completion"
    stream: bool = True
    chars: int = 40
    frontend: int = 1
    ask: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of its body: max_tokens, stop, n, ..."""
    raw: str = ""
    """The body itself, where it is malformed."""
    items: list[tuple[float, Item]] = field(default_factory=list)
    status: int = 0
    sent_s: float = float("inf")
    head_s: float = float("inf")
    over_s: float = float("inf")
    left_s: float = float("inf")
    """When its client left."""
    how: str = ""
    """How it ended: eof, cut, refused or left; empty while it has not."""
    detail: str = ""
    void: bool = False
    """It was never sent."""
    tokens: int = 0
    pauses: list[tuple[float, float]] = field(default_factory=list)
    heard: list[float] = field(default_factory=list)
    """When bytes came."""
    reading: threading.Event = field(default_factory=threading.Event)
    connection: http.client.HTTPConnection | None = None

    @property
    def prompt(self) -> str:
        """Its last line is the key of the answer."""
        return prompt(self.chars, f"request {self.name} {self.id[:8]}:")

    @property
    def max_tokens(self) -> int:
        """So many were asked for."""
        return int(self.ask.get("max_tokens", 0))

    def text(self, choice: int = 0) -> str:
        """The text of one choice."""
        return "".join(item.value for _, item in self.items if item.what == "text" and item.choice == choice)

    def told(self, what: str) -> list[Item]:
        """The items of one kind."""
        return [item for _, item in self.items if item.what == what]

    @property
    def whole(self) -> bool:
        """A complete answer, read to its end: status 200, a finish, one [DONE] if it is a stream, no error."""
        done = not self.stream or len(self.told("done")) == 1
        return (
            self.how == "eof" and self.status == 200 and done and bool(self.told("finish")) and not self.told("error")
        )

    def body(self, model: str) -> bytes:
        """What is sent."""
        if self.raw:
            return self.raw.encode()
        said: dict[str, Any] = {"model": model, "stream": self.stream}
        said |= {"prompt": self.prompt} if self.api == "completion" else _chat(self.prompt)
        return json.dumps(said | dict(self.ask)).encode()


def _chat(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def count(text: str) -> int:
    """Tokens of a text: words of four characters, or the bytes of other scripts."""
    return len(text) // 4 if text.isascii() else len(text.encode())


class Clients:
    """Sends requests. `changed` is notified of whatever its requests see."""

    def __init__(self, model: str, header: str, now: Callable[[], float], changed: threading.Condition) -> None:
        self._model, self._header, self._now, self._changed = model, header, now, changed

    def send(self, request: Request, port: int) -> None:
        """Send it in a thread of its own."""
        request.reading.set()
        threading.Thread(target=self._exchange, args=(request, port), daemon=True).start()

    def leave(self, request: Request) -> bool:
        """The client closes its socket; False if the request was over before."""
        with self._changed:
            if request.how:
                return False
            request.how, request.left_s = "left", self._now()
            self._over(request)
        sock = request.connection.sock if request.connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):  # the other side was first
                sock.shutdown(socket.SHUT_RDWR)
        return True

    def pause(self, request: Request, seconds: float) -> None:
        """The client reads nothing for so long, or until the request is over."""
        began_s = self._now()
        request.reading.clear()
        with self._changed:
            self._changed.wait_for(lambda: bool(request.how), seconds)
        request.pauses.append((began_s, self._now()))
        request.reading.set()

    def _exchange(self, request: Request, port: int) -> None:
        request.connection = connection = http.client.HTTPConnection("127.0.0.1", port)
        path, headers = PATHS[request.api], {self._header: request.id, "content-type": "application/json"}
        try:
            connection.request("POST", path, request.body(self._model), headers)
            self._tell(request, sent_s=self._now())
            response = connection.getresponse()
            self._tell(request, head_s=self._now(), status=response.status)
            if request.stream and response.status == 200:
                self._read(request, response)
            else:
                self._take(request, tuple(chunk(response.read().decode("utf-8", "replace"), request.id, self._model)))
            self._end(request, "eof", "")
        except (
            OSError,
            http.client.HTTPException,
            AttributeError,
        ) as error:  # AttributeError: closed while it was read
            self._end(
                request, "cut" if request.sent_s < float("inf") else "refused", f"{type(error).__name__}: {error}"
            )
        finally:
            connection.close()

    def _read(self, request: Request, response: http.client.HTTPResponse) -> None:
        stream = Stream(request.id, self._model)
        while piece := response.read1(65536):
            request.reading.wait()
            self._take(request, stream.feed(piece))
        self._take(request, stream.end())

    def _take(self, request: Request, items: tuple[Item, ...]) -> None:
        with self._changed:
            if request.how:
                return
            now_s = self._now()
            request.heard.append(now_s)
            request.items += [(now_s, item) for item in items]
            request.tokens += sum(count(item.value) for item in items if item.what == "text" and item.choice == 0)
            self._changed.notify_all()

    def _tell(self, request: Request, **seen: Any) -> None:
        with self._changed:
            for name, value in seen.items():
                setattr(request, name, value)
            self._changed.notify_all()

    def _end(self, request: Request, how: str, detail: str) -> None:
        with self._changed:
            if not request.how:
                request.how, request.detail = how, detail
                self._over(request)

    def _over(self, request: Request) -> None:
        request.over_s = self._now()
        self._changed.notify_all()
