"""What is done: a `Step` is frozen and symbolic; a `Plan` of them is all that is needed to run an example again.

Steps name things symbolically ("the worker that serves r3"); the target resolves them when the step runs and the
history says to what. Any subsequence of a plan is a plan: a step whose subject does not exist is void.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

FORMAT: Final = 1
"""Version of the plan file. Raised when a file of the older form can no longer be read as it is."""

SLOTS: Final = 4
"""Worker slots of a cluster; a slot holds one worker at a time, one after the other."""

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


Anchor = Now | Sent | Token | End | After


# --- subjects: whom a step concerns -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slot:
    """The worker that lives in this slot, 1 to SLOTS."""

    slot: int
    by: Literal["slot"] = "slot"


@dataclass(frozen=True, slots=True)
class HolderOf:
    """The worker that serves this request when the step fires."""

    request: str
    by: Literal["holder"] = "holder"


@dataclass(frozen=True, slots=True)
class NotHolderOf:
    """The living worker of the lowest slot that does not serve this request."""

    request: str
    by: Literal["not-holder"] = "not-holder"


Subject = Slot | HolderOf | NotHolderOf


# --- steps ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWorker:
    """Start a worker in an empty slot."""

    name: str
    slot: int
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
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["submit"] = "submit"


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
    """Undo the active faults: thaw what is frozen, start a worker in each of the topology's slots that is empty."""

    name: str
    at: Anchor = Now()
    skew_ms: int = 0
    kind: Literal["heal"] = "heal"


Step = StartWorker | KillWorker | StopWorker | FreezeWorker | ThawWorker | Submit | Cancel | Settle | Heal
Fault = KillWorker | StopWorker | FreezeWorker | ThawWorker

KINDS: Final[dict[str, type[Step]]] = {
    str(cls.__dataclass_fields__["kind"].default): cls
    for cls in (StartWorker, KillWorker, StopWorker, FreezeWorker, ThawWorker, Submit, Cancel, Settle, Heal)
}
"""Every kind of step by its id, as plans, histories and `ftmodel list steps` name it."""

FAULTS: Final = ("kill-worker", "stop-worker", "freeze-worker", "thaw-worker")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One example, as drawn: the topology's name and its free values, the patience, the mix, and the steps."""

    format: int = FORMAT
    topology: str
    workers: int = 2
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
        case StartWorker():
            return f"start a worker in slot {step.slot}"
        case KillWorker():
            return f"kill {_whom(step.worker)} (SIGKILL)"
        case StopWorker():
            return f"stop {_whom(step.worker)} (SIGTERM)"
        case FreezeWorker():
            return f"freeze {_whom(step.worker)} (SIGSTOP)"
        case ThawWorker():
            return f"thaw {_whom(step.worker)} (SIGCONT)"
        case Submit():
            how = "streamed" if step.stream else "not streamed"
            choices = f", n={step.n}" if step.n != 1 else ""
            return (
                f"submit {step.name}: {step.api}, {how}, {step.prompt_chars} characters,"
                f" {step.max_tokens} tokens{choices}"
            )
        case Cancel(how="timeout"):
            return f"cancel {step.request} by a client timeout of {step.skew_ms} ms"
        case Cancel():
            return f"cancel {step.request} by closing the socket"
        case Settle():
            return "settle"
        case Heal():
            return "heal"


def _whom(subject: Subject) -> str:
    match subject:
        case Slot():
            return f"worker {subject.slot}"
        case HolderOf():
            return f"the worker that serves {subject.request}"
        case NotHolderOf():
            return f"a worker that does not serve {subject.request}"


def _moment(step: Step) -> str:
    if isinstance(step, Cancel) and step.how == "timeout":
        return ""
    later = f" + {step.skew_ms} ms" if step.skew_ms else ""
    match step.at:
        case Now():
            return f", {step.skew_ms} ms later" if step.skew_ms else ""
        case Sent(request):
            return f", when {request} is sent{later}"
        case Token(request, 0):
            return f", at the first byte of {request}{later}"
        case Token(request, k):
            return f", at token {k} of {request}{later}"
        case End(request):
            return f", when {request} has ended{later}"
        case After(other):
            return f", after {other}{later}"
