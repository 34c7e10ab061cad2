"""Known issues: what they cover, what a broken file is told, and that they alone fail nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from histories import Ask, Story

from ftmodel import known
from ftmodel.errors import UsageError
from ftmodel.invariants import Judgement, judge
from ftmodel.invariants.base import Finding
from ftmodel.known import Issue
from ftmodel.runner import Outcome, Rules
from ftmodel.steps import Plan
from ftmodel.verdict import Verdict, combine, example_row, row

WHOLE = {
    "invariant": "L2",
    "signature": "L2/status-500",
    "versions": "<1.5",
    "reason": "a dead worker is still routed to",
    "link": "docs/findings.md#l2status-500",
}


def text(**changed: object) -> str:
    rows = {**WHOLE, **changed}
    return "[[issue]]\n" + "".join(f'{key} = "{value}"\n' for key, value in rows.items() if value is not None)


def written(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "known_issues.toml"
    path.write_text(content, encoding="utf-8")
    return path


@pytest.fixture
def issue(tmp_path: Path) -> Issue:
    return known.load(written(tmp_path, text()))[0]


@pytest.mark.parametrize(
    ("signature", "version", "covered"),
    [
        ("L2/status-500", "1.4.2", True),
        ("L2/status-500", "1.4.3rc1", True),
        ("L2/status-500", "1.6.1", False),
        ("L2/status-503", "1.4.2", False),
        ("L2/status-500", "", False),
        ("L2/status-500", "somebody's build", False),
    ],
)
def test_an_issue_covers_its_signature_in_its_versions(
    issue: Issue, signature: str, version: str, *, covered: bool
) -> None:
    assert issue.covers(signature, version, "aggregated") is covered


def test_an_issue_of_some_topologies_covers_nothing_elsewhere(tmp_path: Path) -> None:
    (issue,) = known.load(written(tmp_path, text() + 'topologies = ["disaggregated"]\n'))
    assert issue.covers("L2/status-500", "1.4.2", "disaggregated")
    assert not issue.covers("L2/status-500", "1.4.2", "aggregated")


def test_an_empty_file_knows_nothing(tmp_path: Path) -> None:
    assert known.load(written(tmp_path, "")) == ()


def test_the_default_file_is_read_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert known.find(None) == ()
    written(tmp_path, text())
    assert [found.signature for found in known.find(None)] == ["L2/status-500"]


@pytest.mark.parametrize("key", list(WHOLE))
def test_each_key_is_required(tmp_path: Path, key: str) -> None:
    with pytest.raises(UsageError, match=rf"known_issues\.toml: \[\[issue\]\] 1: key {key}: missing, expected all of"):
        known.load(written(tmp_path, text(**{key: None})))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (text(versions="1.5 or so"), r"\[\[issue\]\] 1: key versions: got '1.5 or so', expected a version specifier"),
        (text(versions=""), r"key versions: got '', expected"),
        (text() + text(reason=""), r"\[\[issue\]\] 2: key reason: got '', expected a text"),
        (text(reason=None) + "reason = 5\n", r"key reason: got 5, expected a text"),
        (text(signature="L2/statu-500"), r"key signature: got 'L2/statu-500', expected .*L2/status-500"),
        (text(signature="L1/never-ended"), r"key signature: got 'L1/never-ended', expected one of invariant L2"),
        (text(signature="L2"), r"key signature: got 'L2', expected one of invariant L2"),
        (text(owner="me"), r"\[\[issue\]\] 1: key owner: unknown, expected invariant, signature"),
        ("[issue]\n", r"key issue: got dict, expected \[\[issue\]\] with"),
        ("issue = [3]\n", r"\[\[issue\]\] 1: got 3, expected"),
        ("issues = 1\n", r"key issues: unknown, expected \[\[issue\]\] with"),
        ("[[issue\n", r"expected a TOML file of known issues"),
    ],
)
def test_a_broken_file_is_told_which_table_and_key_and_what_is_expected(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as told:
        known.load(written(tmp_path, content))
    assert str(told.value).startswith(str(tmp_path / "known_issues.toml"))


def test_a_file_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml: No such file"):
        known.find(tmp_path / "nowhere.toml")


def test_of_an_invariant_of_ones_own_any_slug_is_taken(tmp_path: Path) -> None:
    own = text(invariant="MY1", signature="MY1/slow")
    assert known.load(written(tmp_path, own))[0].signature == "MY1/slow"


# --- in a verdict -----------------------------------------------------------------------------------------------


def found(signature: str) -> Finding:
    invariant, _, slug = signature.partition("/")
    return Finding(invariant=invariant, slug=slug, subject="r1", message="r1 got status 500", evidence=("client",))


def clean() -> Judgement:
    story = Story()
    Ask(story, "r1", 5.0, 8).whole("w1", 5.01)
    return judge(story.told(16.0))


def outcome(name: str, *signatures: str, issues: tuple[Issue, ...] = (), version: str = "1.4.2") -> Outcome:
    judgement = dataclasses.replace(clean(), findings=tuple(map(found, signatures)), doubts=())
    return Outcome(
        name=name,
        folder=Path("runs/a/examples") / name,
        plan=Plan(topology="aggregated"),
        judgement=judgement,
        setting=dataclasses.replace(Story().setting, version=version),
        known=known.of_findings(signatures, version, "aggregated", issues),
    )


def verdict(*outcomes: Outcome) -> Verdict:
    return combine(outcomes, seed=1, system={"name": "s", "version": "1"}, topologies=["t"], store=Path("runs/a"))


def test_known_issues_alone_hold(issue: Issue) -> None:
    one = outcome("001", "L2/status-500", issues=(issue,))
    assert one.value == "holds"
    assert example_row(one)["verdict"] == "holds"
    whole = verdict(one, outcome("002"))
    assert (whole.value, whole.exit_code) == ("holds", 0)
    assert [(v.signature, v.known, v.count) for v in whole.violations] == [("L2/status-500", True, 1)]
    told = row(whole)["violations"][0]
    assert (told["known"], told["reason"], told["link"]) == (True, issue.reason, issue.link)


def test_another_signature_beside_a_known_one_is_a_violation(issue: Issue) -> None:
    whole = verdict(outcome("001", "L2/status-500", "T1/lost", issues=(issue,)))
    assert (whole.value, whole.exit_code) == ("violated", 1)
    assert {v.signature: v.known for v in whole.violations} == {"L2/status-500": True, "T1/lost": False}


def test_a_signature_that_one_version_is_known_for_is_shown_in_the_other(issue: Issue) -> None:
    whole = verdict(
        outcome("001", "L2/status-500", issues=(issue,)),
        outcome("002", "L2/status-500", issues=(issue,), version="1.6.1"),
    )
    assert whole.value == "violated"
    assert [(v.known, v.count, v.outcome.name) for v in whole.violations] == [(False, 2, "002")]


def test_doubts_beside_known_issues_make_it_unknown(issue: Issue) -> None:
    one = outcome("001", "L2/status-500", issues=(issue,))
    assert one.judgement is not None
    doubtful = dataclasses.replace(one, judgement=dataclasses.replace(one.judgement, doubts=("H1: not verified",)))
    assert verdict(doubtful).value == "unknown"


def test_without_rules_everything_is_judged_and_nothing_is_known() -> None:
    assert Rules().issues == ()
    assert set(clean().invariants) == {cls.id for cls in Rules().invariants}
