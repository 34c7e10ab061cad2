"""Topologies: which cluster a plan runs on. Small TOML files; the presets lie in `topologies/` beside this file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from ftmodel import engines, systems
from ftmodel.errors import TopologyError
from ftmodel.steps import FRONTENDS, SLOTS

PRESETS: Final = Path(__file__).parent / "topologies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """What the processes of one role get besides what ftmodel gives them."""

    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A cluster's shape. Workers and migration limit are free: a plan draws them from what is listed here."""

    name: str
    about: str
    target: Literal["real", "simulated"] = "real"
    system: str
    engine: str
    discovery: Literal["file", "etcd"] = "file"
    request_plane: Literal["tcp", "nats"] = "tcp"
    event_plane: Literal["zmq", "nats"] = "zmq"
    """Where it is left out: that of the requests, if those go over NATS."""
    router_mode: Literal["round-robin", "random", "kv", "least-loaded", "power-of-two"] = "round-robin"
    workers: Annotated[tuple[Annotated[int, Field(ge=1, le=SLOTS)], ...], Field(min_length=1)] = (1, 2, 3, 4)
    prefill_workers: tuple[Annotated[int, Field(ge=1, le=SLOTS)], ...] = ()
    """Workers that read the prompts of requests, which `workers` then answer; empty: those do both (aggregated)."""
    frontends: Annotated[tuple[Annotated[int, Field(ge=1, le=FRONTENDS)], ...], Field(min_length=1)] = (1,)
    migration_limits: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1, 3, 10)
    migration_max_length: Annotated[int, Field(ge=1)] | None = None
    """Longer requests, prompt and answer together in tokens, are not migrated; None: there is no such bound."""
    busy_blocks_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """A worker with more than this share of its KV blocks in use takes no new requests; None: there is no such bound."""
    model: str = "tiny"
    """The name under which the model is served."""
    http_port: int | None = None
    """The frontend's port; free ones are taken where it is not set."""
    system_port: int | None = None
    """The first worker's port; the others' follow it, those of prefill workers last."""
    options: Mapping[str, float | str] = field(default_factory=dict)
    """Settings of the engine, e.g. pace_ms; `ftmodel list topologies` shows those of a preset."""
    frontend: Component = field(default_factory=Component)
    """Further arguments and environment of the frontends."""
    worker: Component = field(default_factory=Component)
    """The same of the workers."""
    prefill: Component = field(default_factory=Component)
    """The same of the prefill workers."""


_ADAPTER: Final[TypeAdapter[Topology]] = TypeAdapter(Topology)


def presets() -> tuple[str, ...]:
    """Names of the presets."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.toml")))


def find(name: str) -> Topology:
    """The topology of a preset's name or of a TOML file's path. Raises TopologyError naming file, key, what is possible."""
    path = PRESETS / f"{name}.toml" if name in presets() else Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise TopologyError(
            f"topology {name!r}: unknown, expected one of {', '.join(presets())} or the path of a TOML file;"
            " try: ftmodel list topologies"
        )
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # no TOML, or no text
        raise TopologyError(f"{path}: {error}: expected a TOML file") from None
    return _checked(path, raw)


def parse(text: str) -> Topology:
    """The topology of such a text as `dump` writes. Raises TopologyError."""
    raw = tomllib.loads(text)
    return _checked(Path(f"{raw['name']}.toml"), raw)


TABLES: Final = ("frontend", "worker", "prefill")
"""Keys that are tables of a `Component`."""


def dump(topology: Topology) -> str:
    """The topology as the text of a TOML file that `find` reads. None leaves a key out."""
    tables = ("options", *TABLES)
    plain = {name: getattr(topology, name) for name in Topology.__dataclass_fields__ if name not in tables}
    lines = _lines({name: value for name, value in plain.items() if value is not None})
    lines += ["", "[options]", *_lines(topology.options)]
    for name in TABLES:
        component: Component = getattr(topology, name)
        if component.args:
            lines += ["", f"[{name}]", *_lines({"args": component.args})]
        if component.env:
            lines += ["", f"[{name}.env]", *_lines(component.env)]
    return "\n".join(lines) + "\n"


def _lines(table: Mapping[str, object]) -> list[str]:
    """JSON's strings, numbers and lists are TOML's too, and so is a JSON string as a key."""
    bare = str.isidentifier
    return [f"{name if bare(name) else json.dumps(name)} = {json.dumps(value)}" for name, value in table.items()]


def _check_keys(path: Path, raw: dict[str, Any]) -> None:
    known = Topology.__dataclass_fields__
    for key in raw:
        if key not in known:
            raise TopologyError(f"{path}: key {key}: unknown, expected one of {', '.join(known)}")
    for table in TABLES:
        parts = Component.__dataclass_fields__
        for key in raw[table] if isinstance(raw.get(table), dict) else ():
            if key not in parts:
                raise TopologyError(f"{path}: key {table}.{key}: unknown, expected one of {', '.join(parts)}")


def _checked(path: Path, raw: dict[str, Any]) -> Topology:
    _check_keys(path, raw)
    if raw.get("request_plane") == "nats":
        raw = {"event_plane": "nats", **raw}
    try:
        topology = _ADAPTER.validate_python({"name": path.stem, "about": "", **raw})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise TopologyError(f"{path}: key {key}: got {first['input']!r}, expected: {first['msg']}") from None
    try:
        system = systems.find(topology.system)
        engine = engines.find(topology.engine)
    except TopologyError as error:
        raise TopologyError(f"{path}: key {error}") from None
    for key, value in topology.options.items():
        if key not in engine.options:
            raise TopologyError(
                f"{path}: key options.{key}: engine {engine.name} has none such, expected one of"
                f" {', '.join(engine.options)}"
            )
        choices = engine.choices.get(key)
        if isinstance(value, str) != isinstance(engine.options[key], str) or (choices and value not in choices):
            expected = f"one of {', '.join(choices)}" if choices else f"{type(engine.options[key]).__name__}"
            raise TopologyError(f"{path}: key options.{key}: got {value!r}, expected {expected}")
    impossible = _refuses_prefill(topology, engine) or system.refuses(topology)
    if impossible:
        raise TopologyError(f"{path}: key {impossible}")
    return topology


def _refuses_prefill(topology: Topology, engine: engines.Engine) -> str:
    """Why it cannot have the prefill workers that it has, or lacks some, beginning with the key; empty if all is well."""
    if topology.prefill_workers and not engine.handoffs and topology.target == "real":
        able = ", ".join(name for name in engines.names() if engines.find(name).handoffs)
        return (
            f"prefill_workers: engine {engine.name} cannot prefill apart from decoding here, expected engine {able},"
            " or this key left out"
        )
    if not topology.prefill_workers and topology.prefill != Component():
        return "prefill: the cluster has no prefill workers, expected key prefill_workers too, e.g. [1, 2]"
    return ""
