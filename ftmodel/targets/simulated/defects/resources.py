"""Resources: slots, KV blocks and gauges that leak, processes that are left, panics, counters that lie."""

from __future__ import annotations

from typing import Any, Final

from ftmodel.targets.simulated.frontend import Frontend
from ftmodel.targets.simulated.hooks import Abort, Act, Count, Defect, Drain, Free, Log
from ftmodel.targets.simulated.worker import Job


def _blocks_kept(cause: str) -> Act:
    def act(at: Free, normal: Act, job: Job) -> None:
        blocks = job.blocks
        normal(job)
        at.worker.blocks_used += blocks if at.cause == cause else 0

    return act


def _third_of_several_kept(at: Free, normal: Act, job: Job) -> None:
    blocks = job.blocks
    normal(job)
    count = at.cluster.notes[at.worker.title] = at.cluster.notes.get(at.worker.title, 0) + (job.request.step.n > 1)
    at.worker.blocks_used += blocks if count > 2 and job.request.step.n > 1 else 0


def _blocks_kept_of_failed_second(at: Free, normal: Act, job: Job) -> None:
    blocks = job.blocks
    normal(job)
    at.worker.blocks_used += blocks if at.cause == "failed" and job.position > 0 else 0


def _blocks_kept_of_guided(at: Free, normal: Act, job: Job) -> None:
    blocks = job.blocks
    normal(job)
    at.worker.blocks_used += blocks if at.cause == "aborted" and job.request.step.guided else 0


def _failure_spreads(at: Free, normal: Act, job: Job) -> None:
    normal(job)
    if at.cause == "failed" and len(at.worker.running) > 1:
        at.worker.abort(at.worker.running[0])


def _slot_kept(at: Free, normal: Act, job: Job) -> None:
    if at.cause != "aborted" or job.sent > 0:
        normal(job)


def _slot_kept_by_failed(at: Free, normal: Act, job: Job) -> None:
    if at.cause != "failed":
        normal(job)


def _slot_kept_after_migration(at: Free, normal: Act, job: Job) -> None:
    if at.cause != "aborted" or job.position == 0:
        normal(job)


def _is_on_dead(at: Count) -> bool:
    workers = at.cluster.holders.get(at.call.request.id, []) if at.call is not None else []
    return bool(workers) and not workers[-1].alive


def _inflight_of_raced(at: Count, normal: Act, name: str, amount: float) -> None:
    raced = at.call is not None and at.call.request.left and _is_on_dead(at)
    if not (name == "inflight" and amount < 0 and raced):
        normal(name, amount)


def _plane_of_dead(at: Count, normal: Act, name: str, amount: float) -> None:
    if not (name == "plane_inflight" and amount < 0 and _is_on_dead(at)):
        normal(name, amount)


def _queued_of_refused(at: Count, normal: Act, name: str, amount: float) -> None:
    refused = at.call is not None and at.call.request.wrong is not None
    if not (name == "queued" and amount < 0 and refused):
        normal(name, amount)


def _queued_twice(at: Count, normal: Act, name: str, amount: float) -> None:
    left = at.call is not None and at.call.request.left
    normal(name, 2 * amount if name == "queued" and amount < 0 and left else amount)


def _worker_inflight(at: Count, normal: Act, name: str, amount: float) -> None:
    long_ = at.process.role == "worker" and at.process.values.get("inflight", 0.0) > 3
    if not (name == "inflight" and amount < 0 and long_):
        normal(name, amount)


def _failed_as_success(at: Count, normal: Act, name: str, amount: float) -> None:
    failed = name == "failed" and at.call is not None and not at.call.request.left
    normal("success" if failed else name, amount)


def _unary_uncounted(at: Count, normal: Act, name: str, amount: float) -> None:
    unary = at.call is not None and not at.call.request.step.stream
    if not (name == "success" and unary):
        normal(name, amount)


def _migrated_counted_twice(at: Count, normal: Act, name: str, amount: float) -> None:
    moved = at.call is not None and at.call.left < at.cluster.limit
    normal(name, 2 * amount if name == "success" and moved else amount)


def _cancelled_as_failed(at: Count, normal: Act, name: str, amount: float) -> None:
    if name != "cancelled":
        normal(name, amount)


def _migrations_tenfold(at: Count, normal: Act, name: str, amount: float) -> None:
    normal(name, 50 * amount if name == "migrations" else amount)


def _falls(at: Count, normal: Act, name: str, amount: float) -> None:
    normal(name, amount)
    if name == "success" and at.process.values[name] == 8:
        at.process.values[name] = 0.0


def _orphan(at: Drain, normal: Act) -> None:
    at.process.orphans = (at.process.pid + 500,)
    normal()


def _panics(at: Drain, normal: Act) -> None:
    at.process.log("panic")
    normal()


def _traceback(at: Log, normal: Act, meaning: str, id_: str, fields: Any) -> None:
    normal(meaning, id_, fields)
    if meaning == "migrating":
        normal("traceback", "", {})


def _dies_of_cancel(at: Abort, normal: Act, *args: Job) -> None:
    normal(*args)
    if at.where == "worker" and args[0].sent == 0:
        at.process.die(signal=None, code=1)


def _frontend_dies(at: Count, normal: Act, name: str, amount: float) -> None:
    normal(name, amount)
    if name == "cancellations" and at.process.values[name] >= 2 and isinstance(at.process, Frontend):
        at.process.later(0.01, at.process.die, 11)


RESOURCES: Final = (
    Defect(
        id="kv-leaks-on-cancel", hook="free", act=_blocks_kept("aborted"), least_steps=1,
        sentence="The KV blocks of an aborted request stay taken.",
    ),
    Defect(
        id="kv-leaks-on-preemption", hook="free", act=_blocks_kept("preempted"), least_steps=2, hard=True,
        sentence="The KV blocks of a preempted request stay taken.",
    ),
    Defect(
        id="kv-leaks-on-failure", hook="free", act=_blocks_kept("failed"), least_steps=2,
        sentence="The KV blocks of a request that its engine failed stay taken.",
    ),
    Defect(
        id="kv-leaks-on-third-of-several-choices", hook="free", act=_third_of_several_kept, least_steps=3, hard=True,
        sentence="The KV blocks of the third request with several choices on a worker stay taken, and of those after it.",
    ),
    Defect(
        id="kv-leaks-on-failure-after-migration", hook="free", act=_blocks_kept_of_failed_second, least_steps=3,
        sentence="The KV blocks of a request that was migrated, and that its second engine failed, stay taken.",
    ),
    Defect(
        id="kv-leaks-on-cancel-with-grammar", hook="free", act=_blocks_kept_of_guided, least_steps=2,
        sentence="The KV blocks of an aborted request with a grammar stay taken.",
    ),
    Defect(
        id="failure-spreads", hook="free", act=_failure_spreads, least_steps=4,
        sentence="Where an engine fails one of three requests, another one is aborted.",
    ),
    Defect(
        id="slot-leaks-when-cancelled-early", hook="free", act=_slot_kept, least_steps=2,
        sentence="A request that is aborted before its first token keeps its slot.",
    ),
    Defect(
        id="slot-leaks-on-failure", hook="free", act=_slot_kept_by_failed, least_steps=2,
        sentence="A request that its engine failed keeps its slot.",
    ),
    Defect(
        id="slot-leaks-when-cancelled-after-migration", hook="free", act=_slot_kept_after_migration, least_steps=3, sentence="A request that was migrated and then aborted keeps its slot.",
    ),
    Defect(
        id="inflight-leaks-when-cancel-meets-kill", hook="count", act=_inflight_of_raced, least_steps=3,
        sentence="A request whose client leaves as its worker dies stays in the frontend's count.",
    ),
    Defect(
        id="plane-leaks-on-kill", hook="count", act=_plane_of_dead, least_steps=2,
        sentence="Attempts on a worker that died stay in the count of the request plane.",
    ),
    Defect(
        id="queued-leaks-on-refusal", hook="count", act=_queued_of_refused, least_steps=1,
        sentence="A request that is refused stays in the count of those that wait.",
    ),
    Defect(
        id="queued-below-zero", hook="count", act=_queued_twice, least_steps=2,
        sentence="A request that is cancelled before its first token is taken off the count of those that wait twice.",
    ),
    Defect(
        id="worker-inflight-leaks-when-crowded", hook="count", act=_worker_inflight, least_steps=4,
        sentence="With more than three requests on a worker, the end of one is not counted.",
    ),
    Defect(
        id="failure-counted-as-success", hook="count", act=_failed_as_success, least_steps=1,
        sentence="A failed request is counted as a success.",
    ),
    Defect(
        id="not-streamed-uncounted", hook="count", act=_unary_uncounted, least_steps=1,
        sentence="Answers that are not streamed are not counted.",
    ),
    Defect(
        id="migrated-counted-twice", hook="count", act=_migrated_counted_twice, least_steps=2,
        sentence="A migrated answer is counted once for each worker.",
    ),
    Defect(
        id="cancelled-counted-as-failed", hook="count", act=_cancelled_as_failed, least_steps=2,
        sentence="A cancelled request is counted as failed for another reason.",
    ),
    Defect(
        id="migrations-overcounted", hook="count", act=_migrations_tenfold, least_steps=1,
        sentence="A migration is counted fifty times.",
    ),
    Defect(
        id="counter-falls", hook="count", act=_falls, least_steps=1,
        sentence="The count of successes begins anew after eight.",
    ),
    Defect(
        id="drain-leaves-a-process", hook="drain", act=_orphan, least_steps=2,
        sentence="A process that was asked to stop leaves a child behind.",
    ),
    Defect(
        id="drain-panics", hook="drain", act=_panics, least_steps=2,
        sentence="A process that was asked to stop panics first.",
    ),
    Defect(
        id="migration-raises", hook="log", act=_traceback, least_steps=2,
        sentence="A migration leaves a traceback in the log.",
    ),
    Defect(
        id="early-cancel-kills-worker", hook="abort", act=_dies_of_cancel, least_steps=2,
        sentence="A worker ends when a request is cancelled before its first token.",
    ),
    Defect(
        id="second-cancel-kills-frontend", hook="count", act=_frontend_dies, least_steps=4,
        sentence="A frontend crashes after its second cancel.",
    ),
)  # fmt: skip
