"""Where the simulated cluster can be made to misbehave: at each hook a defect is given the context and the normal action.

A defect's function is called as `act(at, normal, *args)`: `at` is one of the contexts below, `normal(*args)` does what a
right cluster does there. It may call it, call it with other arguments, call it later (`at.cluster.kernel.after`), call it
twice, or leave it out. `at.cluster.notes` is a dictionary of the example's own, for what a defect has to remember.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from ftmodel.targets.simulated.cluster import Cluster
    from ftmodel.targets.simulated.frontend import Call, Frontend
    from ftmodel.targets.simulated.processes import Process
    from ftmodel.targets.simulated.worker import Job, Stream, Worker

Hook = Literal[
    "route", "admit", "hand-off", "emit", "migrate", "abort", "free", "lease", "drain", "respond", "count", "tell", "log"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Route:
    """A frontend chooses a worker. `normal(instances)` -> one of them, or None if there is none."""

    cluster: Cluster
    frontend: Frontend
    call: Call
    hook: Hook = "route"


@dataclass(frozen=True, slots=True)
class Admit:
    """A worker takes a request in. `normal(job)`."""

    cluster: Cluster
    worker: Worker
    hook: Hook = "admit"


@dataclass(frozen=True, slots=True)
class HandOff:
    """A prefill worker has read a prompt. `normal(first)` sends the request on, with its first tokens by choice."""

    cluster: Cluster
    frontend: Frontend
    stream: Stream
    """Of the request on the prefill worker."""
    hook: Hook = "hand-off"


@dataclass(frozen=True, slots=True)
class Emit:
    """A worker sends tokens. `normal(tokens, finish)`: by choice their ids, and the reason to finish or None."""

    cluster: Cluster
    worker: Worker
    job: Job
    hook: Hook = "emit"


@dataclass(frozen=True, slots=True)
class Migrate:
    """A frontend has lost the worker of a request, or could not send it there.

    `normal(position, left)` sends it to another: from which token on, and how often that may be done again (below 1: it
    gives the request up).
    """

    cluster: Cluster
    frontend: Frontend
    call: Call
    why: Literal["refused", "timeout", "broken", "lapsed"]
    hook: Hook = "migrate"


@dataclass(frozen=True, slots=True)
class Abort:
    """A request is cancelled: at `where` frontend its client has left, `normal()` counts that and tells the worker.

    At `where` worker it was told so, or its frontend is gone: `normal(job)` ends the job.
    """

    cluster: Cluster
    where: Literal["frontend", "worker"]
    process: Process
    id: str
    hook: Hook = "abort"


@dataclass(frozen=True, slots=True)
class Free:
    """A worker gives back the slot and the KV blocks of a job that is over, or preempted. `normal(job)`."""

    cluster: Cluster
    worker: Worker
    cause: Literal["ended", "aborted", "failed", "preempted"]
    hook: Hook = "free"


@dataclass(frozen=True, slots=True)
class Lease:
    """What becomes of an instance in discovery. `normal(instance)`."""

    cluster: Cluster
    what: Literal["register", "renew", "deregister", "lapse"]
    hook: Hook = "lease"


@dataclass(frozen=True, slots=True)
class Drain:
    """A process was asked to stop. `normal()`."""

    cluster: Cluster
    process: Process
    hook: Hook = "drain"


@dataclass(frozen=True, slots=True)
class Respond:
    """A frontend answers its client: `normal(status, items, ends)`, where `ends` closes the answer."""

    cluster: Cluster
    frontend: Frontend
    call: Call
    hook: Hook = "respond"


@dataclass(frozen=True, slots=True)
class Count:
    """A process counts, by ftmodel's own name of the metric. `normal(amount)`."""

    cluster: Cluster
    process: Process
    name: str
    call: Call | None = None
    """Of a frontend: for which request, if for one."""
    hook: Hook = "count"


@dataclass(frozen=True, slots=True)
class Tell:
    """A process is asked about itself. `normal()` -> what it says: a status, the list of instances, or the models."""

    cluster: Cluster
    process: Process
    what: Literal["health", "live", "list", "models"]
    hook: Hook = "tell"


@dataclass(frozen=True, slots=True)
class Log:
    """A process writes a line. `normal(meaning, id, fields)`."""

    cluster: Cluster
    process: Process
    hook: Hook = "log"


Context = Route | Admit | HandOff | Emit | Migrate | Abort | Free | Lease | Drain | Respond | Count | Tell | Log
Act = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One way in which the simulated cluster can break a promise, as data and a function."""

    id: str
    sentence: str
    """What is wrong, in a sentence."""
    hook: Hook
    act: Act
    """`act(at, normal, *args)`."""
    least_steps: int
    """The shortest plan known that shows it."""
    topology: str = "simulated"
    """The simulated topology on which it shows."""
    hard: bool = False
    """It shows only in a race, after several steps, or beyond a bound."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A defect in a cluster, and how likely it misbehaves each time."""

    defect: Defect
    chance: float = 1.0


class Hooks:
    """The planted defects of one cluster, asked at each hook."""

    def __init__(self, planted: Sequence[Planted], chance: Callable[[], float]) -> None:
        self._acts: Final[dict[str, list[Act]]] = {}
        self._chance = chance
        for one in planted:
            act = one.defect.act if one.chance >= 1.0 else partial(self._perhaps, one)
            self._acts.setdefault(one.defect.hook, []).append(act)

    def do(self, at: Context, normal: Act, *args: Any) -> Any:
        """Do what is normal there, unless a defect has it otherwise."""
        acts = self._acts.get(at.hook)
        if acts is None:
            return normal(*args)
        for act in acts:
            normal = partial(act, at, normal)
        return normal(*args)

    def _perhaps(self, one: Planted, at: Context, normal: Act, *args: Any) -> Any:
        return one.defect.act(at, normal, *args) if self._chance() < one.chance else normal(*args)
