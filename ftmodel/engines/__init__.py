"""What makes tokens, as data: how an engine's worker is launched, how its logs and metrics read, what is exact of it.

An engine is one file or folder below this one, found there by its name (`find`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ftmodel.errors import TopologyError
from ftmodel.steps import SLOTS
from ftmodel.systems import MetricRow, Pattern

if TYPE_CHECKING:
    from ftmodel.topology import Topology

_NO_ENGINES: Final = ("hub", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What an engine is started with on one kind of device, besides the rest."""

    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """How the workers of a disaggregated cluster are started, besides the rest: those that prefill, those that decode."""

    prefill: tuple[str, ...]
    decode: tuple[str, ...]
    ports: int = 0
    """Ports of its own that each prefill worker takes, on which others reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine, in front of whatever system routes to it."""

    name: str
    module: str
    """Module of the worker in the interpreter under test, or the path of a file of ours."""
    arguments: tuple[str, ...]
    """Arguments of the worker; {model}, {name}, {migration_limit}, {armed} and the options by name are filled in."""
    options: Mapping[str, float | str]
    """Settings that a topology may change, with their defaults."""
    patterns: tuple[Pattern, ...]
    metrics: tuple[MetricRow, ...]
    slots: int
    """Requests that one worker generates for at once."""
    exact_text: bool
    """The text is a function of request and position."""
    token_chars: int
    """Characters of each token's text, where all have as many; else 0."""
    engine_ids: bool
    """It logs begin, end and abort of each request by its id."""
    count: Callable[[str], int]
    """How many tokens a text of its holds."""
    arms: bool
    """It can die at an exact token by itself: a file named by the request id in a folder tells it so."""
    context_tokens: int = 0
    """Prompts and answers together are at most so long; 0: there is no such bound."""
    block_tokens: int = 0
    """Tokens of a KV block, of which a worker has as many as the option `blocks` says; 0: that option is not there."""
    stop: Callable[[str, int], str] | None = None
    """(key of the request, position of a token) -> a stop string that the answer first has about there."""
    role_arguments: Mapping[Literal["worker", "prefill"], tuple[str, ...]] = field(default_factory=dict)
    """Further ones, of the workers of one role; filled in likewise."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of the options that are words: what they may be."""
    path: Path | None = None
    """The worker's file, if it is ours."""
    guides: bool = False
    """It heeds guided decoding: such an answer may end by itself, and its tokens have any text up to `token_chars`."""
    forks: bool = True
    """Its worker can be forked from a process that has imported it; else each is started by exec."""
    limit_arguments: tuple[str, ...] = ()
    """Arguments of the worker that set the migration limit, where the release takes it from workers."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment of the worker. Values are filled in as arguments are, with {port1}, ... and {shared} besides."""
    ports: int = 0
    """Ports of its own that each worker takes."""
    devices: Mapping[str, Device] = field(default_factory=dict)
    """What differs on a "cpu" and a "gpu"; empty: nothing does. The option `device` chooses, or it is found out."""
    handoffs: Mapping[str, Handoff] = field(default_factory=dict)
    """The ways from prefill to decode that it has; empty: none. The option `handoff` chooses."""
    boot_bound_s: float = 30.0
    """From the start of a worker to its readiness, at most."""
    alone: bool = False
    """It takes so much of a machine that one example runs at a time."""
    workers_most: int = SLOTS
    """So many workers at a time are reasonable on one machine; control and calibration keep to it."""
    own_health: bool = False
    """A worker is asked by its own health endpoint too whether it is ready."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Processes inside a worker that can be killed: what a step calls them, and their names in the process table."""
    model: Callable[[str, Path, Mapping[str, float | str]], Path] | None = None
    """(name of the model, an empty folder, options) -> the folder of the model to serve; None: the common one."""
    adapt: Callable[[Engine, str], Engine] | None = None
    """The engine as it is with a model of this name, where that changes what is known of its tokens."""


def of(topology: Topology) -> Engine:
    """The engine of a topology, with the model that it names. Raises TopologyError."""
    engine = find(topology.engine)
    return engine.adapt(engine, topology.model) if engine.adapt else engine


def handoff_of(topology: Topology) -> Handoff | None:
    """The way from prefill to decode that a topology chooses; None where its workers do both, and where none is started."""
    if not topology.prefill_workers or topology.target == "simulated":
        return None
    engine = find(topology.engine)
    return engine.handoffs[str(topology.options.get("handoff", engine.options["handoff"]))]


def names() -> tuple[str, ...]:
    """The engines that are installed, by name."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_ENGINES))


def find(name: str) -> Engine:
    """The engine of this name. Raises TopologyError."""
    if name not in names():
        raise TopologyError(f"engine {name!r}: unknown, expected one of {', '.join(names())}")
    engine: Engine = importlib.import_module(f"{__name__}.{name}").ENGINE
    return engine
