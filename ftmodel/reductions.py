"""Smaller plans than one that is given: any subsequence of a plan is a plan, and most values have a plainer one.

What is big is left out first: half of the steps, those of one kind, a request with all that hangs on it; then single
steps, then pairs; then values are set back to the plainest. It goes on until nothing smaller does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any, Final

from ftmodel.steps import EngineError, HolderOf, KillWorker, NotHolderOf, Now, Plan, Slot, Step, Submit, Token

PAIRED_STEPS: Final = 16
"""In a longer plan pairs of steps are not tried: they are too many."""
EARLY_TOKEN: Final = 5


def smallest(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """The smallest plan that was found of those that fail; `fails` must say the same each time it is asked the same."""
    known: set[Plan] = {plan}

    def fails_anew(smaller: Plan) -> bool:
        if smaller in known or not smaller.steps:  # an example without steps is none
            return False
        known.add(smaller)
        return fails(smaller)

    while (smaller := next(filter(fails_anew, _smaller(plan)), None)) is not None:
        plan = smaller
    return plan


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans that are smaller by one thing, the biggest first."""
    for steps in _shorter(plan.steps):
        yield dataclasses.replace(plan, steps=steps)
    if plan.patience == "short":
        for steps in _without_one(plan.steps):  # one of them may be there for the time that it takes
            yield dataclasses.replace(plan, patience="long", steps=steps)
    for field, least in (("workers", 1), ("frontends", 1), ("migration_limit", 0)):
        for fewer in range(least, getattr(plan, field)):
            changed: dict[str, Any] = {field: fewer}
            yield dataclasses.replace(plan, **changed)
    if plan.patience != "short":
        yield dataclasses.replace(plan, patience="short")
    for place, step in enumerate(plan.steps):
        for plainer in _plainer(step):
            yield dataclasses.replace(plan, steps=(*plan.steps[:place], plainer, *plan.steps[place + 1 :]))
    for steps in _aimed(plan.steps):
        yield dataclasses.replace(plan, steps=steps)
        if plan.workers == 1:  # a fault may need another one to go on at
            yield dataclasses.replace(plan, steps=steps, workers=2)


def _shorter(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    yield from _without_parts(steps)
    for kind in dict.fromkeys(step.kind for step in steps):
        yield tuple(step for step in steps if step.kind != kind)
    for step in reversed(steps):
        yield tuple(other for other in steps if other is not step and step.name not in _names(other))
    yield from _without_one(steps)
    if len(steps) <= PAIRED_STEPS:
        yield from _one_for_another(steps)
        for pair in combinations(steps, 2):
            yield tuple(other for other in steps if other not in pair)


def _without_one(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    for step in reversed(steps):
        yield tuple(other for other in steps if other is not step)


def _without_parts(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """Without a half of them, without a quarter, and so on; the later ones first."""
    size = len(steps) // 2
    while size > 1:
        for start in range(len(steps) - size, -1, -size):
            yield (*steps[:start], *steps[start + size :])
        size //= 2


def _one_for_another(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """Without a request; what was done to it is done to another one."""
    submits = [step for step in steps if isinstance(step, Submit)]
    for gone in submits:
        for other in submits:
            if other is not gone:
                yield tuple(_renamed(step, gone.name, other.name) for step in steps if step is not gone)


def _aimed(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """What befalls some worker befalls the one that serves a request; what fails a stream kills its worker.

    As soon as it serves it, or at a token of it: an early one, or the one behind that with which its stop string begins.
    No step fewer, but then those are not needed that made it befall this one, or that gave it the time to show.
    """
    for step in steps:
        if isinstance(step, EngineError):
            kill = KillWorker(name=step.name, worker=HolderOf(step.request), at=step.at)
            yield tuple(kill if other is step else _streamed(other, step.request) for other in steps)
    for step in steps:
        if isinstance(getattr(step, "worker", None), Slot | NotHolderOf):
            others = [other for other in steps if other is not step]
            for place, submit in enumerate(others, start=1):
                if isinstance(submit, Submit):
                    for at in (Now(), Token(submit.name, submit.stop_at + 1 if submit.stop_at else EARLY_TOKEN)):
                        changed: dict[str, Any] = {"worker": HolderOf(submit.name), "at": at, "skew_ms": 0}
                        yield (*others[:place], dataclasses.replace(step, **changed), *others[place:])


def _streamed(step: Step, request: str) -> Step:
    if isinstance(step, Submit) and step.name == request:
        return dataclasses.replace(step, stream=True)
    return step


def _names(step: Step) -> set[str]:
    """The other steps that this one names."""
    return {value for field, value in _texts(step) if field in ("request", "step")}


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if dataclasses.is_dataclass(part):
            yield from _texts(part)
        elif isinstance(part, str):
            yield field.name, part


def _renamed(value: Any, old: str, new: str) -> Any:
    """The step with one name for another, wherever it names it."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if dataclasses.is_dataclass(part):
            changed[field.name] = _renamed(part, old, new)
        elif part == old and field.name in ("request", "step"):
            changed[field.name] = new
    return dataclasses.replace(value, **changed)


def _plainer(step: Step) -> Iterator[Step]:
    for field in dataclasses.fields(step):
        if field.default is not dataclasses.MISSING and getattr(step, field.name) != field.default:
            yield dataclasses.replace(step, **{field.name: field.default})
