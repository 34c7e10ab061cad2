"""A simulated process: its life, its log, its counters. A frozen one does nothing; what comes meanwhile waits for the thaw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from ftmodel.history import Exited
from ftmodel.systems import Pattern, Role
from ftmodel.targets.logs import Reader
from ftmodel.targets.simulated.hooks import Count, Log
from ftmodel.targets.simulated.kernel import Action, Channel, Signal

if TYPE_CHECKING:
    from ftmodel.targets.simulated.cluster import Cluster
    from ftmodel.targets.simulated.frontend import Call

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""When each simulated example begins, by the wall clock."""
KILLED: Final = 9
TERMINATED: Final = 15


class Process:
    """One life of a frontend or a worker."""

    def __init__(self, cluster: Cluster, role: Role, slot: int, title: str, pid: int, port: int) -> None:
        self.cluster = cluster
        self.kernel = cluster.kernel
        self.role: Role = role
        self.slot = slot
        self.title = title
        self.pid = pid
        self.port = port
        self.alive = True
        self.ready = False
        self.frozen = False
        self.draining = False
        self.hit = False
        """Some fault hit it."""
        self.gone = Signal(cluster.kernel)
        self.orphans: tuple[int, ...] = ()
        """Processes of its that outlive it."""
        self.values: dict[str, float] = {}
        """Its counters and gauges, by ftmodel's own names."""
        self.lines: list[str] = []
        """What it has logged and nobody has read."""
        self.reader = Reader(title, cluster.patterns(role), lambda wall_s: wall_s - EPOCH.timestamp())
        self._backlog: list[tuple[Action, tuple[Any, ...]]] = []

    # -- time

    def later(self, delay_s: float, action: Action, *args: Any) -> None:
        """Do something so much later, if it lives then; if it is frozen then, when it is thawed."""
        self.kernel.after(delay_s, self.hear, action, *args)

    def hear(self, action: Action, *args: Any) -> None:
        """Do something now, that came from within or over a channel."""
        if self.frozen:
            self._backlog.append((action, args))
        elif self.alive:
            action(*args)

    def send(self, channel: Channel, to: Process, action: Action, *args: Any) -> None:
        """Have another process hear something."""
        channel.send(to.hear, action, *args)

    # -- life

    def die(self, signal: int | None, code: int | None = None) -> None:
        """End at once, by a signal or with an exit code."""
        if not self.alive:
            return
        before_s = self.kernel.now
        self.alive = self.frozen = self.ready = False
        self._backlog.clear()
        self.cluster.poll_logs()
        self.cluster.push(Exited(at=self.kernel.since(before_s), title=self.title, code=code, signal=signal))
        self.leave()
        self.gone.give()

    def leave(self) -> None:
        """What ends with it: connections."""

    def freeze(self) -> None:
        """Stop doing anything."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on, first with what came meanwhile."""
        self.frozen = False
        backlog, self._backlog = self._backlog, []
        for action, args in backlog:
            self.hear(action, *args)

    # -- what it tells

    def log(self, meaning: str, id_: str = "", **fields: Any) -> None:
        """Write a line."""
        self.cluster.hooks.do(Log(self.cluster, self), self._write, meaning, id_, fields)

    def _write(self, meaning: str, id_: str, fields: Mapping[str, Any]) -> None:
        pattern = self.cluster.pattern(self.role, meaning)
        if pattern is not None:
            self.lines.append(line(pattern, id_, fields, self.kernel.now))
            self.cluster.someone_wrote()

    def count(self, name: str, amount: float = 1.0, call: Call | None = None) -> None:
        """Count something, up or down."""
        self.cluster.hooks.do(Count(self.cluster, self, name, call), self._count, name, amount)

    def _count(self, name: str, amount: float) -> None:
        self.values[name] = self.values.get(name, 0.0) + amount

    def health(self) -> tuple[int, int]:
        """The statuses that it tells of its health, and of its being alive."""
        return (200 if self.ready and not self.draining else 503), (200 if self.ready else 503)

    def sample(self) -> dict[str, float]:
        """Its metrics, as it counts them."""
        return dict(self.values)


Signalled = Literal["kill", "stop"]


def line(pattern: Pattern, id_: str, fields: Mapping[str, Any], at_s: float) -> str:
    """The line of a log that a pattern of the dialect understands: the dialect read backwards."""
    stamp = (EPOCH + timedelta(seconds=at_s)).isoformat()
    row: dict[str, Any] = {"time": stamp, "level": "INFO", "target": pattern.target, "message": pattern.text}
    if pattern.id_field == "":
        row["message"] += id_
    elif pattern.id_field is not None:
        row[pattern.id_field] = id_
    row["message"] += f" {pattern.also}" if pattern.also else ""
    return json.dumps(row | dict(fields) | dict(pattern.where or {}))
