"""Discovery: workers register under a lease and renew it; frontends are told what joins, leaves and lapses, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from ftmodel.targets.simulated.hooks import Lease
from ftmodel.targets.simulated.kernel import Channel

if TYPE_CHECKING:
    from ftmodel.targets.simulated.cluster import Cluster
    from ftmodel.targets.simulated.frontend import Frontend
    from ftmodel.targets.simulated.worker import Worker

RENEWALS: Final = 5
"""In the time of a lease it is renewed so often."""
Change = Literal["joined", "left", "lapsed"]


@dataclass(slots=True)
class Instance:
    """A worker as it is found."""

    identity: str
    worker: Worker
    expires_s: float = 0.0
    leased: bool = False
    """Its lease runs: from its registration until it lapses, also where it has left the list and drains."""


class Discovery:
    """Who is registered."""

    def __init__(self, cluster: Cluster, lease_s: float) -> None:
        self.instances: dict[str, Instance] = {}
        self._cluster = cluster
        self._lease_s = lease_s
        self._watching: list[tuple[Frontend, Channel]] = []

    @property
    def renew_every_s(self) -> float:
        """So often a worker renews its lease."""
        return self._lease_s / RENEWALS

    def watch(self, frontend: Frontend) -> None:
        """Tell this frontend of what is there, and of every change."""
        channel = Channel(self._cluster.kernel)
        self._watching.append((frontend, channel))
        for instance in self.instances.values():
            channel.send(frontend.hear, frontend.changed, instance, "joined")

    def register(self, instance: Instance) -> None:
        """Put an instance in."""
        self._cluster.hooks.do(Lease(self._cluster, "register"), self._register, instance)

    def _register(self, instance: Instance) -> None:
        instance.expires_s, instance.leased = self._cluster.kernel.now + self._lease_s, True
        self.instances[instance.identity] = instance
        self._cluster.kernel.after(self._lease_s, self._look, instance)
        self._tell(instance, "joined")

    def renew(self, instance: Instance) -> None:
        """Begin the lease anew; one that has lapsed is gone for good (measured: 1.4.2 and 1.6.1)."""
        self._cluster.hooks.do(Lease(self._cluster, "renew"), self._renew, instance)

    def _renew(self, instance: Instance) -> None:
        if instance.leased:
            instance.expires_s = self._cluster.kernel.now + self._lease_s

    def deregister(self, instance: Instance) -> None:
        """Take an instance out; its lease runs on."""
        self._cluster.hooks.do(Lease(self._cluster, "deregister"), self._take_out, instance, "left")

    def _look(self, instance: Instance) -> None:
        left_s = instance.expires_s - self._cluster.kernel.now
        if left_s > 0:
            self._cluster.kernel.after(left_s, self._look, instance)
        else:
            instance.leased = False
            self._cluster.hooks.do(Lease(self._cluster, "lapse"), self._take_out, instance, "lapsed")

    def _take_out(self, instance: Instance, change: Change) -> None:
        if self.instances.get(instance.identity) is instance:
            del self.instances[instance.identity]
        self._tell(instance, change)

    def _tell(self, instance: Instance, change: Change) -> None:
        for frontend, channel in self._watching:
            channel.send(frontend.hear, frontend.changed, instance, change)
