"""What is owed: must, may, must not, for the completion of a request and for the abort after a cancel.

Judged from what clients saw and from faults, all of them intervals on one clock. *Must* only if it is so for all points
of the intervals: a wrong must is a false alarm. A log of the tested system can turn may into must, never the reverse.
All of it is computed at rest, when everything is known.

In a disaggregated cluster a request needs a worker of each role. That a prefill worker is lost need not be outlived: a
prefill or hand-off failure is returned to the request (documented: router/disaggregated-serving, from 1.4 on; up to 1.3
the worker that decodes was to take over). So nothing is owed to a request whose prompt a touched one may have had.

The rule for completion rests on what is documented of migration (fault-tolerance/request-migration): with a limit
above 0 and a healthy worker left, a request completes. The limit counts attempts, a frontend shuns a worker on which a
request failed, and forgets whom it shuns at each change of its list and some seconds after the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from ftmodel.history import Interval
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.outages import upset
from ftmodel.invariants.records import GONE_AFTER_S, Generation, Incarnation, Request, View

Value = Literal["must", "may", "must_not"]

CHANGE_WINDOW_S: Final = 1.0
"""A change of the list matters to a request this long after its sending and after each touch."""
REFUSALS: Final = (400, 413, 422)
"""Statuses that say that the request itself was at fault: what was refused as malformed need not complete."""
LIST_LAG_S: Final = 0.5
"""The router's own list may be this much behind, or ahead of, the list that the frontend shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """What is owed to a request, and why."""

    value: Value
    why: str
    touched: bool = False
    """An incarnation that it could have been placed on was touched."""
    t: tuple[str, ...] = ()
    """Those incarnations."""
    c: int = 1
    """Times that the frontend could forget whom it shuns."""
    due_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortDuty:
    """What a cancel owes at one worker."""

    value: Value
    why: str


def attempts_needed(touched: int, changes: int) -> int:
    """The most re-dispatches that a request can need, with so many incarnations touched and changes of the list.

    Each touched one can cost the stream once, each later placement can meet every earlier dead one again, and after
    each change all of them (tests/quality/test_duty_enumerator.py enumerates an adversary).
    """
    return touched * (touched + 1) // 2 + changes * touched


# --- completion -------------------------------------------------------------------------------------------------


def completion(ledger: Ledger, request: Request) -> Duty:
    """What is owed to this request. Computed once when the ledger is settled."""
    key = ("completion", request.name)
    if ledger.settled and key in ledger.memo:
        known: Duty = ledger.memo[key]
        return known
    duty = _completion(ledger, request)
    if ledger.settled:
        ledger.memo[key] = duty
    return duty


def _completion(ledger: Ledger, request: Request) -> Duty:
    sent, bounds = request.sent, ledger.setting.bounds
    t = touchable(ledger, request, ledger.workers)
    prefills = touchable(ledger, request, ledger.prefill_workers)
    c = 1 + changes(ledger, request, t)
    titles = tuple(process.title for process in t)
    again_s = bounds.detect_bound_s + ledger.reading_s(request)
    due_s = sent.at.after_s + ledger.work_s(request) + bounds.detect_bound_s + len(t) * again_s

    def duty(value: Value, why: str) -> Duty:
        return Duty(value=value, why=why, touched=bool(t or prefills), t=titles, c=c, due_s=due_s)

    if sent.wrong and request.closed is None:
        return duty("must_not" if surely_wrong(ledger, request) else "may", f"it is wrong ({sent.wrong})")
    own = _own_doing(request) or _too_big(ledger, request)
    if own:
        return duty("may", own)
    if not any(_alive_in(worker, ledger.life(request)) for worker in ledger.workers):
        return duty("must_not", "no worker was alive")
    if ledger.touched_from_s(sent.frontend) <= ledger.life(request).after_s:
        return duty("may", "its frontend was touched")
    if upset(ledger, sent.at.before_s, ledger.life(request).after_s):
        return duty("may", "a service that the cluster stands on was out, or had just been")
    if prefills and (t or not _was_read_before(request, prefills)):
        return duty("may", f"{prefills[0].title}, which may have had its prompt, was touched")
    placed = placed_untouched(ledger, request)
    if placed is not None:
        return duty("must", f"it was placed on {placed}, which stayed untouched")
    witness = witness_of(ledger, request)
    if witness is None:
        return duty("may", "no untouched worker of each role was surely known to its frontend")
    if given_up_early(ledger, request):
        return duty("must", f"it was given up with attempts left while {witness} was there")
    doubt = _doubt(ledger, request, t, c)
    return duty("may", doubt) if doubt else duty("must", f"{witness} was there all the time")


def _own_doing(request: Request) -> str:
    """What the client or the tester did, for which nothing is owed; empty if they did nothing."""
    if request.closed is not None:
        return "the client left"
    if request.erred is not None:
        return f"its engine was told to fail it ({request.erred.how})"
    if request.status in REFUSALS:
        return f"it was refused as malformed, with status {request.status}"
    return ""


def _too_big(ledger: Ledger, request: Request) -> str:
    """That no worker has the KV blocks for it, even if it has them to itself; empty if one has, or if it is not known."""
    needs, has = request.sent.prompt_tokens + request.sent.max_tokens, ledger.setting.cache_tokens
    return f"it needs KV blocks for {needs} tokens, and a worker has {has}" if 0 < has < needs else ""


def _was_read_before(request: Request, prefills: list[Incarnation]) -> bool:
    """True if its client had text of it before any of these can have been touched: then its prompt was read."""
    return bool(request.said) and all(request.said[0][0] < process.touched_from_s for process in prefills)


def surely_wrong(ledger: Ledger, request: Request) -> bool:
    """True if it is the client's fault. A prompt is too long only where the model's longest is known and shorter."""
    sent = request.sent
    if sent.wrong != "prompt-too-long":
        return bool(sent.wrong)
    sample = ledger.last_sample.get(sent.frontend)
    return sample is not None and 0 < sample.values.get("context", 0.0) < sent.prompt_tokens


def _doubt(ledger: Ledger, request: Request, t: list[Incarnation], c: int) -> str:
    """Why recovery is not owed though a witness exists; empty if it is."""
    life, bounds, promise = ledger.life(request), ledger.setting.bounds, ledger.setting.promise
    frozen = [p.title for p in t if p.frozen_in(life.before_s, life.after_s, bounds.detect_bound_s)]
    if frozen:
        return f"{frozen[0]} was frozen"
    needed, limit = attempts_needed(len(t), c), limit_of(ledger, request)
    if needed > limit:
        return f"{len(t)} touched workers and {c} changes can need {needed} attempts, the limit is {limit}"
    if promise.recovery == "retry" and request.begun is not None:
        late = [p.title for p in t if any(touch.after_s >= request.begun.at.before_s for touch in p.touches)]
        if late:
            return f"{late[0]} was touched after the response had begun"
    return ""


def may_stay_unplaced(ledger: Ledger, request: Request) -> bool:
    """True if the workers that it can meet need more attempts than are owed: its frontend may find it no worker."""
    t = touchable(ledger, request, ledger.workers)
    return bool(touchable(ledger, request, ledger.prefill_workers)) or bool(
        _doubt(ledger, request, t, 1 + changes(ledger, request, t))
    )


def limit_of(ledger: Ledger, request: Request) -> int:
    """Re-dispatches that the system owes this request.

    None without recovery, and (documented) for n > 1, guided decoding, and what may grow longer than is migrated.
    """
    sent, longest = request.sent, ledger.setting.promise.max_length
    too_long = 0 < longest < sent.prompt_tokens + sent.max_tokens
    return 0 if too_long else most_moves(ledger, request)


def most_moves(ledger: Ledger, request: Request) -> int:
    """Re-dispatches of this request that the system may make at most.

    What is longer than is migrated may still be sent to another worker before it began on one.
    """
    promise, sent = ledger.setting.promise, request.sent
    return 0 if promise.recovery == "none" or sent.n > 1 or sent.guided else promise.limit


def _alive_in(worker: Incarnation, life: Interval) -> bool:
    """True if it could be alive at some moment of this interval."""
    died = worker.died
    return worker.started.at.before_s <= life.after_s and (died is None or died.after_s >= life.before_s)


def witness_of(ledger: Ledger, request: Request) -> str | None:
    """A worker that the frontend surely knew before the sending, untouched all the time, with a slot and KV blocks for it."""
    if not ledger.has_room(request):
        return None
    life = ledger.life(request)
    return known_and_untouched(ledger, request.sent.frontend, request.sent.at, life.after_s)


def known_and_untouched(ledger: Ledger, frontend: str, before: Interval, until_s: float) -> str | None:
    """A worker that this frontend listed and that answered through it surely before an interval, untouched until.

    Where prefill workers read the prompts, one of them must be so too.
    """
    prefill = _known(ledger.prefill_workers, frontend, before, until_s)
    if ledger.setting.prefill_workers and prefill is None:
        return None
    return _known(ledger.workers, frontend, before, until_s)


def _known(workers: list[Incarnation], frontend: str, before: Interval, until_s: float) -> str | None:
    for worker in workers:
        listed, answered = worker.listed.get(frontend), worker.answered.get(frontend)
        if listed is None or answered is None or worker.touched_from_s <= until_s:
            continue
        if listed.surely_before(before) and answered.surely_before(before):
            return worker.title
    return None


def placed_untouched(ledger: Ledger, request: Request) -> str | None:
    """From the logs: an incarnation on which the request began and that stayed untouched to the request's end."""
    end_s = ledger.life(request).after_s
    for title, generation in ledger.generations.get(request.sent.id, {}).items():
        if generation.begun and ledger.touched_from_s(title) > end_s:
            return title
    return None


def given_up_early(ledger: Ledger, request: Request) -> bool:
    """From the logs: the frontend gave the request up with attempts left."""
    moves = ledger.moves.get(request.sent.id)
    migrates = ledger.setting.promise.recovery == "migrate"
    proven = {"migrating", "retrying"} <= set(ledger.setting.proven)  # or the lines that were counted may not be all
    return bool(migrates and proven and moves and moves.given_up and len(moves.lines) < limit_of(ledger, request))


# --- T and C ----------------------------------------------------------------------------------------------------


def touchable(ledger: Ledger, request: Request, workers: list[Incarnation]) -> list[Incarnation]:
    """T: those of these workers that the frontend could have chosen and that were touched before the request's end."""
    life, frontend = ledger.life(request), request.sent.frontend
    return [
        worker
        for worker in workers
        if worker.started.at.before_s <= life.after_s
        and worker.touched_from_s <= life.after_s
        and not _gone_before(ledger, worker, frontend, request.sent.at)
    ]


def _gone_before(ledger: Ledger, worker: Incarnation, frontend: str, sent: Interval) -> bool:
    """True if it was dead and surely off this frontend's list before the sending."""
    died = worker.died
    if died is None or died.after_s >= sent.before_s:
        return False
    view = ledger.views.get(frontend)
    poll = _first_absent(ledger, view, worker.title, frontend, died.after_s) if view else None
    return view is not None and poll is not None and view.afters_s[poll] + LIST_LAG_S < sent.before_s


def _first_absent(ledger: Ledger, view: View, title: str, frontend: str, touched_s: float) -> int | None:
    """The first poll that begins `GONE_AFTER_S` after the touch and does not show it. Valid for good at rest."""
    key = ("absent", frontend, title, touched_s)
    if not ledger.settled:
        return view.first_lacking(title, touched_s + GONE_AFTER_S)
    if key not in ledger.memo:
        ledger.memo[key] = view.first_lacking(title, touched_s + GONE_AFTER_S)
    known: int | None = ledger.memo[key]
    return known


def changes(ledger: Ledger, request: Request, t: list[Incarnation]) -> int:
    """Changes of the frontend's list that could fall within a second after the sending or after a touch in T."""
    life = ledger.life(request)
    begins = [request.sent.at] + [touch for process in t for touch in process.touches]
    windows = [
        (max(begin.before_s, life.before_s), min(begin.after_s + CHANGE_WINDOW_S, life.after_s)) for begin in begins
    ]
    return sum(
        any(change.could_overlap(from_s, to_s) for from_s, to_s in windows if from_s <= to_s)
        for change in list_changes(ledger, request.sent.frontend)
        if change.could_overlap(life.before_s, life.after_s)
    )


def list_changes(ledger: Ledger, frontend: str) -> list[Interval]:
    """Every join, deregistration, lapse and return that this frontend's list can have had, as the polls bound it."""
    key = ("changes", frontend)
    if ledger.settled and key in ledger.memo:
        known: list[Interval] = ledger.memo[key]
        return known
    view = ledger.views.get(frontend) or View()
    found = [change for worker in ledger.all_workers for change in _changes_of(worker, view, frontend)]
    if ledger.settled:
        ledger.memo[key] = found
    return found


def _changes_of(worker: Incarnation, view: View, frontend: str) -> Iterator[Interval]:
    yield _join(worker, view, frontend)
    stopped = any(fault.fault not in ("freeze-worker", "thaw-worker") for fault in worker.faults)
    if stopped or worker.exited:
        left_s = worker.died.after_s if worker.died else min(touch.after_s for touch in worker.touches)
        yield _departure(view, worker.title, worker.touched_from_s, left_s)
    for begin_s, end_s in worker.frozen():
        back = view.first_showing(worker.title, end_s + GONE_AFTER_S)
        until_s = view.afters_s[back] + LIST_LAG_S if back is not None else math.inf
        yield Interval(begin_s, until_s)  # the lapse
        yield Interval(begin_s, until_s)  # the return


def _join(worker: Incarnation, view: View, frontend: str) -> Interval:
    """From the last poll that lacks it, or its start, to the first that shows it, or its first answer."""
    started_s = worker.started.at.before_s
    shown = view.first_showing(worker.title, started_s)
    if shown is None:
        return Interval(started_s, math.inf)
    lacking = view.last_lacking(worker.title, started_s, shown)
    from_s = max(started_s, view.befores_s[lacking] - LIST_LAG_S) if lacking is not None else started_s
    until_s = view.afters_s[shown] + LIST_LAG_S
    answered = worker.answered.get(frontend)
    return Interval(from_s, min(until_s, max(answered.after_s, from_s)) if answered else until_s)


def _departure(view: View, title: str, touched_s: float, left_s: float) -> Interval:
    """From the last poll that shows it, or its touch, to the first that surely no longer does."""
    absent = view.first_lacking(title, left_s + GONE_AFTER_S)
    if absent is None:
        return Interval(touched_s, math.inf)
    # Looked for from the touch on: the list may have lost it before it was surely dead.
    first = view.first_lacking(title, touched_s)
    shown = view.last_showing(title, touched_s, absent if first is None else first)
    from_s = touched_s if shown is None else max(touched_s, view.befores_s[shown] - LIST_LAG_S)
    return Interval(from_s, view.afters_s[absent] + LIST_LAG_S)


# --- abort ------------------------------------------------------------------------------------------------------


def abort(ledger: Ledger, request: Request, title: str) -> AbortDuty:
    """What the client's leaving owes at this worker (documented: a closed connection is signalled, the engine frees).

    At a prefill worker too (documented: all sub-requests of a request on downstream workers are cancelled with it).
    """
    if request.closed is None:
        return AbortDuty(value="must_not", why="nobody left, or only after the end")
    bound_s, close = ledger.setting.bounds.abort_bound_s, request.left_at
    begun = _last_begun(ledger, request, title)
    if begun is None:
        return AbortDuty(value="may", why="it did not surely begin there, last of all, before the client left")
    if request.error is not None or request.dones:
        return AbortDuty(value="may", why="its answer was over")
    if ledger.touched_from_s(title) <= close.after_s + bound_s:
        return AbortDuty(value="may", why=f"{title} was touched")
    if ledger.touched_from_s(request.sent.frontend) <= close.after_s + bound_s:
        return AbortDuty(value="may", why="its frontend was touched")
    if upset(ledger, request.sent.at.before_s, close.after_s + bound_s, "nats"):
        return AbortDuty(value="may", why="the request plane was out, or had just been")
    if ledger.stalled(close.after_s - bound_s, bound_s):
        return AbortDuty(value="may", why="the tester slept before the client left, and may not have read what came")
    prefills = ledger.prefills(title)
    if prefills and request.said:
        return AbortDuty(value="may", why="its prompt had been read")
    if (least_unread_s(ledger, request, begun) if prefills else least_left_s(ledger, request)) <= bound_s:
        return AbortDuty(value="may", why="it could have finished by itself")
    return AbortDuty(value="must", why=f"it had begun on {title} and had long to go")


def cancel_duty(ledger: Ledger, request: Request) -> AbortDuty:
    """The strongest duty of a cancel over all workers; only for requests that a client left."""
    if request.closed is None:
        return AbortDuty(value="must_not", why="the client left after the end")
    duties = [abort(ledger, request, title) for title in titles_of(ledger, request)]
    musts = [duty for duty in duties if duty.value == "must"]
    return (musts or duties or [AbortDuty(value="may", why="it began nowhere")])[0]


def titles_of(ledger: Ledger, request: Request) -> list[str]:
    """The workers of either role whose logs tell of this request."""
    return [*ledger.generations.get(request.sent.id, {}), *ledger.prefilled.get(request.sent.id, {})]


def _last_begun(ledger: Ledger, request: Request, title: str) -> Interval | None:
    """When it began there, if that was surely before the close and surely its last beginning."""
    titles = ledger.placed(request.sent.id, title)
    generation = titles.get(title)
    if generation is None or not generation.begun:
        return None
    begun = generation.begun[-1].at
    others = (line.at for other, lines in _others(titles, title) for line in lines.begun)
    surely = begun.surely_before(request.left_at) and all(other.surely_before(begun) for other in others)
    return begun if surely else None


def _others(titles: dict[str, Generation], title: str) -> Iterator[tuple[str, Generation]]:
    return ((other, generation) for other, generation in titles.items() if other != title)


def least_left_s(ledger: Ledger, request: Request) -> float:
    """The least time that generating the rest takes after the close, at the fastest pace that was seen."""
    sent, pace_min_s = request.sent, ledger.setting.pace_min_s
    if sent.stop:
        return 0.0  # it may end at its stop string at any time
    if sent.stream and not request.pauses:
        return (sent.max_tokens - most_received(ledger, request)) * pace_min_s
    # Not streamed, or not read for a while: how far the engine is can only be told from how long it has had.
    begins = [line.at.before_s for g in ledger.generations.get(sent.id, {}).values() for line in g.begun]
    return min(begins, default=0.0) + sent.max_tokens * pace_min_s - request.left_at.after_s


def least_unread_s(ledger: Ledger, request: Request, begun: Interval) -> float:
    """The least time that reading the prompt still takes after the close, by the shortest prompts of the control run."""
    return begun.before_s + ledger.setting.prefill_min_s - request.left_at.after_s


def most_received(ledger: Ledger, request: Request) -> int:
    """The most tokens of one choice that the client can have received."""
    most = 0
    for choice in request.choices.values():
        if choice.finish is not None:
            return request.sent.max_tokens
        if choice.twin is not None:
            count = choice.twin.most_tokens
        elif ledger.setting.token_chars and not ledger.is_guided(request):
            count = -(-choice.chars // ledger.setting.token_chars)
        else:
            count = choice.chars
        most = max(most, count)
    return most
