"""The page of a soak and what it is made of: measures of histories, plots, the XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bases import BASES
from mutations_of_usage import usages
from planting import at

from ftmodel import topology
from ftmodel.history import FaultMade, Item, LogLine, Received, RequestEnded, RequestSent, StepDone
from ftmodel.soak import junit, measures, page, plots, result, rounds
from ftmodel.soak.bugs import Bug
from ftmodel.soak.journal import Journal, Played
from ftmodel.soak.measures import measure, quantile
from ftmodel.soak.plots import Line
from ftmodel.steps import After, Cancel, HolderOf, KillWorker, Plan, Submit, Token
from ftmodel.targets.real.usage import Used

SENT = RequestSent(
    at=at(1.0), request="r1", id="1", frontend="frontend-1", api="completion", stream=True, prompt_tokens=3,
    max_tokens=8, n=1, key="k",
)  # fmt: skip


def text(at_s: float) -> Received:
    return Received(at=at(at_s), request="r1", items=(Item("text", "a"),))


def moved() -> list[Any]:
    """A stream whose worker is killed at 3 s; it goes on elsewhere at 4.5 s."""
    return [
        SENT, LogLine(at=at(1.1), title="w1", meaning="begun", id="1"), text(2.0), text(2.5),
        FaultMade(at=at(3.0), fault="kill-worker", title="w1", step="s2", verified=True),
        StepDone(at=at(3.0), step="s2", deed="kill-worker", subject="w1"),
        LogLine(at=at(4.0), title="w2", meaning="begun", id="1"), text(4.5), text(4.6),
        RequestEnded(at=at(4.7), request="r1", how="eof"),
        StepDone(at=at(6.0), step="s3", deed="heal"),
    ]  # fmt: skip


def test_waits_are_told_before_and_during_a_fault_and_to_recovery() -> None:
    latency = measure(moved())["latency"]
    assert latency["first before"] == {str(measures.bucket(1.0)): 1}
    assert latency["between before"] == {str(measures.bucket(0.5)): 1}
    assert latency["between during"] == {str(measures.bucket(2.0)): 1, str(measures.bucket(0.1)): 1}
    assert latency["recovery"] == {str(measures.bucket(2.0)): 1}
    assert latency["between @1"] == latency["between during"]


def test_steps_are_told_by_the_phase_of_the_requests_that_are_open() -> None:
    assert measure(moved())["coverage"] == {"kill-worker|middle": 1, "heal|no request": 1}


def test_a_verified_fault_alone_is_one() -> None:
    events = [replace(e, verified=False) if isinstance(e, FaultMade) else e for e in moved()]
    assert set(measure(events)["latency"]) == {"first before", "between before", "recovery"}


def test_usage_is_told_of_what_was_looked_at_often() -> None:
    assert len(measure(usages("w1", 10.0, "fds", 0.5))["usage"]) == 100
    assert measure(usages("w1", 10.0, "fds", 0.5)[:5])["usage"] == []


@pytest.mark.parametrize("name", BASES)
def test_every_story_can_be_measured(name: str) -> None:
    assert set(measure(BASES[name])) == {"coverage", "latency", "usage"}


def test_a_quantile_is_at_most_a_quarter_too_long() -> None:
    counts = {str(measures.bucket(ms / 1000)): 1 for ms in range(1, 101)}
    median = quantile(counts, 0.5)
    assert median is not None
    assert quantile({}, 0.5) is None
    assert all(ms / 1000 <= measures.upper_s(measures.bucket(ms / 1000)) <= 1.2501 * ms / 1000 for ms in range(1, 999))


def test_plans_are_joined_under_names_of_their_own() -> None:
    plan = Plan(
        topology="simulated", patience="long",
        steps=(
            Submit(name="r1"), KillWorker(name="s2", worker=HolderOf("r1"), at=Token("r1", 3)),
            Cancel(name="s3", request="r1", at=After("s2")),
        ),
    )  # fmt: skip
    joined = rounds.joined([plan, plan])
    assert [step.name for step in joined.steps[6:]] == ["2.r1", "2.s2", "2.s3", "2.settle", "2.heal", "2.rest"]
    assert joined.steps[7:9] == (
        KillWorker(name="2.s2", worker=HolderOf("2.r1"), at=Token("2.r1", 3)),
        Cancel(name="2.s3", request="2.r1", at=After("2.s2")),
    )
    assert joined.patience == "short"


def test_a_lasting_round_leaves_frontends_and_services_alone() -> None:
    mixes = [rounds.lasting(n, topology.find("etcd-nats"), soak_seed=1, steps=30).mix for n in range(20)]
    assert not any(mix.frontend or mix.service or mix.roll or mix.freeze_worker for mix in mixes)


def test_ticks_are_round_and_span_the_values() -> None:
    assert plots.ticks(0, 97) == [0, 25, 50, 75, 100]
    for low, high in ((0.0, 0.0), (3.0, 3.0), (-5.0, 20.0), (1e6, 3.3e6)):
        marks = plots.ticks(low, high)
        assert marks[0] <= low <= high <= marks[-1]
        assert len(marks) <= 7


def test_a_plot_says_what_it_shows_and_escapes_it() -> None:
    drawn = plots.plot([Line(name="<w1>", points=[(0, 1), (1, 2)])], title="a & b", x="s", y="ms", bands=[(0, 9)])
    assert "&lt;w1&gt;" in drawn
    assert "a &amp; b" in drawn
    assert 'class="band"' in drawn
    assert plots.plot([], title="", x="", y="") == ""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite") as opened:
        opened.set_meta(facts='{"topologies": ["simulated"], "seed": 7}')
        stint = opened.begin_stint()
        measured = measure(moved())
        counts = {
            "situations": {"all-replaced": 2}, "faults": {"kill-worker": {"made": 3, "verified": 2}},
            "invariants": {"L2": {"evaluated": 3, "violated": 1, "unknown": 0}, "R2": {"not_applicable": "needs a <router>"}},
            "coverage": measured["coverage"], "latency": measured["latency"],
        }  # fmt: skip
        bug = Bug(
            signature="L2/cut", known=False, example="00001-01", steps=31, seconds=2.0, message="r1 <was> cut", count=4,
            shrunk="done", to_steps=4, rate="12 of 40",
        )  # fmt: skip
        (tmp_path / bug.folder).mkdir(parents=True)
        (tmp_path / bug.folder / "report.html").touch()
        known = replace(bug, signature="P1/cut", known=True)
        for n in (1, 2):
            opened.add_example(
                Played(
                    name=f"00001-0{n}", round=1, topology="simulated", verdict="violated", doubt="", seconds=1.0,
                    folder="", plan="", counts=counts, usage=measure(usages(f"w{n}", 10.0, "memory", 9000))["usage"],
                ),
                [bug, known],
            )  # fmt: skip
        for n in range(20):
            opened.add_testers(stint, {"driver": Used(memory=(90 + n) << 20, fds=9, sockets=1, threads=3, children=2)})
        opened.end_stint(stint, "done")
        yield opened


def test_the_page_tells_all_of_it_and_asks_for_nothing(journal: Journal) -> None:
    text = page.render(journal, result.of(journal, doubts=["lane <1>"], earlier=[]))
    for shown in (
        "L2/cut", "r1 &lt;was&gt; cut", "lane &lt;1&gt;", "kill-worker", "all-replaced 4", "Wait to the first token",
        "31 to 4 steps; that failed 12 of 40", '<a href="findings/L2-cut/report.html">page</a>', "8.79 KiB (8.79 to 8.79)", "Memory of the tester itself", "New: L2/cut, P1/cut", "killed-mid-stream",
    ):  # fmt: skip
        assert shown in text, shown
    assert not re.search(r'(?:src|href)="(?!data:|findings/)', text)
    assert " style=" not in text  # the page's own policy would refuse it


def test_the_xml_has_a_case_for_each_invariant_and_fails_what_is_new(journal: Journal) -> None:
    suite = ET.fromstring(junit.render(result.of(journal)))
    assert [(case.get("name", "")[:2], [part.tag for part in case]) for case in suite] == [
        ("L2", ["failure"]), ("R2", ["skipped"]),
    ]  # fmt: skip
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    old = result.of(journal, earlier=journal.bugs())
    assert ET.fromstring(junit.render(old)).get("failures") == "0"
