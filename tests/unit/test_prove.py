"""The proof of the tester on simulated clusters: defects are found, shrunk, and nothing is found where none is planted."""

from __future__ import annotations

import pytest
from plants import plants

from ftmodel import strategies, topology
from ftmodel.prove import Grounds, Row, ViolationError, false_alarms, prove, seek
from ftmodel.steps import FreezeWorker, HolderOf, KillWorker, Plan, StopWorker, Submit, Token
from ftmodel.targets.simulated import Planted, catalogue


@pytest.fixture(scope="module")
def grounds() -> Grounds:
    return Grounds(topology.find("simulated"))


def planted(text: str) -> tuple[Planted, ...]:
    return catalogue.planted(text, catalogue.ours())


def proven(grounds: Grounds, text: str, *, examples: int = 200) -> Row:
    [row] = prove(grounds, strategies, planted(text), seeds=[0], examples=examples, steps=30)
    return row


@plants
def test_what_shows_in_the_first_example_of_all_is_found_there(grounds: Grounds) -> None:
    """Hypothesis plays it a second time, and must see the same."""
    row = proven(grounds, "moves-without-cause")
    assert (row.found, row.examples, row.steps) == (1, 1, 1)


@plants
@pytest.mark.parametrize(
    ("defect", "signature"),
    [
        ("migration-loses-token", "T1/lost"),
        ("abort-ignored", "A3/ran-on"),
        ("hangs-without-workers", "L1/never-ended"),
        ("unstructured-error", "P1/malformed"),
    ],
)
def test_a_defect_is_found_and_shrunk_to_its_core(grounds: Grounds, defect: str, signature: str) -> None:
    row = proven(grounds, defect)
    assert row.signatures == (signature,)
    assert 0 < row.steps <= row.defect.least_steps + 1


def test_nothing_is_found_where_nothing_is_planted(grounds: Grounds) -> None:
    assert false_alarms(grounds, strategies, examples=40, steps=30) == []


@plants
def test_a_defect_that_never_misbehaves_in_time_is_told_as_not_found(grounds: Grounds) -> None:
    find = seek(grounds, strategies, planted("drops-token:0.000001"), examples=3, steps=10, seed=0)
    assert find.error is None
    assert find.examples >= 3
    assert find.steps == 0


@plants
def test_a_violation_is_raised_as_a_class_of_its_invariants_own(grounds: Grounds) -> None:
    plan = Plan(
        topology="simulated",
        workers=2,
        migration_limit=3,
        steps=(Submit(name="r1"), KillWorker(name="k1", worker=HolderOf("r1"), at=Token("r1", 10))),
    )
    events = grounds.history(plan, seed=1, planted=planted("migration-loses-token"))
    with pytest.raises(ViolationError, match="T1/lost") as raised:
        grounds.check(plan, 1, events)
    assert type(raised.value).__name__ == "T1ViolationError"
    assert raised.value.plan == plan
    grounds.check(plan, 1, grounds.history(plan, seed=1))


def test_a_worker_that_is_frozen_in_its_drain_has_a_lease_that_lapses(grounds: Grounds) -> None:
    """Its streams are broken then, though it had left the list long before."""
    stop = StopWorker(name="s2", worker=HolderOf("r1"), at=Token("r1", 10))
    freeze = FreezeWorker(name="s3", worker=HolderOf("r1"), at=Token("r1", 20))
    plan = Plan(
        topology="simulated", workers=2, migration_limit=3, patience="long",
        steps=(Submit(name="r1", max_tokens=900), stop, freeze),
    )  # fmt: skip
    for seed in range(5):
        grounds.check(plan, seed, grounds.history(plan, seed=seed))


@plants
def test_the_same_seed_finds_the_same(grounds: Grounds) -> None:
    finds = [seek(grounds, strategies, planted("abort-twice"), examples=50, steps=20, seed=5) for _ in range(2)]
    plans = [find.error.plan for find in finds if find.error is not None]
    assert len(plans) == 2
    assert plans[0] == plans[1]
