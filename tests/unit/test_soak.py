"""The long soak: rounds are drawn again by seed and mix, and a journal goes on from wherever it was killed."""

from __future__ import annotations

import gc
import json
import os
import random
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis.internal.conjecture import data as conjecture

from ftmodel import planfile, topology
from ftmodel.cli.lane import draw
from ftmodel.errors import StoreError
from ftmodel.invariants.situations import SITUATIONS
from ftmodel.lanes import Collected
from ftmodel.soak import bugs, keeping, result, rounds
from ftmodel.soak.bugs import Bug, Purse
from ftmodel.soak.journal import Journal, Lying, Played, newest, open_newest
from ftmodel.soak.keeping import Keeping
from ftmodel.soak.telling import Told
from ftmodel.steps import KillWorker, Plan, Slot, Submit

SIMULATED = topology.find("simulated")
PLAN = Plan(topology="simulated", steps=(Submit(name="r1"), KillWorker(name="s2", worker=Slot(1))))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite") as opened:
        yield opened


def played(name: str = "00001-01", *signatures: str, **other: Any) -> Played:
    findings = tuple({"signature": s, "subject": "r1", "message": f"{s} was seen"} for s in signatures)
    facts: dict[str, Any] = {
        "round": 1, "topology": "simulated", "verdict": "violated" if signatures else "holds", "doubt": "",
        "seconds": 1.0, "folder": name, "plan": planfile.dump(PLAN), "counts": {"situations": {"all-replaced": 1}},
    }  # fmt: skip
    return Played(name=name, findings=findings, **{**facts, **other})


def bug(**other: Any) -> Bug:
    facts: dict[str, Any] = {"signature": "L2/cut", "known": False, "example": "00001-01", "message": ""}
    facts |= {"steps": 9, "seconds": 2.0}
    return Bug(**{**facts, **other})


# -- rounds


def test_a_round_is_the_same_whenever_it_is_drawn() -> None:
    one, two = (rounds.drawn(7, SIMULATED, soak_seed=3, steps=30, missing=["all-replaced"]) for _ in range(2))
    assert one == two
    assert one.seed != rounds.drawn(8, SIMULATED, soak_seed=3, steps=30, missing=[]).seed


def test_what_leads_to_a_missing_situation_is_on_more_often() -> None:
    def on(missing: list[str]) -> int:
        return sum(rounds.swarm(random.Random(n), SIMULATED, missing).roll > 0 for n in range(300))

    assert on(["all-replaced"]) > 1.3 * on([])


def test_every_situation_is_led_to_by_some_kind_of_step() -> None:
    assert [s.id for s in SITUATIONS if not rounds.leads(s.id)] == []


def test_a_mix_has_what_its_topology_can_bear_and_as_many_requests_as_faults() -> None:
    mixes = [rounds.swarm(random.Random(n), SIMULATED, []) for n in range(200)]
    assert not any(mix.service or mix.prefill for mix in mixes)
    assert all(mix.submit >= mix.kill_worker + mix.stop_worker + mix.freeze_worker for mix in mixes)
    assert any(not mix.kill_worker and not mix.cancel for mix in mixes)
    assert any(
        rounds.swarm(random.Random(n), topology.find("disaggregated"), []).service for n in range(20)
    )  # fmt: skip


def test_a_round_is_the_same_after_its_way_to_a_lane() -> None:
    this = replace(rounds.drawn(7, SIMULATED, soak_seed=3, steps=30, missing=[]), plans=(PLAN, PLAN))
    assert rounds.of_json(json.loads(json.dumps(rounds.as_json(this)))) == this


def test_nothing_is_held_of_what_was_drawn() -> None:
    kept = Collected(SIMULATED, 7)
    draw(kept, rounds.drawn(1, SIMULATED, soak_seed=3, steps=10, missing=[]), SIMULATED, [])
    assert kept.plans
    gone = weakref.ref(kept)
    del kept
    gc.collect()
    assert gone() is None
    assert len(conjecture.STRUCTURAL_COVERAGE_CACHE) == 0


# -- bugs


def test_a_bug_is_confirmed_when_a_replay_shows_it() -> None:
    assert bugs.replayed(bugs.replayed(bug(), seen=False), seen=True).state == "confirmed"


def test_a_bug_that_no_replay_shows_is_given_up_until_it_is_found_again() -> None:
    one = bug(count=1)
    for _ in range(bugs.REPLAYS_MOST):
        assert one.wants_replays
        one = bugs.replayed(one, seen=False)
    assert one.state == "not reproduced"
    again = bugs.found(one, one.signature, known=False, example="00002-01", steps=9, seconds=2.0, message="")
    assert (again.state, again.count, again.example) == ("confirmed", 2, "00001-01")


def test_what_is_not_known_is_shown_before_what_is() -> None:
    one = bugs.found(
        bug(known=True, count=4), "L2/cut", known=False, example="00009-01", steps=9, seconds=2.0, message=""
    )
    assert (one.known, one.example, one.count) == (False, "00009-01", 5)


def test_a_quarter_of_the_lanes_time_is_for_confirming_and_shrinking() -> None:
    purse = Purse()
    assert purse.left_s == 0
    purse.live(40)
    assert purse.left_s == 10
    purse.promised[3] = 4
    purse.spend(5)
    assert purse.left_s == 1


def test_a_much_quicker_example_shows_a_finding_until_it_is_replayed() -> None:
    def again(one: Bug, seconds: float) -> str:
        return bugs.found(
            one, one.signature, known=False, example="00009-01", steps=3, seconds=seconds, message=""
        ).example

    assert again(bug(), 0.9) == "00009-01"
    assert again(bug(), 1.9) == "00001-01"
    assert again(bug(replays=1), 0.9) == "00001-01"


def test_making_a_finding_smaller_takes_a_twentieth_of_the_time_within_limits() -> None:
    assert [bugs.budget_s(bug(), soak_s) for soak_s in (120, 1800, 28800)] == [30, 90, 600]
    assert bugs.budget_s(bug(spent_s=80.0), 1800) == 10
    assert bugs.budget_s(bug(spent_s=800.0), 1800) == 0


def test_what_cannot_be_made_smaller_is_left_as_it_is() -> None:
    assert bugs.left_as_it_is(bug(seconds=26.0), 1800, 3) is None
    slow = bugs.left_as_it_is(bug(seconds=28.0), 1800, 3)
    assert slow is not None
    assert (slow.shrunk, slow.why) == ("out of time", "a run of its 9 steps took 28 s")
    deadly = bugs.left_as_it_is(bug(tries=bugs.TRIES), 1800, 3)
    assert deadly is not None
    assert deadly.shrunk == "failed"


# -- the journal


def test_a_journal_goes_on_where_it_was_left(tmp_path: Path) -> None:
    this = rounds.drawn(1, SIMULATED, soak_seed=3, steps=30, missing=[])
    with Journal(tmp_path / "journal.sqlite") as first:
        first.begin_round(first.begin_stint(), "1", this)
        first.add_example(played("00001-01", "L2/cut"), [bug(state="confirmed")])
    with Journal(tmp_path / "journal.sqlite") as second:
        second.begin_stint()
        assert second.rounds() == {"lost": 1}
        assert second.round(1) == this
        assert second.bugs() == [bug(state="confirmed")]
        assert second.plan("00001-01") == PLAN
        assert second.totals().reached == {"all-replaced": 1}
        assert second.last_round() == 1


def test_a_round_that_is_not_there_is_told(journal: Journal) -> None:
    with pytest.raises(StoreError, match="no round 3, expected 1 to 0"):
        journal.round(3)


def test_a_transaction_that_fails_leaves_nothing(journal: Journal) -> None:
    class BrokenError(Exception):
        pass

    def broken() -> Iterator[Bug]:
        yield bug()
        raise BrokenError

    with pytest.raises(BrokenError):
        journal.add_example(played("00001-01", "L2/cut"), broken())  # type: ignore[arg-type]
    assert journal.totals().examples == 0


def test_what_is_no_journal_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_text("nothing of the kind, but long enough to be looked at" * 30)
    with pytest.raises(StoreError, match="expected the journal of a soak"):
        Journal(tmp_path / "journal.sqlite")


def test_plans_of_earlier_stints_are_kept_once(journal: Journal) -> None:
    journal.keep(PLAN, "L2/cut", 1)
    journal.keep(PLAN, "all-replaced", 1)
    journal.keep(replace(PLAN, workers=3), "all-replaced", 2)
    assert journal.corpus(before=2) == [(PLAN, "L2/cut")]


def test_the_newest_soak_of_a_store_is_found(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    with pytest.raises(StoreError, match="no soak in it"):
        open_newest(tmp_path)
    for name in ("20260101-000000-soak", "20260102-000000-soak-2"):
        (tmp_path / name).mkdir()
        Journal(tmp_path / name / "journal.sqlite").__exit__()
    assert newest(tmp_path) == tmp_path / "20260102-000000-soak-2"
    assert newest(tmp_path / "20260101-000000-soak") == tmp_path / "20260101-000000-soak"


# -- what stays


def test_some_examples_of_each_signature_stay_and_the_last_that_held() -> None:
    lying = (
        [Lying(f"h{n}") for n in range(5)] + [Lying(f"v{n}", ("L2/cut",)) for n in range(5)] + [Lying("w", ("P1/cut",))]
    )
    gone = keeping.superfluous(lying, held=2, each=2)
    assert [one.name for one in gone] == ["h0", "h1", "h2", "v2", "v3", "v4"]


def fill(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "history.jsonl").write_bytes(b"x" * (3 << 20))


def test_what_goes_while_it_is_weighed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "stays")
    fill(tmp_path / "goes")
    listed = os.scandir

    def gone(path: Any) -> Any:
        if str(path).endswith("goes"):
            raise FileNotFoundError(path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", gone)
    assert keeping.size_of(tmp_path) == 3 << 20


def test_a_store_that_is_full_of_findings_ends_the_soak_with_a_message(tmp_path: Path, journal: Journal) -> None:
    fill(tmp_path / "findings" / "L2-cut")
    with pytest.raises(StoreError, match=r"expected at most 1; try: ftmodel soak --resume .* --store-limit"):
        Keeping(folder=tmp_path, limit_bytes=1 << 20).look(journal)
    assert (tmp_path / "findings" / "L2-cut").is_dir()


def test_a_store_that_is_too_large_drops_all_but_the_findings(tmp_path: Path, journal: Journal) -> None:
    for name, *found in (("00001-01", "L2/cut"), ("00001-02", "L2/cut"), ("00001-03",)):
        fill(tmp_path / "examples" / name)
        journal.add_example(played(name, *found), [bug()])
    fill(tmp_path / "findings" / "L2-cut")
    Keeping(folder=tmp_path, limit_bytes=4 << 20).look(journal)
    assert journal.lying() == []
    assert list((tmp_path / "examples").iterdir()) == []
    assert (tmp_path / "findings" / "L2-cut").is_dir()


# -- the result


def test_what_an_earlier_soak_found_is_not_new(journal: Journal) -> None:
    journal.add_example(played("00001-01", "L2/cut"), [bug()])
    assert result.of(journal)["verdict"] == "violated"
    total = result.of(journal, earlier=[bug(), bug(signature="P1/cut")])
    assert total["verdict"] == "holds"
    assert total["against"] == {"new": [], "gone": ["P1/cut"], "still_there": ["L2/cut"]}


def test_an_example_whose_harness_failed_makes_the_verdict_unknown(journal: Journal) -> None:
    journal.add_example(played(verdict="unknown", doubt="port taken"))
    assert result.of(journal)["doubts"] == ["00001-01: port taken"]
    assert result.of(journal)["verdict"] == "unknown"


# -- lanes


def test_a_round_is_over_when_all_that_began_has_ended() -> None:
    told: list[dict[str, Any]] = []
    examples = Told(told.append)
    for _ in range(3):
        examples.begun(4)
    examples.ended(4)
    examples.ended(4)
    assert told == []
    examples.ended(4)
    assert told == [{"is": "round-over", "round": 4}]
