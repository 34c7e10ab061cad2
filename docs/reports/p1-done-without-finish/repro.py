"""P1/done-without-finish: the answer of r1 ends as a whole one, but choice 0 has no finish.

Seen on ai-dynamo 1.4.2. 1 frontend (round-robin routing), 2 workers, engine counting; discovery over file, requests
over tcp; migration limit 3, short patience.

1. submit r1: completion, streamed, 40 characters, 20 tokens
2. have the engine fail r1 (no-finish), at token 4 of r1

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


TITLE = 'P1/done-without-finish'


def steps(trial: Trial) -> None:
    trial.submit(
        'r1',
        id='60514fe5-9781-46f3-b7e2-85592824d28a',
        ask={'temperature': 0.0, 'ignore_eos': True, 'max_tokens': 20},
    )
    trial.engine_error('s2', 'r1', 4, 'no-finish')


def check() -> Check:
    return grammar('r1', slug='done-without-finish')


# --- how the cluster is started, spoken to and understood


def setup() -> Setup:
    return Setup(
        distribution='ai-dynamo',
        version='1.4.2',
        starts={
            'frontend': Start(
                argv=(
                    '-m', 'dynamo.frontend', '--http-host', '127.0.0.1', '--http-port', '{port}', '--router-mode',
                    'round-robin', '--migration-limit', '3', '--migration-max-seq-len', '4000',
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
                    'DYN_EVENT_PLANE': 'zmq',
                    'DYN_EVENT_PLANE_HOST': '127.0.0.1',
                },
            ),
            'worker': Start(
                argv=(
                    '{folder}/worker.py', '--model-path', '{model}', '--model-name', 'tiny', '--migration-limit',
                    '3', '--armed', '{folder}/armed', '--pace-ms', '5', '--prefill-ms', '5', '--slots', '256',
                    '--defect', 'none', '--defect-every', '1',
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
                    'DYN_EVENT_PLANE': 'zmq',
                    'DYN_EVENT_PLANE_HOST': '127.0.0.1',
                    'DYN_SYSTEM_PORT': '{port}',
                    'DYN_TCP_RPC_PORT': '{plane}',
                },
            ),
        },
        patterns=(
            Pattern(role='worker', meaning='begun', text='Decode Request ID: ', target='counting'),
            Pattern(role='worker', meaning='ended', text='Ended Request ID: ', target='counting'),
            Pattern(role='worker', meaning='aborted', text='Aborted Request ID: ', target='counting'),
            Pattern(role='worker', meaning='failed', text='Failed Request ID: ', target='counting'),
            Pattern(role='worker', meaning='armed-death', text='Armed death Request ID: ', target='counting'),
            Pattern(role='worker', meaning='armed-error', text='Armed ', target='counting'),
            Pattern(role='worker', meaning='arrived', text='request received', target='push_handler'),
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
        header='x-dynamo-request-id',
        models_path='/v1/models',
        metrics_path='/metrics',
        health_path='/health',
        live_path='/live',
        files={'worker.py': WORKER_PY},
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


@dataclass(slots=True)
class Reading:
    """How far one answer has been read."""

    finished: set[int] = field(default_factory=set)
    done: bool = False
    error: bool = False
    said: bool = False
    malformed: str | None = None

    def breach(self, item: Item) -> tuple[str, str] | None:
        """What this item breaks, as a slug and in words, and read on."""
        broken = self._breach(item)
        self.said = self.said or item.what != "empty"
        match item.what:
            case "finish":
                self.finished.add(item.choice)
            case "done":
                self.done = True
            case "error":
                self.error = True
            case "malformed":
                self.malformed = item.value
            case _:
                pass
        return broken

    def _breach(self, item: Item) -> tuple[str, str] | None:
        if self.malformed is not None:
            return "malformed", f"a line that is no event: {self.malformed[:60]!r}"
        if self.done:
            return "after-done", f"{_named(item)} after [DONE]"
        speaks = item.what == "finish" or (item.what == "text" and item.value != "")
        if self.error and speaks:
            return "after-error", f"{_named(item)} after an error"
        if item.choice in self.finished and speaks:
            slug = "two-finishes" if item.what == "finish" else "after-finish"
            return slug, f"{_named(item)} after the finish of choice {item.choice}"
        return None


def _named(item: Item) -> str:
    return f"{item.what} {item.value[:40]!r}" if item.value else item.what


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


def after(step: str) -> tuple[str, ...]:
    """When another step has been done."""
    return "after", step


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


def grammar(*names: str, slug: str) -> Check:
    """The form of an answer: what breaks it is one of the slugs of P1."""
    return _of_any(names, lambda _, r: _broken(r, slug))


def _broken(request: Request, slug: str) -> str:
    if request.how == "left":
        return ""
    reading = Reading()
    for _, item in request.items if request.status == 200 else ():
        breach = reading.breach(item)
        if breach is not None and breach[0] == slug:
            return f"has {breach[1]}: {_client(request)}"
    ended, good = request.how == "eof", request.status == 200
    found = {
        "cut": request.how == "cut",
        "unstructured-error": ended and not good and not request.told("error"),
        "error-without-done": ended and good and request.stream and reading.error and not reading.done,
        "empty-200": ended and good and not reading.said,
        "malformed": ended and good and reading.malformed is not None,
        "no-done": ended and good and request.stream and reading.said and not reading.done and not reading.error,
        "done-without-finish": ended and good and reading.said and not reading.error and not reading.finished
        and (reading.done or not request.stream),
        "looks-whole": request.whole and request.tokens < request.max_tokens,
    }  # fmt: skip
    return f"ends wrongly ({slug}): {_client(request)}" if found.get(slug) else ""


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


# --- worker.py: the engine, one file that is run by path

WORKER_PY = r'''"""A Dynamo worker whose tokens tell request and position, so that one lost, doubled or foreign token shows in the text.

One file: it is run by path in the interpreter of the cluster under test, where nothing of ftmodel is installed, and the
tester imports the same file for `text`, the answer that a request must have. So it needs the standard library, and
`dynamo` only in the functions that serve. What differs between releases is detected by feature, never by version.

A request's key is the last line of its prompt, and its answer is a pure function of key and position. The prompt ends
with a newline and the answer never holds one, so the position is the number of tokens behind the last newline: a
request that Dynamo moves here, sent as prompt plus what was generated so far, goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
import importlib
import inspect
import json
import os
import signal
import string
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

NEWLINE: Final = 10
BYTES: Final = 256
WORDS: Final = 3840
"""The model directory's vocabulary: the bytes themselves, then words of a space and three letters."""
DEFAULT_MAX_TOKENS: Final = 16
FOREVER: Final = float("inf")
CLEAN_UP_S: Final = 0.2
"""A real engine needs longer than that to release what it has. A process that leaves at once takes the end of its last
stream along: of 144 drains 14 (1.4.2) and 7 (1.6.1) lost it, 3 and 0 where the interpreter came to its own end."""

ORDERS: Final = ("die", "error", "cancelled", "no-finish", "stall")
"""What a file of the tester's can have a worker do at a token; see `Engine.ordered` and `Engine.obey`."""

MIDDLE: Final = 7
"""Where a defect spoils an answer; one that ends at the token behind it or before is clean."""
FOREIGN_TOKENS: Final = 12
"""So many that a whole character of every script is among them."""
PHANTOM: Final = 1_000_000
"""An id beyond every vocabulary: it decodes to nothing, and is counted."""
ADMITS_S: Final = 10.0

DEFECTS: Final = {
    "drops-token": "One token in the middle of an answer is not emitted, and the position goes on.",
    "doubles-token": "One token in the middle of an answer is emitted twice.",
    "reorders-tokens": "Two unequal tokens in the middle of an answer change places.",
    "ignores-abort": "A killed or stopped context changes nothing: the engine generates to the end and logs no abort.",
    "aborts-in-log-only": "An abort is logged at once, but the engine generates to the end and keeps the slot so long.",
    "foreign-tokens": "From the middle on, some tokens of an answer are those of another request of this worker.",
    "wrong-usage": "One token too many is reported for the prompt and one for the answer.",
    "no-finish-reason": "The last item lacks its finish reason, and the stream just ends.",
    "hangs": "In the middle of an answer the engine falls silent and never ends it; it heeds an abort.",
    "dies-silently": "In the middle of an answer the process exits with code 0, without a word.",
    "leaks-slot": "An aborted request never gives back its slot.",
    "admits-while-draining": "Asked to stop, the worker says so, but stays on the list and serves all that comes for 10 s.",
}
"""What can be wrong with this engine on purpose, so that the tester can show that it finds it: name and sentence."""


# --- the text: pure, imported by the tester ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Script:
    """`size` characters from `first` on, each emitted as `width` tokens. The size is prime: every step visits all."""

    first: int
    size: int
    width: int


SCRIPTS: Final = (
    Script(BYTES, 3833, 1),  # words, by their ids
    Script(0x100, 509, 2),  # Latin extended and IPA, up to the combining marks
    Script(0x4E00, 20983, 3),  # CJK
    Script(0x20000, 42719, 4),  # CJK extension B
)
"""All these characters are assigned, and none combines or changes under normalisation."""


@dataclass(frozen=True)
class Course:
    """The endless answer of one key: where it starts in its script, and how far it steps."""

    script: Script
    start: int
    step: int

    def token(self, position: int) -> int:
        """The token id at this position of the answer, counted from 0."""
        place, part = divmod(position, self.script.width)
        character = self.script.first + (self.start + place * self.step) % self.script.size
        return character if self.script.width == 1 else chr(character).encode()[part]


@functools.lru_cache(maxsize=4096)
def course(key: bytes) -> Course:
    """The course that this key is hashed to, the same in every process."""
    number = int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "big")
    number, choice = divmod(number, len(SCRIPTS))
    script = SCRIPTS[choice]
    number, start = divmod(number, script.size)
    return Course(script, start, 1 + number % (script.size - 1))


def token_ids(key: bytes, start: int, count: int) -> list[int]:
    """The `count` token ids of this key's answer from position `start` on."""
    path = course(key)
    return [path.token(position) for position in range(start, start + count)]


def token_bytes(token_id: int) -> bytes:
    """What this id decodes to; nothing for special and unknown ids."""
    if 0 <= token_id < BYTES:
        return bytes([token_id])
    if token_id < 0 or token_id >= BYTES + WORDS:
        return b""
    index = token_id - BYTES
    letters = string.ascii_lowercase
    return (" " + letters[index // 676] + letters[index // 26 % 26] + letters[index % 26]).encode()


def text(key: bytes, start: int, count: int) -> str:
    """What those tokens decode to, a character that is cut at either end shown as U+FFFD."""
    return b"".join(map(token_bytes, token_ids(key, start, count))).decode("utf-8", errors="replace")


def choice_key(key: bytes, index: int) -> bytes:
    """The key of choice `index` of a request with n > 1: choices differ, and the first is that of a plain request."""
    return key if index == 0 else b"%s#%d" % (key, index)


def parse_prompt(token_ids: Sequence[int]) -> tuple[bytes, int]:
    """The request's key and the position to go on at, from the tokens that the worker is given.

    The key is the last line that ends in a newline. A prompt without such a line, or with an empty one, is not the
    tester's: then all of it is the key, and the position 0.
    """
    reverse = list(reversed(token_ids))
    position = reverse.index(NEWLINE) if NEWLINE in reverse else len(reverse)
    before = reverse[position + 1 :]
    line = before[: before.index(NEWLINE)] if NEWLINE in before else before
    if not line:
        return b"".join(map(token_bytes, token_ids)), 0
    return b"".join(map(token_bytes, reversed(line))), position


def stop_text(key: bytes, position: int) -> str:
    """A stop string that this key's answer first has at the token of this position, or behind it if need be.

    Of words it is the last two letters and the beginning of the next one, so that it spans two tokens; else the
    character that the token belongs to. Raises ValueError if there is none near, as behind all that the script has.
    """
    width = course(key).script.width
    place = position // width
    for near in range(place, place + 100):
        begin, size = (4 * near + 2, 4) if width == 1 else (near, 1)
        before = text(key, 0, (near + 2) * width)
        stop = before[begin : begin + size]
        if before.find(stop) == begin:
            return stop
    raise ValueError(f"key {key!r}: no stop string begins first at token {position}, expected an earlier token")


def text_until_stop(key: bytes, max_tokens: int, stops: Sequence[str]) -> str:
    """The answer up to the first of these stop strings, exclusive, or all of it."""
    whole = text(key, 0, max_tokens)
    return whole[: min((at for stop in stops if stop and (at := whole.find(stop)) >= 0), default=None)]


# --- the log ----------------------------------------------------------------------------------------------------------


def log(level: str, message: str, /, **fields: object) -> None:
    """One line on stdout in the shape of Dynamo's JSONL; a single write, for Rust threads write there too."""
    now = time.time_ns() // 1000
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000))
    line = {"time": f"{moment}.{now % 1_000_000:06d}Z", "level": level, "target": "counting", "message": message}
    os.write(1, json.dumps(line | fields).encode() + b"\n")


# --- one request ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What a request asks for, read from Dynamo's preprocessed form."""

    request_id: str
    key: bytes
    prompt_tokens: int
    position: int
    max_tokens: int
    courses: tuple[Course, ...]
    foreign: bool
    logprobs: int | None
    """How many alternatives to show with each token; None for nothing of that kind."""
    asked: dict[str, int]
    """What else was asked for, which is the frontend's to do: it is only logged."""

    @classmethod
    def read(cls, request: dict[str, Any], request_id: str, context_tokens: int) -> Job:
        """From `token_ids`, `stop_conditions` (16 tokens if they do not say), `sampling_options`, `output_options`.

        Stop strings are met by the frontend, which then kills the context. An answer ends at `max_tokens` alone, so
        `min_tokens` is kept too.
        """
        ids = request["token_ids"]
        key, position = parse_prompt(ids)
        conditions = request.get("stop_conditions") or {}
        wanted, least, stops = (conditions.get(name) for name in ("max_tokens", "min_tokens", "stop"))
        choices = (request.get("sampling_options") or {}).get("n") or 1
        return cls(
            request_id=request_id,
            key=key,
            prompt_tokens=len(ids),
            position=position,
            max_tokens=max(0, min(DEFAULT_MAX_TOKENS if wanted is None else wanted, context_tokens - len(ids))),
            courses=tuple(course(choice_key(key, index)) for index in range(choices)),
            foreign=position > 0 and list(ids[-position:]) != token_ids(key, 0, position),
            logprobs=(request.get("output_options") or {}).get("logprobs"),
            asked=({"min_tokens": least} if least else {}) | ({"stop": len(stops)} if stops else {}),
        )

    @property
    def end(self) -> int:
        """The position behind the last token."""
        return self.position + self.max_tokens

    @property
    def positions(self) -> range:
        """Where something goes out; if no token is left, as after a migration behind the last one, then the finish."""
        return range(self.position, max(self.end, self.position + 1))

    def check(self, context_tokens: int) -> None:
        """Refuse a prompt that is too long: with a status 400, where the release has an exception for that."""
        if self.prompt_tokens > context_tokens:
            exceptions = importlib.import_module("dynamo.llm.exceptions")
            refusal = getattr(exceptions, "InvalidArgument", ValueError)
            raise refusal(f"prompt of {self.prompt_tokens} tokens: expected {context_tokens} at most")

    def items(self, position: int) -> Iterator[dict[str, Any]]:
        """What goes out at this position: for each choice one item with one token, or with none behind the end."""
        last = {"finish_reason": "length"} if position + 1 >= self.end else {}
        for index, path in enumerate(self.courses):
            ids = [path.token(position)] if position < self.end else []
            scores = {} if self.logprobs is None else self.scores(ids, position)
            yield {"token_ids": ids, "index": index, **scores, **last}

    def scores(self, ids: list[int], position: int) -> dict[str, Any]:
        """Log probabilities that tell the position (a 1024th each, exact in 32 bits), as the frontend takes them."""
        chosen = -position / 1024
        others = range(max(1, self.logprobs or 0))
        ranked = [[_ranked(token_id + other, other + 1, chosen - other) for other in others] for token_id in ids]
        return {"log_probs": [chosen] * len(ids), "top_logprobs": ranked}

    def announce(self) -> None:
        """Log the arrival, and that the tokens behind the key are not those of its answer, if so."""
        where = {"position": self.position, "prompt_tokens": self.prompt_tokens}
        self.log("Decode", **where, max_tokens=self.max_tokens, n=len(self.courses), **self.asked)
        if self.foreign:
            self.log("Foreign tail", "WARN", **where)

    def log(self, what: str, level: str = "DEBUG", /, **fields: object) -> None:
        """Log what happens to this request."""
        log(level, f"{what} Request ID: {self.request_id}", request_id=self.request_id, **fields)


def _ranked(token_id: int, rank: int, logprob: float) -> dict[str, Any]:
    token = token_bytes(token_id).decode(errors="replace")
    return {"rank": rank, "token_id": token_id, "token": token, "logprob": logprob}


def strikes(key: bytes, every: int) -> bool:
    """Whether a defect that acts on one in `every` requests acts on this one, on whatever worker it is."""
    return zlib.crc32(key) % every == 0


class Call:
    """One request from its arrival to its end, which is logged once, whoever ends it first.

    Everything here runs on the event loop, so nothing comes between a test and the change that follows it.
    """

    def __init__(self, engine: Engine, job: Job) -> None:
        self.engine = engine
        self.job = job
        self.tokens = 0
        self.ended = False
        self.told = False
        self.defect = engine.options.defect if strikes(job.key, engine.options.defect_every) else "none"
        self.neighbour = engine.neighbour(job.key)
        self._waiter: asyncio.Future[None] | None = None

    def end(self, how: str, **fields: object) -> None:
        """Log the end, unless that was done before, free the slot at once and wake whoever waits."""
        if self.ended:
            return
        self.ended = True
        if self.defect != "leaks-slot" or how != "Aborted":
            self.engine.leave(self)
        if not self.told:
            self.job.log(how, tokens=self.tokens, **fields)
        self.wake()

    def abort(self, reason: str) -> None:
        """End it because nobody waits for it any more, unless a defect has it go on."""
        if self.defect not in ("ignores-abort", "aborts-in-log-only"):
            self.end("Aborted", reason=reason)
        elif not self.ended:
            if self.defect == "aborts-in-log-only" and not self.told:
                self.told = True
                self.job.log("Aborted", tokens=self.tokens, reason=reason)
            if reason == "closed":  # by the runtime, which takes two tokens more after an abort, in a thread of its own
                asyncio.run_coroutine_threadsafe(self.linger(), self.engine.loop)

    async def linger(self) -> None:
        """Generate the rest for nobody."""
        choices = len(self.job.courses)
        while not self.ended and self.tokens < choices * self.job.max_tokens:
            await asyncio.sleep(self.engine.options.pace_ms / 1000)
            self.tokens += choices
        self.end("Ended", reason="length")

    def collapse(self, position: int) -> str:
        """The defect that stops the generation here, or ""; one that was moved here kills no second worker."""
        stops = self.defect == "hangs" or (self.defect == "dies-silently" and self.job.position == 0)
        return self.defect if stops and position == MIDDLE < self.job.end - 1 else ""

    def spoil(self, position: int, item: dict[str, Any]) -> list[dict[str, Any]]:
        """What goes out in place of this item: itself, unless a defect has it otherwise."""
        job = self.job
        if self.defect == "none" or job.end - 1 <= MIDDLE:
            return [item]
        path = job.courses[item["index"]]
        match self.defect:
            case "drops-token" if position == MIDDLE:
                return []
            case "doubles-token" if position == MIDDLE:
                return [item, item]
            case "reorders-tokens":
                here = path.token(MIDDLE)
                other = next((place for place in range(MIDDLE + 1, job.end) if path.token(place) != here), MIDDLE)
                if position in (MIDDLE, other):
                    return [item | {"token_ids": [path.token(MIDDLE + other - position)]}]
            case "foreign-tokens" if item["token_ids"] and MIDDLE <= position < MIDDLE + FOREIGN_TOKENS:
                return [item | {"token_ids": [self.neighbour.token(position)]}]
            case "wrong-usage" if "finish_reason" in item:
                # The frontend counts the answer's tokens itself, and takes the prompt's from here (1.4 to 1.6).
                usage = {"prompt_tokens": job.prompt_tokens - job.position + 1, "completion_tokens": self.tokens + 1}
                usage["total_tokens"] = sum(usage.values())
                return [item | {"token_ids": [*item["token_ids"], PHANTOM], "completion_usage": usage}]
            case "no-finish-reason":
                return [{name: value for name, value in item.items() if name != "finish_reason"}]
        return [item]

    def wake(self) -> None:
        """Have the wait that is going on look again at what it waits for."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def turn(self) -> bool:
        """Wait for a slot; false if the request ended meanwhile."""
        self.engine.enter(self)
        while not self.ended and self not in self.engine.running:
            await self._rest()
        return not self.ended

    async def until(self, deadline: float) -> bool:
        """Wait for this time of the loop's clock, never less; false if the request ended meanwhile."""
        loop = self.engine.loop
        while not self.ended and loop.time() < deadline:
            timer = loop.call_at(deadline, self.wake)
            try:
                await self._rest()
            finally:
                timer.cancel()
        return not self.ended

    async def _rest(self) -> None:
        self._waiter = self.engine.loop.create_future()
        await self._waiter


class Engine:
    """The endpoint's handler, and the slots that its requests share in the order of their arrival."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.running: set[Call] = set()
        self.waiting: deque[Call] = deque()
        self.keys: deque[bytes] = deque(maxlen=2)

    def enter(self, call: Call) -> None:
        """Take a slot, or queue."""
        if len(self.running) < self.options.slots:
            self.running.add(call)
        else:
            self.waiting.append(call)

    def leave(self, call: Call) -> None:
        """Give back the slot, which goes to the first in the queue, or the place in the queue."""
        if call not in self.running:
            if call in self.waiting:
                self.waiting.remove(call)
            return
        self.running.remove(call)
        if self.waiting:
            heir = self.waiting.popleft()
            self.running.add(heir)
            heir.wake()

    def neighbour(self, key: bytes) -> Course:
        """The course of the latest request here with another key than this; of one that nobody sent if there is none."""
        other = next((other for other in reversed(self.keys) if other != key), b"nobody's")
        if key not in self.keys:
            self.keys.append(key)
        return course(other)

    async def generate(self, request: dict[str, Any], context: Any) -> AsyncIterator[dict[str, Any]]:
        """Serve one request: what Dynamo calls, with what it preprocessed and the request's context.

        Client gone, stop string met, frontend dead: each time the runtime (0.8 to 1.6) kills the context, or stops it;
        the generator it closes only if that goes on for two tokens more. So the abort is logged by the context's
        callback: at once, in every phase, also while a yielded token waits to be taken.
        """
        job = Job.read(request, context.id(), self.options.context)
        call = Call(self, job)
        stop = asyncio.ensure_future(context.async_killed_or_stopped())
        stop.add_done_callback(functools.partial(_stopped, call, context))
        job.announce()
        pace_s = self.options.pace_ms / 1000
        try:
            job.check(self.options.context)
            if not await call.turn():
                return
            job.log("Started")
            ready = self.loop.time() + self.options.prefill_ms / 1000
            for position in job.positions:
                if not await call.until(ready):
                    return
                if how := self.ordered(job, position) or call.collapse(position):
                    break
                ready = self.loop.time() + pace_s
                for item in job.items(position):
                    call.tokens += len(item["token_ids"])
                    for emitted in call.spoil(position, item):
                        yield emitted
            else:
                position = job.end
                if how := self.ordered(job, position):
                    await call.until(ready)  # so that the last token gets out
            if how:
                for item in await self.obey(call, position, how):
                    yield item
                call.end("Failed", error=how)
            call.end("Ended", reason="length")
        except (GeneratorExit, asyncio.CancelledError):
            call.abort("closed")
            raise
        except Exception as error:
            call.end("Failed", error=repr(error))
            raise
        finally:
            stop.cancel()

    def ordered(self, job: Job, position: int) -> str:
        """How a file named like the request has it end at this position or before, if we were first to it; else ""."""
        if self.options.armed is None:
            return ""
        path = f"{self.options.armed}/{job.request_id}"
        try:
            with open(path, encoding="ascii") as file:  # noqa: PTH123 - at every token; a Path costs twice
                at, _, how = file.read().partition(" ")
            if position < int(at) or (how := how.strip() or "die") not in ORDERS:
                return ""
            os.unlink(path)  # noqa: PTH108 - likewise
        except (OSError, ValueError):  # there is none, or it is not fully written, or another incarnation was first
            return ""
        return how

    async def obey(self, call: Call, position: int, how: str) -> list[dict[str, Any]]:
        """Do as an order or a defect says, having told of the order; returns what is still to be emitted.

        To die is to kill the own process group, which the launcher made for this worker alone.
        """
        if how in ORDERS:
            call.job.log(f"Armed {'death' if how == 'die' else how}", position=position, how=how)
        match how:
            case "die":
                os.killpg(os.getpgid(0), signal.SIGKILL)
            case "dies-silently":
                os._exit(0)
            case "error":
                raise RuntimeError(f"ordered to fail at token {position}")
            case "stall" | "hangs":
                await call.until(FOREVER)
            case "cancelled":
                choices = range(len(call.job.courses))
                return [{"token_ids": [], "index": index, "finish_reason": "cancelled"} for index in choices]
        return []

    def drain(self, runtime: Any) -> None:
        """Tell of it, and let the runtime leave the list, refuse what is new and wait for what is admitted."""
        log("INFO", "Draining", running=len(self.running), waiting=len(self.waiting))
        if self.options.defect == "admits-while-draining":
            self.loop.call_later(ADMITS_S, runtime.shutdown)
        else:
            runtime.shutdown()

    def metrics(self) -> str:
        """The gauges in Prometheus' text format; called from a thread of the runtime when somebody reads them."""
        running, waiting = len(self.running), len(self.waiting)
        labels = f'model_name="{self.options.model_name or self.options.model_path}",engine="0"'
        gauges = (
            ("vllm:num_requests_running", "Requests that hold a slot.", running),
            ("vllm:num_requests_waiting", "Requests that wait for a slot.", waiting),
            ("vllm:kv_cache_usage_perc", "Share of the slots that are held, 0 to 1.", running / self.options.slots),
        )
        form = "# HELP {0} {1}\n# TYPE {0} gauge\n{0}{{{2}}} {3}\n"
        return "".join(form.format(name, told, labels, float(value)) for name, told, value in gauges)


def _stopped(call: Call, context: Any, stop: asyncio.Future[bool]) -> None:
    if not stop.cancelled():
        call.abort("killed" if context.is_killed() else "stopped")


# --- the process ------------------------------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, `sys.argv` unless given."""
    parser = argparse.ArgumentParser(prog="counting-worker", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model-path", required=True, help="directory with tokenizer and configuration")
    parser.add_argument("--model-name", help="name to serve it under (default: the path)")
    parser.add_argument("--endpoint", default="dynamo.backend.generate", help="namespace.component.endpoint")
    parser.add_argument("--migration-limit", type=int, default=0, help="where the registration takes it (before 1.0)")
    parser.add_argument("--pace-ms", type=float, default=5.0, help="least time between two tokens of a request")
    parser.add_argument("--prefill-ms", type=float, default=5.0, help="time before the first token")
    parser.add_argument("--slots", type=int, default=256, help="requests that generate at once")
    parser.add_argument("--armed", metavar="DIR", help="folder of files REQUEST_ID holding POSITION [HOW]: orders")
    parser.add_argument("--context", type=int, default=16384, help="longest prompt and answer together, in tokens")
    parser.add_argument("--defect", choices=("none", *DEFECTS), default="none", help="what shall be wrong with it")
    parser.add_argument("--defect-every", type=int, default=1, metavar="N", help="wrong for one in N requests")
    return parser.parse_args(arguments)


def make_runtime(loop: asyncio.AbstractEventLoop) -> Any:
    """The runtime, with discovery and planes from the environment, as Dynamo's own workers read it."""
    new = importlib.import_module("dynamo.runtime").DistributedRuntime
    discovery = os.environ.get("DYN_DISCOVERY_BACKEND") or os.environ.get("DYN_STORE_KV") or "etcd"
    planes = {"event_plane": os.environ.get("DYN_EVENT_PLANE"), "response_plane": os.environ.get("DYN_RESPONSE_PLANE")}
    extras = {name: plane for name, plane in planes.items() if plane and name in inspect.signature(new).parameters}
    return new(loop, discovery, os.environ.get("DYN_REQUEST_PLANE", "tcp"), **extras)


def make_endpoint(runtime: Any, path: str) -> Any:
    """The endpoint at `namespace.component.endpoint`; before 1.0 it is reached step by step."""
    if hasattr(runtime, "endpoint"):
        return runtime.endpoint(path)
    namespace, component, name = path.split(".")
    return runtime.namespace(namespace).component(component).endpoint(name)


async def register(endpoint: Any, options: argparse.Namespace) -> None:
    """Announce the model, with those arguments that this release takes."""
    llm = importlib.import_module("dynamo.llm")
    announce = getattr(llm, "register_model", None) or llm.register_llm
    config = llm.ModelRuntimeConfig()
    if hasattr(config, "context_length"):
        config.context_length = options.context
    extras = {
        "model_name": options.model_name,
        "context_length": options.context,
        "migration_limit": options.migration_limit,
        "runtime_config": config,
        "worker_type": getattr(getattr(llm, "WorkerType", None), "Aggregated", None),
    }
    accepted = inspect.signature(announce).parameters
    await announce(
        llm.ModelInput.Tokens,
        llm.ModelType.Chat | llm.ModelType.Completions,
        endpoint,
        options.model_path,
        **{name: value for name, value in extras.items() if name in accepted},
    )


def export_metrics(endpoint: Any, engine: Engine) -> None:
    """Have the gauges shown at the worker's system port, where the release lets a worker add some."""
    show = getattr(getattr(endpoint, "metrics", None), "register_prometheus_expfmt_callback", None)
    if show is None:
        log("WARN", "This release lets a worker export no metrics of its own")
    else:
        show(engine.metrics)


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT, and then until the admitted requests are done."""
    loop = asyncio.get_running_loop()
    runtime = make_runtime(loop)

    engine = Engine(options)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, engine.drain, runtime)
    endpoint = make_endpoint(runtime, options.endpoint.removeprefix("dyn://"))
    export_metrics(endpoint, engine)
    await register(endpoint, options)
    log("INFO", "Serving", endpoint=options.endpoint)
    await endpoint.serve_endpoint(engine.generate, graceful_shutdown=True)
    await asyncio.sleep(CLEAN_UP_S)


def main() -> None:
    """Run the worker that the command line describes."""
    importlib.import_module("dynamo.runtime.logging").configure_dynamo_logging()
    asyncio.run(serve(parse_arguments()))


if __name__ == "__main__":
    main()
    os._exit(0)  # the runtime's threads still hold Python objects, and may abort an interpreter that finalises
'''


if __name__ == "__main__":
    main(TITLE, setup(), steps, check())
