"""What is done: a `Step` is frozen and symbolic; a `Plan` of them is all that is needed to run an example again.

Steps name things symbolically ("the worker that serves r3"); the target resolves them when the step runs and the
history says to what. Any subsequence of a plan is a plan: a step whose subject does not exist is void.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

FORMAT: Final = 1
"""Version of the plan file. Raised when a file of the older form can no longer be read as it is."""

SLOTS: Final = 4
"""Worker slots of a cluster; a slot holds one worker at a time, one after the other."""

FRONTENDS: Final = 2
"""Frontends of a cluster at most; likewise."""

WorkerRole = Literal["worker", "prefill"]
"""Workers that answer requests; and prefill workers, which read prompts for them. Each role has slots of its own."""
ROLE_NAMES: Final[dict[WorkerRole, str]] = {"worker": "worker", "prefill": "prefill worker"}
"""How a worker of each role is called in words."""

LADDER_MS: Final = (0, 1, 5, 20, 100)
"""Skews around an anchor. To them come the system's own timeouts, plus and minus a tenth (`timeouts_ms`)."""


# --- anchors: when a step fires ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Now:
    """As soon as the step is reached."""

    on: Literal["now"] = "now"


@dataclass(frozen=True, slots=True)
class Sent:
    """When the request has been sent."""

    request: str
    on: Literal["sent"] = "sent"


@dataclass(frozen=True, slots=True)
class Begun:
    """When a worker has begun the request: a prefill worker, where the cluster has any."""

    request: str
    on: Literal["begun"] = "begun"


@dataclass(frozen=True, slots=True)
class Token:
    """When the client has token k of the request, counted from 1; k = 0 is the first byte of the answer's head."""

    request: str
    k: int
    on: Literal["token"] = "token"


@dataclass(frozen=True, slots=True)
class End:
    """When the request has ended."""

    request: str
    on: Literal["end"] = "end"


@dataclass(frozen=True, slots=True)
class After:
    """When another step of the plan has been done."""

    step: str
    on: Literal["after"] = "after"


@dataclass(frozen=True, slots=True)
class Gone:
    """When the process that another step of the plan was done to has ended."""

    step: str
    on: Literal["gone"] = "gone"


Anchor = Now | Sent | Begun | Token | End | After | Gone


# --- subjects: whom a step concerns -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slot:
    """The worker that lives in this slot, 1 to SLOTS."""

    slot: int
    role: WorkerRole = "worker"
    by: Literal["slot"] = "slot"


@dataclass(frozen=True, slots=True)
class HolderOf:
    """The worker that serves this request when the step fires; of a request that is over, the one that served it last."""

    request: str
    role: WorkerRole = "worker"
    by: Literal["holder"] = "holder"


@dataclass(frozen=True, slots=True)
class NotHolderOf:
    """The living worker of the lowest slot that does not serve this request."""

    request: str
    role: WorkerRole = "worker"
    by: Literal["not-holder"] = "not-holder"


@dataclass(frozen=True, slots=True)
class VictimOf:
    """The worker that another step of the plan was done to, while it lives."""

    step: str
    by: Literal["victim"] = "victim"


Subject = Slot | HolderOf | NotHolderOf | VictimOf


# --- steps ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWorker:
    """Start a worker in an empty slot; on the port of the slot's last one, if it is to come back in its place."""

    name: str
    slot: int
    """1 to SLOTS; 0: the lowest that is empty when the step fires."""
    role: WorkerRole = "worker"
    """Void for prefill workers in a cluster that has none."""
    port: Literal["new", "predecessor"] = "new"
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["start-worker"] = "start-worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class KillWorker:
    """SIGKILL the worker's process group. With an engine that can, at an exact token: the engine takes the anchor."""

    name: str
    worker: Subject
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["kill-worker"] = "kill-worker"


Part = Literal["engine", "rank"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KillEngine:
    """SIGKILL one process inside a worker, whose own process survives at first; void where the engine has none such."""

    name: str
    worker: Subject
    part: Part = "engine"
    """The process that schedules, or one below it that computes."""
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["kill-engine"] = "kill-engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWorker:
    """SIGTERM the worker: it drains."""

    name: str
    worker: Subject
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["stop-worker"] = "stop-worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeWorker:
    """SIGSTOP the worker's process group."""

    name: str
    worker: Subject
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["freeze-worker"] = "freeze-worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThawWorker:
    """SIGCONT the worker's process group."""

    name: str
    worker: Subject
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["thaw-worker"] = "thaw-worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class KillFrontend:
    """SIGKILL a frontend's process group."""

    name: str
    frontend: int = 1
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["kill-frontend"] = "kill-frontend"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopFrontend:
    """SIGTERM a frontend: it drains, and requests through another go on."""

    name: str
    frontend: int = 1
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["stop-frontend"] = "stop-frontend"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFrontend:
    """Start a frontend in the place of one that has ended."""

    name: str
    frontend: int = 1
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["start-frontend"] = "start-frontend"


ServiceName = Literal["etcd", "nats"]
ServiceKind = Literal[
    "kill-etcd", "stop-etcd", "freeze-etcd", "thaw-etcd", "start-etcd",
    "kill-nats", "stop-nats", "freeze-nats", "thaw-nats", "start-nats",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class OnService:
    """Kill, stop, freeze, thaw or start a service that the cluster stands on; started, it has its port and data again.

    Void in a cluster that has no such service.
    """

    name: str
    kind: ServiceKind
    at: Anchor = Now()
    skew_ms: int = 0

    @property
    def deed(self) -> str:
        """What is done: kill, stop, freeze, thaw or start."""
        return self.kind.partition("-")[0]

    @property
    def service(self) -> ServiceName:
        """What it is done to."""
        return service_of(self.kind)


def service_of(kind: ServiceKind) -> ServiceName:
    """The service that a kind of step concerns."""
    return "etcd" if kind.endswith("etcd") else "nats"


EngineFault = Literal["error", "cancelled", "no-finish", "stall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineError:
    """The engine ends a request with an error, as cancelled, or without a finish; or it stalls. At a token of it.

    The engine takes the anchor itself; void with an engine that cannot.
    """

    name: str
    request: str
    how: EngineFault = "error"
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["engine-error"] = "engine-error"


Api = Literal["completion", "chat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Send a request; the step's name is the request's. Does not wait for the answer."""

    name: str
    api: Api = "completion"
    stream: bool = True
    prompt_chars: int = 40
    max_tokens: int = 50
    n: int = 1
    frontend: int = 1
    """Through which frontend; the last, if the cluster has fewer."""
    min_tokens: int = 0
    stop_at: int = 0
    """A stop string that the answer reaches about this token, where the engine's text can be told before; 0: none."""
    guided: bool = False
    """The answer is to follow a JSON schema."""
    logprobs: bool = False
    usage: bool = False
    """A stream tells the usage at its end."""
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["submit"] = "submit"


Wrong = Literal["malformed-json", "unknown-model", "negative-max-tokens", "prompt-too-long"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRequest:
    """Send a request that is the client's fault; the step's name is the request's."""

    name: str
    wrong: Wrong = "malformed-json"
    api: Api = "completion"
    stream: bool = False
    frontend: int = 1
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["bad-request"] = "bad-request"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowReader:
    """The client of a stream stops reading, and goes on later."""

    name: str
    request: str
    pause_ms: int = 2000
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["slow-reader"] = "slow-reader"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """The client leaves.

    `close`: it closes the socket when the step fires; `timeout`: its own deadline does, which runs from the sending, so
    the anchor is `Sent` and the skew is the timeout (1 s in the classic scenario).
    """

    name: str
    request: str
    how: Literal["close", "timeout"] = "close"
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["cancel"] = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """Wait until every request has ended and every armed step has fired or can no longer fire, with a deadline."""

    name: str
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["settle"] = "settle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heal:
    """Undo the active faults: thaw what is frozen, start a process in each of the topology's places that is empty."""

    name: str
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["heal"] = "heal"


Step = (
    StartWorker | KillWorker | KillEngine | StopWorker | FreezeWorker | ThawWorker | KillFrontend | StopFrontend
    | StartFrontend | OnService | EngineError | Submit | BadRequest | Cancel | SlowReader | Settle | Heal
)  # fmt: skip
OnWorker = KillWorker | KillEngine | StopWorker | FreezeWorker | ThawWorker

KINDS: Final[dict[str, type[Step]]] = {
    str(cls.__dataclass_fields__["kind"].default): cls
    for cls in (
        StartWorker, KillWorker, KillEngine, StopWorker, FreezeWorker, ThawWorker, KillFrontend, StopFrontend,
        StartFrontend, EngineError, Submit, BadRequest, Cancel, SlowReader, Settle, Heal,
    )
} | dict.fromkeys(get_args(ServiceKind), OnService)  # fmt: skip
"""Every kind of step by its id, as plans, histories and `ftmodel list steps` name it."""

FAULTS: Final = (
    "kill-worker", "kill-engine", "stop-worker", "freeze-worker", "thaw-worker", "kill-frontend", "stop-frontend",
    "engine-error", *(kind for kind in get_args(ServiceKind) if not kind.startswith("start")),
)  # fmt: skip


def about(kind: str) -> str:
    """What a kind of step is, in a sentence or two."""
    cls = KINDS[kind]
    if cls is not OnService:
        return (cls.__doc__ or "").split("\n\n")[0]
    deed, _, service = kind.partition("-")
    told = {
        "kill": "SIGKILL the cluster's {}.", "stop": "SIGTERM the cluster's {}.", "freeze": "SIGSTOP the cluster's {}.",
        "thaw": "SIGCONT the cluster's {}.", "start": "Start the cluster's {} again: on its port, with its data.",
    }  # fmt: skip
    return told[deed].format({"etcd": "etcd", "nats": "NATS"}[service])


# --- plans ------------------------------------------------------------------------------------------------------

Patience = Literal["short", "long"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The weights by which an example's steps were drawn; 0 leaves a kind out."""

    submit: int = 8
    start_worker: int = 2
    kill_worker: int = 2
    stop_worker: int = 1
    freeze_worker: int = 0
    cancel: int = 3
    settle: int = 1
    heal: int = 0
    bad_request: int = 0
    slow_reader: int = 0
    engine_error: int = 0
    kill_engine: int = 0
    """A process inside a worker is killed."""
    frontend: int = 0
    """A frontend is killed or stopped, or started again."""
    race: int = 0
    storm: int = 0
    restart: int = 0
    """A worker is killed or stopped, and at once back in its place."""
    drain: int = 0
    """A worker that drains gets a second SIGTERM, or SIGKILL."""
    roll: int = 0
    """Every worker is replaced, one by one or all at once."""
    service: int = 0
    """A service that the cluster stands on is killed, stopped or frozen for a while; void where there is none."""
    prefill: int = 0
    """A prefill worker is started, killed, stopped or frozen, or something befalls a request in its prefill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One example, as drawn: the topology's name and its free values, the patience, the mix, and the steps."""

    format: int = FORMAT
    topology: str
    workers: int = 2
    prefill_workers: int = 0
    frontends: int = 1
    migration_limit: int = 3
    patience: Patience = "short"
    mix: Mix = field(default_factory=Mix)
    steps: tuple[Step, ...] = ()


# --- in words ---------------------------------------------------------------------------------------------------


def words(step: Step) -> str:
    """The step as a person would say it, e.g. "kill the worker that serves r3, at token 17 of r3"."""
    return f"{_deed(step)}{_moment(step)}"


def _deed(step: Step) -> str:
    match step:
        case StartWorker() | StartFrontend() | KillFrontend() | StopFrontend():
            return _of_place(step)
        case KillWorker() | StopWorker() | FreezeWorker() | ThawWorker():
            verb = step.kind.partition("-")[0]
            return f"{verb} {_whom(step.worker)} ({_SIGNALS[verb]})"
        case KillEngine():
            part = "engine process" if step.part == "engine" else "rank process of the engine"
            return f"kill the {part} of {_whom(step.worker)} (SIGKILL)"
        case OnService():
            signal = _SIGNALS.get(step.deed)
            return f"{step.deed} {step.service}{f' ({signal})' if signal else ''}"
        case EngineError():
            return f"have the engine fail {step.request} ({step.how})"
        case Submit():
            return f"submit {step.name}: {_asked(step)}"
        case BadRequest():
            how = "streamed" if step.stream else "not streamed"
            return f"submit {step.name}, which is wrong ({step.wrong}): {step.api}, {how}{_through(step.frontend)}"
        case Cancel(how="timeout"):
            return f"cancel {step.request} by a client timeout of {step.skew_ms} ms"
        case Cancel():
            return f"cancel {step.request} by closing the socket"
        case SlowReader():
            return f"the client of {step.request} stops reading for {step.pause_ms} ms"
        case Settle() | Heal():
            return step.kind


_SIGNALS: Final = {"kill": "SIGKILL", "stop": "SIGTERM", "freeze": "SIGSTOP", "thaw": "SIGCONT"}


def _of_place(step: StartWorker | StartFrontend | KillFrontend | StopFrontend) -> str:
    match step:
        case StartWorker():
            again = ", on its predecessor's port" if step.port == "predecessor" else ""
            what = ROLE_NAMES[step.role]
            return f"start a {what} in {f'slot {step.slot}' if step.slot else 'the lowest empty slot'}{again}"
        case StartFrontend():
            return f"start frontend {step.frontend}"
        case KillFrontend():
            return f"kill frontend {step.frontend} (SIGKILL)"
        case StopFrontend():
            return f"stop frontend {step.frontend} (SIGTERM)"


def _asked(step: Submit) -> str:
    parts = [
        step.api,
        "streamed" if step.stream else "not streamed",
        f"{step.prompt_chars} characters",
        f"{step.max_tokens} tokens",
    ]
    parts += [f"n={step.n}"] if step.n != 1 else []
    parts += [f"at least {step.min_tokens} tokens"] if step.min_tokens else []
    parts += [f"a stop string about token {step.stop_at}"] if step.stop_at else []
    parts += [word for word in ("guided", "logprobs", "usage") if getattr(step, word)]
    return ", ".join(parts) + _through(step.frontend)


def _through(frontend: int) -> str:
    return f", through frontend {frontend}" if frontend != 1 else ""


def _whom(subject: Subject) -> str:
    match subject:
        case Slot(role="prefill"):
            return f"prefill worker {subject.slot}"
        case HolderOf(role="prefill"):
            return f"the prefill worker of {subject.request}"
        case NotHolderOf(role="prefill"):
            return f"a prefill worker that does not have {subject.request}"
        case Slot():
            return f"worker {subject.slot}"
        case HolderOf():
            return f"the worker that serves {subject.request}"
        case NotHolderOf():
            return f"a worker that does not serve {subject.request}"
        case VictimOf():
            return f"the worker of {subject.step}"


def _moment(step: Step) -> str:
    if isinstance(step, Cancel) and step.how == "timeout":
        return ""
    later = f" + {step.skew_ms} ms" if step.skew_ms else ""
    match step.at:
        case Now():
            return f", {step.skew_ms} ms later" if step.skew_ms else ""
        case Sent(request):
            return f", when {request} is sent{later}"
        case Begun(request):
            return f", when a worker has begun {request}{later}"
        case Token(request, 0):
            return f", at the first byte of {request}{later}"
        case Token(request, k):
            return f", at token {k} of {request}{later}"
        case End(request):
            return f", when {request} has ended{later}"
        case After(other):
            return f", after {other}{later}"
        case Gone(other):
            return f", when the process of {other} has ended{later}"
