"""X3: what two topologies must have in common is compared, what may differ is not, and chance is no difference."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from histories import Ask, Story

from ftmodel import agreement, campaign, store, topology
from ftmodel.agreement import TIMES, Runs, named, settled
from ftmodel.axes import AXES, between, common, find
from ftmodel.errors import UsageError
from ftmodel.history import Event, Item
from ftmodel.invariants import judge
from ftmodel.invariants.agreement import (
    CHANCE_MOST,
    FRESH_LEAST,
    AxisName,
    Point,
    Run,
    TopologiesAgree,
    What,
    chance,
    compared,
    run_of,
    suspected,
)
from ftmodel.invariants.base import Finding
from ftmodel.known import Issue
from ftmodel.runner import RULES, Outcome, Rules, judged
from ftmodel.steps import Plan, Submit
from ftmodel.topology import Topology
from ftmodel.verdict import combine, row

BASE = topology.find("counting")
ETCD, NATS, KV = (axis.from_(BASE) for axis in AXES)
TOPS = {top.name: top for top in (BASE, ETCD, NATS, KV)}
R1 = Point(what="outcome", subject="r1")


def told(story: Story, top: Topology = BASE) -> list[Event]:
    story.setting = dataclasses.replace(story.setting, topology=top.name)
    return story.told(30.0)


def fine() -> Story:
    story = Story()
    Ask(story, "r1", 5.0, 50).whole("w1", 5.0)
    Ask(story, "r2", 6.0, 50).whole("w2", 6.0)
    return story


def otherwise() -> Story:
    """As fine, at other times, by other workers, with a stream that moves."""
    story = Story()
    moved = Ask(story, "r1", 7.0, 50).begin("w1", 7.004)
    moved.run(20, 7.01)
    story.kill("w1", 7.2)
    moved.stop("died", 7.2).move("migrating", 7.21).begin("w2", 7.3)
    end_s = moved.run(30, 7.31)
    moved.stop("ended", end_s - 0.001).finish(end_s)
    Ask(story, "r2", 9.0, 50).whole("w2", 9.0)
    return story


def failed() -> Story:
    story = Story()
    Ask(story, "r1", 5.0, 50).refuse(5.1, 500)
    Ask(story, "r2", 6.0, 50).whole("w2", 6.0)
    return story


def garbled() -> Story:
    story = Story()
    ask = Ask(story, "r1", 5.0, 50).begin("w1", 5.004).head(5.01)
    ask.tokens = 50
    ask.read(5.3, Item("text", "?" + ask.said()[1:])).stop("ended", 5.3).finish(5.31)
    Ask(story, "r2", 6.0, 50).whole("w2", 6.0)
    return story


def panicked() -> Story:
    story = fine()
    story.log("w1", "panic", 6.5)
    return story


def abandoned() -> Story:
    """Every worker is dead: nothing is owed to r1."""
    story = Story()
    story.kill("w1", 4.0)
    story.kill("w2", 4.0)
    Ask(story, "r1", 5.0, 50).refuse(5.1, 500)
    Ask(story, "r2", 6.0, 50).refuse(6.1, 500)
    return story


def run(story: Story, name: str = "001-counting", top: Topology = BASE, known: Sequence[str] = ()) -> Run:
    events = told(story, top)
    return run_of(name, events, judge(events), known)


def differing(first: Story, second: Story) -> set[tuple[What, str]]:
    return {(point.what, point.subject) for point in suspected(run(first), run(second))}


# --- what is compared -------------------------------------------------------------------------------------------


def test_times_workers_and_migrations_may_differ() -> None:
    assert differing(fine(), otherwise()) == set()
    assert compared(run(fine()), run(otherwise())) == 2


def test_a_request_that_must_complete_on_both_and_fails_on_one_differs() -> None:
    assert differing(fine(), failed()) == differing(failed(), fine()) == {("outcome", "r1")}


def test_a_text_that_is_wrong_on_one_differs_and_its_outcome_does_not() -> None:
    assert differing(fine(), garbled()) == {("text", "r1")}


def test_what_is_violated_on_one_alone_differs_by_its_signature() -> None:
    assert differing(fine(), panicked()) == {("verdict", "R5/panic")}


def test_what_need_not_complete_on_one_is_not_compared() -> None:
    assert differing(fine(), abandoned()) == set()
    assert compared(run(fine()), run(abandoned())) == 0


def test_an_invariant_that_one_side_did_not_decide_is_not_compared() -> None:
    here, there = run(fine()), run(panicked())
    assert suspected(dataclasses.replace(here, decided=here.decided - {"R5"}), there) == ()


def test_probes_of_the_tester_are_not_compared() -> None:
    assert {point.subject for point in run(fine()).seen} == {"r1", "r2"}


def test_what_is_known_fails_nothing() -> None:
    assert suspected(run(fine()), run(failed(), known=("L2/status-500",))) == ()
    assert suspected(run(fine()), run(panicked(), known=("R5/panic",))) == ()


# --- what is more than chance -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((0, 6, 6, 6), 1 / 924), ((0, 5, 5, 5), 1 / 252), ((0, 6, 0, 6), 1.0), ((1, 2, 1, 2), 5 / 6), ((3, 3, 3, 3), 1.0)],
)
def test_how_likely_failures_fall_so_is_counted_out(counts: tuple[int, int, int, int], expected: float) -> None:
    failed_, of, failed_more, of_more = counts
    runs = [*range(of + of_more)]
    falls = list(itertools.combinations(runs, failed_ + failed_more))
    so_many = sum(sum(i >= of for i in fall) >= failed_more for fall in falls)
    assert chance(*counts) == pytest.approx(so_many / len(falls)) == pytest.approx(expected)


def test_so_few_fresh_runs_that_nothing_could_be_decided_are_refused() -> None:
    assert chance(0, FRESH_LEAST, FRESH_LEAST, FRESH_LEAST) <= CHANCE_MOST
    assert chance(0, FRESH_LEAST - 1, FRESH_LEAST - 1, FRESH_LEAST - 1) > CHANCE_MOST


def compare(wrong: int, of: int = 6, *, wrong_here: int = 0) -> Finding | None:
    here = [run(failed() if i < wrong_here else fine(), f"001-counting-again-{i}") for i in range(of)]
    there = [run(failed() if i < wrong else otherwise(), f"001-counting-nats-again-{i}", NATS) for i in range(of)]
    return TopologiesAgree().compare("request-plane", R1, here, there)


def test_what_fails_each_time_on_one_side_and_never_on_the_other_is_found_with_evidence_of_both() -> None:
    finding = compare(6)
    assert finding is not None
    assert (finding.signature, finding.subject) == ("X3/request-plane-outcome", "r1")
    assert "wrong in 6 of 6 runs on counting-nats (r1 got status 500" in finding.message
    assert "as on counting: right in 6 of 6" in finding.message
    assert {line.partition(":")[0] for line in finding.evidence} == {
        "001-counting-again-0",
        "001-counting-nats-again-0",
    }


@pytest.mark.parametrize(("wrong", "wrong_here"), [(3, 0), (5, 0), (6, 2), (6, 6), (0, 0)])
def test_what_fails_now_and_then_is_of_neither_side(wrong: int, wrong_here: int) -> None:
    assert compare(wrong, wrong_here=wrong_here) is None


def test_fewer_fresh_runs_than_can_decide_are_unknown() -> None:
    invariant = TopologiesAgree()
    assert invariant.compare("router", R1, [run(fine())] * 3, [run(failed())] * 3) is None
    assert invariant.tally.unknown == 1


def test_every_signature_can_be_found() -> None:
    wrong: dict[What, tuple[Story, str]] = {
        "outcome": (failed(), "r1"), "text": (garbled(), "r1"), "verdict": (panicked(), "R5/panic"),
    }  # fmt: skip
    found = set()
    for axis in get_args(AxisName):
        for what, (story, subject) in wrong.items():
            point = Point(what=what, subject=subject)
            finding = TopologiesAgree().compare(axis, point, [run(fine())] * 6, [run(story)] * 6)
            assert finding is not None
            found.add(finding.signature)
    assert found == {f"X3/{slug}" for slug in TopologiesAgree.slugs}


# --- a command's runs -------------------------------------------------------------------------------------------


class Stored:
    """A store of such a command, made of stories."""

    def __init__(self, folder: Path, rules: Rules = RULES) -> None:
        self.folder = folder
        self.rules = rules
        self.outcomes: list[Outcome] = []

    def play(self, story: Story, top: Topology, again: int = 0, plan: str = "001") -> None:
        name = named(plan, top, again)
        folder = self.folder / "examples" / name
        folder.mkdir(parents=True)
        head = Plan(topology=top.name, steps=(Submit(name="r1"), Submit(name="r2")))
        events = told(story, top)
        store.write_example(folder, head, top, events)
        self.outcomes.append(judged(name, folder, head, events, rules=self.rules))

    def settled(self) -> list[Outcome]:
        runs = Runs(BASE, (ETCD, NATS))
        runs.add(self.outcomes)
        return settled(runs, self.outcomes, self.rules)

    def write_env(self) -> None:
        facts = {"format": store.FORMAT, "profile": campaign.AGREE, "topologies": [BASE.name, ETCD.name, NATS.name]}
        store.write_json(self.folder / "env.json", facts)


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path / "run")


def signatures(outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
    named_ = {outcome.name: outcome.judgement for outcome in outcomes}
    return {
        name: [finding.signature for finding in judgement.findings if finding.invariant == "X3"]
        for name, judgement in named_.items()
        if judgement is not None and any(finding.invariant == "X3" for finding in judgement.findings)
    }


def test_only_the_plans_and_topologies_that_differ_are_run_afresh(stored: Stored) -> None:
    for plan in ("001", "002"):
        stored.play(fine(), BASE, plan=plan)
        stored.play(otherwise(), ETCD, plan=plan)
        stored.play(failed() if plan == "002" else fine(), NATS, plan=plan)
    runs = Runs(BASE, (ETCD, NATS))
    runs.add(stored.outcomes)
    assert runs.doubtful() == [("002", (BASE, NATS))]


@pytest.mark.parametrize("broken", [BASE, NATS])
def test_a_difference_is_found_in_the_run_that_went_wrong_and_counted(stored: Stored, broken: Topology) -> None:
    for again in range(TIMES + 1):
        for top in (BASE, NATS):
            stored.play(failed() if top is broken else otherwise(), top, again)
    stored.play(fine() if broken is NATS else failed(), ETCD)
    outcomes = stored.settled()
    assert signatures(outcomes) == {named("001", broken, 1): ["X3/request-plane-outcome"]}
    total = row(combine(outcomes, seed=None, system={}, topologies=[], store=stored.folder))
    assert total["invariants"]["X3"] == {"evaluated": 4, "violated": 1, "unknown": 0}
    assert total["verdict"] == "violated"
    found = {violation["signature"]: violation for violation in total["violations"]}
    assert found["X3/request-plane-outcome"]["example"] == str(stored.folder / "examples" / named("001", broken, 1))


def test_a_difference_that_fresh_runs_do_not_show_is_nothing(stored: Stored) -> None:
    stored.play(fine(), BASE)
    stored.play(failed(), NATS)
    for again in range(1, TIMES + 1):
        stored.play(fine(), BASE, again)
        stored.play(fine(), NATS, again)
    assert signatures(stored.settled()) == {}


def test_a_difference_that_is_known_fails_nothing(tmp_path: Path) -> None:
    signature = "X3/request-plane-outcome"
    known = [
        Issue(invariant=s[:2], signature=s, versions=">=1", reason="seen", link="x")
        for s in (signature, "L2/status-500")
    ]
    stored = Stored(tmp_path / "run")
    for again in range(TIMES + 1):
        stored.play(fine(), BASE, again)
        stored.play(failed(), NATS, again)
    stored.rules = Rules(issues=tuple(known[:1]))
    told_ = [outcome for outcome in stored.settled() if signature in outcome.known]
    assert [outcome.name for outcome in told_] == [named("001", NATS, 1)]


def test_stored_runs_are_compared_again_alike(stored: Stored, silent: Silent) -> None:
    for again in range(TIMES + 1):
        stored.play(fine(), BASE, again)
        stored.play(failed(), NATS, again)
    stored.write_env()
    verdict = campaign.recheck(stored.folder, silent)
    assert (
        signatures(verdict.outcomes)
        == signatures(stored.settled())
        == {named("001", NATS, 1): ["X3/request-plane-outcome"]}
    )


def test_an_example_alone_is_compared_with_nothing(stored: Stored, silent: Silent) -> None:
    stored.play(fine(), BASE)
    stored.play(failed(), NATS)
    stored.write_env()
    verdict = campaign.recheck(stored.folder / "examples" / named("001", NATS), silent)
    assert row(verdict)["invariants"]["X3"] == {"not_applicable": "needs runs on several topologies (ftmodel agree)"}


class Silent:
    def began(self, what: str) -> None: ...

    def stepped(self, step: object) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...


@pytest.fixture
def silent() -> Silent:
    return Silent()


# --- axes -------------------------------------------------------------------------------------------------------


def test_along_an_axis_nothing_else_changes() -> None:
    for axis, top in zip(AXES, (ETCD, NATS, KV), strict=True):
        assert dataclasses.replace(top, name=BASE.name, **{axis.key: getattr(BASE, axis.key)}) == BASE
        assert between(BASE, top) == between(top, BASE) == axis.name
        back = axis.from_(top)
        assert getattr(back, axis.key) == getattr(BASE, axis.key)
    assert [top.name for top in (ETCD, NATS, KV)] == ["counting-etcd", "counting-nats", "counting-kv"]


def test_topologies_that_differ_in_several_ways_have_no_axis() -> None:
    assert between(ETCD, NATS) == between(BASE, topology.find("etcd-nats")) == "topology"


def test_events_follow_the_requests() -> None:
    nats = dataclasses.replace(NATS, event_plane="nats")
    assert between(BASE, nats) == "request-plane"
    assert between(BASE, dataclasses.replace(BASE, event_plane="nats")) == "topology"


def test_an_unknown_axis_is_told_with_those_there_are() -> None:
    assert find("router,discovery") == (AXES[2], AXES[0])
    with pytest.raises(UsageError, match="axis 'colour': unknown, expected one of discovery, request-plane, router"):
        find("router,colour")


def test_what_is_drawn_for_several_topologies_is_what_all_of_them_admit() -> None:
    small = dataclasses.replace(NATS, workers=(4, 2), frontends=(1,))
    assert (common((BASE, small)).workers, common((BASE, small)).frontends) == ((2, 4), (1,))
    with pytest.raises(UsageError, match=r"key workers: counting has \(1, 2, 3, 4\); counting-nats has \(\)"):
        common((BASE, dataclasses.replace(NATS, workers=())))


def test_the_name_of_an_example_tells_plan_topology_and_repeat() -> None:
    assert named("007", NATS) == "007-counting-nats"
    assert named("007", NATS, 2) == f"007-counting-nats-{agreement.AGAIN}-2"
