"""Tokens: lost, doubled, reordered, another's, too few, too many; finish reasons, stop strings, usage, hangs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ftmodel.history import Item
from ftmodel.targets.simulated.hooks import Act, Defect, Emit, Respond
from ftmodel.targets.simulated.worker import Job, token_ids_of

Tokens = dict[int, list[int]]
MIDDLE: Final = 9


def _first(job: Job, tokens: Tokens) -> int:
    """The position of the first of these."""
    return job.position + job.sent - len(tokens[0])


def _spoils(change: Callable[[list[int], int], list[int]]) -> Act:
    """Changes the burst that holds the token in the middle, given its ids and the place of that one in it."""

    def act(at: Emit, normal: Act, tokens: Tokens, finish: str | None) -> None:
        place = MIDDLE - _first(at.job, tokens)
        if 0 <= place < len(tokens[0]) - 1:
            tokens = {**tokens, 0: change(list(tokens[0]), place)}
        normal(tokens, finish)

    return act


def _dropped(ids: list[int], place: int) -> list[int]:
    return ids[:place] + ids[place + 1 :]


def _doubled(ids: list[int], place: int) -> list[int]:
    return ids[: place + 1] + ids[place:]


def _swapped(ids: list[int], place: int) -> list[int]:
    other = next((i for i in range(place + 1, len(ids)) if ids[i] != ids[place]), place)
    ids[place], ids[other] = ids[other], ids[place]
    return ids


def _foreign(at: Emit, normal: Act, tokens: Tokens, finish: str | None) -> None:
    others = [job for job in at.worker.running if job is not at.job and job.key != at.job.key]
    first = _first(at.job, tokens)
    if others and len(tokens[0]) >= 8:
        path = others[0].choices[0][1]
        tokens = {**tokens, 0: token_ids_of(path, first, first + len(tokens[0]))}
    normal(tokens, finish)


def _short(at: Emit, normal: Act, tokens: Tokens, finish: str | None) -> None:
    normal({i: ids[:-4] if finish else ids for i, ids in tokens.items()}, finish)


def _long(at: Emit, normal: Act, tokens: Tokens, finish: str | None) -> None:
    if finish:
        end = at.job.end
        tokens = {i: ids + token_ids_of(at.job.choices[i][1], end, end + 4) for i, ids in tokens.items()}
    normal(tokens, finish)


def _finish_after_migration(at: Emit, normal: Act, tokens: Tokens, finish: str | None) -> None:
    normal(tokens, "stop" if finish and at.job.position > 0 else finish)


def _finish(at: Emit, normal: Act, tokens: Tokens, finish: str | None) -> None:
    normal(tokens, "stop" if finish and at.job.request.step.api == "chat" else finish)


def _hangs(at: Emit, normal: Act, tokens: Tokens, finish: str | None) -> None:
    if at.job.position + at.job.sent > 30:
        at.job.state = "stalled"
    else:
        normal(tokens, finish)


def _hangs_two_moved(at: Emit, normal: Act, tokens: Tokens, finish: str | None) -> None:
    moved = [job for job in at.worker.running if job.position > 0]
    if at.job.position > 0 and len(moved) > 1:
        at.job.state = "stalled"
    else:
        normal(tokens, finish)


def _last_lost(at: Emit, normal: Act, tokens: Tokens, finish: str | None) -> None:
    """Moved with little left, the engine takes what is left for nothing."""
    job = at.job
    few = job.position > 0 and job.request.step.max_tokens - job.position <= 20
    normal({i: [] for i in tokens} if few else tokens, finish)


def _items(change: Callable[[Respond, Item], Item | None]) -> Act:
    """Changes, or leaves out, single items of answers."""

    def act(at: Respond, normal: Act, status: int, items: tuple[Item, ...], ends: bool) -> None:
        changed = (change(at, item) for item in items)
        normal(status, tuple(item for item in changed if item is not None), ends)

    return act


def _moved(at: Respond) -> bool:
    return at.call.left < at.cluster.limit


def _leaks_stop(at: Respond, normal: Act, status: int, items: tuple[Item, ...], ends: bool) -> None:
    stops = at.call.request.stop
    leaked = [Item("text", stops[0])] if any(item.what == "finish" and item.value == "stop" for item in items) else []
    place = next((i for i, item in enumerate(items) if item.what == "finish"), len(items))
    normal(status, (*items[:place], *leaked, *items[place:]), ends)


def _usage(at: Respond, item: Item) -> Item:
    return replace(item, count=item.count + 1) if item.what == "usage" else item


def _usage_of_the_last(at: Respond, item: Item) -> Item:
    return replace(item, count=item.count // 2) if item.what == "usage" and _moved(at) else item


def _usage_of_the_third(at: Respond, item: Item) -> Item:
    twice = at.cluster.limit + 1 - at.call.left > 2
    return replace(item, count=item.count // 2) if item.what == "usage" and twice else item


def _prompt_grows(at: Respond, item: Item) -> Item:
    grown = str(at.call.prompt_tokens + at.call.received)
    return replace(item, value=grown) if item.what == "usage" and _moved(at) else item


def _no_usage(at: Respond, item: Item) -> Item | None:
    return None if item.what == "usage" and at.call.request.step.stream else item


TOKENS: Final = (
    Defect(
        id="drops-token", hook="emit", act=_spoils(_dropped), least_steps=1,
        sentence="One token in the middle of an answer is not sent.",
    ),
    Defect(
        id="doubles-token", hook="emit", act=_spoils(_doubled), least_steps=1,
        sentence="One token in the middle of an answer is sent twice.",
    ),
    Defect(
        id="reorders-tokens", hook="emit", act=_spoils(_swapped), least_steps=1,
        sentence="Two tokens in the middle of an answer change places.",
    ),
    Defect(
        id="cross-talk", hook="emit", act=_foreign, least_steps=2,
        sentence="With two requests on one worker, tokens of the one get into the answer of the other.",
    ),
    Defect(
        id="too-short", hook="emit", act=_short, least_steps=1,
        sentence="The last four tokens of an answer are lacking.",
    ),
    Defect(
        id="too-long", hook="emit", act=_long, least_steps=1,
        sentence="An answer has four tokens more than was asked for.",
    ),
    Defect(
        id="wrong-finish-reason", hook="emit", act=_finish, least_steps=1,
        sentence="A chat that ends at max_tokens says that it stopped by itself.",
    ),
    Defect(
        id="wrong-finish-reason-after-migration", hook="emit", act=_finish_after_migration, least_steps=2,
        sentence="A migrated answer that ends at max_tokens says that it stopped by itself.",
    ),
    Defect(
        id="hangs", hook="emit", act=_hangs, least_steps=1,
        sentence="After thirty tokens the engine falls silent.",
    ),
    Defect(
        id="hangs-two-moved", hook="emit", act=_hangs_two_moved, least_steps=3,
        sentence="Of two requests that were migrated to one worker neither goes on.",
    ),
    Defect(
        id="migration-at-the-end-loses-tokens", hook="emit", act=_last_lost, least_steps=2,
        sentence="A request that is migrated with at most twenty tokens left gets none of them.",
    ),
    Defect(
        id="leaks-stop-string", hook="respond", act=_leaks_stop, least_steps=1,
        sentence="The stop string is told with the answer that it ends.",
    ),
    Defect(
        id="usage-counts-one-more", hook="respond", act=_items(_usage), least_steps=1,
        sentence="Usage has one completion token too many.",
    ),
    Defect(
        id="usage-of-the-last-worker", hook="respond", act=_items(_usage_of_the_last), least_steps=1,
        sentence="Usage of a migrated answer has only a part of its tokens.",
    ),
    Defect(
        id="usage-wrong-after-two-migrations", hook="respond", act=_items(_usage_of_the_third), least_steps=3,
        sentence="Usage of an answer that was migrated twice has half of its tokens.",
    ),
    Defect(
        id="prompt-grows-with-migration", hook="respond", act=_items(_prompt_grows), least_steps=1,
        sentence="Usage of a migrated answer counts its tokens as the prompt's.",
    ),
    Defect(
        id="usage-missing", hook="respond", act=_items(_no_usage), least_steps=1,
        sentence="A stream does not tell the usage that was asked for.",
    ),
)  # fmt: skip
