"""How far a request was when its worker was killed, when it was moved, and when its client left it.

Each function tells whether one request was surely in the situation; races alone go by the middles of the intervals.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ftmodel.history import Interval
from ftmodel.invariants.duty import limit_of
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.migration import redispatches
from ftmodel.invariants.records import Moves, Request
from ftmodel.invariants.whereabouts import (
    Placement,
    freezes,
    is_queued,
    killed_at,
    placements,
    placements_on,
    tokens_at,
    tokens_before,
    verified,
)

RACE_S: Final = 0.005
"""Two things that happened within this time of each other raced."""


def races(first: Interval, second: Interval) -> bool:
    """The first happened at most `RACE_S` before the second, by their middles."""
    return 0 <= middle_s(second) - middle_s(first) <= RACE_S


def middle_s(at: Interval) -> float:
    """The middle of an interval."""
    return (at.before_s + at.after_s) / 2


# --- killed under it --------------------------------------------------------------------------------------------


def _killed(ledger: Ledger, request: Request) -> Iterator[tuple[int, Placement, Interval]]:
    """The placements whose worker was killed under the request before its client left: which, and when."""
    for place, placement in enumerate(placements(ledger, request)):
        kill = placement.killed
        if kill is not None and (request.closed is None or kill.surely_before(request.closed.at)):
            yield place, placement, kill


def _tokens_at_kills(ledger: Ledger, request: Request) -> list[tuple[int, int]]:
    if not request.sent.stream:
        return []
    had = (tokens_before(ledger, request, place) for place, _, _ in _killed(ledger, request))
    return [tokens for tokens in had if tokens is not None]


def killed_before_first_token(ledger: Ledger, request: Request) -> bool:
    """Its worker was killed before a token came."""
    return any(least == 0 for least, _ in _tokens_at_kills(ledger, request))


def killed_mid_stream(ledger: Ledger, request: Request) -> bool:
    """Its worker was killed after its first token and before its last but one."""
    return any(least > 0 and most < request.sent.max_tokens - 1 for least, most in _tokens_at_kills(ledger, request))


def killed_at_last_token(ledger: Ledger, request: Request) -> bool:
    """Its worker was killed when the last token was about to come, or had come, and the end had not."""
    return any(least > 0 and most >= request.sent.max_tokens - 1 for least, most in _tokens_at_kills(ledger, request))


def killed_not_streamed(ledger: Ledger, request: Request) -> bool:
    """Its worker was killed, and its answer is not streamed."""
    return not request.sent.stream and any(_killed(ledger, request))


def killed_while_queued(ledger: Ledger, request: Request) -> bool:
    """Its worker was killed while it waited in the engine."""
    return any(is_queued(ledger, placement, kill) for _, placement, kill in _killed(ledger, request))


def killed_migration_target(ledger: Ledger, request: Request) -> bool:
    """A worker that it had been moved to was killed too."""
    return any(place > 0 for place, _, _ in _killed(ledger, request))


def not_migratable_killed(ledger: Ledger, request: Request) -> bool:
    """Its worker was killed, and to move it is not owed: by the limit, n, guidance, or its length."""
    return limit_of(ledger, request) == 0 and any(_killed(ledger, request))


# --- moved ------------------------------------------------------------------------------------------------------


def migrated_twice(ledger: Ledger, request: Request) -> bool:
    """It was sent to a further worker twice."""
    return redispatches(ledger, request) >= 2


def migrated_to_the_limit(ledger: Ledger, request: Request) -> bool:
    """It was sent to a further worker as often as is allowed."""
    return 0 < limit_of(ledger, request) == redispatches(ledger, request)


def one_past_the_limit(ledger: Ledger, request: Request) -> bool:
    """It was given up when all attempts were used."""
    moves, limit = ledger.moves.get(request.sent.id, Moves()), limit_of(ledger, request)
    return 0 < limit <= len(moves.lines) and bool(moves.given_up)


def migrated_to_a_newcomer(ledger: Ledger, request: Request) -> bool:
    """It was moved to a worker that had started only after it was sent."""
    later = (ledger.processes.get(placement.title) for placement in placements(ledger, request)[1:])
    return any(process is not None and request.sent.at.surely_before(process.started.at) for process in later)


def stop_string_over_migration(ledger: Ledger, request: Request) -> bool:
    """It has a stop string, and was moved."""
    return bool(request.sent.stop) and redispatches(ledger, request) > 0


def usage_over_migration(ledger: Ledger, request: Request) -> bool:
    """It was moved, and its answer told the usage."""
    return request.usage is not None and redispatches(ledger, request) > 0


# --- left -------------------------------------------------------------------------------------------------------


def _holder(ledger: Ledger, request: Request) -> Placement | None:
    """Where it was open when its client left."""
    if request.closed is None:
        return None
    held = [placement for placement in placements(ledger, request) if placement.is_open(request.closed.at)]
    return held[-1] if held else None


def _tokens_when_left(ledger: Ledger, request: Request) -> tuple[int, int] | None:
    if request.closed is None or not request.sent.stream:
        return None
    return tokens_at(ledger, request, request.closed.at.after_s)


def cancelled_before_first_token(ledger: Ledger, request: Request) -> bool:
    """Its client left before it had a token."""
    had = _tokens_when_left(ledger, request)
    return had is not None and had[0] == 0


def cancelled_during_prefill(ledger: Ledger, request: Request) -> bool:
    """Its client left when its first worker had it and had made no token."""
    holder = _holder(ledger, request)
    if holder is None or request.closed is None or holder is not placements(ledger, request)[0]:
        return False
    if is_queued(ledger, holder, request.closed.at):
        return False
    made = [line.fields.get("tokens") for line in ledger.generations[request.sent.id][holder.title].aborted]
    silent = request.sent.stream and not request.said
    return made == [0] if ledger.setting.engine_ids else silent


def cancelled_mid_stream(ledger: Ledger, request: Request) -> bool:
    """Its client left after its first token and before its last but one."""
    had = _tokens_when_left(ledger, request)
    return had is not None and had[0] > 0 and had[1] < request.sent.max_tokens - 1


def cancelled_at_last_token(ledger: Ledger, request: Request) -> bool:
    """Its client left when the last token was about to come, or had come, and the end had not."""
    had = _tokens_when_left(ledger, request)
    return had is not None and had[0] > 0 and had[1] >= request.sent.max_tokens - 1


def cancelled_not_streamed(ledger: Ledger, request: Request) -> bool:
    """Its client left while a worker had it, and its answer is not streamed."""
    return not request.sent.stream and _holder(ledger, request) is not None


def cancelled_while_queued(ledger: Ledger, request: Request) -> bool:
    """Its client left while it waited in the engine."""
    holder = _holder(ledger, request)
    return holder is not None and request.closed is not None and is_queued(ledger, holder, request.closed.at)


def cancelled_during_migration(ledger: Ledger, request: Request) -> bool:
    """Its client left between the death of its worker and the first token from the next."""
    killed = list(_killed(ledger, request))
    if request.closed is None or not killed:
        return False
    later = placements(ledger, request)[killed[-1][0] + 1 :]
    if not later or not later[0].begun.at.surely_before(request.closed.at):
        return True
    begun_s = later[0].begun.at.before_s
    return request.sent.stream and not any(at_s > begun_s for at_s, _ in request.said)


def cancelled_while_frozen(ledger: Ledger, request: Request) -> bool:
    """Its client left while its worker was frozen."""
    holder = _holder(ledger, request)
    if holder is None or request.closed is None:
        return False
    close = request.closed.at
    spans = freezes(ledger.processes[holder.title])
    return any(f.surely_before(close) and (thaw is None or close.surely_before(thaw)) for f, thaw in spans)


def cancelled_while_draining(ledger: Ledger, request: Request) -> bool:
    """Its client left while its worker drained."""
    holder = _holder(ledger, request)
    if holder is None or request.closed is None:
        return False
    stops = verified(ledger.processes[holder.title], "stop-worker")
    return any(stop.at.surely_before(request.closed.at) for stop in stops)


def cancelled_while_stalled(ledger: Ledger, request: Request) -> bool:  # noqa: ARG001  # as all of them
    """Its engine had stalled, and its client left."""
    return request.is_stalled and request.closed is not None


def one_cancelled_one_kept(ledger: Ledger, request: Request) -> bool:
    """Its client left, and another request on the same worker went on to its end."""
    holder = _holder(ledger, request)
    if holder is None or request.closed is None:
        return False
    close = request.closed.at
    beside = (other for other in placements_on(ledger, holder.title) if other.request is not request)
    return any(
        other.is_open(close) and other.request.whole and other.over is not None and close.surely_before(other.over)
        for other in beside
    )


# --- races ------------------------------------------------------------------------------------------------------


def _kills_beside_close(ledger: Ledger, request: Request) -> Iterator[tuple[Interval, Interval]]:
    """The close, and the kills of workers that the request had begun on and not surely ended before either."""
    if request.closed is None:
        return
    close = request.closed.at
    for placement in placements(ledger, request):
        kill = killed_at(ledger.processes[placement.title]) if placement.title in ledger.processes else None
        if kill is not None and placement.begun.at.before_s <= middle_s(kill):
            ended_s = placement.over.after_s if placement.over else float("inf")
            if ended_s >= min(middle_s(kill), middle_s(close)):
                yield close, kill


def cancel_then_kill(ledger: Ledger, request: Request) -> bool:
    """Its client left, and its worker was killed within 5 ms."""
    return any(races(close, kill) for close, kill in _kills_beside_close(ledger, request))


def kill_then_cancel(ledger: Ledger, request: Request) -> bool:
    """Its worker was killed, and its client left within 5 ms."""
    return any(races(kill, close) for close, kill in _kills_beside_close(ledger, request))


def cancel_and_finish(ledger: Ledger, request: Request) -> bool:
    """Its client left within 5 ms of the engine's end."""
    if request.closed is None:
        return False
    close = request.closed.at
    ends = (line.at for g in ledger.generations.get(request.sent.id, {}).values() for line in g.ended)
    return any(races(close, end) or races(end, close) for end in ends)
