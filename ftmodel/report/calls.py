"""The steps of a plan as calls of a script's `Trial`, one a line, to be read as the plan is."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, Final

from ftmodel import engines
from ftmodel.engines import Engine
from ftmodel.invariants.ledger import Ledger
from ftmodel.report.case import Case
from ftmodel.steps import (
    After,
    Anchor,
    BadRequest,
    Begun,
    Cancel,
    End,
    EngineError,
    FreezeWorker,
    Gone,
    Heal,
    HolderOf,
    KillFrontend,
    KillWorker,
    NotHolderOf,
    Now,
    OnService,
    Sent,
    Settle,
    Slot,
    SlowReader,
    StartFrontend,
    StartWorker,
    Step,
    StopFrontend,
    StopWorker,
    Subject,
    Submit,
    ThawWorker,
    Token,
    VictimOf,
)
from ftmodel.targets.real.requests import asked, bad

MODULE: Final = "ftmodel.report.runtime.trial"
_MODEL: Final = "{model}"


class UntoldError(Exception):
    """The plan has a step that no script can do."""


def calls(case: Case, engine: Engine) -> Iterator[tuple[str, set[str]]]:
    """Each step as a call of `trial`, with the names that it uses of its module. Raises UntoldError."""
    for step in case.shown.plan.steps:
        call = _call(step, case.shown.ledger, engine)
        if call is not None:
            what, arguments, used = call
            moment, anchor = _moment(step, timed=what in ("kill_at_token", "engine_error", "settle"))
            yield f"trial.{what}({', '.join([repr(step.name), *arguments, *moment])})", used | anchor


def request_id(name: str, ledger: Ledger) -> str:
    """The id that a request had: with the same one an engine whose text is a function of it says the same again."""
    sent = ledger.requests.get(name)
    return sent.sent.id if sent else str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def _call(step: Step, ledger: Ledger, engine: Engine) -> tuple[str, list[str], set[str]] | None:
    """Method, arguments, names used; None for a step that does nothing with this engine."""
    match step:
        case Submit() | BadRequest():
            return _request(step, ledger, engine)
        case Cancel():
            return "cancel", [repr(step.request)], set()
        case SlowReader():
            return "slow_reader", [repr(step.request), f"pause_ms={step.pause_ms}"], set()
        case EngineError() | KillWorker() if (k := _ordered(step, engine)) is not None:
            if isinstance(step, EngineError):
                return "engine_error", [repr(step.request), f"{k}", repr(step.how)], set()
            assert isinstance(step.at, Token)
            return "kill_at_token", [repr(step.at.request), f"{k}"], set()
        case EngineError():
            return None
        case Settle() | Heal():
            return step.kind, [], set()
        case _:
            return _to_process(step)


def _to_process(step: Step) -> tuple[str, list[str], set[str]]:
    match step:
        case KillWorker() | StopWorker() | FreezeWorker() | ThawWorker():
            whom, used = _whom(step.worker)
            return step.kind.partition("-")[0], [whom], used
        case KillFrontend() | StopFrontend() | StartFrontend():
            return "on", [repr(step.kind.partition("-")[0]), "'frontend'", f"{step.frontend}"], set()
        case OnService():
            return "on", [repr(step.deed), repr(step.service)], set()
        case StartWorker():
            role = [f"role={step.role!r}"] if step.role != "worker" else []
            return "start", [f"{step.slot}", *role, *(["again=True"] if step.port == "predecessor" else [])], set()
        case _:
            raise UntoldError(f"step {step.name} ({step.kind}) is none that a script can do")


def _ordered(step: EngineError | KillWorker, engine: Engine) -> int | None:
    """The token at which the engine itself does it, if it can."""
    at = step.at
    if not engine.arms or not isinstance(at, Token) or at.k == 0 or step.skew_ms:
        return None
    mine = step.request == at.request if isinstance(step, EngineError) else step.worker == HolderOf(at.request)
    return at.k if mine else None


def _request(step: Submit | BadRequest, ledger: Ledger, engine: Engine) -> tuple[str, list[str], set[str]] | None:
    sent = ledger.requests.get(step.name)
    plain = bad(step) if isinstance(step, BadRequest) else step
    wrong = step.wrong if isinstance(step, BadRequest) else ""
    if wrong == "prompt-too-long" and not engine.context_tokens:
        return None
    id_ = request_id(step.name, ledger)
    stop = sent.sent.stop if sent else ()
    if plain.stop_at and not stop and engine.stop is not None:
        stop = (engine.stop(f"request {step.name} {id_[:8]}:", plain.stop_at),)
    ask: dict[str, Any] = asked(plain, _MODEL, "", stop)
    for key in ("model", "prompt", "messages", "stream"):
        ask.pop(key, None)
    if wrong == "unknown-model":
        ask["model"] = "no-such-model"
    elif wrong == "negative-max-tokens":
        ask["max_tokens"] = -1
    arguments = [f"id={id_!r}"]
    arguments += [f"api={plain.api!r}"] if plain.api != "completion" else []
    arguments += ["stream=False"] if not plain.stream else []
    arguments += [f"chars={plain.prompt_chars}"] if plain.prompt_chars != 40 else []
    arguments += [f"frontend={plain.frontend}"] if plain.frontend != 1 else []
    arguments += ['raw=\'{"model": "\''] if wrong == "malformed-json" else []
    return "submit", [*arguments, f"ask={ask!r}"], set()


def _whom(subject: Subject) -> tuple[str, set[str]]:
    prefills = not isinstance(subject, VictimOf) and subject.role == "prefill"
    role = ", 'prefill'" if prefills else ""
    match subject:
        case Slot():
            return f"slot({subject.slot}{role})", {"slot"}
        case HolderOf():
            return f"holder_of({subject.request!r}{role})", {"holder_of"}
        case NotHolderOf():
            return f"not_holder_of({subject.request!r}{role})", {"not_holder_of"}
        case VictimOf():
            return f"victim_of({subject.step!r})", {"victim_of"}


def _moment(step: Step, *, timed: bool) -> tuple[list[str], set[str]]:
    if timed:
        return [], set()
    anchor, used = _anchor(step.at)
    parts = [f"at={anchor}"] if anchor else []
    return parts + ([f"skew_ms={step.skew_ms}"] if step.skew_ms else []), used


def _anchor(at: Anchor) -> tuple[str, set[str]]:
    match at:
        case Now():
            return "", set()
        case Token():
            return f"token({at.request!r}, {at.k})", {"token"}
        case Sent() | Begun() | End():
            return f"{at.on}({at.request!r})", {at.on}
        case After() | Gone():
            return f"{at.on}({at.step!r})", {at.on}


def engine_of(case: Case) -> Engine:
    """The engine of the run that is shown."""
    return engines.of(case.shown.topology)
