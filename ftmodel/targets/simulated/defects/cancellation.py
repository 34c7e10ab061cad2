"""Cancellation: an abort that is lost, late, doubled, only logged, or that hits another."""

from __future__ import annotations

from typing import Final

from ftmodel.targets.simulated.frontend import Call, Frontend
from ftmodel.targets.simulated.hooks import Abort, Act, Count, Defect, Emit
from ftmodel.targets.simulated.worker import Job, Worker


def _call(at: Abort) -> Call | None:
    """The call that a client has left."""
    calls = at.process.calls.items() if isinstance(at.process, Frontend) else ()
    return next((call for request, call in calls if request.id == at.id), None)


def _keep_from_worker(at: Abort, normal: Act, call: Call) -> None:
    """All that a frontend does, but for telling the worker."""
    if call.stream is not None:
        call.stream.dropped = True
        call.stream = None
        at.process.count("plane_inflight", -1)
    normal()


def _lost_early(at: Abort, normal: Act, *args: Job) -> None:
    call = _call(at)
    if at.where == "frontend" and call is not None and call.queued:
        _keep_from_worker(at, normal, call)
    else:
        normal(*args)


def _lost_unary(at: Abort, normal: Act, *args: Job) -> None:
    call = _call(at)
    if at.where == "frontend" and call is not None and not call.request.step.stream:
        _keep_from_worker(at, normal, call)
    else:
        normal(*args)


def _lost_moved(at: Abort, normal: Act, *args: Job) -> None:
    call = _call(at)
    if at.where == "frontend" and call is not None and call.left < at.cluster.limit:
        _keep_from_worker(at, normal, call)
    else:
        normal(*args)


def _lost_several(at: Abort, normal: Act, *args: Job) -> None:
    call = _call(at)
    if at.where == "frontend" and call is not None and call.request.step.n > 1:
        _keep_from_worker(at, normal, call)
    else:
        normal(*args)


def _lost_on_the_way(at: Abort, normal: Act, *args: Job) -> None:
    """Between the loss of its first worker and the first token of its second one."""
    call = _call(at)
    moving = call is not None and call.stream is not None and 0 < call.received == call.stream.position
    if at.where == "frontend" and call is not None and moving:
        _keep_from_worker(at, normal, call)
    else:
        normal(*args)


def _ignored(at: Abort, normal: Act, *args: Job) -> None:
    if at.where == "frontend":
        normal(*args)


def _only_logged(at: Abort, normal: Act, *args: Job) -> None:
    if at.where == "worker":
        at.process.log("aborted", at.id)
    else:
        normal(*args)


def _late(at: Abort, normal: Act, *args: Job) -> None:
    if at.where == "worker":
        at.process.later(2.5, normal, *args)
    else:
        normal(*args)


def _twice(at: Abort, normal: Act, *args: Job) -> None:
    normal(*args)
    if at.where == "worker":
        at.process.log("aborted", at.id)


def _wrong_one(at: Abort, normal: Act, *args: Job) -> None:
    worker = at.process
    others = [job for job in worker.running if job.id != at.id] if isinstance(worker, Worker) else []
    if others:
        normal(others[0])
    else:
        normal(*args)


def _all(at: Abort, normal: Act, *args: Job) -> None:
    normal(*args)
    worker = at.process
    for job in list(worker.running) if isinstance(worker, Worker) else ():
        normal(job)


def _third(at: Abort, normal: Act, *args: Job) -> None:
    """A worker has two places for aborts, and forgets what comes while they are taken."""
    if at.where == "worker":
        count = at.cluster.notes[at.process.title] = at.cluster.notes.get(at.process.title, 0) + 1
        if count % 3 == 0:
            return
    normal(*args)


def _unasked(at: Emit, normal: Act, tokens: dict[int, list[int]], finish: str | None) -> None:
    normal(tokens, finish)
    others = [job for job in at.worker.running if job is not at.job and job.request.step.max_tokens > 500]
    if finish and others:
        at.worker.abort(others[0])


def _counted_twice(at: Count, normal: Act, name: str, amount: float) -> None:
    normal(name, 2 * amount if name == "cancellations" and at.process.role == "frontend" else amount)


def _uncounted_on_worker(at: Count, normal: Act, name: str, amount: float) -> None:
    if name != "cancellations" or at.process.role == "worker":
        normal(name, amount)


def _counted_as_stream(at: Count, normal: Act, name: str, amount: float) -> None:
    normal(name.replace("unary", "stream"), amount)


CANCELLATION: Final = (
    Defect(
        id="abort-lost-before-first-token", hook="abort", act=_lost_early, least_steps=2,
        sentence="A cancel before the first token does not reach the worker.",
    ),
    Defect(
        id="abort-lost-not-streamed", hook="abort", act=_lost_unary, least_steps=2,
        sentence="The cancel of a request that is not streamed does not reach the worker.",
    ),
    Defect(
        id="abort-lost-after-migration", hook="abort", act=_lost_moved, least_steps=3,
        sentence="The cancel of a request that was migrated does not reach its second worker.",
    ),
    Defect(
        id="abort-lost-several-choices", hook="abort", act=_lost_several, least_steps=2,
        sentence="The cancel of a request with several choices does not reach the worker.",
    ),
    Defect(
        id="abort-lost-during-migration", hook="abort", act=_lost_on_the_way, least_steps=3,
        sentence="A cancel before the first token of a migrated request's second worker does not reach it.",
    ),
    Defect(
        id="abort-ignored", hook="abort", act=_ignored, least_steps=2,
        sentence="Workers are told of a cancel and go on.",
    ),
    Defect(
        id="third-abort-lost", hook="abort", act=_third, least_steps=6,
        sentence="Of the cancels of one worker every third is forgotten.",
    ),
    Defect(
        id="abort-only-logged", hook="abort", act=_only_logged, least_steps=1,
        sentence="An abort is logged, and the engine goes on.",
    ),
    Defect(
        id="abort-late", hook="abort", act=_late, least_steps=2,
        sentence="A worker aborts 2.5 s after it was told to.",
    ),
    Defect(
        id="abort-twice", hook="abort", act=_twice, least_steps=1,
        sentence="Each abort is done twice.",
    ),
    Defect(
        id="abort-hits-another", hook="abort", act=_wrong_one, least_steps=2,
        sentence="With two requests on one worker, the cancel of one aborts the other.",
    ),
    Defect(
        id="abort-hits-all", hook="abort", act=_all, least_steps=2,
        sentence="A cancel aborts all requests of its worker.",
    ),
    Defect(
        id="abort-unasked", hook="emit", act=_unasked, least_steps=2,
        sentence="When one request ends, a long one beside it is aborted.",
    ),
    Defect(
        id="cancels-counted-twice", hook="count", act=_counted_twice, least_steps=2,
        sentence="A frontend counts each cancel twice.",
    ),
    Defect(
        id="cancels-not-counted", hook="count", act=_uncounted_on_worker, least_steps=2,
        sentence="A frontend counts no cancels in total.",
    ),
    Defect(
        id="cancels-counted-as-streams", hook="count", act=_counted_as_stream, least_steps=2,
        sentence="Cancels of requests that are not streamed are counted as those of streams.",
    ),
)  # fmt: skip
