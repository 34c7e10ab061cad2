"""What a tested system is, as data: how its processes are launched, how its logs and metrics read, what it promises.

A system is one folder below this one, found there by its name (`find`); nothing outside that folder, the topologies and
the docs names it. `System.launch` is the one place where a topology becomes command lines.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar

from ftmodel.errors import TopologyError
from ftmodel.steps import ServiceName

if TYPE_CHECKING:
    from ftmodel.engines import Engine
    from ftmodel.topology import Topology

Role = Literal["frontend", "worker", "prefill"]
"""What a process is for. A `worker` answers; where prefill workers read the prompts for them, all they do is decode."""

METRICS: Final[Mapping[Literal["frontend", "worker"], Mapping[str, str]]] = {
    "frontend": {
        "inflight": "requests that the frontend counts as being answered",
        "queued": "requests that wait for their first token",
        "active": "requests that are being processed",
        "plane_inflight": "requests on the request plane to workers",
        "disconnected": "clients that disconnected, so far",
        "cancellations": "requests that were cancelled, so far",
        "migrations": "attempts to migrate a request, so far",
        "cancellations_completion_stream": "of these, streamed completions",
        "cancellations_completion_unary": "of these, completions that are not streamed",
        "cancellations_chat_stream": "of these, streamed chats",
        "cancellations_chat_unary": "of these, chats that are not streamed",
        "started": "requests that arrived, so far",
        "success": "requests counted as successful, so far",
        "failed": "requests counted as failed or cancelled, so far",
        "cancelled": "of these, requests counted as cancelled",
        "not_found": "of these, requests for a model that there is not",
        "router_blocks": "blocks that the router takes for held by requests, on all workers",
        "router_prefill": "prompt tokens that the router takes for still to be read, on all workers",
        "context": "longest prompt and answer together, in tokens, that a worker has registered; 0: it told none",
        "max_seqs": "requests that a worker has registered to generate for at once; 0: it told none",
    },
    "worker": {
        "inflight": "requests that the worker's endpoint holds",
        "running": "requests for which the engine generates",
        "waiting": "requests that wait in the engine",
        "kv": "share of the KV cache in use",
        "cancellations": "requests that were cancelled on the worker, so far",
    },
}
"""ftmodel's own names of metrics, by role; a prefill worker has a worker's. What is not exported is absent."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Promised(Generic[T]):
    """A promise of the system and where it comes from: documented (a page), measured, or wished."""

    value: T
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Promises:
    """What is owed, never a copy of what a release does wrong. Duty and invariants read it."""

    recovery: Promised[Literal["none", "retry", "migrate"]]
    shun_s: Promised[float]
    """A failed worker is shunned for so long, and forgotten at each change of the list."""
    broken_stream: Promised[tuple[str, ...]]
    """How a stream that cannot be finished ends, in order."""
    lease_s: Promised[float]
    """The lease of the discovery in use."""
    outage_s: Promised[float]
    """An outage of the control plane that is surely shorter ends no process; 0: there is no service that can fail."""
    request_timeout_s: Promised[float]
    """An attempt on a worker that does not answer lasts so long."""
    grace_s: Promised[float]
    """A worker asked to stop serves so long before it drains."""
    drain_s: Promised[float]
    """What a worker holds when it is asked to stop may go on so long."""
    frontend_drain_s: Promised[float]
    """What a frontend has admitted when it is asked to stop may go on so long."""

    def timeouts_ms(self) -> tuple[int, ...]:
        """The constants around which it pays to draw skews: lease and request timeout, plus and minus a tenth."""
        named = (self.lease_s.value, self.request_timeout_s.value)
        return tuple(round(1000 * seconds * share) for seconds in named for share in (0.9, 1.1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A sentence of the system's documentation that promises something, and where it stands."""

    about: tuple[str, ...]
    """The invariants (`L2`), or the signatures of some (`L2/cut`), that hold the system to it."""
    quote: str
    page: str
    """Its name, as the documentation's folder has it."""
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One row of a dialect: a line of a `role` whose message contains `text` means `meaning`; see `concerns`.

    `id_field` is the field that holds the request id, or "" if the id follows `text` in the message, or None.
    `target` (if given) must be part of the line's logger name; `where` are fields with the values they must have.
    """

    role: Role | Literal["any"]
    meaning: str
    text: str
    id_field: str | None = "request_id"
    target: str = ""
    where: Mapping[str, str] | None = None
    keep: tuple[str, ...] = ()
    """Fields of the line that the event keeps."""
    also: str = ""
    """What the message must hold besides."""
    since: tuple[int, int] = (0, 0)
    """Of a row of an engine: the first release of the system whose worker says so."""
    until: tuple[int, int] = (99, 0)
    """The first whose worker does not any more."""
    unless: tuple[str, ...] = ()
    """Meanings: if the same log has said one of them of the same id since that begun, the line does not mean this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """Where one of METRICS is found: the sum over the series of `metric` that bear `labels`."""

    role: Role
    name: str
    metric: str
    labels: Mapping[str, str] | None = None


def concerns(row: Pattern | MetricRow, role: Role) -> bool:
    """True if a row of a dialect is of this role: a prefill worker speaks as workers do, and has rows of its own."""
    return row.role in (role, "any") or (role == "prefill" and row.role == "worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The wording of a range of releases, [since, until)."""

    since: tuple[int, int]
    until: tuple[int, int]
    patterns: tuple[Pattern, ...] = ()
    metrics: tuple[MetricRow, ...] = ()
    lacks: str = ""
    """What these releases do not have that a run needs, if so: they cannot be tested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a cluster lives: its interpreter and folders, and the address and ports of one process."""

    python: Path
    scratch: Path
    """A folder of the cluster's own, short enough for sockets, removed with the cluster."""
    model: Path
    http_port: int
    system_port: int
    plane_port: int = 0
    """A worker's on the request plane, where the system lets it be chosen."""
    services: Mapping[ServiceName, int] = field(default_factory=dict)
    """The ports of the services that the cluster stands on."""
    ports: tuple[int, ...] = ()
    """Further ones, of the engine's own."""
    shared: Path = Path()
    """A folder that all examples of a run share, for what is costly to make twice."""
    device: str = ""
    """On what an engine runs that knows several: "cpu" or "gpu"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How one process is started: by calling `function` of `module` in a fork, or by `python -m module`."""

    module: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    function: str = "main"
    forks: bool = True
    """False: it must be started by exec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A tested system."""

    name: str
    distribution: str
    """The package whose version is the system's."""
    needs_modules: tuple[str, ...]
    """Modules that must be importable by the interpreter under test."""
    promises: Callable[[Topology, tuple[int, int]], Promises]
    dialects: tuple[Dialect, ...]
    served: Callable[[Topology, Path, tuple[int, int]], str]
    """(topology, folder of the model, release) -> the name under which the model is served, and asked for."""
    launch: Callable[[Role, Topology, Engine, Place, int, tuple[int, int]], Command]
    """(role, topology, engine, place, migration limit, release) -> how to start a process of that role."""
    refuses: Callable[[Topology], str]
    """Why a topology is impossible, beginning with the key; empty if it is not."""
    preload: Callable[[Topology, Engine], tuple[str, ...]]
    """Modules that are imported once, before forking."""
    preload_env: Mapping[str, str]
    """Environment that must be set before those imports."""
    instances: Callable[[Mapping[str, object]], tuple[str, ...]]
    """Identities of the workers in an answer of the frontend's instance list."""
    identity: Callable[[str], str | None]
    """A worker's identity, from the text of its metrics page; None if it does not tell."""
    list_path: str
    models_path: str
    metrics_path: str
    health_path: str
    live_path: str
    request_id_header: str
    documents: tuple[Document, ...] = ()
    """What its documentation promises, most important first."""

    def documented(self, signature: str) -> Document | None:
        """The promise that this signature breaks: the one that names it, else the first about its invariant."""
        invariant = signature.partition("/")[0]
        named = (document for key in (signature, invariant) for document in self.documents if key in document.about)
        return next(named, None)

    def dialect(self, release: tuple[int, int]) -> Dialect:
        """The dialect of a release, e.g. (1, 4). Raises TopologyError if it is not known, or lacks what a run needs."""
        found = next((dialect for dialect in self.dialects if dialect.since <= release < dialect.until), None)
        if found is not None and not found.lacks:
            return found
        known = ", ".join(f"{_dotted(since)} up to {_dotted(until)}" for since, until in self._understood())
        why = f"this release lacks {found.lacks}" if found is not None else "no dialect for this release"
        raise TopologyError(f"{self.name} {_dotted(release)}: {why}; expected {known} (exclusive)")

    def _understood(self) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """The ranges of releases that can be tested; those that follow each other are one."""
        ranges: list[tuple[tuple[int, int], tuple[int, int]]] = []
        for dialect in sorted(self.dialects, key=lambda dialect: dialect.since):
            if dialect.lacks:
                continue
            since = ranges.pop()[0] if ranges and ranges[-1][1] == dialect.since else dialect.since
            ranges.append((since, dialect.until))
        return ranges


def names() -> tuple[str, ...]:
    """The systems that are installed, by name."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))


def find(name: str) -> System:
    """The system of this name. Raises TopologyError."""
    if name not in names():
        raise TopologyError(f"system {name!r}: unknown, expected one of {', '.join(names())}")
    system: System = importlib.import_module(f"{__name__}.{name}").SYSTEM
    return system


def _dotted(release: tuple[int, int]) -> str:
    return ".".join(map(str, release))


def release(version: str) -> tuple[int, int]:
    """(major, minor) of a version, e.g. (1, 4) of 1.4.2 or 1.4rc1. Raises TopologyError."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        raise TopologyError(f"version {version!r}: expected one that begins with two numbers, e.g. 1.4.2")
    return int(found[1]), int(found[2])
