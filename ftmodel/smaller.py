"""Smaller plans than a given one: steps left out with all that hangs on them, and values set back to plainer ones."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ftmodel.steps import BadRequest, Now, Plan, Step, Submit, Token

Request = Submit | BadRequest


def mentions(step: Step) -> set[str]:
    """The names of other steps that this one names: its anchor's, its subject's, its request's."""
    parts = (step, step.at, getattr(step, "worker", None))
    named = {getattr(part, key, "") for part in parts for key in ("request", "step")}
    return named - {""}


def hanging(plan: Plan, names: Collection[str]) -> set[str]:
    """These steps, and all that would be void without them."""
    found = set(names)
    while True:
        more = {step.name for step in plan.steps if step.name not in found and mentions(step) & found}
        if not more:
            return found
        found |= more


def needed(plan: Plan, names: Collection[str]) -> set[str]:
    """These steps, and all without which they would be void."""
    by_name = {step.name: step for step in plan.steps}
    found: set[str] = set()
    todo = [name for name in names if name in by_name]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [other for other in mentions(by_name[name]) if other in by_name]
    return found


def without(plan: Plan, names: Collection[str]) -> Plan:
    """The plan without these steps and all that hangs on them."""
    dropped = hanging(plan, names)
    return dataclasses.replace(plan, steps=tuple(step for step in plan.steps if step.name not in dropped))


def freed(plan: Plan, name: str) -> Plan:
    """The plan without this step; what only waited for it goes on at once, what else hangs on it is left out too."""
    steps = tuple(_at_once(step) if name in _awaited(step) else step for step in plan.steps)
    return without(dataclasses.replace(plan, steps=steps), [name])


def _awaited(step: Step) -> set[str]:
    return {getattr(step.at, key, "") for key in ("request", "step")} - {""}


def _at_once(step: Step) -> Step:
    return dataclasses.replace(step, at=Now(), skew_ms=0)


FEW: Final = 4
"""Requests of a plan, at most, each of which is tried in the place of another."""


def replaced(plan: Plan, name: str) -> Iterator[Plan]:
    """The plan without this request; what was done to it is done to another one. Nothing, if there are too many."""
    requests = [step.name for step in plan.steps if isinstance(step, Request)]
    if name in requests and len(requests) <= FEW:
        kept = [step for step in plan.steps if step.name != name]
        for other in requests:
            if other != name:
                yield dataclasses.replace(plan, steps=tuple(_renamed(step, name, other) for step in kept))


def _renamed(value: Any, old: str, new: str) -> Any:
    """The step, its anchor or its subject with one request for another."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if dataclasses.is_dataclass(part):
            changed[field.name] = _renamed(part, old, new)
        elif field.name == "request" and part == old:
            changed[field.name] = new
    return dataclasses.replace(value, **changed)


def only(plan: Plan, names: Collection[str]) -> Plan:
    """The plan with these steps alone, and what they need."""
    kept = needed(plan, names)
    return dataclasses.replace(plan, steps=tuple(step for step in plan.steps if step.name in kept))


def slices(plan: Plan, subjects: Iterable[str]) -> Iterator[Plan]:
    """What has to do with the subjects of a finding, the smallest first.

    Of a request: itself and what is done to it; the same with all that is done to processes. Of a process: what is done
    to processes, without any request.
    """
    requests = {step.name for step in plan.steps if isinstance(step, Request)}
    on_processes = {step.name for step in plan.steps if not isinstance(step, Request) and not _is_of_client(step)}
    words = [word for subject in subjects for word in re.findall(r"[\w-]+", subject)]
    for subject in dict.fromkeys(words):
        if subject in requests:
            own = {step.name for step in plan.steps if subject in mentions(step) and step.name not in requests}
            yield only(plan, {subject} | own)
            yield only(plan, {subject} | own | {name for name in on_processes if not needed(plan, [name]) & requests})
            yield only(plan, {subject} | own | on_processes)
    if not requests & set(words):
        yield without(plan, requests)


def _is_of_client(step: Step) -> bool:
    return isinstance(getattr(step, "request", None), str)


def kinds(plan: Plan) -> Iterator[Plan]:
    """The plan without all steps of a kind, and what hangs on them; the kinds that take most with them first."""
    named: dict[str, list[str]] = {}
    for step in plan.steps:
        named.setdefault(step.kind, []).append(step.name)
    smaller = [without(plan, names) for names in named.values() if len(names) > 1]
    yield from sorted(smaller, key=lambda one: len(one.steps))


def chunks(plan: Plan, size: int) -> list[tuple[str, ...]]:
    """The names of the plan's steps, so many at a time, the last first."""
    names = [step.name for step in plan.steps]
    return [tuple(names[max(0, end - size) : end]) for end in range(len(names), 0, -size)]


# --- values -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plainer:
    """One value of a plan set back: a field of the step of this name, or of the plan itself, if the name is empty."""

    step: str
    field: str
    values: tuple[Any, ...]
    """The plainest first; only those that are plainer than the plan's own."""

    @property
    def sort(self) -> str:
        """What is set back: the cluster, when a step is done, how long an answer is, or what else it says."""
        sorts = {"at": "moment", "skew_ms": "moment", "max_tokens": "length"}
        return sorts.get(self.field, "kind") if self.step else "cluster"

    def at(self, plan: Plan, value: Any) -> Plan:
        """The plan with this value; the same plan, if it has no such step."""
        if not self.step:
            return dataclasses.replace(plan, **{self.field: value})
        steps = tuple(
            dataclasses.replace(step, **{self.field: value}) if step.name == self.step else step for step in plan.steps
        )
        return dataclasses.replace(plan, steps=steps)


MAX_TOKENS: Final = (2, 10, 20, 50, 200)
PROMPT_CHARS: Final = (40, 1000)
SKEWS_MS: Final = (0, 5, 20, 100)
KEPT_FIELDS: Final = frozenset({"name", "kind", "how", "wrong", "part", "role", "pause_ms", "request", "worker"})
"""What a step is about, which has no plainer value."""


def values(plan: Plan) -> list[Plainer]:
    """What can be set back: of the plan first, then of its steps in order."""
    found = [
        Plainer("", "patience", ("short",) if plan.patience == "long" else ()),
        Plainer("", "frontends", tuple(range(1, plan.frontends))),
        Plainer("", "workers", tuple(range(1, plan.workers))),
        Plainer("", "prefill_workers", tuple(range(1, plan.prefill_workers))),
    ]
    for step in plan.steps:
        found += [Plainer(step.name, field.name, _ladder(step, field)) for field in dataclasses.fields(step)]
    return [one for one in found if one.values]


def _ladder(step: Step, field: dataclasses.Field[Any]) -> tuple[Any, ...]:
    value = getattr(step, field.name)
    if field.name in KEPT_FIELDS:
        return ()
    match field.name:
        case "max_tokens":
            return tuple(count for count in MAX_TOKENS if count < value)
        case "prompt_chars":
            return tuple(count for count in PROMPT_CHARS if count < value)
        case "skew_ms" if getattr(step, "how", "") == "timeout":
            return ()
        case "skew_ms":
            return tuple(skew for skew in SKEWS_MS if skew < value)
        case "at" if getattr(step, "how", "") == "timeout":
            return ()
        case "at" if isinstance(value, Token) and value.k > 1:
            return (Now(), Token(value.request, 1))
        case _:
            return (field.default,) if field.default not in (value, dataclasses.MISSING) else ()
