"""Which check of a script shows a signature; of those that no script can see, why."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from ftmodel.engines.counting.worker import text, text_until_stop
from ftmodel.invariants.duty import completion
from ftmodel.invariants.records import Request
from ftmodel.invariants.resources import BOOKKEEPING, GAUGES
from ftmodel.report.case import Case
from ftmodel.report.runtime.checks import PROBES
from ftmodel.steps import BadRequest, Cancel, Submit

MODULE: Final = "ftmodel.report.runtime.checks"
_EXPECTED: Final = re.compile(r"expected (?:at least )?(\d+)(?: to (\d+))?")


def check(case: Case) -> tuple[str, str] | None:
    """The call that makes the check, and the name of what is called; None if a script cannot see this signature."""
    finding = case.finding
    assert finding is not None
    ways = (_completion, _answer, _cancel, _engine, _process)
    found = next((found for way in ways if (found := way(case, finding.signature)) is not None), None)
    if found is None:
        return None
    name, arguments, named = found
    requests = case.shown.ledger.requests
    told = dict.fromkeys(PROBES if one in requests and requests[one].sent.probe else one for one in arguments)
    words = [*map(repr, told), *(f"{key}={value!r}" for key, value in named.items())]
    return f"{name}({', '.join(words)})", name


_Found = tuple[str, Iterable[str], dict[str, Any]] | None


def _completion(case: Case, signature: str) -> _Found:
    """Whether a request came to its end, and to which."""
    invariant, _, slug = signature.partition("/")
    must, subjects = _owed(case), _subjects(case)
    match invariant, slug:
        case "L2", "completed":
            return "answered", subjects, {}
        case "L2", "status-other":
            return "failed", must, {}
        case "L2", _ if slug.startswith("status-"):
            return "status", must, {"got": int(slug.removeprefix("status-"))}
        case "L2", _:
            return slug.replace("-", "_"), must, {}
        case "L1", _:
            return "never_ended", _plain(case), {}
        case "L3", _:
            return "gap", must, {"bound_s": case.shown.ledger.setting.bounds.hang_bound_s}
        case _:
            return None


def _answer(case: Case, signature: str) -> _Found:
    """What an answer holds."""
    invariant, _, slug = signature.partition("/")
    must, subjects = _owed(case), _subjects(case)
    match invariant, slug:
        case "P1", "cut" | "looks-whole":
            return "grammar", must, {"slug": slug}
        case "P1", _:
            return "grammar", _plain(case), {"slug": slug}
        case "P2", "refused-in-stream":
            return "error_in_stream", subjects, {}
        case "P2", "server-blamed" | "wrong-refusal" | "client-blamed" | "empty-list-500":
            return "status", subjects, {"got": _first(case).status}
        case "P3", "id" | "model":
            return "foreign", _plain(case), {"what": slug}
        case "P5", _:
            return "usage", subjects[:1], {"what": slug, "prompt": _first(case).sent.prompt_tokens}
        case ("T1", _) | ("T4", _):
            return _text(case, exact=invariant == "T4")
        case "T2", "short" | "long" | "finish-reason":
            return "length", _plain(case), {"slug": slug}
        case _:
            return None


def _text(case: Case, *, exact: bool) -> _Found:
    sent = _first(case).sent
    if not case.shown.ledger.setting.exact_text or sent.n != 1:
        return None
    key = sent.key.encode()
    whole = text_until_stop(key, sent.max_tokens, sent.stop) if sent.stop else text(key, 0, sent.max_tokens)
    return "text_differs", [sent.request], {"expected": whole, "exact": exact}


def _cancel(case: Case, signature: str) -> _Found:
    """What logs and counters tell of cancels."""
    subjects = _subjects(case)
    match signature.split("/"):
        case ["A1", "missing"]:
            return "never_aborted", subjects, {}
        case ["A1", "late"]:
            return "late", subjects, {"meaning": "aborted"}
        case ["A3", "ran-on"]:
            return "late", subjects, {"meaning": "ended"}
        case ["M5", "begun-after-cancel"]:
            return "late", subjects, {"meaning": "begun"}
        case ["A3", "still-running"]:
            return "still_running", (), {}
        case ["A1", "counter" | "counter-low" | "counter-high"]:
            return _counter(case)
        case ["A1", "no-kill"]:
            least, _ = _expected(case)
            return "few_kills", (), {"frontend": _title(case), "least": least}
        case ["A2", "uncancelled"] | ["A4", _]:
            return "aborted_unasked", [name for name in _plain(case) if name not in _left(case)], {}
        case _:
            return None


def _engine(case: Case, signature: str) -> _Found:
    """What they tell of migrations and of requests."""
    subjects, limit = _subjects(case), case.shown.plan.migration_limit
    match signature.split("/"):
        case ["M1", "over-limit"]:
            return "begun_more", subjects, {"most": limit + 1}
        case ["M3", "second-worker" | "beyond-length"]:
            return "begun_more", subjects, {"most": 1}
        case ["M3", "answered"]:
            return "answered", subjects, {}
        case ["O2", _] | ["O1", "wrong-status"]:
            return "counted_success", (), {}
        case ["O3", "negative"]:
            return "negative", (), {}
        case _:
            return None


def _counter(case: Case) -> _Found:
    """The cancellation counter of a frontend, or of the workers together: a fresh cluster may place requests otherwise."""
    finding, ledger = case.finding, case.shown.ledger
    assert finding is not None
    title = _title(case)
    process = ledger.processes.get(title)
    counted = ledger.counted(title, "cancellations")
    if process is None or counted is None:
        return None
    least, most = _expected(case)
    here = ledger.served.get(title, {})
    mine = [r for r in ledger.requests.values() if title == r.sent.frontend or r.sent.id in here]
    left = sum(request.closed is not None for request in mine)
    role = process.started.role
    bounds = {"high": True, "spare": max(0, most - left)} if counted > most else {"high": False, "least": least}
    return "counted", (), {"metric": "cancellations", "role": role, **bounds}


def _process(case: Case, signature: str) -> _Found:
    """What processes do, say of themselves and leave behind."""
    invariant, _, slug = signature.partition("/")
    bounds = case.shown.ledger.setting.bounds
    match invariant, slug:
        case ("R5", "exited") | ("C3", "ended"):
            return "exited", ("frontend", "worker", "prefill"), {}
        case "R5", _:
            return "log_line", (), {"meaning": slug}
        case "R3", _:
            return "orphan", (), {}
        case ("R1", _) | ("R2", _):
            tables = GAUGES if invariant == "R1" else BOOKKEEPING
            found = [(role, name) for role, names in tables.items() for name, own in names.items() if own == slug]
            return "gauge_left", (), {"metric": found[0][1], "role": found[0][0]}
        case "C4", "live-draining" | "health-draining":
            page = slug.partition("-")[0]
            return "health", (), {"role": "frontend", "page": page, "draining": True, "bound_s": 0.0}
        case "C4", _:
            role, _, page = slug.partition("-")
            return "health", (), {"role": role, "page": page, "draining": False, "bound_s": bounds.detect_bound_s}
        case "C5", "drops-work":
            return "failed", _subjects(case), {}
        case "C5", "never-exits":
            return "never_exits", (), {"bound_s": bounds.exit_bound_s}
        case _:
            return None


# --- of whom


def _subjects(case: Case) -> list[str]:
    """The requests that findings of this signature are about, or that they name."""
    ledger, signature = case.shown.ledger, case.finding.signature if case.finding else ""
    same = [finding for finding in case.shown.findings if finding.signature == signature]
    own = [finding.subject for finding in same if finding.subject in ledger.requests]
    return own or ([case.request.name] if case.request else [])


def _first(case: Case) -> Request:
    return case.shown.ledger.requests[_subjects(case)[0]]


def _plain(case: Case) -> list[str]:
    """The requests that are not wrong."""
    return [step.name for step in case.shown.plan.steps if isinstance(step, Submit)]


def _left(case: Case) -> set[str]:
    return {step.request for step in case.shown.plan.steps if isinstance(step, Cancel)}


def _owed(case: Case) -> list[str]:
    """The subjects, and the requests that must complete: on a fresh cluster it may hit another one."""
    ledger = case.shown.ledger
    wrong = {step.name for step in case.shown.plan.steps if isinstance(step, BadRequest)}
    must = [
        name
        for name, request in ledger.requests.items()
        if not request.sent.probe and name not in wrong and request.closed is None
        if completion(ledger, request).value == "must"
    ]
    return list(dict.fromkeys([*_subjects(case), *must]))


def _title(case: Case) -> str:
    """The process that the finding is about."""
    assert case.finding is not None
    return case.finding.subject.split()[0]


def _expected(case: Case) -> tuple[int, int]:
    """What a counter was expected to be, at least and at most, as the finding says."""
    assert case.finding is not None
    found = _EXPECTED.search(case.finding.message)
    if found is None:
        return 0, 0
    return int(found[1]), int(found[2] or found[1])
