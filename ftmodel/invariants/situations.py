"""Situations that a run should reach: told from the history alone, by what surely happened.

A run prints which of these it reached, how often, and which it never did. To add one: a function in the module of its
subject, a row here, and a story in which it happens (tests/unit/test_situations.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ftmodel.invariants import situations_of_prefill as prefill
from ftmodel.invariants import situations_of_processes as processes
from ftmodel.invariants import situations_of_requests as requests
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Request

Count = Callable[[Ledger], int]


@dataclass(frozen=True, slots=True)
class Situation:
    """One situation: its id, what it is in a sentence, and how often a history shows it."""

    id: str
    sentence: str
    count: Count


def each(holds: Callable[[Ledger, Request], bool]) -> Count:
    """Counts the drawn requests of which this holds."""
    return lambda ledger: sum(holds(ledger, request) for request in processes.drawn(ledger))


SITUATIONS: Final = (
    # a worker is killed
    Situation(
        "killed-before-first-token",
        "A worker is killed under a stream of which no token has come.",
        each(requests.killed_before_first_token),
    ),
    Situation(
        "killed-mid-stream",
        "A worker is killed under a stream, after its first token and before its last but one.",
        each(requests.killed_mid_stream),
    ),
    Situation(
        "killed-at-last-token",
        "A worker is killed under a stream whose last token is about to come, or has come without the end.",
        each(requests.killed_at_last_token),
    ),
    Situation(
        "killed-not-streamed",
        "A worker is killed under a request whose answer is not streamed.",
        each(requests.killed_not_streamed),
    ),
    Situation(
        "killed-while-queued",
        "A worker is killed under a request that waits in its engine.",
        each(requests.killed_while_queued),
    ),
    Situation(
        "killed-migration-target",
        "A worker is killed under a request that had been moved to it.",
        each(requests.killed_migration_target),
    ),
    Situation(
        "not-migratable-killed",
        "A worker is killed under a request that need not be moved: limit 0, n > 1, guided, or too long.",
        each(requests.not_migratable_killed),
    ),
    Situation("two-kills-5ms", "Two workers are killed within 5 ms.", processes.two_kills),
    Situation(
        "two-requests-on-dying-worker",
        "A worker is killed under two or more requests.",
        processes.two_requests_on_dying_worker,
    ),
    Situation("killed-while-frozen", "A frozen worker is killed.", processes.killed_while_frozen),
    Situation("killed-while-draining", "A draining worker is killed.", processes.killed_while_draining),
    # a request is moved
    Situation("migrated-twice", "A request is sent to a further worker twice.", each(requests.migrated_twice)),
    Situation(
        "migrated-to-the-limit",
        "A request is sent to a further worker as often as the limit allows.",
        each(requests.migrated_to_the_limit),
    ),
    Situation(
        "one-past-the-limit",
        "A request is given up when its last attempt has failed.",
        each(requests.one_past_the_limit),
    ),
    Situation(
        "migrated-to-a-newcomer",
        "A request is moved to a worker that started after it was sent.",
        each(requests.migrated_to_a_newcomer),
    ),
    Situation(
        "stop-string-over-migration",
        "A request with a stop string is moved.",
        each(requests.stop_string_over_migration),
    ),
    Situation(
        "usage-over-migration", "A request is moved whose answer tells the usage.", each(requests.usage_over_migration)
    ),
    # a client leaves
    Situation(
        "cancelled-before-first-token",
        "A client leaves a stream of which no token has come.",
        each(requests.cancelled_before_first_token),
    ),
    Situation(
        "cancelled-during-prefill",
        "A client leaves a request that a worker has begun and has no token for.",
        each(requests.cancelled_during_prefill),
    ),
    Situation(
        "cancelled-mid-stream",
        "A client leaves a stream after its first token and before its last but one.",
        each(requests.cancelled_mid_stream),
    ),
    Situation(
        "cancelled-at-last-token",
        "A client leaves a stream whose last token is about to come, or has come without the end.",
        each(requests.cancelled_at_last_token),
    ),
    Situation("cancelled-after-end", "A client wants to leave a request that is over.", processes.cancelled_after_end),
    Situation(
        "cancelled-not-streamed",
        "A client leaves a request whose answer is not streamed while a worker has it.",
        each(requests.cancelled_not_streamed),
    ),
    Situation(
        "cancelled-while-queued",
        "A client leaves a request that waits in an engine.",
        each(requests.cancelled_while_queued),
    ),
    Situation(
        "cancelled-during-migration",
        "A client leaves between the death of the worker and the first token from the next.",
        each(requests.cancelled_during_migration),
    ),
    Situation(
        "cancelled-while-frozen",
        "A client leaves a request whose worker is frozen.",
        each(requests.cancelled_while_frozen),
    ),
    Situation(
        "cancelled-while-draining",
        "A client leaves a request whose worker drains.",
        each(requests.cancelled_while_draining),
    ),
    Situation(
        "one-cancelled-one-kept",
        "A client leaves, and another request on the same worker goes on to its end.",
        each(requests.one_cancelled_one_kept),
    ),
    Situation(
        "cancel-then-kill-5ms",
        "A client leaves, and within 5 ms the worker of its request is killed.",
        each(requests.cancel_then_kill),
    ),
    Situation(
        "kill-then-cancel-5ms",
        "The worker of a request is killed, and within 5 ms its client leaves.",
        each(requests.kill_then_cancel),
    ),
    Situation(
        "cancel-and-finish-5ms",
        "A client leaves within 5 ms of the engine's end of its request.",
        each(requests.cancel_and_finish),
    ),
    # workers come and go
    Situation(
        "started-while-requests-run",
        "A worker is started while a request is open.",
        processes.started_while_requests_run,
    ),
    Situation(
        "back-within-lease",
        "A worker is started within the lease of the one that died in its place.",
        processes.back_within_lease,
    ),
    Situation(
        "back-on-port", "A worker is started on the port of the one that died in its place.", processes.back_on_port
    ),
    Situation("all-gone-and-back", "No worker is left, and one comes back.", processes.all_gone_and_back),
    Situation("all-replaced", "Every worker is replaced, and one always lives.", processes.rolled),
    Situation(
        "submitted-with-no-worker", "A request is sent while no worker lives.", processes.submitted_with_no_worker
    ),
    Situation(
        "submitted-beside-a-ghost",
        "A request is sent while a dead worker is still on its frontend's list.",
        processes.submitted_beside_a_ghost,
    ),
    # freezes and drains
    Situation(
        "freeze-shorter-than-timeout",
        "A worker is frozen for less than the request timeout while a request is open.",
        processes.freeze_shorter_than_timeout,
    ),
    Situation(
        "freeze-longer-than-lease",
        "A worker is frozen for more than the lease while a request is open.",
        processes.freeze_longer_than_lease,
    ),
    Situation(
        "thaw-after-migration",
        "A worker is thawed when its request has been moved away.",
        processes.thaw_after_migration,
    ),
    Situation(
        "drained-with-open-requests",
        "A worker is asked to stop while it has a request.",
        processes.drained_with_open_requests,
    ),
    Situation(
        "drain-outlives-grace",
        "A draining worker has a request for longer than the grace period.",
        processes.drain_outlives_grace,
    ),
    Situation("second-sigterm", "A process is asked to stop twice.", processes.second_sigterm),
    Situation(
        "submitted-while-draining", "A request is sent while a worker drains.", processes.submitted_while_draining
    ),
    # frontends
    Situation(
        "frontend-killed-with-open-requests",
        "A frontend is killed while it answers.",
        processes.frontend_killed_with_open_requests,
    ),
    Situation(
        "frontend-drained-with-open-requests",
        "A frontend is asked to stop while it answers.",
        processes.frontend_drained_with_open_requests,
    ),
    Situation("frontend-restarted", "A frontend comes back while a worker lives on.", processes.frontend_restarted),
    Situation(
        "other-frontend-goes-on",
        "A frontend is killed or asked to stop, and a request through another completes.",
        processes.other_frontend_goes_on,
    ),
    # prefill apart from decode
    Situation(
        "prefill-killed-during-prefill",
        "A prefill worker is killed while it reads a prompt.",
        each(prefill.prefill_killed_in_prefill),
    ),
    Situation(
        "decode-killed-during-decode",
        "With prefill workers: the worker of a request is killed after its first token.",
        each(prefill.decode_killed_in_decode),
    ),
    Situation(
        "cancelled-during-remote-prefill",
        "A client leaves while a prefill worker reads its prompt.",
        each(prefill.cancelled_in_prefill),
    ),
    Situation(
        "cancelled-between-prefill-and-decode",
        "A client leaves when a prefill worker has read its prompt, and no token has come.",
        each(prefill.cancelled_before_decode),
    ),
    Situation(
        "cancelled-during-decode",
        "With prefill workers: a client leaves after its first token.",
        each(prefill.cancelled_in_decode),
    ),
    # clients and engines
    Situation("slow-reader", "A client stops reading for a while.", processes.slow_reader),
    Situation(
        "bad-request-beside-good",
        "A wrong request is sent while a good one is open.",
        processes.bad_request_beside_good,
    ),
    Situation("engine-error", "An engine fails a request as it was told to.", processes.engine_error),
    Situation(
        "engine-stall-cancelled",
        "An engine stalls as it was told to, and the client leaves.",
        each(requests.cancelled_while_stalled),
    ),
    Situation(
        "queued-in-engine", "A request waits in an engine for a slot or for KV blocks.", processes.queued_in_engine
    ),
    Situation(
        "overload-then-accepted",
        "A request is refused for want of capacity, and a later one completes.",
        processes.overload_then_accepted,
    ),
)
"""All of them, by subject, in the order of the catalogue."""


def reached(ledger: Ledger) -> dict[str, int]:
    """How often each situation was reached in a settled history; 0: never."""
    return {situation.id: situation.count(ledger) for situation in SITUATIONS}
