"""A Dynamo worker whose tokens tell request and position, so that one lost, doubled or foreign token shows in the text.

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
