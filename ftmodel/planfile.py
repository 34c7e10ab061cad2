"""Plans as JSON text, and the messages that a broken plan file gets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ftmodel.errors import PlanError
from ftmodel.steps import FORMAT, FRONTENDS, KINDS, SLOTS, Anchor, Mix, Plan, StartWorker, Step, Subject, Submit

_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
_STEP: dict[str, TypeAdapter[Step]] = {kind: TypeAdapter(cls) for kind, cls in KINDS.items()}
_TOP: TypeAdapter[Any] = TypeAdapter(dict[str, Any])
_VARIANTS: Final[dict[str, tuple[str, dict[str, type[Any]]]]] = {
    field: (tag, {cls.__dataclass_fields__[tag].default: cls for cls in get_args(union)})
    for field, tag, union in (("at", "on", Anchor), ("worker", "by", Subject))
}
"""Fields that hold one of several classes: the field that tells which, and the classes by what it says."""


def dump(plan: Plan) -> str:
    """The plan as JSON text, one step a line; the same plan gives the same bytes."""
    top = _PLAN.dump_python(plan, mode="json", exclude={"steps"})
    steps = ",\n  ".join(json.dumps(_as_json(step), sort_keys=True) for step in plan.steps)
    head = json.dumps(top, sort_keys=True)[:-1]
    return f'{head}, "steps": [\n  {steps}\n]}}\n' if plan.steps else f'{head}, "steps": []}}\n'


def _as_json(step: Step) -> Any:
    return _STEP[step.kind].dump_python(step, mode="json")


def load(path: Path) -> Plan:
    """Read a plan file. Raises PlanError naming file, step number, field, value and what was expected."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}: expected a plan file (plan.json of an example)") from None
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: {error}: expected a plan file (plan.json of an example)") from None
    return parse(text, str(path))


def parse(text: str, source: str) -> Plan:
    """Parse the text of a plan; `source` is the file's name for messages. Raises PlanError."""
    try:
        top = _TOP.validate_json(text)
    except ValidationError as error:
        raise PlanError(f"{source}: not a JSON object: {error.errors()[0]['msg']}") from None
    if top.get("format") != FORMAT:
        raise PlanError(
            f"{source}: field format: got {top.get('format')!r}, expected {FORMAT}:"
            " the plan was written by another ftmodel; try: pip install --upgrade ftmodel"
        )
    raw = top.pop("steps", [])
    if not isinstance(raw, list):
        raise PlanError(f"{source}: field steps: got {_shown(raw)}, expected a list of steps")
    _check_fields(source, top, Plan.__dataclass_fields__)
    if isinstance(top.get("mix"), dict):
        _check_fields(source, top["mix"], Mix.__dataclass_fields__, "mix.")
    steps = tuple(_step(number, item, source) for number, item in enumerate(raw, start=1))
    try:
        plan = _PLAN.validate_python({**top, "steps": ()}, strict=False)
    except ValidationError as error:
        raise PlanError(f"{source}: {_told(error.errors())}") from None
    _check_names(steps, source)
    if not 1 <= plan.workers <= SLOTS:
        raise PlanError(f"{source}: field workers: got {plan.workers}, expected 1 to {SLOTS}")
    if not 0 <= plan.prefill_workers <= SLOTS:
        raise PlanError(f"{source}: field prefill_workers: got {plan.prefill_workers}, expected 0 to {SLOTS}")
    if not 1 <= plan.frontends <= FRONTENDS:
        raise PlanError(f"{source}: field frontends: got {plan.frontends}, expected 1 to {FRONTENDS}")
    if plan.migration_limit < 0:
        raise PlanError(f"{source}: field migration_limit: got {plan.migration_limit}, expected at least 0")
    return with_steps(plan, steps)


def _step(number: int, item: Any, source: str) -> Step:
    where = f"{source}: step {number}"
    if not isinstance(item, dict):
        raise PlanError(f"{where}: got {_shown(item)}, expected an object with a field kind")
    adapter = _STEP.get(str(item.get("kind")))
    if adapter is None:
        raise PlanError(
            f"{where}: field kind: got {_shown(item.get('kind'))}, expected one of {', '.join(KINDS)};"
            " try: ftmodel list steps"
        )
    where = f"{where} ({item['kind']})"
    _check_fields(where, item, KINDS[item["kind"]].__dataclass_fields__)
    for field in _VARIANTS.keys() & item.keys():
        _check_variant(where, field, item[field])
    try:
        step = adapter.validate_python(item)
    except ValidationError as error:
        raise PlanError(f"{where}: {_told(error.errors())}") from None
    _check_values(where, step)
    return step


def _check_fields(where: str, row: dict[str, Any], known: Iterable[str], above: str = "") -> None:
    for field in row:
        if field not in known:
            raise PlanError(f"{where}: field {above}{field}: unknown, expected one of {', '.join(known)}")


def _check_variant(where: str, field: str, row: Any) -> None:
    tag, variants = _VARIANTS[field]
    if not isinstance(row, dict):
        raise PlanError(f"{where}: field {field}: got {_shown(row)}, expected an object with a field {tag}")
    if str(row.get(tag)) not in variants:
        raise PlanError(
            f"{where}: field {field}.{tag}: got {_shown(row.get(tag))}, expected one of {', '.join(variants)}"
        )
    _check_fields(where, row, variants[row[tag]].__dataclass_fields__, f"{field}.")


def _check_values(where: str, step: Step) -> None:
    if isinstance(step, Submit) and (step.max_tokens < 1 or step.n < 1 or step.prompt_chars < 0):
        raise PlanError(
            f"{where}: got max_tokens {step.max_tokens}, n {step.n}, prompt_chars {step.prompt_chars}:"
            " expected max_tokens and n of at least 1, prompt_chars of at least 0"
        )
    worker = getattr(step, "worker", None)
    if isinstance(step, StartWorker) and not 0 <= step.slot <= SLOTS:
        raise PlanError(f"{where}: field slot: got {step.slot}, expected 1 to {SLOTS}, or 0 for an empty one")
    if not 1 <= getattr(worker, "slot", 1) <= SLOTS:
        raise PlanError(f"{where}: field worker.slot: got {getattr(worker, 'slot', 1)}, expected 1 to {SLOTS}")
    frontend = getattr(step, "frontend", 1)
    if not 1 <= frontend <= FRONTENDS:
        raise PlanError(f"{where}: field frontend: got {frontend}, expected 1 to {FRONTENDS}")


def _check_names(steps: tuple[Step, ...], source: str) -> None:
    seen: dict[str, int] = {}
    for number, step in enumerate(steps, start=1):
        if step.name in seen:
            raise PlanError(
                f"{source}: step {number}: field name: got {step.name!r}, expected a name of its own:"
                f" step {seen[step.name]} has it already"
            )
        seen[step.name] = number


def _told(errors: list[ErrorDetails]) -> str:
    """The one error that matters: of the variants of a union, that of the variant which the file names."""
    unnamed = {error["loc"][:2] for error in errors if error["type"] == "literal_error" and len(error["loc"]) > 2}
    error = next((error for error in errors if error["loc"][:2] not in unnamed), errors[0])
    field = ".".join(str(part) for part in error["loc"] if str(part)[:1].islower()) or "plan"
    expected = error["msg"][0].lower() + error["msg"][1:]
    return f"field {field}: got {_shown(error['input'])}, expected: {expected.removeprefix('input should be ')}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def with_steps(head: Plan, steps: Sequence[Step]) -> Plan:
    """The plan with these steps instead of its own."""
    return dataclasses.replace(head, steps=tuple(steps))
