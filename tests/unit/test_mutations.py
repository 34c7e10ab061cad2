"""Each planted defect is found by the one invariant that owns it, under the one signature, and by no other."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import pytest
from bases import BASES
from histories import PROVEN
from mutations import MUTATIONS, Mutation
from planting import Base

from ftmodel.history import Event, Setting, read
from ftmodel.invariants import INVARIANTS, judge

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.jsonl"))
NAMES = [*BASES, *(path.stem for path in RECORDED)]


@cache
def base(name: str) -> Base:
    recorded = {path.stem: path for path in RECORDED}
    return Base.of(BASES[name] if name in BASES else proven(list(read(recorded[name]))))


def proven(events: list[Event]) -> list[Event]:
    """A recorded history as if control and calibration had seen every log pattern."""
    setting = events[0]
    assert isinstance(setting, Setting)
    return [dataclasses.replace(setting, proven=PROVEN), *events[1:]]


def found(judged: Base) -> set[tuple[str, str]]:
    return {(finding.signature, finding.subject) for finding in judged.judgement.findings}


@pytest.mark.parametrize("name", BASES)
def test_a_story_without_a_defect_shows_nothing(name: str) -> None:
    assert base(name).judgement.findings == ()
    assert base(name).judgement.doubts == ()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_planted_defect_is_found_by_its_invariant_alone(mutation: Mutation) -> None:
    planted = [(name, events) for name in NAMES if (events := mutation.mutate(base(name))) is not None]
    assert {name for name, _ in planted} & set(BASES), "no story has a place for this defect"
    for name, events in planted:
        before, after = found(base(name)), found(Base.of(events))
        assert (name, [signature for signature, _ in after - before]) == (name, [mutation.signature])
        assert before <= after


def test_every_invariant_and_every_signature_has_a_defect() -> None:
    planted = {mutation.signature for mutation in MUTATIONS}
    statuses = {f"L2/status-{status}" for status in (404, 429, 502, 504, 529)}  # made like 500 and 503
    of_one_history = [cls for cls in INVARIANTS if cls.id != "X3"]  # of several: test_agreement.py plants those
    assert planted | statuses >= {f"{cls.id}/{slug}" for cls in of_one_history for slug in cls.slugs}
    assert {cls.id for cls in INVARIANTS if not cls.slugs} == {"H1", "H2", "H3", "H4"}


def test_judging_a_history_twice_gives_the_same() -> None:
    for name in NAMES:
        assert judge(base(name).events) == base(name).judgement
