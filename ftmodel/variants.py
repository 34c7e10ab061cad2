"""A plan changed so that its runs can be compared with those of the plan as it was drawn."""

from __future__ import annotations

import dataclasses
from typing import Final

from ftmodel.steps import FAULTS, SLOTS, After, Gone, Now, OnService, Plan, StartWorker, Step

_OF_FAULTS: Final = (*FAULTS, "cancel", "start-frontend", "heal")
"""Kinds of steps that are faults, or have nothing to do where there are none; a cancel is as good as a fault."""


def without_faults(plan: Plan) -> Plan:
    """The plan as plain traffic: no fault, no cancel, and no start of what was never lost.

    What waited for a step that is left out goes on at once, without its skew; a worker's start that did is left out too.
    """
    dropped: set[str] = set()
    while True:
        more = {step.name for step in plan.steps if step.name not in dropped and _is_void(step, plan, dropped)}
        if not more:
            return _without(plan, dropped)
        dropped |= more


def without_outages(plan: Plan) -> Plan:
    """The plan without what is done to services, so that clusters that stand on different ones can all run it.

    What waited for a step that is left out goes on at once, without its skew.
    """
    return _without(plan, {step.name for step in plan.steps if isinstance(step, OnService)})


def _without(plan: Plan, dropped: set[str]) -> Plan:
    kept = (step for step in plan.steps if step.name not in dropped)
    return dataclasses.replace(plan, steps=tuple(_freed(step, dropped) for step in kept))


def _is_void(step: Step, plan: Plan, dropped: set[str]) -> bool:
    """It is of faults, or starts a worker where one lives all the time, or that was to follow a fault."""
    of_start = isinstance(step, StartWorker) and (step.slot <= plan.workers or _waits_for(step, dropped))
    return step.kind in _OF_FAULTS or of_start


def _waits_for(step: Step, names: set[str]) -> bool:
    return isinstance(step.at, After | Gone) and step.at.step in names


def _freed(step: Step, dropped: set[str]) -> Step:
    return dataclasses.replace(step, at=Now(), skew_ms=0) if _waits_for(step, dropped) else step


def one_more_worker(plan: Plan) -> Plan | None:
    """The plan on a cluster of one worker more; None if it has no slot for it."""
    return dataclasses.replace(plan, workers=plan.workers + 1) if plan.workers < SLOTS else None
