"""What happened: one append-only list of events, merged from clients, processes, logs, metrics and faults.

Every event carries an interval [before_s, after_s] on one clock: the machine's monotonic clock, in seconds since the
example began. What surely happened before something else is told by the ends of the intervals (`surely_before`).
Judging needs a history and nothing else, so its first event, `Setting`, says what the cluster was and what it promises.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ftmodel.bounds import Bounds
from ftmodel.errors import StoreError

FORMAT: Final = 1
"""Version of history.jsonl, told by its first line."""


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


# --- the frame --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the system owes, as far as judging needs it (`ftmodel.systems.Promises` has the sources)."""

    recovery: Literal["none", "retry", "migrate"]
    limit: int
    """Migrations or retries of one request at most."""
    shun_s: float
    """How long a failed worker is shunned after the last change of the list; it is forgotten at every change."""
    broken_stream: tuple[str, ...]
    """How a stream that cannot be finished ends, in order: "error", "done"."""
    max_length: int = 0
    """A request of more tokens, prompt and answer together, is not migrated; 0: there is no such bound."""
    grace_s: float = 0.0
    """A worker that was asked to stop has so long before what it holds may be cut off."""
    serves_on_s: float = 0.0
    """The first part of `grace_s`, in which it still serves; then it drains. 0: not known."""
    request_timeout_s: float = 0.0
    """An attempt on a worker that does not answer lasts so long; 0: not known."""
    frontend_drain_s: float = 0.0
    """What a frontend that was asked to stop has admitted may go on so long; 0: not known."""
    outage_s: float = 0.0
    """An outage of the control plane that is surely shorter ends no process; 0: it is no service that can fail."""


SIMULATED: Final = "simulated"
"""The version of what no release is: no known issue is one of its."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The first event: what was run, what it promises, and what the control run proved and measured."""

    at: Interval
    system: str
    version: str
    engine: str
    topology: str
    discovery: str
    request_plane: str
    workers: int
    promise: Promise
    bounds: Bounds
    patience: str
    pace_s: float
    """Mean gap between two tokens of a request, from the control run."""
    pace_min_s: float
    """The least time a token takes, as a rate over the fastest run of tokens seen; 0 if it was not measured."""
    slots: int
    """Requests that one worker generates for at once."""
    exact_text: bool
    """The engine's text is a function of request and position."""
    token_chars: int
    """Characters of a token's text where each token has as many (the mocker's words); 0 where they vary."""
    engine_ids: bool
    """The engine logs the begin, end and abort of each request by its id."""
    cache_tokens: int = 0
    """KV blocks of a worker, in tokens: a request that needs more never fits; 0: not known."""
    block_tokens: int = 0
    """Tokens of a KV block; 0: not known."""
    admits_share: float = 1.0
    """A worker that has this share of its KV blocks in use is offered nothing more."""
    guides: bool = False
    """The engine heeds guided decoding: such an answer may end by itself, and its tokens have any text."""
    prefill_workers: int = 0
    """Of a disaggregated cluster: workers that read prompts, which `workers` then answer."""
    first_token_s: float = 0.0
    """The longest wait for a first token in the control run: what reading a prompt takes. 0: it was not measured."""
    prefill_min_s: float = 0.0
    """The shortest one: the least that reading a prompt takes."""
    frontends: int = 1
    router_mode: str = "round-robin"
    variant: Literal["as-drawn", "without-faults", "one-more-worker"] = "as-drawn"
    """Of a plan that is run again to be compared: what was changed of it."""
    completed: tuple[str, ...] = ()
    """Of such a run: the requests that completed each time the plan was run as drawn."""
    proven: tuple[str, ...] = ()
    """Log meanings seen at least once in control and calibration; what rests on the absence of another is unknown."""
    kind: Literal["setting"] = "setting"

    @property
    def simulated(self) -> bool:
        """The cluster has no processes."""
        return self.version == SIMULATED


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A stage of the example: `ready`, `steps-done`, `heal`, `healed`, `rest`, `closed`."""

    at: Interval
    stage: Literal["ready", "steps-done", "heal", "healed", "rest", "closed"]
    kind: Literal["mark"] = "mark"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """A step was done; `subject` says to what it was resolved."""

    at: Interval
    step: str
    deed: str
    subject: str = ""
    kind: Literal["step-done"] = "step-done"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepVoid:
    """A step was not done: its subject did not exist, its anchor never came, or the fault was not verified."""

    at: Interval
    step: str
    deed: str
    why: str
    kind: Literal["step-void"] = "step-void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """The tester or its warden was not scheduled in this interval: bounds that overlap it prove little."""

    at: Interval
    who: str
    kind: Literal["stall"] = "stall"


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessFailed:
    """The tester could not go on: what this history shows is neither a pass nor a finding."""

    at: Interval
    why: str
    kind: Literal["harness-failed"] = "harness-failed"


# --- processes and faults ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A process was started. `title` names the incarnation (one life of a process): w1, then w1-2, ...; p1 prefills."""

    at: Interval
    title: str
    role: Literal["frontend", "worker", "prefill", "service"]
    slot: int
    pid: int
    port: int = 0
    """On which other processes reach it; 0: not known."""
    kind: Literal["started"] = "started"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """A process ended by itself or by a fault: exit code, or the signal that ended it."""

    at: Interval
    title: str
    code: int | None
    signal: int | None
    kind: Literal["exited"] = "exited"


Fault = Literal[
    "kill-worker", "kill-engine", "stop-worker", "freeze-worker", "thaw-worker", "kill-frontend", "stop-frontend",
    "kill-etcd", "stop-etcd", "freeze-etcd", "thaw-etcd", "kill-nats", "stop-nats", "freeze-nats", "thaw-nats",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultMade:
    """A fault hit an incarnation. Verified: the process was seen gone, or stopped, or going on, after it.

    `kill-engine` hits a process below the worker's own, which lives on at first: its end is told by itself.
    """

    at: Interval
    fault: Fault
    title: str
    step: str
    verified: bool
    kind: Literal["fault"] = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineErred:
    """An engine failed a request as the tester told it to: no fault of the worker, which serves on."""

    at: Interval
    request: str
    title: str
    how: Literal["error", "cancelled", "no-finish", "stall"]
    step: str
    kind: Literal["engine-erred"] = "engine-erred"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a process says of its own health: the statuses of its two endpoints; 0 where it did not answer.

    Of a service: 200 on both, once, when it serves.
    """

    at: Interval
    title: str
    health: int
    live: int
    kind: Literal["told"] = "told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A frontend's instance list, as asked: the titles of the incarnations on it, and ids of none that is known."""

    at: Interval
    frontend: str
    titles: tuple[str, ...]
    strangers: tuple[str, ...] = ()
    models: bool = True
    """The model was in the frontend's list of models."""
    kind: Literal["listed"] = "listed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An incarnation has answered a request of the tester's through this frontend: it can be a witness."""

    at: Interval
    frontend: str
    title: str
    kind: Literal["answered"] = "answered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """It became known under which id an incarnation is on the frontends' lists and in their logs."""

    at: Interval
    title: str
    identity: str
    kind: Literal["identified"] = "identified"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOver:
    """Processes of the cluster that still lived when none should: `by` is the command line, `of` whose they were."""

    at: Interval
    of: str
    pids: tuple[int, ...]
    by: str
    kind: Literal["left-over"] = "left-over"


# --- clients ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSent:
    """A client began to send a request. `id` is the tester's own, which becomes the system's."""

    at: Interval
    request: str
    id: str
    frontend: str
    api: Literal["completion", "chat"]
    stream: bool
    prompt_tokens: int
    max_tokens: int
    n: int
    key: str
    """The key line of the prompt, of which the counting engine's text is a function."""
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    """Stop strings, at the first of which the answer ends."""
    guided: bool = False
    logprobs: bool = False
    usage: bool = False
    """A stream was asked to tell the usage at its end."""
    wrong: str = ""
    """What is wrong with it, if it is the client's fault (the kinds of a bad-request step)."""
    probe: bool = False
    """The tester's own, to see that a worker answers: judged as any other, counted apart."""
    kind: Literal["request-sent"] = "request-sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseBegun:
    """The head of the answer arrived."""

    at: Interval
    request: str
    status: int
    kind: Literal["response-begun"] = "response-begun"


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
class Received:
    """A burst: what one read of the socket held. Of an answer that is not streamed, its one body, taken apart."""

    at: Interval
    request: str
    items: tuple[Item, ...]
    kind: Literal["received"] = "received"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnded:
    """The answer's body was read to its end (`eof`), or the connection broke (`cut`) or never was (`refused`).

    A client that closes the socket itself has a `ClientClosed` instead, and knows nothing more.
    """

    at: Interval
    request: str
    how: Literal["eof", "cut", "refused"]
    detail: str = ""
    kind: Literal["request-ended"] = "request-ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientClosed:
    """The client closed the socket before the body's end."""

    at: Interval
    request: str
    how: Literal["close", "timeout"]
    kind: Literal["client-closed"] = "client-closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderPaused:
    """The client read nothing in this interval, by its own will."""

    at: Interval
    request: str
    kind: Literal["reader-paused"] = "reader-paused"


# --- logs and metrics -------------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Metrics of one process, read at once, by ftmodel's own names (`ftmodel.systems.METRICS`); absent: not exported."""

    at: Interval
    title: str
    values: dict[str, float]
    kind: Literal["sample"] = "sample"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one process used, while no request was open."""

    at: Interval
    title: str
    requests: int
    """That clients had sent so far, to the whole cluster."""
    memory: int
    """Bytes of its own that were resident."""
    fds: int
    sockets: int
    threads: int
    children: int
    kind: Literal["usage"] = "usage"


Event = (
    Setting | Mark | StepDone | StepVoid | Stall | HarnessFailed | Started | Exited | FaultMade | EngineErred
    | Told | Listed | Answered | Identified | LeftOver | RequestSent | ResponseBegun | Received | RequestEnded
    | ClientClosed | ReaderPaused | LogLine | Sample | Usage
)  # fmt: skip

_KINDS: Final[dict[str, type[Any]]] = {
    str(cls.__dataclass_fields__["kind"].default): cls
    for cls in (
        Setting, Mark, StepDone, StepVoid, Stall, HarnessFailed, Started, Exited, FaultMade, EngineErred, Told, Listed,
        Answered, Identified, LeftOver, RequestSent, ResponseBegun, Received, RequestEnded, ClientClosed, ReaderPaused,
        LogLine, Sample, Usage,
    )
}  # fmt: skip


class History:
    """The events of one example, in the order in which the tester learned of them."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._events: list[Event] = list(events)

    def push(self, event: Event) -> None:
        """Append an event."""
        self._events.append(event)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, index: int) -> Event:
        return self._events[index]


# --- as JSON lines ----------------------------------------------------------------------------------------------


def write(history: Iterable[Event], path: Path) -> None:
    """Write history.jsonl. Raises OSError (a full disk), which the store turns into a StoreError."""
    with path.open("w", encoding="utf-8", errors="surrogatepass") as file:  # an answer may hold half a character
        file.write(json.dumps({"history": FORMAT}) + "\n")
        for event in history:
            file.write(json.dumps(_plain(event), separators=(",", ":"), ensure_ascii=False) + "\n")


def read(path: Path) -> Iterator[Event]:
    """Stream the events of history.jsonl. Raises StoreError for a missing file, a newer format or a broken line."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: expected the history of an example") from None
    with file:
        head = file.readline()
        try:
            version = json.loads(head)["history"]
        except (ValueError, KeyError, TypeError):
            raise StoreError(f'{path}: line 1: got {_shown(head)}, expected {{"history": {FORMAT}}}') from None
        if version != FORMAT:
            raise StoreError(
                f"{path}: history format {version!r}, expected {FORMAT}: written by another ftmodel;"
                " try: pip install --upgrade ftmodel"
            )
        for number, line in enumerate(file, start=2):
            try:
                event = _event(json.loads(line.decode("utf-8", "surrogatepass")))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise StoreError(f"{path}: line {number}: got {_shown(line)}, expected an event: {error!r}") from None
            yield event


def _shown(line: bytes) -> str:
    return repr(line[:60].decode("utf-8", "replace"))


def _plain(event: Event) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": event.kind, "at": [round(event.at.before_s, 6), round(event.at.after_s, 6)]}
    for name in event.__dataclass_fields__:
        if name not in ("kind", "at"):
            row[name] = _value(getattr(event, name))
    return row


def _value(value: Any) -> Any:
    if isinstance(value, Item):
        return [value.what, value.value, value.choice, value.count, value.answer_id, value.model]
    if isinstance(value, tuple):
        return [_value(part) for part in value]
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _event(row: dict[str, Any]) -> Event:
    cls = _KINDS[row.pop("kind")]
    row["at"] = Interval(*row["at"])
    if cls is Received:
        row["items"] = tuple(Item(*item) for item in row["items"])
    elif cls is Setting:
        row["promise"] = Promise(**{**row["promise"], "broken_stream": tuple(row["promise"]["broken_stream"])})
        row["bounds"] = Bounds(**row["bounds"])
    for name, value in row.items():
        if isinstance(value, list):
            row[name] = tuple(value)
    event: Event = cls(**row)
    return event
