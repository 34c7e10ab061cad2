"""Plans as files: nothing is lost, the same plan gives the same bytes, and a broken file is told exactly where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftmodel import planfile
from ftmodel.errors import PlanError
from ftmodel.steps import (
    FORMAT,
    FRONTENDS,
    KINDS,
    SLOTS,
    Anchor,
    EngineError,
    EngineFault,
    Mix,
    Part,
    Plan,
    Step,
    Subject,
    Submit,
    WorkerRole,
    Wrong,
)

NAMES = st.one_of(st.sampled_from(("r1", "s1", "s2")), st.text(min_size=1, max_size=8))
LEAST = {"name": "s1", "request": "r1", "worker": {"by": "slot", "slot": 1}, "slot": 1}
"""A good value of each field that has no default."""


def built(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Any value of a step, an anchor or a subject: a field without a row here is one that these tests do not know."""
    fields = {name: VALUES[name] for name in cls.__dataclass_fields__ if name not in ("kind", "on", "by")}
    if cls is EngineError:
        fields["how"] = st.sampled_from(get_args(EngineFault))
    return st.builds(cls, **fields)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": NAMES,
    "request": NAMES,
    "step": NAMES,
    "slot": st.integers(1, SLOTS),
    "k": st.integers(0, 10_000),
    "worker": st.deferred(lambda: st.one_of(*map(built, get_args(Subject)))),
    "at": st.deferred(lambda: st.one_of(*map(built, get_args(Anchor)))),
    "skew_ms": st.integers(0, 100_000),
    "api": st.sampled_from(("completion", "chat")),
    "stream": st.booleans(),
    "prompt_chars": st.integers(0, 10_000),
    "max_tokens": st.integers(1, 10_000),
    "n": st.integers(1, 8),
    "how": st.sampled_from(("close", "timeout")),
    "port": st.sampled_from(("new", "predecessor")),
    "role": st.sampled_from(get_args(WorkerRole)),
    "frontend": st.integers(1, FRONTENDS),
    "min_tokens": st.integers(0, 10_000),
    "stop_at": st.integers(0, 10_000),
    "guided": st.booleans(),
    "logprobs": st.booleans(),
    "usage": st.booleans(),
    "wrong": st.sampled_from(get_args(Wrong)),
    "pause_ms": st.integers(0, 100_000),
    "part": st.sampled_from(get_args(Part)),
}

any_step: st.SearchStrategy[Step] = st.one_of(*map(built, KINDS.values()))
any_mix = st.builds(Mix, **{name: st.integers(0, 9) for name in Mix.__dataclass_fields__})
any_plan = st.builds(
    Plan,
    topology=st.text(min_size=1),
    workers=st.integers(1, SLOTS),
    prefill_workers=st.integers(0, SLOTS),
    migration_limit=st.integers(0, 10),
    patience=st.sampled_from(("short", "long")),
    mix=any_mix,
    steps=st.lists(any_step, max_size=6, unique_by=lambda step: step.name).map(tuple),
)


@given(any_plan)
def test_any_plan_comes_back_as_it_was_with_the_same_bytes(plan: Plan) -> None:
    text = planfile.dump(plan)
    back = planfile.parse(text, "plan.json")
    assert back == plan
    assert planfile.dump(back) == text


@given(any_plan, st.data())
def test_any_subsequence_of_a_plan_is_a_plan(plan: Plan, data: st.DataObject) -> None:
    kept = [step for step in plan.steps if data.draw(st.booleans())]
    part = planfile.with_steps(plan, kept)
    assert planfile.parse(planfile.dump(part), "plan.json").steps == tuple(kept)


@given(any_plan)
def test_a_plan_file_has_one_step_a_line(plan: Plan) -> None:
    lines = planfile.dump(plan).splitlines()
    assert len(lines) == (len(plan.steps) + 2 if plan.steps else 1)


def test_a_plan_file_is_read_from_the_disk(tmp_path: Path) -> None:
    plan = Plan(topology="aggregated", steps=(Submit(name="r1"),))
    (tmp_path / "plan.json").write_text(planfile.dump(plan))
    assert planfile.load(tmp_path / "plan.json") == plan


def test_what_a_plan_file_leaves_out_has_its_default() -> None:
    text = '{"format": 1, "topology": "aggregated", "steps": [{"kind": "submit", "name": "r1"}]}'
    assert planfile.parse(text, "plan.json") == Plan(topology="aggregated", steps=(Submit(name="r1"),))


# --- broken plans -----------------------------------------------------------------------------------------------


def message(steps: object = (), **top: object) -> str:
    """What is said of a plan with these steps and fields at the top."""
    row = {"format": FORMAT, "topology": "aggregated", "steps": steps, **top}
    with pytest.raises(PlanError) as told:
        planfile.parse(json.dumps(row), "here/plan.json")
    return str(told.value)


def step(kind: str, **fields: object) -> dict[str, object]:
    """A step of this kind with these fields beside those that it must have."""
    cls = KINDS.get(kind, Submit)
    return {"kind": kind, **{name: LEAST[name] for name in LEAST if name in cls.__dataclass_fields__}, **fields}


GOOD = step("submit", name="r1")


@pytest.mark.parametrize(
    ("broken", "field", "value", "expected"),
    [
        (step("explode"), "field kind", "'explode'", "one of start-worker, kill-worker"),
        ({"name": "r1"}, "field kind", "None", "one of start-worker"),
        ({"kind": ["submit"]}, "field kind", "['submit']", "one of start-worker"),
        ("submit", "step 2", "'submit'", "an object with a field kind"),
        (step("submit", tokens=3), "field tokens", "unknown", "one of name, api, stream"),
        (step("submit", max_tokens="many"), "field max_tokens", "'many'", "valid integer"),
        (step("submit", max_tokens=0), "max_tokens", "0", "at least 1"),
        (step("submit", n=0), "n", "0", "at least 1"),
        (step("submit", prompt_chars=-1), "prompt_chars", "-1", "at least 0"),
        (step("submit", api="grpc"), "field api", "'grpc'", "'completion' or 'chat'"),
        (step("submit", stream=None), "field stream", "None", "valid boolean"),
        (step("submit", name=7), "field name", "7", "valid string"),
        ({"kind": "submit"}, "field name", "submit", "required"),
        (step("cancel", how="gently"), "field how", "'gently'", "'close' or 'timeout'"),
        (step("start-worker", slot=SLOTS + 1), "field slot", str(SLOTS + 1), f"1 to {SLOTS}"),
        (step("start-worker", slot=-1), "field slot", "-1", f"1 to {SLOTS}"),
        (step("kill-worker", worker={"by": "slot", "slot": 9}), "field worker.slot", "9", f"1 to {SLOTS}"),
        (step("kill-worker", worker={"by": "slot", "slot": "x"}), "field worker.slot", "'x'", "valid integer"),
        (
            step("kill-worker", worker={"by": "holder", "slot": 1}),
            "field worker.slot",
            "unknown",
            "one of request, role, by",
        ),
        (step("kill-worker", worker={"by": "holder"}), "field worker.request", "holder", "required"),
        (
            step("kill-worker", worker={"by": "chance"}),
            "field worker.by",
            "'chance'",
            "one of slot, holder, not-holder",
        ),
        (step("kill-worker", worker={"slot": 1}), "field worker.by", "None", "one of slot, holder, not-holder"),
        (step("kill-worker", worker=1), "field worker", "1", "an object with a field by"),
        (step("settle", at={"on": "later"}), "field at.on", "'later'", "one of now, sent, begun, token, end, after"),
        (
            step("kill-worker", worker={"by": "slot", "slot": 1, "pod": "a"}),
            "field worker.pod",
            "unknown",
            "one of slot, role, by",
        ),
        (step("settle", at={"on": "token", "request": "r1", "k": None}), "field at.k", "None", "valid integer"),
        (step("settle", at={"on": "token", "request": "r1"}), "field at.k", "token", "required"),
        (step("settle", at={"on": "sent", "request": "r1", "k": 3}), "field at.k", "unknown", "one of request, on"),
        (step("settle", skew_ms=[]), "field skew_ms", "[]", "valid integer"),
    ],
)
def test_a_broken_step_is_told_with_file_number_field_value_and_expectation(
    broken: object, field: str, value: str, expected: str
) -> None:
    said = message([GOOD, broken])
    assert said.startswith("here/plan.json: step 2")
    assert field in said
    assert value in said
    assert "expected" in said
    assert expected in said


@pytest.mark.parametrize(
    ("top", "field", "value", "expected"),
    [
        ({"workers": 0}, "field workers", "0", f"1 to {SLOTS}"),
        ({"workers": SLOTS + 1}, "field workers", str(SLOTS + 1), f"1 to {SLOTS}"),
        ({"workers": "two"}, "field workers", "'two'", "valid integer"),
        ({"migration_limit": -1}, "field migration_limit", "-1", "at least 0"),
        ({"patience": "endless"}, "field patience", "'endless'", "'short' or 'long'"),
        ({"topology": None}, "field topology", "None", "valid string"),
        ({"mix": {"submit": "often"}}, "field mix.submit", "'often'", "valid integer"),
        ({"mix": {"explode": 1}}, "field mix.explode", "unknown", "one of submit"),
        ({"sed": 7}, "field sed", "unknown", "one of format, topology"),
        ({"steps": {"r1": {}}}, "field steps", "{'r1': {}}", "a list of steps"),
    ],
)
def test_a_broken_plan_is_told_with_file_field_value_and_expectation(
    top: dict[str, object], field: str, value: str, expected: str
) -> None:
    said = message(**top)
    assert said.startswith("here/plan.json: ")
    assert field in said
    assert value in said
    assert expected in said


def test_a_name_given_twice_is_told_with_both_steps() -> None:
    said = message([GOOD, step("settle"), step("heal")])
    assert said.startswith("here/plan.json: step 3: field name: got 's1'")
    assert "step 2 has it already" in said


@pytest.mark.parametrize("format_", [FORMAT + 1, 0, None, "1"])
def test_a_plan_of_another_format_is_told_to_be_of_another_ftmodel(format_: object) -> None:
    said = message(format=format_)
    assert f"field format: got {format_!r}, expected {FORMAT}" in said
    assert "pip install --upgrade ftmodel" in said


@pytest.mark.parametrize("text", ["", "plan", "[]", "{", '{"format": 1', "\x00"])
def test_what_is_no_json_object_is_told_to_be_none(text: str) -> None:
    with pytest.raises(PlanError, match=r"^here/plan\.json: not a JSON object: "):
        planfile.parse(text, "here/plan.json")


def test_a_missing_file_is_told_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(PlanError) as told:
        planfile.load(path)
    assert str(told.value) == f"{path}: No such file or directory: expected a plan file (plan.json of an example)"


def test_a_folder_and_a_file_that_is_no_text_are_told_to_be_no_plan(tmp_path: Path) -> None:
    binary = tmp_path / "plan.json"
    binary.write_bytes(b"\xff\xfe{}")
    for path in (tmp_path, binary):
        with pytest.raises(PlanError, match="expected a plan file") as told:
            planfile.load(path)
        assert str(told.value).startswith(f"{path}: ")


@given(any_plan, st.data())
def test_a_plan_file_with_a_wrong_value_anywhere_is_refused_or_read_but_never_breaks(
    plan: Plan, data: st.DataObject
) -> None:
    row = json.loads(planfile.dump(plan))
    place = row
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans())):
            break
        place = place[key]
    place[key] = data.draw(st.one_of(st.none(), st.integers(), st.text(), st.just([]), st.just({}), st.floats(0, 1)))
    try:
        planfile.parse(json.dumps(row), "plan.json")
    except PlanError as error:
        assert str(error).startswith("plan.json: ")  # noqa: PT017 - a plan that is still whole is no error
