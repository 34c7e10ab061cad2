"""What all processes and the client told of one request, as one list in the order of time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

from ftmodel.history import (
    ClientClosed,
    Event,
    Exited,
    FaultMade,
    LogLine,
    ReaderPaused,
    Received,
    RequestEnded,
    RequestSent,
    ResponseBegun,
    StepDone,
)
from ftmodel.invariants.records import Request
from ftmodel.report.case import Execution

WORDS_MOST: Final = 220
"""A line of a log is cut to so many characters."""
LINES_MOST: Final = 120
"""So many lines at most are shown of one request; what lies in the middle is left out."""
READ_MOST: Final = 8 << 20
"""Bytes that are read of one log."""
_ANONYMOUS: Final = frozenset({"panic", "traceback", "assertion", "kill", "client-gone"})
"""Meanings of lines that bear no request id: shown if they were written while the request was open."""
_LEFT_OUT: Final = frozenset(
    {"time", "level", "target", "message", "file", "line", "request_id", "span_name", "trace_id", "span_id", "parent_id",
     "trace_flags", "method", "uri", "version", "namespace", "component", "endpoint", "model"}
)  # fmt: skip
"""Fields that every line has, or each of a request."""
_MARGIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Line:
    """One line: when, who, what. `kind` is client, fault, log or trouble (a line that should not be there)."""

    at_s: float
    who: str
    words: str
    kind: str


def merged(run: Execution, request: Request) -> list[Line]:
    """All that concerns a request: what its client saw, the faults meanwhile, and what the processes logged of it."""
    life = run.ledger.life(request)
    lines = [*_client(run.events, request.name), *_faults(run.events, life.before_s, life.after_s)]
    lines += _logged(run, request.sent.id, life.before_s, life.after_s + _MARGIN_S)
    return _shortened(sorted(lines, key=lambda line: line.at_s))


def of_processes(run: Execution) -> list[Line]:
    """Of a finding that names no request: faults, steps, and lines that tell of trouble, of the whole example."""
    lines = [*_faults(run.events, 0.0, float("inf"))]
    lines += [
        Line(event.at.after_s, "tester", f"{event.step}: {event.deed} {event.subject}".rstrip(), "fault")
        for event in run.events
        if isinstance(event, StepDone) and event.deed not in ("submit", "settle")
    ]
    lines += [
        Line(event.at.after_s, event.title, _meant(event), "trouble")
        for event in run.events
        if isinstance(event, LogLine) and event.meaning in ("panic", "traceback", "assertion")
    ]
    return _shortened(sorted(lines, key=lambda line: line.at_s))


def beside(failing: Sequence[Line], passing: Sequence[Line]) -> list[tuple[Line | None, Line | None]]:
    """Two such lists row by row: lines that say the same but for numbers and names stand beside each other."""
    ones, others = [_gist(line) for line in failing], [_gist(line) for line in passing]
    rows: list[tuple[Line | None, Line | None]] = []
    for tag, a, b, c, d in SequenceMatcher(None, ones, others, autojunk=False).get_opcodes():
        if tag == "equal":
            rows += zip(failing[a:b], passing[c:d], strict=True)
        else:
            rows += [(line, None) for line in failing[a:b]] + [(None, line) for line in passing[c:d]]
    return rows


def _gist(line: Line) -> str:
    """A line without what differs from run to run: times, ids, counts, texts, and which life of a process it was."""
    return re.sub(
        r"'[^']*'|[0-9a-f]{8}-[0-9a-f-]{27}|\b[0-9a-f]{12,}\b|\b[a-z]+\d+(-\d+)?\b|\d+", "#", f"{line.who} {line.words}"
    )


def _shortened(lines: list[Line]) -> list[Line]:
    if len(lines) <= LINES_MOST:
        return lines
    half = LINES_MOST // 2
    left_out = Line(lines[half].at_s, "", f"... {len(lines) - 2 * half} lines left out ...", "log")
    return [*lines[:half], left_out, *lines[-half:]]


def _client(events: tuple[Event, ...], name: str) -> Iterator[Line]:
    burst: list[Received] = []
    for event in events:
        if getattr(event, "request", None) != name:
            continue
        if isinstance(event, Received) and all(item.what in ("text", "empty") for item in event.items):
            burst.append(event)
            continue
        yield from _texts(burst)
        burst = []
        match event:
            case RequestSent():
                yield Line(
                    event.at.before_s, "client", f"sends {name} through {event.frontend}, id {event.id}", "client"
                )
            case ResponseBegun():
                yield Line(event.at.after_s, "client", f"status {event.status}", "client")
            case Received():
                yield Line(event.at.after_s, "client", _received(event), "client")
            case RequestEnded():
                how = {"eof": "end of the body", "cut": "the connection breaks", "refused": "no connection"}[event.how]
                kind = "client" if event.how == "eof" else "trouble"
                yield Line(event.at.after_s, "client", f"{how} {event.detail}".rstrip(), kind)
            case ClientClosed():
                yield Line(event.at.after_s, "client", f"leaves ({event.how})", "client")
            case ReaderPaused():
                yield Line(event.at.before_s, "client", "stops reading", "client")
            case _:
                pass
    yield from _texts(burst)


def _texts(burst: list[Received]) -> Iterator[Line]:
    """What came without a word about the end of the answer, as one line; two where there was a gap in it."""
    if not burst:
        return
    gaps = [(later.at.after_s - one.at.after_s, i) for i, (one, later) in enumerate(pairwise(burst))]
    longest, at = max(gaps, default=(0.0, 0))
    parts = [burst[: at + 1], burst[at + 1 :]] if longest > 10 * median([gap for gap, _ in gaps] or [1]) else [burst]
    for part in parts:
        text = "".join(item.value for received in part for item in received.items)
        first, last = part[0].at.after_s, part[-1].at.after_s
        words = f"{len(text)} characters in {len(part)} pieces, until {last:.3f} s: {_cut(text, 60)!r}"
        yield Line(first, "client", words, "client")


def _received(event: Received) -> str:
    told = []
    for item in event.items:
        match item.what:
            case "text":
                told.append(f"text {_cut(item.value, 40)!r}")
            case "usage":
                told.append(f"usage {item.value} + {item.count} tokens")
            case "done":
                told.append("[DONE]")
            case "empty":
                pass
            case _:
                told.append(f"{item.what} {_cut(item.value, 120)!r}")
    return ", ".join(told)


def _faults(events: tuple[Event, ...], from_s: float, to_s: float) -> Iterator[Line]:
    for event in events:
        if not from_s <= event.at.after_s <= to_s:
            continue
        if isinstance(event, FaultMade):
            seen = "" if event.verified else " (not verified)"
            yield Line(event.at.after_s, event.title, f"{event.fault}, step {event.step}{seen}", "fault")
        elif isinstance(event, Exited):
            how = f"signal {event.signal}" if event.signal is not None else f"code {event.code}"
            yield Line(event.at.after_s, event.title, f"has ended, {how}", "fault")


# --- logs -------------------------------------------------------------------------------------------------------------


def _logged(run: Execution, id_: str, from_s: float, to_s: float) -> Iterator[Line]:
    """Lines with this id, and those without one that were written meanwhile; as they stand, if the logs were kept."""
    understood: dict[str, dict[int, LogLine]] = {}
    for event in run.events:
        if isinstance(event, LogLine):
            understood.setdefault(event.title, {})[event.line] = event
    names = {p.identity: p.title for p in run.ledger.processes.values() if p.identity}
    for title, by_line in sorted(understood.items()):
        wanted = {n for n, line in by_line.items() if line.id == id_ or _is_meanwhile(line, from_s, to_s)}
        path = run.folder / "logs" / f"{title}.log"
        texts = _read(path)
        offsets = [line.at.after_s - stamp for n, line in by_line.items() if (stamp := _stamp(texts.get(n, "")))]
        shift_s = median(offsets) if offsets else None
        wanted |= {n for n, text in texts.items() if id_ in text and (n in by_line or shift_s is not None)}
        for n in sorted(wanted):
            line, text = by_line.get(n), texts.get(n, "")
            kind = "trouble" if line and line.meaning in ("panic", "traceback", "assertion", "given-up") else "log"
            if line is not None:
                yield Line(line.at.after_s, title, _words(text, names) or _meant(line), kind)
            elif shift_s is not None and (stamp := _stamp(text)) is not None:
                yield Line(stamp + shift_s, title, _words(text, names), kind)


def _is_meanwhile(line: LogLine, from_s: float, to_s: float) -> bool:
    return line.meaning in _ANONYMOUS and not line.id and from_s <= line.at.after_s <= to_s


def _read(path: Path) -> dict[int, str]:
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        return dict(enumerate(file.read(READ_MOST).decode("utf-8", "replace").split("\n"), start=1))


def _stamp(text: str) -> float | None:
    try:
        return datetime.fromisoformat(str(json.loads(text)["time"])).timestamp()
    except (ValueError, KeyError, TypeError):
        return None


def _words(text: str, names: Mapping[str, str]) -> str:
    """A line of a log without what every line has: level, message, and the fields of its own.

    Where a field is the identity of a process, its title is told instead.
    """
    try:
        row: Any = json.loads(text)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        return _cut(text.strip(), WORDS_MOST)
    fields = [
        f"{key}={names.get(str(value), value)}"
        for key, value in row.items()
        if key not in _LEFT_OUT and not key.startswith("log.")
    ]
    return _cut(" ".join([str(row.get("level", "")), str(row.get("message", "")), *fields]).strip(), WORDS_MOST)


def _meant(line: LogLine) -> str:
    return _cut(" ".join([line.meaning, *(f"{key}={value}" for key, value in line.fields.items())]), WORDS_MOST)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
