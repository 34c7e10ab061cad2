"""A forked cluster and one started anew are alike in all that the tester relies on."""

from __future__ import annotations

import pytest

from ftmodel import calibration, engines
from ftmodel.history import (
    Answered,
    ClientClosed,
    FaultMade,
    History,
    Listed,
    LogLine,
    RequestEnded,
    RequestSent,
    ResponseBegun,
    Sample,
    Started,
)
from ftmodel.invariants import judge
from ftmodel.session import Proof, Session
from ftmodel.steps import Cancel, HolderOf, KillWorker, Plan, Settle, Submit, Token

pytestmark = pytest.mark.cluster

PLAN = Plan(
    topology="",
    workers=2,
    migration_limit=3,
    steps=(
        Submit(name="r1", max_tokens=200),
        Submit(name="r2", max_tokens=50, api="chat"),
        Submit(name="r3", max_tokens=50, stream=False),
        Submit(name="r4", max_tokens=600),
        Cancel(name="c4", request="r4", at=Token("r4", 20)),
        KillWorker(name="k1", worker=HolderOf("r1"), at=Token("r1", 60)),
        Settle(name="s1"),
    ),
)


@pytest.fixture(scope="module", params=["aggregated", "counting"])
def history(request: pytest.FixtureRequest, session: Session) -> History:
    top = next(top for top in session.topologies if top.name == request.param)
    folder = session.run.example(f"{request.param}-{session.cold_start}")
    target = session.target(top, PLAN, Proof(pace_s=0.006), folder / "logs")
    try:
        target.start()
        for step in PLAN.steps:
            target.apply(step)
        target.finish()
    finally:
        target.close()
    return target.history


def _of(history: History, kind: type) -> list:  # type: ignore[type-arg]
    return [event for event in history if isinstance(event, kind)]


def test_all_processes_start_and_every_worker_answers(history: History) -> None:
    assert {event.title for event in _of(history, Started)} >= {"frontend-1", "w1", "w2"}
    assert {event.title for event in _of(history, Answered)} >= {"w1", "w2"}
    assert {"w1", "w2"} <= set(_of(history, Listed)[-1].titles) | {e.title for e in _of(history, FaultMade)}


def test_each_request_that_nobody_cancelled_completes_though_its_worker_died(history: History) -> None:
    status = {event.request: event.status for event in _of(history, ResponseBegun)}
    ended = {event.request: event.how for event in _of(history, RequestEnded)}
    for name in ("r1", "r2", "r3"):
        assert (status[name], ended[name]) == (200, "eof")


def test_the_cancelled_one_is_closed_by_its_client_and_nobody_else(history: History) -> None:
    assert {event.request for event in _of(history, ClientClosed)} == {"r4"}


def test_the_kill_is_verified_and_its_request_moves_to_another_worker(history: History) -> None:
    [fault] = _of(history, FaultMade)
    ids = {event.request: event.id for event in _of(history, RequestSent)}
    begun = [e.title for e in _of(history, LogLine) if e.meaning == "begun" and e.id == ids["r1"]]
    assert fault.verified
    assert begun[0] == fault.title
    assert set(begun) - {fault.title}


def test_the_logs_tell_the_kill_message_and_the_migration(history: History) -> None:
    assert {"kill", "migrating", "begun", "finished"} <= {event.meaning for event in _of(history, LogLine)}


def test_each_process_tells_its_metrics(history: History) -> None:
    by_title: dict[str, set[str]] = {}
    for event in _of(history, Sample):
        by_title.setdefault(event.title, set()).update(event.values)
    assert {"inflight", "queued", "success", "cancellations", "migrations"} <= by_title["frontend-1"]
    survivor = {"w1", "w2"} - {event.title for event in _of(history, FaultMade)}
    assert {"inflight", "running", "waiting", "kv", "cancellations"} <= by_title[survivor.pop()]


def test_nothing_is_violated_that_is_no_documented_finding(history: History, documented: frozenset[str]) -> None:
    assert {finding.signature for finding in judge(history).findings} <= documented


def test_fifty_forks_have_instance_ids_request_ids_and_ports_of_their_own(session: Session) -> None:
    if session.cold_start:
        pytest.skip("a question about forks")
    top = next(top for top in session.topologies if top.name == "aggregated")
    instances: list[str] = []
    requests: list[str] = []
    ports: list[int] = []
    for number in range(13):
        folder = session.run.example(f"fork-{number}")
        target = session.target(top, Plan(topology=top.name, workers=4), Proof(), folder / "logs")
        try:
            target.start()
            lives = target.processes()
            instances += [life.identity for life in lives if life.identity is not None]
            live_ports = [life.port for life in lives]
            assert len(set(live_ports)) == len(live_ports)
            ports += live_ports
        finally:
            target.close()
        requests += [event.id for event in target.history if isinstance(event, RequestSent)]
    assert len(instances) == 52
    assert len(set(instances)) == len(instances)
    assert len(set(requests)) == len(requests)


def test_the_pace_is_measured_alike(history: History) -> None:
    setting = history[0]
    engine = engines.find(setting.engine)  # type: ignore[union-attr]
    mean_s, least_s = calibration.pace(history, engine)
    assert 0 < least_s <= mean_s
