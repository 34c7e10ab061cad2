"""Where a request was, when, and how far: its placements on workers, by their logs, and its tokens, by its client."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from ftmodel.engines.counting.worker import course
from ftmodel.history import FaultMade, Interval, LogLine
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Generation, Incarnation, Request
from ftmodel.invariants.texts import WORD_CHARS


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One beginning of a request on one incarnation."""

    request: Request
    title: str
    begun: LogLine
    over: Interval | None
    """When its end was logged there; None if none was."""
    killed: Interval | None
    """When its worker was killed under it."""

    def is_open(self, at: Interval) -> bool:
        """True if it surely had begun before an interval, and neither ended nor lost its worker surely before that."""
        ends = (end for end in (self.over, self.killed) if end is not None)
        return self.begun.at.surely_before(at) and all(end.after_s >= at.before_s for end in ends)


# --- workers ----------------------------------------------------------------------------------------------------


def verified(process: Incarnation, fault: str) -> list[FaultMade]:
    """The faults of this kind that hit it and were verified, in order."""
    found = [made for made in process.faults if made.fault == fault and made.verified]
    return sorted(found, key=lambda made: made.at.before_s)


def killed_at(process: Incarnation) -> Interval | None:
    """When it was killed; None if it was not, or died otherwise."""
    name = "kill-frontend" if process.started.role == "frontend" else "kill-worker"
    return next((made.at for made in verified(process, name)), None)


def freezes(process: Incarnation) -> list[tuple[Interval, Interval | None]]:
    """Each verified freeze, and the thaw that undid it; None if none did."""
    thaws = verified(process, "thaw-worker")
    return [
        (freeze.at, next((thaw.at for thaw in thaws if thaw.at.before_s >= freeze.at.before_s), None))
        for freeze in verified(process, "freeze-worker")
    ]


# --- placements -------------------------------------------------------------------------------------------------


def placements(ledger: Ledger, request: Request) -> list[Placement]:
    """The placements of a request, in the order in which they began."""
    key = ("placements", request.name)
    if ledger.settled and key in ledger.memo:
        known: list[Placement] = ledger.memo[key]
        return known
    found = [
        placement
        for title, generation in ledger.generations.get(request.sent.id, {}).items()
        for placement in _on(ledger, request, title, generation)
    ]
    found.sort(key=lambda placement: placement.begun.at.before_s)
    if ledger.settled:
        ledger.memo[key] = found
    return found


def placements_on(ledger: Ledger, title: str) -> list[Placement]:
    """The placements of the drawn requests on one incarnation. Valid for good at rest."""
    key = ("placements on", title)
    if ledger.settled and key in ledger.memo:
        known: list[Placement] = ledger.memo[key]
        return known
    asked = (ledger.by_id.get(id_) for id_ in ledger.served.get(title, {}))
    found = [
        placement
        for request in asked
        if request is not None and not request.sent.probe
        for placement in placements(ledger, request)
        if placement.title == title
    ]
    if ledger.settled:
        ledger.memo[key] = found
    return found


def _on(ledger: Ledger, request: Request, title: str, generation: Generation) -> list[Placement]:
    begins = sorted(generation.begun, key=lambda line: line.at.before_s)
    ends = sorted((line.at for line in generation.ends or generation.finished), key=lambda at: at.after_s)
    process = ledger.processes.get(title)
    kill = killed_at(process) if process else None
    found = []
    for i, line in enumerate(begins):
        until_s = begins[i + 1].at.before_s if i + 1 < len(begins) else float("inf")
        over = next((end for end in ends if line.at.before_s <= end.after_s and end.before_s <= until_s), None)
        last = i + 1 == len(begins)
        under = kill if last and over is None and kill is not None and _was_open(request, line, kill) else None
        found.append(Placement(request=request, title=title, begun=line, over=over, killed=under))
    return found


def _was_open(request: Request, line: LogLine, kill: Interval) -> bool:
    over = request.over
    return line.at.before_s <= kill.after_s and (over is None or over.after_s >= kill.before_s)


# --- tokens -----------------------------------------------------------------------------------------------------


def tokens_at(ledger: Ledger, request: Request, at_s: float) -> tuple[int, int]:
    """The least and the most tokens of the first choice that the client had then: a character can be withheld."""
    known = bisect_right(request.said, (at_s, float("inf")))
    chars = request.said[known - 1][1] if known else 0
    most = request.sent.max_tokens
    if ledger.setting.exact_text:
        width = course(request.sent.key.encode()).script.width
        least = chars // WORD_CHARS if width == 1 else chars * width
        return min(least, most), min(least + width - 1, most)
    token_chars = 0 if ledger.is_guided(request) else ledger.setting.token_chars
    count = min(-(-chars // token_chars), most) if token_chars else known
    return count, count


def tokens_before(ledger: Ledger, request: Request, place: int) -> tuple[int, int] | None:
    """The tokens from the placements up to this one, by what the next was asked to go on at, or by what came before it.

    None if they cannot be told: of an answer that is not streamed, the client knows none.
    """
    later = placements(ledger, request)[place + 1 :]
    position = later[0].begun.fields.get("position") if later else None
    if isinstance(position, int):
        return position, position
    if not request.sent.stream:
        return None
    return tokens_at(ledger, request, later[0].begun.at.before_s if later else float("inf"))


# --- queues -----------------------------------------------------------------------------------------------------


def is_queued(ledger: Ledger, placement: Placement, at: Interval) -> bool:
    """True if the engine surely had it wait for a slot or for KV blocks then: by its slots, or by a sample before."""
    if not placement.is_open(at) or _begun_to_answer(ledger, placement, at.after_s):
        return False
    beside = [p for p in placements_on(ledger, placement.title) if p.request is not placement.request]
    ahead = sum(p.begun.at.surely_before(placement.begun.at) and _is_kept(p, at) for p in beside)
    if ahead >= ledger.setting.slots:
        return True
    process = ledger.processes[placement.title]
    samples = [s for s in process.running if placement.begun.at.surely_before(s.at) and s.at.surely_before(at)]
    if not samples:
        return False
    sample = samples[-1]
    silent = [p for p in beside if p.is_open(sample.at) and not _begun_to_answer(ledger, p, sample.at.before_s)]
    return sample.values.get("waiting", 0.0) > len(silent)


def _is_kept(placement: Placement, at: Interval) -> bool:
    """It surely had not ended when this began."""
    ends = [end for end in (placement.over, placement.killed) if end is not None]
    return all(at.before_s <= end.before_s for end in ends)


def _begun_to_answer(ledger: Ledger, placement: Placement, at_s: float) -> bool:
    """The client has had text from it by then."""
    request = placement.request
    return tokens_at(ledger, request, at_s) > tokens_at(ledger, request, placement.begun.at.before_s)
