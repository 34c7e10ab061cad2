"""Each situation is recognised in a story in which it happens, and none of them in plain traffic."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import stories_of_prefill
from histories import FRONTEND, PACE_S, Ask, Story, moment
from histories_of_workers import SECOND, of_dynamo
from rich.console import Console

from ftmodel.cli import listing, show
from ftmodel.history import EngineErred, Interval, ReaderPaused, StepDone
from ftmodel.invariants import judge
from ftmodel.invariants.situations import SITUATIONS, Situation
from ftmodel.runner import Outcome
from ftmodel.steps import Plan
from ftmodel.verdict import Verdict, combine, row

Tell = Callable[[], Story]


def reached(story: Story, rest_s: float = 60.0) -> dict[str, int]:
    return {name: count for name, count in judge(story.told(rest_s)).situations.items() if count}


def plain(*, exact: bool = True) -> Story:
    """Requests of each kind, with no fault and no cancel."""
    story = Story(exact=exact)
    Ask(story, "r1", 1.0, 50).whole("w1", 1.0)
    Ask(story, "r2", 1.0, 300).whole("w2", 1.0)
    Ask(story, "r3", 1.2, 300, stream=False).whole("w1", 1.2)
    Ask(story, "r4", 1.3, 40, usage=True, stop=("nowhere",)).whole("w1", 1.3)
    return story


# --- workers are killed -----------------------------------------------------------------------------------------


def moved(tokens: int, of: int, *, workers: int = 3, **how: object) -> tuple[Story, Ask]:
    """A request on w1, which is killed after so many tokens and goes on on w2; it is still open."""
    story = Story(workers=workers)
    ask = Ask(story, "r1", 1.0, of, **how).begin("w1", 1.004)
    died_s = ask.run(tokens, 1.01) + 0.005 if tokens else 1.02
    story.kill("w1", died_s)
    ask.stop("died", died_s).move("migrating", died_s + 0.01).begin("w2", died_s + 0.02)
    return story, ask


def finished(story: Story, ask: Ask, at_s: float = 5.0) -> Story:
    end_s = ask.run(ask.max_tokens - ask.tokens, at_s) if ask.stream else at_s
    ask.stop("ended", end_s).finish(end_s)
    return story


def killed_at(tokens: int, **how: object) -> Tell:
    return lambda: finished(*moved(tokens, 50, **how))


def killed_queued() -> Story:
    story = Story()
    story.setting = dataclasses.replace(story.setting, slots=1)
    first = Ask(story, "r1", 1.0, 500).begin("w1", 1.004)
    first.run(40, 1.01)
    second = Ask(story, "r2", 1.1, 50).begin("w1", 1.104)
    story.kill("w1", 1.4)
    first.stop("died", 1.4).error(1.42)
    second.stop("died", 1.4).begin("w2", 1.43)
    return finished(story, second)


def killed_twice() -> Story:
    story, ask = moved(20, 300)
    ask.run(20, 1.3)
    story.kill("w2", 2.0)
    ask.stop("died", 2.0).move("migrating", 2.01).begin("w3", 2.02)
    return finished(story, ask)


def killed_with_n() -> Story:
    story = Story()
    ask = Ask(story, "r1", 1.0, 300, n=2).begin("w1", 1.004)
    ask.run(40, 1.01)
    story.kill("w1", 2.0)
    ask.stop("died", 2.0).error(2.01)
    return story


def two_kills() -> Story:
    story = plain()
    story.kill("w1", 5.0)
    story.kill("w2", 5.004)
    return story


def two_on_one() -> Story:
    story = Story()
    asks = [Ask(story, name, 1.0, 300).begin("w1", 1.004) for name in ("r1", "r2")]
    for ask in asks:
        ask.run(40, 1.01)
    story.kill("w1", 2.0)
    for ask in asks:
        ask.stop("died", 2.0).begin("w2", 2.02)
        finished(story, ask, 2.03)
    return story


def killed_after(fault: str) -> Tell:
    def tell() -> Story:
        story = plain()
        story.fault(fault, "w1", 5.0)  # type: ignore[arg-type]
        story.kill("w1", 6.0)
        return story

    return tell


# --- requests are moved -----------------------------------------------------------------------------------------


def to_the_limit() -> Story:
    story, ask = moved(20, 300)
    story.setting = dataclasses.replace(story.setting, promise=dataclasses.replace(story.setting.promise, limit=1))
    return finished(story, ask)


def past_the_limit() -> Story:
    story, ask = moved(20, 300)
    story.setting = to_the_limit().setting
    ask.run(20, 1.3)
    story.kill("w2", 2.0)
    ask.stop("died", 2.0).move("migrating", 2.01)
    story.log(FRONTEND, "given-up", 2.02, ask.id)
    ask.error(2.03)
    return story


def to_a_newcomer() -> Story:
    story = Story()
    ask = Ask(story, "r1", 1.0, 500).begin("w1", 1.004)
    ask.run(100, 1.01)
    story.start("w3", 3, 2.0)
    story.join("w3", 2.4)
    story.kill("w1", 3.0)
    ask.stop("died", 3.0).move("migrating", 3.01).begin("w3", 3.02)
    return finished(story, ask)


# --- clients leave ----------------------------------------------------------------------------------------------


def left(tokens: int, of: int, **how: object) -> Tell:
    def tell() -> Story:
        story = Story()
        ask = Ask(story, "r1", 1.0, of, **how).begin("w1", 1.004)
        at_s = ask.run(tokens, 1.01) if tokens else 1.01
        ask.leave(at_s + 0.02)
        return story

    return tell


def left_in_prefill() -> Story:
    story = Story(exact=False)
    Ask(story, "r1", 1.0, 500).begin("w1", 1.004).leave(1.2)
    return story


def left_after_end() -> Story:
    story = plain()
    story.push(StepDone(at=moment(9.0), step="s1", deed="cancel", subject="over before"))
    return story


def left_in_queue() -> Story:
    story = Story()
    story.setting = dataclasses.replace(story.setting, slots=1)
    first = Ask(story, "r1", 1.0, 500).begin("w1", 1.004)
    first.run(40, 1.01)
    Ask(story, "r2", 1.1, 50).begin("w1", 1.104).leave(1.3)
    return finished(story, first)


def left_while_moved() -> Story:
    story = Story()
    ask = Ask(story, "r1", 1.0, 500).begin("w1", 1.004)
    ask.run(40, 1.01)
    story.kill("w1", 1.5)
    ask.stop("died", 1.5).leave(1.52)
    return story


def left_after(fault: str) -> Tell:
    def tell() -> Story:
        story = Story()
        ask = Ask(story, "r1", 1.0, 900).begin("w1", 1.004)
        ask.run(40, 1.01)
        story.fault(fault, "w1", 1.5)  # type: ignore[arg-type]
        ask.leave(2.0)
        return story

    return tell


def left_beside_another() -> Story:
    story = Story()
    asks = [Ask(story, name, 1.0, 300).begin("w1", 1.004) for name in ("r1", "r2")]
    for ask in asks:
        ask.run(40, 1.01)
    asks[0].leave(1.5)
    return finished(story, asks[1], 1.6)


def raced(close_s: float, kill_s: float) -> Tell:
    def tell() -> Story:
        story = Story()
        ask = Ask(story, "r1", 1.0, 500).begin("w1", 1.004)
        ask.run(40, 1.01)
        story.kill("w1", kill_s)
        ask.stop("died", kill_s)
        ask.leave(close_s, aborts=False)
        return story

    return tell


def left_at_the_end() -> Story:
    story = Story()
    ask = Ask(story, "r1", 1.0, 40).begin("w1", 1.004)
    end_s = ask.run(40, 1.01)
    ask.stop("ended", end_s)
    ask.leave(end_s + 0.003)
    return story


# --- workers come and go ----------------------------------------------------------------------------------------


def late_join() -> Story:
    story = Story()
    ask = Ask(story, "r1", 1.0, 500).begin("w1", 1.004)
    ask.run(100, 1.01)
    story.start("w3", 3, 2.0)
    story.join("w3", 2.4)
    return finished(story, ask)


def back(after_s: float, port: int = 0) -> Tell:
    def tell() -> Story:
        story = plain()
        if port:
            story.events = [
                dataclasses.replace(e, port=port) if e.kind == "started" and e.title == "w1" else e
                for e in story.events
            ]
        story.kill("w1", 5.0)
        story.start("w1-2", 1, 5.0 + after_s)
        story.events[-1] = dataclasses.replace(story.events[-1], port=port)  # type: ignore[arg-type]
        story.join("w1-2", 5.4 + after_s)
        return story

    return tell


def outage() -> Story:
    story = plain()
    story.kill("w1", 5.0)
    story.kill("w2", 6.0)
    Ask(story, "r9", 17.0, 50).refuse(17.01, 503)
    story.start("w1-2", 1, 18.0)
    story.join("w1-2", 18.4)
    return story


def rolled() -> Story:
    story = plain()
    for slot, at_s in ((1, 5.0), (2, 25.0)):
        story.kill(f"w{slot}", at_s)
        story.start(f"w{slot}-2", slot, at_s + 11)
        story.join(f"w{slot}-2", at_s + 11.4)
    return story


def beside_a_ghost() -> Story:
    story = plain()
    story.kill("w1", 5.0)
    Ask(story, "r9", 8.0, 50).whole("w2", 8.0)
    return story


# --- freezes and drains -----------------------------------------------------------------------------------------


def frozen(seconds: float) -> Tell:
    def tell() -> Story:
        story = Story()
        story.setting = dataclasses.replace(
            story.setting, promise=dataclasses.replace(story.setting.promise, request_timeout_s=5.0)
        )
        ask = Ask(story, "r1", 1.0, 600).begin("w2", 1.004)
        ask.run(40, 1.01)
        story.fault("freeze-worker", "w1", 2.0)
        story.fault("thaw-worker", "w1", 2.0 + seconds)
        return finished(story, ask)

    return tell


def thawed_late() -> Story:
    story = Story()
    ask = Ask(story, "r1", 1.0, 600).begin("w1", 1.004)
    ask.run(40, 1.01)
    story.fault("freeze-worker", "w1", 2.0)
    ask.begin("w2", 8.0)
    end_s = ask.run(560, 8.01)
    ask.stop("ended", end_s).finish(end_s)
    story.fault("thaw-worker", "w1", 30.0)
    story.log("w1", "aborted", 30.02, ask.id)
    return story


def drained(seconds: float) -> Tell:
    def tell() -> Story:
        story = of_dynamo(Story())
        ask = Ask(story, "r1", 1.0, 60 + int(seconds / PACE_S)).begin("w1", 1.004)
        ask.run(40, 1.01)
        story.fault("stop-worker", "w1", 2.0)
        end_s = ask.run(ask.max_tokens - 40, 2.01)
        ask.stop("ended", end_s).finish(end_s)
        story.exit("w1", end_s + 0.1, unlisted_s=2.05)
        return story

    return tell


def asked_while_draining() -> Story:
    story = drained(2.0)()
    Ask(story, "r9", 2.5, 50).whole("w2", 2.5)
    return story


def stopped_twice() -> Story:
    story = drained(4.0)()
    story.fault("stop-worker", "w1", 3.0)
    return story


# --- frontends, clients, engines --------------------------------------------------------------------------------


def with_two_frontends(fault: str, through: str = SECOND) -> Tell:
    def tell() -> Story:
        story = Story()
        story.start(SECOND, 2, 0.01, role="frontend")
        for slot in (1, 2):
            story.join(f"w{slot}", 0.6 + slot / 10, SECOND)
        ask = Ask(story, "r1", 1.0, 500, frontend=through).begin("w1", 1.004)
        ask.run(100, 1.01)
        story.fault(fault, SECOND, 2.0)  # type: ignore[arg-type]
        if fault == "kill-frontend":
            story.exit(SECOND, 2.0, unlisted_s=2.0)
        if through == SECOND and fault == "kill-frontend":
            ask.end("cut", 2.002)
            ask.stop("aborted", 2.01)
            return story
        return finished(story, ask)

    return tell


def frontend_back() -> Story:
    story = with_two_frontends("kill-frontend")()
    story.start(f"{SECOND}-2", 2, 3.0, role="frontend")
    return story


def paused() -> Story:
    story = plain()
    ask = Ask(story, "r9", 5.0, 300).begin("w1", 5.004)
    ask.run(40, 5.01)
    story.push(ReaderPaused(at=Interval(5.3, 6.3), request="r9"))
    return finished(story, ask, 6.31)


def bad_beside_good() -> Story:
    story = Story()
    ask = Ask(story, "r1", 1.0, 300).begin("w1", 1.004)
    ask.run(40, 1.01)
    Ask(story, "r2", 1.4, 8, wrong="malformed-json").refuse(1.41, 400)
    return finished(story, ask, 1.5)


def erred(how: str) -> Tell:
    def tell() -> Story:
        story = Story()
        ask = Ask(story, "r1", 1.0, 300).begin("w1", 1.004)
        ask.run(40, 1.01)
        story.push(EngineErred(at=moment(1.4), request="r1", title="w1", how=how, step="s1"))  # type: ignore[arg-type]
        if how == "stall":
            ask.leave(3.0)
        else:
            ask.stop("failed", 1.4).error(1.42)
        return story

    return tell


def waiting() -> Story:
    """The gauge of an engine that lets a request wait."""
    story = plain()
    told = story.told

    def with_waiting(rest_s: float) -> list[object]:
        return [
            dataclasses.replace(e, values={**e.values, "waiting": 1.0})  # type: ignore[union-attr, type-var]
            if e.kind == "sample" and e.title == "w1" and 1.0 < e.at.after_s < 2.0  # type: ignore[union-attr]
            else e
            for e in told(rest_s)
        ]

    story.told = with_waiting  # type: ignore[assignment, method-assign]
    return story


def overloaded() -> Story:
    story = plain()
    Ask(story, "r8", 5.0, 50).refuse(5.01, 529)
    Ask(story, "r9", 6.0, 50).whole("w1", 6.0)
    return story


STORIES: dict[str, Tell] = {
    "killed-before-first-token": killed_at(0),
    "killed-mid-stream": killed_at(20),
    "killed-at-last-token": killed_at(49),
    "killed-not-streamed": killed_at(0, stream=False),
    "killed-while-queued": killed_queued,
    "killed-migration-target": killed_twice,
    "not-migratable-killed": killed_with_n,
    "two-kills-5ms": two_kills,
    "two-requests-on-dying-worker": two_on_one,
    "killed-while-frozen": killed_after("freeze-worker"),
    "killed-while-draining": killed_after("stop-worker"),
    "migrated-twice": killed_twice,
    "migrated-to-the-limit": to_the_limit,
    "one-past-the-limit": past_the_limit,
    "migrated-to-a-newcomer": to_a_newcomer,
    "stop-string-over-migration": killed_at(20, stop=("nowhere",)),
    "usage-over-migration": killed_at(20, usage=True),
    "cancelled-before-first-token": left(0, 500),
    "cancelled-during-prefill": left_in_prefill,
    "cancelled-mid-stream": left(20, 500),
    "cancelled-at-last-token": left(40, 40),
    "cancelled-after-end": left_after_end,
    "cancelled-not-streamed": left(0, 500, stream=False),
    "cancelled-while-queued": left_in_queue,
    "cancelled-during-migration": left_while_moved,
    "cancelled-while-frozen": left_after("freeze-worker"),
    "cancelled-while-draining": left_after("stop-worker"),
    "one-cancelled-one-kept": left_beside_another,
    "cancel-then-kill-5ms": raced(2.0, 2.004),
    "kill-then-cancel-5ms": raced(2.004, 2.0),
    "cancel-and-finish-5ms": left_at_the_end,
    "started-while-requests-run": late_join,
    "back-within-lease": back(2.0),
    "back-on-port": back(12.0, 7001),
    "all-gone-and-back": outage,
    "all-replaced": rolled,
    "submitted-with-no-worker": outage,
    "submitted-beside-a-ghost": beside_a_ghost,
    "freeze-shorter-than-timeout": frozen(2.0),
    "freeze-longer-than-lease": frozen(20.0),
    "thaw-after-migration": thawed_late,
    "drained-with-open-requests": drained(2.0),
    "drain-outlives-grace": drained(8.0),
    "second-sigterm": stopped_twice,
    "submitted-while-draining": asked_while_draining,
    "frontend-killed-with-open-requests": with_two_frontends("kill-frontend"),
    "frontend-drained-with-open-requests": with_two_frontends("stop-frontend"),
    "frontend-restarted": frontend_back,
    "other-frontend-goes-on": with_two_frontends("kill-frontend", FRONTEND),
    "slow-reader": paused,
    "bad-request-beside-good": bad_beside_good,
    "engine-error": erred("error"),
    "engine-stall-cancelled": erred("stall"),
    "queued-in-engine": waiting,
    "overload-then-accepted": overloaded,
    **stories_of_prefill.STORIES,
}


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.id)
def test_a_situation_is_recognised_where_it_happens(situation: Situation) -> None:
    assert reached(STORIES[situation.id]()).get(situation.id) == 1


@pytest.mark.parametrize("exact", [True, False])
def test_plain_traffic_is_no_situation(exact: bool) -> None:  # noqa: FBT001
    assert reached(plain(exact=exact)) == {}


NEAR = [
    ("killed-before-first-token", killed_at(20)),
    ("killed-mid-stream", killed_at(0)),
    ("killed-mid-stream", killed_at(49)),
    ("killed-at-last-token", killed_at(20)),
    ("killed-while-queued", two_on_one),
    ("killed-migration-target", killed_at(20)),
    ("migrated-twice", killed_at(20)),
    ("migrated-to-the-limit", killed_at(20)),
    ("one-past-the-limit", to_the_limit),
    ("migrated-to-a-newcomer", killed_at(20)),
    ("cancelled-mid-stream", left(0, 500)),
    ("cancelled-at-last-token", left(20, 500)),
    ("cancelled-during-migration", left(20, 500)),
    ("cancelled-while-frozen", left_after("stop-worker")),
    ("cancel-then-kill-5ms", raced(2.0, 2.008)),
    ("kill-then-cancel-5ms", raced(2.0, 2.004)),
    ("cancel-then-kill-5ms", raced(2.004, 2.0)),
    ("back-within-lease", back(12.0)),
    ("back-on-port", back(12.0)),
    ("all-gone-and-back", rolled),
    ("all-replaced", outage),
    ("freeze-shorter-than-timeout", frozen(6.0)),
    ("freeze-longer-than-lease", frozen(6.0)),
    ("drain-outlives-grace", drained(2.0)),
    ("second-sigterm", drained(2.0)),
    ("other-frontend-goes-on", with_two_frontends("stop-frontend")),
    ("frontend-killed-with-open-requests", with_two_frontends("kill-frontend", FRONTEND)),
    ("engine-stall-cancelled", erred("error")),
    ("engine-error", erred("stall")),
    *stories_of_prefill.NEAR,
]


@pytest.mark.parametrize(("name", "tell"), NEAR, ids=[f"{name}-{i}" for i, (name, _) in enumerate(NEAR)])
def test_a_situation_is_not_taken_for_its_neighbour(name: str, tell: Tell) -> None:
    assert name not in reached(tell())


def test_each_situation_has_a_sentence_and_an_identifier_of_its_own() -> None:
    assert len({situation.id for situation in SITUATIONS}) == len(SITUATIONS)
    assert all(s.sentence.endswith(".") and len(s.sentence) < 100 for s in SITUATIONS)


# --- as a run shows them ----------------------------------------------------------------------------------------


def verdict_of(*stories: Story) -> Verdict:
    outcomes = [
        Outcome(
            name=str(i),
            folder=Path(str(i)),
            plan=Plan(topology="counting"),
            judgement=judge(story.told(60.0)),
            scripted=i == 0,
        )
        for i, story in enumerate(stories)
    ]
    system = {"name": "toy", "version": "1.4.2"}
    return combine(outcomes, seed=7, system=system, topologies=["counting"], store=Path("runs"))


def test_a_verdict_sums_what_the_drawn_examples_reached() -> None:
    total = row(verdict_of(two_kills(), killed_twice(), killed_twice(), plain()))["situations"]
    assert list(total) == [situation.id for situation in SITUATIONS]
    assert total["migrated-twice"] == 2
    assert total["two-kills-5ms"] == 0


def test_the_summary_tells_what_was_reached_and_what_never_was() -> None:
    console = Console(width=80, file=io.StringIO(), color_system=None)
    show.summary(console, verdict_of(plain(), killed_twice()))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    said = " ".join(" ".join(lines).split())
    assert all(len(line) <= 80 for line in lines)
    assert "migrated-twice 1," in said.partition("reached ")[2].partition(" never ")[0]
    assert "two-kills-5ms," in said.partition(" never ")[2]


def test_situations_are_listed() -> None:
    assert listing.rows("situations")[0] == {"id": SITUATIONS[0].id, "sentence": SITUATIONS[0].sentence}
