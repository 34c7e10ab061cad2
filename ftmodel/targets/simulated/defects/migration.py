"""Migration: lost, past its limit, of what must not move, without a cause, with the wrong tokens, too slow, untold."""

from __future__ import annotations

from typing import Any, Final

from ftmodel.targets.simulated.frontend import FAILED, Frontend
from ftmodel.targets.simulated.hooks import Abort, Act, Admit, Defect, Emit, Log, Migrate, Respond, Route
from ftmodel.targets.simulated.worker import Job, Stream


def _lost(at: Migrate, normal: Act, position: int, left: int) -> None:
    if at.why == "broken" and position > 0:
        at.frontend.fail(at.call, FAILED, "the worker was lost")
    else:
        normal(position, left)


def _no_retry(at: Migrate, normal: Act, position: int, left: int) -> None:
    if at.why == "refused" and position == 0:
        at.frontend.fail(at.call, FAILED, "the worker was lost")
    else:
        normal(position, left)


def _past_the_limit(at: Migrate, normal: Act, position: int, left: int) -> None:
    normal(position, max(1, left))


def _one_past_the_limit(at: Migrate, normal: Act, position: int, left: int) -> None:
    again = left == 0 and at.cluster.limit > 2 and at.cluster.notes.setdefault(at.call.request.id, "once") == "once"
    if again:
        at.cluster.notes[at.call.request.id] = "twice"
    normal(position, 1 if again else left)


def _shared_limit(at: Migrate, normal: Act, position: int, left: int) -> None:
    used = at.cluster.notes["used"] = at.cluster.notes.get("used", 0) + 1
    normal(position, min(left, 1 + at.cluster.limit - used))


def _what_must_not(at: Migrate, normal: Act, position: int, left: int) -> None:
    if at.call.may_move:
        normal(position, left)
    else:
        at.frontend.log("migrating", at.call.request.id)
        at.frontend.dispatch(at.call, position)


def _token_lost(at: Migrate, normal: Act, position: int, left: int) -> None:
    normal(position + 1 if position > 0 else 0, left)


def _token_doubled(at: Migrate, normal: Act, position: int, left: int) -> None:
    normal(max(0, position - 1), left)


def _tokens_reordered(at: Emit, normal: Act, tokens: dict[int, list[int]], finish: str | None) -> None:
    ids = tokens[0]
    key = (at.worker.title, at.job.id)
    if at.job.position > 0 and len(ids) > 1 and at.cluster.notes.setdefault(key, True):
        at.cluster.notes[key] = False
        tokens = {**tokens, 0: [ids[1], ids[0], *ids[2:]]}
    normal(tokens, finish)


def _begins_anew(at: Migrate, normal: Act, position: int, left: int) -> None:
    second = at.cluster.notes.setdefault(at.call.request.id, at.why) != at.why
    normal(0 if second else position, left)


def _second_loses(at: Migrate, normal: Act, position: int, left: int) -> None:
    broken = at.cluster.notes[at.call.request.id] = at.cluster.notes.get(at.call.request.id, 0) + (position > 0)
    normal(position + (broken == 2 and at.why == "broken"), left)


def _stop_forgotten(at: Migrate, normal: Act, position: int, left: int) -> None:
    if position > 0:
        for answer in at.call.answers:
            answer.stops = ()
    normal(position, left)


def _withheld_lost(at: Migrate, normal: Act, position: int, left: int) -> None:
    for answer in at.call.answers:
        answer.held = ""
    normal(position, left)


def _lapse_gives_up(at: Migrate, normal: Act, position: int, left: int) -> None:
    if at.why == "lapsed":
        at.frontend.log("given-up", at.call.request.id, error="worker lapsed")
        at.frontend.fail(at.call, FAILED, "the worker was lost")
    else:
        normal(position, left)


def _wrong_remainder(at: Admit, normal: Act, job: Job) -> None:
    job.max_tokens += job.position
    normal(job)


def _slow(at: Migrate, normal: Act, position: int, left: int) -> None:
    def late() -> None:
        if not at.call.over:
            normal(position, left)

    at.cluster.kernel.after(20.0, late)


def _hangs_without_workers(at: Migrate, normal: Act, position: int, left: int) -> None:
    if any(instance.worker.alive for instance in at.frontend.listed.values()):
        normal(position, left)


def _meets_it_again(at: Route, normal: Act, instances: list[Any]) -> Any:
    """Nobody chooses a shunned worker again, but the shunned are forgotten at each change of the list."""
    chosen = normal(instances)
    met = at.cluster.notes.setdefault(at.frontend.title, set())
    met |= at.frontend.shunned
    if chosen is not None and chosen.identity in met - at.frontend.shunned and at.call.received > 0:
        at.call.received += 1
    return chosen


def _cancelled_moves(at: Abort, normal: Act, *args: Any) -> None:
    frontend = at.process
    call = (
        next((c for r, c in frontend.calls.items() if r.id == at.id), None) if isinstance(frontend, Frontend) else None
    )
    stream = call.stream if call is not None else None
    normal(*args)

    def move() -> None:
        if isinstance(frontend, Frontend) and call is not None and stream is not None and not stream.worker.alive:
            frontend.log("migrating", at.id)

    at.cluster.kernel.after(2.5, move)


def _without_cause(at: Emit, normal: Act, tokens: dict[int, list[int]], finish: str | None) -> None:
    normal(tokens, finish)
    stream = at.job.stream
    if at.job.sent > 20 and at.job.position == 0 and finish is None:
        at.worker.send(stream.down, stream.frontend, stream.frontend.broken, stream)


def _hedges(at: Route, normal: Act, instances: list[Any]) -> Any:
    chosen = normal(instances)
    others = [instance for instance in instances if instance is not chosen]
    if others and at.call.received == 0 and at.call.request.step.n == 1 and at.call.request.step.max_tokens > 500:
        first = at.frontend.channels_to(others[0])
        second = Stream(at.call, at.frontend, others[0].worker, *first, position=0, dropped=True)
        second.up.send(second.worker.hear, second.worker.receive, second)
    return chosen


def _untold(at: Log, normal: Act, meaning: str, id_: str, fields: Any) -> None:
    if meaning not in ("migrating", "retrying"):
        normal(meaning, id_, fields)


def _told_in_vain(at: Respond, normal: Act, *args: Any) -> None:
    if at.call.status == 0 and at.call.request.step.n == 1:
        at.frontend.log("migrating", at.call.request.id)
    normal(*args)


MIGRATION: Final = (
    Defect(
        id="migration-lost", hook="migrate", act=_lost, least_steps=2,
        sentence="A stream whose worker dies after its first token fails, though others live.",
    ),
    Defect(
        id="retry-lost", hook="migrate", act=_no_retry, least_steps=1,
        sentence="A new request that meets a dead worker fails instead of being sent to another.",
    ),
    Defect(
        id="limit-ignored", hook="migrate", act=_past_the_limit, least_steps=2,
        sentence="Requests are migrated as often as it takes, whatever the limit.",
    ),
    Defect(
        id="limit-plus-one", hook="migrate", act=_one_past_the_limit, least_steps=2,
        sentence="A request that has used up its migrations, three or more, gets one more.",
    ),
    Defect(
        id="limit-shared", hook="migrate", act=_shared_limit, least_steps=2,
        sentence="The migrations of all requests together are held to the limit of one.",
    ),
    Defect(
        id="moves-several-choices", hook="migrate", act=_what_must_not, least_steps=2,
        sentence="Requests with several choices, or with a grammar, are migrated too.",
    ),
    Defect(
        id="migration-loses-token", hook="migrate", act=_token_lost, least_steps=2,
        sentence="The second worker goes on one token too late.",
    ),
    Defect(
        id="migration-doubles-token", hook="migrate", act=_token_doubled, least_steps=2,
        sentence="The second worker goes on one token too early.",
    ),
    Defect(
        id="migration-reorders-tokens", hook="emit", act=_tokens_reordered, least_steps=2,
        sentence="The first two tokens that the second worker sends together change places.",
    ),
    Defect(
        id="second-migration-begins-anew", hook="migrate", act=_begins_anew, least_steps=3,
        sentence="A request that is lost in a second way is begun from its first token.",
    ),
    Defect(
        id="second-migration-loses-token", hook="migrate", act=_second_loses, least_steps=3,
        sentence="The third worker of a request goes on one token too late.",
    ),
    Defect(
        id="migration-asks-for-all", hook="admit", act=_wrong_remainder, least_steps=2,
        sentence="The second worker is asked for max_tokens again, not for what is left.",
    ),
    Defect(
        id="migration-slow", hook="migrate", act=_slow, least_steps=2,
        sentence="A lost worker is noticed after 20 s.",
    ),
    Defect(
        id="hangs-without-workers", hook="migrate", act=_hangs_without_workers, least_steps=2,
        sentence="When the last worker is lost its requests wait for ever.",
    ),
    Defect(
        id="token-lost-when-the-shunned-are-forgotten", hook="route", act=_meets_it_again, least_steps=4,
        sentence="A migrated request that meets a worker that was shunned, and forgotten, loses a token.",
    ),
    Defect(
        id="stop-forgotten-at-migration", hook="migrate", act=_stop_forgotten, least_steps=2,
        sentence="The stop string of a request that was migrated is looked for no more.",
    ),
    Defect(
        id="migration-loses-withheld-text", hook="migrate", act=_withheld_lost, least_steps=2, hard=True,
        sentence="What a frontend withholds of an answer, as it may begin a stop string, is lost at a migration.",
    ),
    Defect(
        id="lapse-loses-request", hook="migrate", act=_lapse_gives_up, least_steps=2, hard=True,
        sentence="A stream whose worker's lease lapsed is given up, though it has migrations left.",
    ),
    Defect(
        id="cancelled-is-migrated", hook="abort", act=_cancelled_moves, least_steps=3,
        sentence="A cancelled request is migrated when its worker dies soon after.",
    ),
    Defect(
        id="moves-without-cause", hook="emit", act=_without_cause, least_steps=1,
        sentence="A healthy worker's connection breaks after twenty tokens.",
    ),
    Defect(
        id="hedges", hook="route", act=_hedges, least_steps=1,
        sentence="A long request is sent to two workers, and one of them is forgotten.",
    ),
    Defect(
        id="migration-untold", hook="log", act=_untold, least_steps=2,
        sentence="Frontends log no migration.",
    ),
    Defect(
        id="migration-told-in-vain", hook="respond", act=_told_in_vain, least_steps=1,
        sentence="Frontends log a migration of requests that stay where they are.",
    ),
)  # fmt: skip
