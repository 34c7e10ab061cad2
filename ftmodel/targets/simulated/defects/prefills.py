"""Prefill workers: results that are lost or mixed up on the way to decode, cancels that do not reach them, leaks."""

from __future__ import annotations

from typing import Final

from ftmodel.targets.simulated.hooks import Abort, Act, Defect, Free, HandOff, Migrate
from ftmodel.targets.simulated.worker import First, Job

TOPOLOGY: Final = "simulated-disaggregated"


def _lost_when_decode_dies(at: Migrate, normal: Act, position: int, left: int) -> None:
    if at.why != "broken" or position == 0:
        normal(position, left)
    else:
        at.frontend.log("migrating", at.call.request.id)
        at.frontend.count("migrations", call=at.call)


def _never_handed(at: HandOff, normal: Act, first: First) -> None:
    if at.stream.call.request.step.api != "chat":
        normal(first)


def _wrong_first(at: HandOff, normal: Act, first: First) -> None:
    normal({index: token + 1 for index, token in first.items()})


def _first_of_another(at: HandOff, normal: Act, first: First) -> None:
    before = at.cluster.notes.get("first", first)
    at.cluster.notes["first"] = first
    normal(before if before.keys() == first.keys() else first)


def _goes_on_unread(at: Abort, normal: Act, *args: Job) -> None:
    if at.where == "frontend" or at.process.role != "prefill":
        normal(*args)


def _kept_when_decode_is_cancelled(at: Free, normal: Act, job: Job) -> None:
    """The blocks of a prompt are kept until the worker that decodes has done with it."""
    kept = at.cluster.notes.setdefault("kept", {})
    if at.worker.role == "prefill" and at.cause == "ended":
        at.worker.running.remove(job)
        kept[job.id] = (normal, job)
        return
    normal(job)
    if at.worker.role == "worker" and at.cause == "ended" and job.id in kept:
        free, read = kept.pop(job.id)
        free(read)


PREFILLS: Final = (
    Defect(
        id="prefill-lost-when-decode-dies", hook="migrate", act=_lost_when_decode_dies, least_steps=2, topology=TOPOLOGY,
        sentence="The result of a prefill is lost when the worker that decodes dies, and nobody reads the prompt again.",
    ),
    Defect(
        id="hand-off-lost", hook="hand-off", act=_never_handed, least_steps=1, topology=TOPOLOGY,
        sentence="A chat's prompt that was read is not handed on.",
    ),
    Defect(
        id="wrong-first-token", hook="hand-off", act=_wrong_first, least_steps=1, topology=TOPOLOGY,
        sentence="Decode goes on with another first token than prefill made.",
    ),
    Defect(
        id="first-token-of-another", hook="hand-off", act=_first_of_another, least_steps=1, topology=TOPOLOGY,
        sentence="Decode goes on with the first token of the request that was read before.",
    ),
    Defect(
        id="prefill-not-aborted", hook="abort", act=_goes_on_unread, least_steps=2, topology=TOPOLOGY,
        sentence="A prefill worker reads a prompt to its end though the client has left.",
    ),
    Defect(
        id="prefill-keeps-what-decode-cancelled", hook="free", act=_kept_when_decode_is_cancelled, least_steps=1,
        topology=TOPOLOGY, sentence="A prefill worker keeps the KV blocks of a request whose decode is aborted.",
    ),
)  # fmt: skip
