"""Defects of answers beside their text, of aborts beside others, and of counters."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

from mutations_of_clusters import late_sample, leak
from mutations_of_requests import failing, said
from planting import Base, Mutate, Mutation, bursts, edited, inserted, lines, moved, replaced, sampled

from ftmodel.history import Event, Item, Sample
from ftmodel.invariants.counters import as_counted
from ftmodel.invariants.duty import surely_wrong
from ftmodel.invariants.records import Request
from ftmodel.invariants.requests import failure
from ftmodel.invariants.statuses import REFUSED_WITH
from ftmodel.invariants.texts import WORD_CHARS, whole_text

# --- statuses ---------------------------------------------------------------------------------------------------


def refused(base: Base) -> Iterator[Request]:
    """Wrong requests that were refused as they should be."""
    for request in base.clean():
        wrong = request.sent.wrong
        if request.status in REFUSED_WITH.get(wrong, ()) and surely_wrong(base.ledger, request):
            yield request


def restated(base: Base, request: Request, status: int) -> list[Event]:
    assert request.begun is not None
    return replaced(base.events, request.begun, dataclasses.replace(request.begun, status=status))


def refused_with(status: int) -> Mutate:
    def mutate(base: Base) -> list[Event] | None:
        for request in refused(base):
            if request.sent.wrong == "malformed-json":
                return restated(base, request, status)
        return None

    return mutate


def refused_in_stream(base: Base) -> list[Event] | None:
    for request in refused(base):
        if request.sent.stream:
            [burst] = bursts(base.events, request)
            told = dataclasses.replace(burst, items=(*burst.items, Item("done")))
            return [told if event is burst else event for event in restated(base, request, 200)]
    return None


def unsteady(base: Base) -> list[Event] | None:
    seen: set[str] = set()
    for request in refused(base):
        wrong = request.sent.wrong
        if wrong in seen and 422 in REFUSED_WITH[wrong]:
            return restated(base, request, 422)
        seen.add(wrong)
    return None


def empty_list_500(base: Base) -> list[Event] | None:
    for request in base.clean():
        view = base.ledger.views.get(request.sent.frontend)
        polls = view.since(request.sent.at.before_s - 3) if view else range(0)
        before = [i for i in polls if view and view.afters_s[i] < request.sent.at.before_s]
        empty = view is not None and before and not any(view.titles[i] for i in before)
        if empty and request.status == 503:
            return restated(base, request, 500)
    return None


# --- identity, cross-talk, usage --------------------------------------------------------------------------------


def one_item(what: str, new: Callable[[Item], Item | None], *, least: int = 10, streamed: bool = True) -> Mutate:
    """The first item of this kind in a whole answer, changed; None from the change: another one."""

    def mutate(base: Base) -> list[Event] | None:
        for request in base.whole(streamed=streamed, least=least):
            changed = edited(base, request, lambda items: _changed(items, what, new))
            if changed is not None:
                return changed
        return None

    return mutate


def _changed(items: list[Item], what: str, new: Callable[[Item], Item | None]) -> list[Item] | None:
    for place, item in enumerate(items):
        if item.what == what and (other := new(item)) is not None:
            return [*items[:place], other, *items[place + 1 :]]
    return None


def strange_index(base: Base) -> list[Event] | None:
    for request in base.whole():
        return edited(base, request, lambda items: [Item("empty", choice=request.sent.n), *items])  # noqa: B023
    return None


def cross_talk(base: Base) -> list[Event] | None:
    """Three tokens of a request that was there before the end, or more: two characters at least."""
    for request in base.whole(least=30):
        for other in base.ledger.requests.values():
            if other is request or other.sent.at.before_s > base.ledger.life(request).after_s:
                continue
            theirs, ours = (whole_text(r.sent.key.encode(), r.sent.max_tokens) for r in (other, request))
            size = 4 * WORD_CHARS if theirs.isascii() else 3
            part = theirs[size : 2 * size]
            if len(part) == size and not any(part[i : i + 2] in ours for i in range(len(part) - 1)):
                put = said(lambda value, unit, part=part: value[:unit] + part + value[unit:], name=request.name)  # type: ignore[misc]
                if (events := put(base)) is not None:
                    return events
    return None


def prompt_miscounted(item: Item) -> Item | None:
    return dataclasses.replace(item, value=str(int(item.value) + 1)) if item.value else None


def answer_miscounted(item: Item) -> Item | None:
    return dataclasses.replace(item, count=item.count + 1)


def stopped_miscounted(base: Base) -> list[Event] | None:
    for request in base.whole(streamed=False):
        if request.sent.stop:
            return edited(base, request, lambda items: _changed(items, "usage", _far_miscounted))
    return None


def _far_miscounted(item: Item) -> Item:
    return dataclasses.replace(item, count=item.count + 30)


def usage_missing(base: Base) -> list[Event] | None:
    for request in base.whole(streamed=False):
        if not request.sent.stream or request.sent.usage:
            return edited(base, request, _without_usage)
    return None


def _without_usage(items: list[Item]) -> list[Item] | None:
    rest = [item for item in items if item.what != "usage"]
    return rest if len(rest) < len(items) else None


def looks_whole(base: Base) -> list[Event] | None:
    """What an engine broke off ends as if it were complete."""
    for request in base.clean():
        if request.erred is None or request.ended is None or not request.choices or not request.sent.stream:
            continue
        last = bursts(base.events, request)[-1]
        if any(item.what == "error" for item in last.items):
            whole = (Item("finish", "length"), Item("done"))
            return replaced(base.events, last, dataclasses.replace(last, items=whole))
    return None


# --- aborts -----------------------------------------------------------------------------------------------------


def after_end(base: Base) -> list[Event] | None:
    for request in base.clean():
        title = base.calm(request)
        if request.closed_after_end and title is not None and request.over is not None:
            for old in lines(base, title, "ended", request):
                late = dataclasses.replace(moved(old, request.over.after_s + 0.05 - old.at.after_s), meaning="aborted")
                return inserted(replaced(base.events, old), late)
    return None


def neighbour_aborted(base: Base) -> list[Event] | None:
    for left, title in base.must_abort():
        for request in base.whole(streamed=False):
            mine, theirs = (base.ledger.generations.get(r.sent.id, {}).get(title) for r in (request, left))
            if base.calm(request) != title or not mine or not theirs or not mine.ended or not request.over:
                continue
            begun = max(mine.begun[0].at.after_s, theirs.begun[0].at.after_s)
            close = left.left_at
            if begun < close.before_s and close.after_s + 0.02 < request.over.before_s:
                [old] = mine.ended
                aborted = dataclasses.replace(moved(old, close.after_s + 0.01 - old.at.after_s), meaning="aborted")
                events = sampled(base.events, title, "running", lambda value: max(0.0, value - 1), close.after_s)
                return inserted(replaced(events, old), aborted)
    return None


# --- counters ---------------------------------------------------------------------------------------------------


def split_wrong(base: Base) -> list[Event] | None:
    """A cancel is counted as one of another kind."""
    here, there = "cancellations_completion_stream", "cancellations_completion_unary"
    for request, _ in base.must_abort():
        title, kind = request.sent.frontend, f"cancellations_{request.sent.api}_stream"
        last = base.ledger.last_sample[title].values
        if kind == here == next((name for name in last if name == here), "") and request.sent.stream:
            lower = sampled(base.events, title, here, lambda value, most=last[here] - 1: min(value, most))  # type: ignore[misc]
            return [
                dataclasses.replace(e, values={**e.values, there: e.values.get(there, 0.0) + 1})
                if isinstance(e, Sample) and e.title == title and e.at.after_s >= request.left_at.after_s
                else e
                for e in lower
            ]
    return None


def counted(change: Callable[[dict[str, float], dict[str, tuple[int, int]], int], dict[str, float] | None]) -> Mutate:
    """The last counts of an untouched frontend changed: given them, their bounds, and how many can be successes."""

    def mutate(base: Base) -> list[Event] | None:
        for process in base.processes("frontend"):
            title, last = process.title, base.ledger.last_sample[process.title]
            mine = [request for request in base.ledger.requests.values() if request.sent.frontend == title]
            seen = [as_counted(base.ledger, request) for request in mine]
            names = ("started", "success", "failed", "over")
            bounds = {n: (sum(getattr(c, n)[0] for c in seen), sum(getattr(c, n)[1] for c in seen)) for n in names}
            failed = sum(failure(request) is not None and request.closed is None for request in mine)
            new = change(dict(last.values), bounds, len(mine) - failed) if "started" in last.values else None
            if new is not None:
                return replaced(base.events, last, dataclasses.replace(last, values={**last.values, **new}))
        return None

    return mutate


def fewer(last: dict[str, float], bounds: dict[str, tuple[int, int]], _most: int) -> dict[str, float] | None:
    """One is not counted as over: it is lacking from the first on, or the counter would fall."""
    return {"started": bounds["started"][1] + 1.0} if last["started"] <= bounds["started"][1] else None


def more_failed(last: dict[str, float], bounds: dict[str, tuple[int, int]], _most: int) -> dict[str, float] | None:
    return {"failed": last.get("failed", 0.0) + bounds["over"][1] + 1 - last["success"] - last.get("failed", 0.0)}


def undercounted(base: Base) -> list[Event] | None:
    """So many successes are not counted that the others cannot make up for them."""
    for process in base.processes("frontend"):
        title, last = process.title, base.ledger.last_sample[process.title].values
        mine = [request for request in base.ledger.requests.values() if request.sent.frontend == title]
        seen = [as_counted(base.ledger, request) for request in mine]
        least = sum(c.over[0] for c in seen) if "started" in last else sum(c.success[0] for c in seen)
        most = least - 1 - (last.get("failed", 0.0) if "started" in last else 0.0)
        if 0 <= most < last.get("success", 0.0):
            events = sampled(base.events, title, "success", lambda value, most=most: min(value, most))  # type: ignore[misc]
            return late_sample(base, events)
    return None


def taken_for_failed(base: Base) -> list[Event] | None:
    """Successes are counted as failures."""
    for process in base.processes("frontend"):
        title, last = process.title, base.ledger.last_sample[process.title].values
        mine = [request for request in base.ledger.requests.values() if request.sent.frontend == title]
        by = last.get("success", 0.0) - sum(as_counted(base.ledger, request).success[0] for request in mine) + 1
        if "started" in last and 0 < by <= last["success"]:
            most, from_s = last["success"] - by, base.ledger.last_sample[title].at.after_s
            fewer_ = sampled(base.events, title, "success", lambda value, most=most: min(value, most))  # type: ignore[misc]
            return [
                dataclasses.replace(e, values={**e.values, "failed": e.values.get("failed", 0.0) + by})
                if isinstance(e, Sample) and e.title == title and e.at.after_s >= from_s
                else e
                for e in fewer_
            ]
    return None


def middle_sample(name: str, value: Callable[[float], float], role: str = "frontend") -> Mutate:
    """One sample, not the last two, in which a metric that had not just risen is changed."""

    def mutate(base: Base) -> list[Event] | None:
        for process in base.processes(role):
            own = [e for e in base.events if isinstance(e, Sample) and e.title == process.title and name in e.values]
            own = [sample for sample in own if base.ledger.belongs(sample)]
            for before, sample in itertools.pairwise(own[:-2]):
                changed_to = value(sample.values[name])
                if before.values[name] == sample.values[name] and (changed_to >= 0) == (value(1.0) >= 0):
                    changed = {**sample.values, name: value(sample.values[name])}
                    return replaced(base.events, sample, dataclasses.replace(sample, values=changed))
        return None

    return mutate


MUTATIONS = (
    Mutation("what an engine broke off looks whole", "P1/looks-whole", looks_whole),
    Mutation("a wrong request gets a 500", "P2/server-blamed", refused_with(500)),
    Mutation("a wrong request gets a 403", "P2/wrong-refusal", refused_with(403)),
    Mutation("a wrong request is refused in its stream", "P2/refused-in-stream", refused_in_stream),
    Mutation("the same error gets two statuses", "P2/unsteady", unsteady),
    Mutation("a right request is refused", "P2/client-blamed", failing(400, "eof", calm=True)),
    Mutation("a 500 without a worker", "P2/empty-list-500", empty_list_500),
    Mutation("another id", "P3/id", one_item("text", lambda item: dataclasses.replace(item, answer_id="cmpl-other"))),
    Mutation("another model", "P3/model", one_item("finish", lambda item: dataclasses.replace(item, model="other"))),
    Mutation("a choice too many", "P3/index", strange_index),
    Mutation("tokens of another request", "P4/cross-talk", cross_talk),
    Mutation("the prompt is miscounted", "P5/prompt-tokens", one_item("usage", prompt_miscounted)),
    Mutation(
        "the answer is miscounted",
        "P5/completion-tokens",
        one_item("usage", answer_miscounted, streamed=False),
    ),
    Mutation("a stopped answer is miscounted", "P5/completion-tokens", stopped_miscounted),
    Mutation("usage is missing", "P5/missing", usage_missing),
    Mutation("an abort after the end", "A4/after-end", after_end),
    Mutation("a neighbour is aborted too", "A4/neighbour", neighbour_aborted),
    Mutation("a cancel is counted as another kind", "A5/split", split_wrong),
    Mutation("the router keeps blocks", "R2/blocks", leak("frontend", "router_blocks")),
    Mutation("the router keeps prompts", "R2/prefill-tokens", leak("frontend", "router_prefill")),
    Mutation("a success is not counted", "O1/undercounted", undercounted),
    Mutation("a request is counted twice", "O1/overcounted", counted(fewer)),
    Mutation("a failure is counted twice", "O1/overcounted", counted(more_failed)),
    Mutation("a success is counted as a failure", "O1/wrong-status", taken_for_failed),
    Mutation("a counter falls", "O3/counter-fell", middle_sample("success", lambda value: value - 1)),
    Mutation("a gauge is negative", "O3/negative", middle_sample("queued", lambda _value: -1.0)),
    Mutation("the slots are told wrong", "O3/wrong-configuration", middle_sample("max_seqs", lambda value: value - 1)),
)
