"""Steps are frozen values; every kind can be named, found by its id, and said in words."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftmodel.steps import (
    FAULTS,
    KINDS,
    After,
    Anchor,
    BadRequest,
    Begun,
    Cancel,
    End,
    EngineError,
    FreezeWorker,
    Gone,
    Heal,
    HolderOf,
    KillEngine,
    KillFrontend,
    KillWorker,
    NotHolderOf,
    Now,
    OnService,
    OnWorker,
    Plan,
    Sent,
    ServiceKind,
    Settle,
    Slot,
    SlowReader,
    StartFrontend,
    StartWorker,
    Step,
    StopFrontend,
    StopWorker,
    Subject,
    Submit,
    ThawWorker,
    Token,
    VictimOf,
    WorkerRole,
    about,
    words,
)

SAID = [
    (StartWorker(name="s1", slot=3), "start a worker in slot 3"),
    (KillWorker(name="s1", worker=Slot(2)), "kill worker 2 (SIGKILL)"),
    (KillEngine(name="s1", worker=Slot(2)), "kill the engine process of worker 2 (SIGKILL)"),
    (
        KillEngine(name="s1", worker=HolderOf("r3"), part="rank", at=Token("r3", 17)),
        "kill the rank process of the engine of the worker that serves r3 (SIGKILL), at token 17 of r3",
    ),
    (
        KillWorker(name="s1", worker=HolderOf("r3"), at=Token("r3", 17)),
        "kill the worker that serves r3 (SIGKILL), at token 17 of r3",
    ),
    (
        StopWorker(name="s1", worker=NotHolderOf("r3"), at=Sent("r4"), skew_ms=5),
        "stop a worker that does not serve r3 (SIGTERM), when r4 is sent + 5 ms",
    ),
    (FreezeWorker(name="s1", worker=Slot(1), at=End("r1")), "freeze worker 1 (SIGSTOP), when r1 has ended"),
    (ThawWorker(name="s2", worker=Slot(1), at=After("s1"), skew_ms=100), "thaw worker 1 (SIGCONT), after s1 + 100 ms"),
    (Submit(name="r1"), "submit r1: completion, streamed, 40 characters, 50 tokens"),
    (
        Submit(name="r2", api="chat", stream=False, n=2, skew_ms=20),
        "submit r2: chat, not streamed, 40 characters, 50 tokens, n=2, 20 ms later",
    ),
    (Cancel(name="s1", request="r1", at=Token("r1", 0)), "cancel r1 by closing the socket, at the first byte of r1"),
    (
        Cancel(name="s1", request="r1", how="timeout", at=Sent("r1"), skew_ms=1000),
        "cancel r1 by a client timeout of 1000 ms",
    ),
    (
        StartWorker(name="s2", slot=1, port="predecessor", at=Gone("s1")),
        "start a worker in slot 1, on its predecessor's port, when the process of s1 has ended",
    ),
    (
        KillWorker(name="s2", worker=VictimOf("s1"), at=After("s1"), skew_ms=20),
        "kill the worker of s1 (SIGKILL), after s1 + 20 ms",
    ),
    (KillFrontend(name="s1", frontend=2), "kill frontend 2 (SIGKILL)"),
    (StopFrontend(name="s1"), "stop frontend 1 (SIGTERM)"),
    (StartFrontend(name="s2", at=Gone("s1")), "start frontend 1, when the process of s1 has ended"),
    (
        EngineError(name="s1", request="r1", how="stall", at=Token("r1", 5)),
        "have the engine fail r1 (stall), at token 5 of r1",
    ),
    (
        Submit(name="r1", frontend=2, min_tokens=3, stop_at=9, guided=True, logprobs=True, usage=True),
        (
            "submit r1: completion, streamed, 40 characters, 50 tokens, at least 3 tokens, a stop string about token 9,"
            " guided, logprobs, usage, through frontend 2"
        ),
    ),
    (
        BadRequest(name="r1", wrong="unknown-model", api="chat"),
        "submit r1, which is wrong (unknown-model): chat, not streamed",
    ),
    (
        SlowReader(name="s1", request="r1", at=Token("r1", 5)),
        "the client of r1 stops reading for 2000 ms, at token 5 of r1",
    ),
    (OnService(name="s1", kind="kill-etcd", at=Token("r1", 5)), "kill etcd (SIGKILL), at token 5 of r1"),
    (OnService(name="s2", kind="freeze-nats"), "freeze nats (SIGSTOP)"),
    (
        OnService(name="s2", kind="start-etcd", at=Gone("s1"), skew_ms=1000),
        "start etcd, when the process of s1 has ended + 1000 ms",
    ),
    (StartWorker(name="s1", slot=0, role="prefill"), "start a prefill worker in the lowest empty slot"),
    (
        KillWorker(name="s1", worker=HolderOf("r1", "prefill"), at=Begun("r1"), skew_ms=20),
        "kill the prefill worker of r1 (SIGKILL), when a worker has begun r1 + 20 ms",
    ),
    (FreezeWorker(name="s1", worker=Slot(2, "prefill")), "freeze prefill worker 2 (SIGSTOP)"),
    (
        StopWorker(name="s1", worker=NotHolderOf("r1", "prefill")),
        "stop a prefill worker that does not have r1 (SIGTERM)",
    ),
    (Settle(name="s1"), "settle"),
    (Heal(name="s1"), "heal"),
]

names = st.sampled_from(("r1", "r22", "s333"))
roles: st.SearchStrategy[WorkerRole] = st.sampled_from(get_args(WorkerRole))
anchors: st.SearchStrategy[Anchor] = st.one_of(
    st.just(Now()),
    st.builds(Sent, names),
    st.builds(Begun, names),
    st.builds(Token, names, st.integers(0, 3000)),
    st.builds(End, names),
    st.builds(After, names),
    st.builds(Gone, names),
)
subjects: st.SearchStrategy[Subject] = st.one_of(
    st.builds(Slot, st.integers(1, 4), roles),
    st.builds(HolderOf, names, roles),
    st.builds(NotHolderOf, names, roles),
    st.builds(VictimOf, names),
)


def test_every_kind_of_the_union_is_found_by_its_id() -> None:
    assert set(KINDS.values()) == set(get_args(Step))
    for kind, cls in KINDS.items():
        named = get_args(ServiceKind) if cls is OnService else (cls.__dataclass_fields__["kind"].default,)
        assert kind in named


def test_the_faults_by_id_are_those_of_the_union() -> None:
    of_union = {*get_args(OnWorker), KillFrontend, StopFrontend, EngineError, OnService}
    assert {KINDS[kind] for kind in FAULTS} == of_union
    assert not [kind for kind in FAULTS if kind.startswith("start")]


def test_every_kind_of_step_says_what_it_is() -> None:
    said = [about(kind) for kind in KINDS]
    assert all(sentence.endswith(".") for sentence in said)
    assert len(set(said)) == len(said)


def test_every_kind_has_an_anchor_and_a_skew_whose_defaults_mean_at_once() -> None:
    for cls in KINDS.values():
        assert cls.__dataclass_fields__["at"].default == Now()
        assert cls.__dataclass_fields__["skew_ms"].default == 0


@pytest.mark.parametrize(("step", "said"), SAID)
def test_a_step_is_said_as_a_person_would(step: Step, said: str) -> None:
    assert words(step) == said


def test_the_examples_of_words_leave_out_no_kind_no_anchor_and_no_subject() -> None:
    steps = [step for step, _ in SAID]
    assert {type(step) for step in steps} == set(get_args(Step))
    assert {type(step.at) for step in steps} == set(get_args(Anchor))
    assert {type(step.worker) for step in steps if isinstance(step, get_args(OnWorker))} == set(get_args(Subject))


@given(cls=st.sampled_from(get_args(OnWorker)), worker=subjects, at=anchors, skew_ms=st.integers(1, 20_000))
def test_the_words_of_a_fault_tell_whom_and_when(cls: Any, worker: Subject, at: Anchor, skew_ms: int) -> None:
    said = words(cls(name="s1", worker=worker, at=at, skew_ms=skew_ms))
    for part in (worker, at):
        values = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.name not in ("on", "by")}
        if values.get("k") == 0:
            assert "first byte" in said
            del values["k"]
        assert all(str(value) in said for value in values.values())
    assert f"{skew_ms} ms" in said


def test_steps_and_plans_cannot_be_changed() -> None:
    for value in (Submit(name="r1"), Now(), Slot(1), Plan(topology="aggregated")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, "other")
