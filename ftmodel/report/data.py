"""What a page draws: lanes, events, bands of faults, tokens and gauges of one run, as plain JSON values.

Times are seconds of the example. A list stands for a record where there are thousands of them; each says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from ftmodel import engines
from ftmodel.history import (
    Answered,
    ClientClosed,
    EngineErred,
    Event,
    Exited,
    FaultMade,
    HarnessFailed,
    Identified,
    LeftOver,
    Listed,
    LogLine,
    Mark,
    ReaderPaused,
    Received,
    RequestEnded,
    RequestSent,
    ResponseBegun,
    Sample,
    Setting,
    Stall,
    Started,
    StepDone,
    StepVoid,
    Told,
    Usage,
)
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Incarnation, Request
from ftmodel.report.case import Case, Execution

GAUGES: Final = (
    ("inflight", "in flight", "requests"),
    ("running", "running", "requests"),
    ("waiting", "waiting in the engine", "requests"),
    ("kv", "KV cache in use", "share"),
)
"""Of each gauge that is drawn: ftmodel's own name, its title, and its unit."""
TESTER: Final = "tester"
PROBES: Final = "probes"
_ROLES: Final = ("request", "frontend", "worker", "prefill", "service", "tester")


@dataclass(slots=True)
class Lane:
    """One row of the timeline: a request, a place for processes one after the other, or the tester itself."""

    label: str
    kind: str
    bars: list[list[Any]] = field(default_factory=list)
    """From, to, class, words."""


class Lanes:
    """The rows, and which event belongs to which."""

    def __init__(self, ledger: Ledger) -> None:
        self._rows: dict[str, Lane] = {}
        self._of: dict[str, str] = {}
        for request in ledger.requests.values():
            label = PROBES if request.sent.probe else request.name
            self._of[request.name] = label
            self._rows.setdefault(label, Lane(label, "request"))
        for process in ledger.processes.values():
            label = _place(process)
            self._of[process.title] = label
            self._rows.setdefault(label, Lane(label, process.started.role))
        self._rows[TESTER] = Lane(TESTER, "tester")
        order = {label: i for i, label in enumerate(self._rows)}
        ranked = sorted(
            self._rows, key=lambda label: (_ROLES.index(self._rows[label].kind), label == PROBES, order[label])
        )
        self._rows = {label: self._rows[label] for label in ranked}
        self._number = {label: i for i, label in enumerate(self._rows)}

    @property
    def rows(self) -> list[Lane]:
        """In the order in which they are drawn."""
        return list(self._rows.values())

    def number(self, subject: str) -> int:
        """The row of a request or of a process, by its name."""
        return self._number[self._of.get(subject, TESTER)]

    def row(self, subject: str) -> Lane:
        """Likewise, the row itself."""
        return self._rows[self._of.get(subject, TESTER)]


def _place(process: Incarnation) -> str:
    """Where a process lives: its successors, w1-2 and so on, are drawn in the same row."""
    base, _, life = process.title.rpartition("-")
    return base if base and life.isdigit() and process.started.role != "frontend" else process.title


def drawn(case: Case) -> dict[str, Any]:
    """All that the page's script needs, as JSON values."""
    run = case.shown
    lanes = Lanes(run.ledger)
    end_s = max((event.at.after_s for event in run.events), default=0.0)
    _bars(run.ledger, lanes, end_s)
    events = sorted(_points(run.events, lanes), key=lambda row: (row[2], row[1]))
    subject = case.request
    return {
        "end": round(end_s, 3),
        "lanes": [{"label": lane.label, "kind": lane.kind, "bars": lane.bars} for lane in lanes.rows],
        "events": events,
        "bands": list(_bands(run.ledger, lanes, end_s)),
        "marks": [[_s(event.at.after_s), event.stage] for event in run.events if isinstance(event, Mark)],
        "tokens": list(_tokens(run)),
        "gauges": _gauges(run.events),
        "subject": subject.name if subject else None,
        "focus": [_s(value) for value in _focus(run.ledger, subject, end_s)],
    }


def _s(seconds: float) -> float:
    return round(seconds, 4)


def _focus(ledger: Ledger, subject: Request | None, end_s: float) -> tuple[float, float]:
    """What the timeline shows at first: the life of the request that it is about, or the steps."""
    if subject is not None:
        life = ledger.life(subject)
        margin_s = max(0.05, 0.15 * (life.after_s - life.before_s))
        return max(0.0, life.before_s - margin_s), min(end_s, life.after_s + margin_s)
    ready, heal = ledger.marks.get("ready"), ledger.marks.get("heal")
    return (ready.at.before_s if ready else 0.0), (heal.at.after_s if heal else end_s)


# --- bars and bands ---------------------------------------------------------------------------------------------------


def _bars(ledger: Ledger, lanes: Lanes, end_s: float) -> None:
    for request in ledger.requests.values():
        life = ledger.life(request)
        head_s = request.begun.at.after_s if request.begun else life.after_s
        bars = lanes.row(request.name).bars
        bars.append([_s(life.before_s), _s(head_s), "waiting", f"{request.name} waits for the head of its answer"])
        if request.begun:
            how = "answered" if request.whole else "left" if request.closed else "failing"
            bars.append(
                [_s(head_s), _s(life.after_s), how, f"{request.name}: status {request.status}, {_end(request)}"]
            )
        bars += [[_s(at.before_s), _s(at.after_s), "paused", f"{request.name} reads nothing"] for at in request.pauses]
    for process in ledger.processes.values():
        until_s = process.exited.at.after_s if process.exited else end_s
        words = f"{process.title}, process {process.started.pid}"
        lanes.row(process.title).bars.append([_s(process.started.at.before_s), _s(until_s), "life", words])
    for title, served in ledger.served.items():
        for id_, generation in served.items():
            known = ledger.by_id.get(id_)
            ends = [line.at.after_s for line in (*generation.ends, *generation.finished)]
            for begun in generation.begun:
                later = (s for s in ends if s >= begun.at.before_s)
                held_by = ledger.processes.get(title)
                gone_s = held_by.exited.at.after_s if held_by and held_by.exited else end_s
                until_s = min(min(later, default=end_s), gone_s)
                words = f"{title} has {known.name if known else id_}"
                lanes.row(title).bars.append([_s(begun.at.before_s), _s(until_s), "work", words])


def _end(request: Request) -> str:
    if request.whole:
        return "answered in full"
    if request.closed:
        return f"its client left ({request.closed.how})"
    if request.ended is None:
        return "never ended"
    return f"ended by {request.ended.how}{f', error {request.error}' if request.error else ''}"


def _bands(ledger: Ledger, lanes: Lanes, end_s: float) -> Iterator[list[Any]]:
    """From, to, kind, words, row: how long each fault lasted. A frozen process thaws, a draining one ends."""
    for process in ledger.processes.values():
        number = lanes.number(process.title)
        gone_s = process.exited.at.after_s if process.exited else end_s
        for fault in process.faults:
            verb = fault.fault.partition("-")[0]
            if verb == "thaw" or not fault.verified:
                continue
            until_s = fault.at.after_s
            if verb == "stop":
                until_s = gone_s
            elif verb == "freeze":
                thaws = (f.at.after_s for f in process.faults if f.fault.startswith("thaw") and f.at.after_s > until_s)
                until_s = min(min(thaws, default=end_s), gone_s)
            yield [_s(fault.at.before_s), _s(until_s), verb, f"{fault.fault} of {process.title}", number]


# --- events -----------------------------------------------------------------------------------------------------------


def _points(events: Sequence[Event], lanes: Lanes) -> Iterator[list[Any]]:
    """Row, from, to, class, words: one for each event but samples, which the gauges show."""
    for event in events:
        told = _told(event)
        if told is not None:
            subject, kind, words = told
            yield [lanes.number(subject), _s(event.at.before_s), _s(event.at.after_s), kind, words]


def _told(event: Event) -> tuple[str, str, str] | None:
    """Of whom an event is, its class, and what it says."""
    match event:
        case RequestSent() | ResponseBegun() | Received() | RequestEnded() | ClientClosed() | ReaderPaused():
            return _of_client(event)
        case StepDone() | StepVoid() | Stall() | HarnessFailed() | Mark():
            return _of_tester(event)
        case Started() | Exited() | FaultMade() | EngineErred() | Told() | Identified() | Answered() | LeftOver():
            return _of_process(event)
        case Listed():
            strangers = f", strangers {', '.join(event.strangers)}" if event.strangers else ""
            models = "" if event.models else ", no model"
            return event.frontend, "poll", f"lists {', '.join(event.titles) or 'nobody'}{strangers}{models}"
        case LogLine():
            kind = "trouble" if event.meaning in ("panic", "traceback", "assertion", "given-up") else "log"
            fields = "".join(f", {key} {value}" for key, value in event.fields.items())
            return event.title, kind, f"logs {event.meaning} {event.id}{fields} (line {event.line})"
        case Usage():
            used = f"{event.memory >> 20} MiB, {event.fds} descriptors, {event.threads} threads"
            return event.title, "poll", f"{event.title} uses {used}"
        case Setting() | Sample():
            return None


def _of_client(
    event: RequestSent | ResponseBegun | Received | RequestEnded | ClientClosed | ReaderPaused,
) -> tuple[str, str, str]:
    name = event.request
    match event:
        case RequestSent():
            stream = "streamed" if event.stream else "not streamed"
            return (
                name,
                "sent",
                f"{name} sent through {event.frontend}: {event.api}, {stream}, {event.max_tokens} tokens",
            )
        case ResponseBegun():
            return name, "sent" if event.status == 200 else "trouble", f"{name}: status {event.status}"
        case Received():
            bad = any(item.what in ("error", "malformed") for item in event.items)
            return name, "trouble" if bad else "text", f"{name}: {_items(event)}"
        case RequestEnded():
            kind = "end" if event.how == "eof" else "trouble"
            return name, kind, f"{name} ended: {event.how} {event.detail}".rstrip()
        case ClientClosed():
            return name, "cancel", f"the client of {name} leaves ({event.how})"
        case ReaderPaused():
            return name, "cancel", f"the client of {name} reads nothing"


def _items(event: Received) -> str:
    parts = []
    for item in event.items:
        value = f" {item.value[:80]!r}" if item.value else ""
        parts.append(f"{item.what}{value}{f' + {item.count}' if item.what == 'usage' else ''}")
    return ", ".join(parts)


def _of_tester(event: StepDone | StepVoid | Stall | HarnessFailed | Mark) -> tuple[str, str, str]:
    match event:
        case StepDone():
            return TESTER, "step", f"step {event.step} done: {event.deed} {event.subject}".rstrip()
        case StepVoid():
            return TESTER, "void", f"step {event.step} not done ({event.deed}): {event.why}"
        case Stall():
            return TESTER, "void", f"the {event.who} was not scheduled"
        case HarnessFailed():
            return TESTER, "trouble", f"the tester could not go on: {event.why}"
        case Mark():
            return TESTER, "step", f"stage {event.stage}"


def _of_process(
    event: Started | Exited | FaultMade | EngineErred | Told | Identified | Answered | LeftOver,
) -> tuple[str, str, str]:
    match event:
        case Started():
            return event.title, "start", f"{event.title} started, process {event.pid}"
        case Exited():
            how = f"signal {event.signal}" if event.signal is not None else f"code {event.code}"
            return event.title, "fault", f"{event.title} has ended: {how}"
        case FaultMade():
            seen = "verified" if event.verified else "not verified"
            return event.title, "fault", f"{event.fault} of {event.title}, step {event.step}, {seen}"
        case EngineErred():
            return (
                event.title,
                "fault",
                f"the engine of {event.title} fails {event.request} ({event.how}), step {event.step}",
            )
        case Told():
            return (
                event.title,
                "poll",
                f"{event.title} says {event.health or 'nothing'} on /health, {event.live or 'nothing'} on /live",
            )
        case Identified():
            return event.title, "poll", f"{event.title} is known as {event.identity}"
        case Answered():
            return event.title, "poll", f"{event.title} has answered through {event.frontend}"
        case LeftOver():
            return (
                event.of,
                "trouble",
                f"processes {', '.join(map(str, event.pids))} of {event.of} are still there: {event.by}",
            )


# --- tokens and gauges ------------------------------------------------------------------------------------------------


def _tokens(run: Execution) -> Iterator[dict[str, Any]]:
    """Of each streamed request: how many tokens its client had at which time, and the gap where it was moved."""
    count = engines.of(run.topology).count
    points: dict[str, list[list[float]]] = {}
    for event in run.events:
        if isinstance(event, Received) and event.request in run.ledger.requests:
            new = sum(count(item.value) for item in event.items if item.what == "text" and item.choice == 0)
            line = points.setdefault(event.request, [[_s(run.ledger.requests[event.request].sent.at.after_s), 0]])
            if new:
                line.append([_s(event.at.after_s), line[-1][1] + new])
    for name, line in points.items():
        request = run.ledger.requests[name]
        if request.sent.stream and not request.sent.probe and len(line) > 1:
            yield {"request": name, "points": line, "asked": request.sent.max_tokens, "gap": _gap(run, request, line)}


def _gap(run: Execution, request: Request, line: list[list[float]]) -> list[float] | None:
    """The wait for the next token in which the request was moved, the longest if it was so more than once."""
    moves = run.ledger.moves.get(request.sent.id)
    begun = run.ledger.generations.get(request.sent.id, {}).values()
    again = sorted(one.at.after_s for generation in begun for one in generation.begun)[1:]
    moved = [*again, *(one.at.after_s for one in (moves.lines if moves else ()))]
    until_s = request.over.after_s if request.over else line[-1][0]
    times = [point[0] for point in line] + [until_s]
    waits = [(b - a, a, b) for a, b in pairwise(times) if any(a <= at <= b for at in moved)]
    if not waits:
        return None
    _, from_s, to_s = max(waits)
    return [_s(from_s), _s(to_s)]


def _gauges(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Each gauge with a line for each process that exports it; a value that did not change is told once."""
    found: dict[str, dict[str, list[list[float]]]] = {name: {} for name, _, _ in GAUGES}
    last: dict[tuple[str, str], float] = {}
    for event in events:
        if not isinstance(event, Sample):
            continue
        for name, lines in found.items():
            if name in event.values:
                last[name, event.title] = event.at.after_s
                line = lines.setdefault(event.title, [])
                if not line or line[-1][1] != event.values[name]:
                    line.append([_s(event.at.after_s), event.values[name]])
    for (name, title), at_s in last.items():
        line = found[name][title]
        line.append([_s(at_s), line[-1][1]])
    return [
        {"title": title, "unit": unit, "series": [{"title": t, "points": p} for t, p in found[name].items()]}
        for name, title, unit in GAUGES
        if found[name]
    ]
