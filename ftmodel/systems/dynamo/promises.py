"""What Dynamo promises, with the page that says so (in its documentation's folder) or how it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from ftmodel.systems import Promised, Promises

if TYPE_CHECKING:
    from ftmodel.topology import Topology

ETCD_LEASE_S: Final = 10
"""The lease that processes are told to take where discovery is over etcd: by default it differs between releases."""

_MIGRATE: Literal["migrate"] = "migrate"


def promises(topology: Topology, release: tuple[int, int]) -> Promises:
    """The promises of a release (major, minor) over this topology."""
    return Promises(
        recovery=Promised(_MIGRATE, "documented: fault-tolerance/request-migration"),
        shun_s=Promised(5.0, "documented: fault-tolerance/request-migration; forgotten at each change: measured"),
        broken_stream=(
            Promised(("error", "done"), "measured on 1.2.1 and 1.4.2")
            if release >= (1, 2)
            else Promised(("error",), "measured on 1.1.1: [DONE] never follows an error there")
        ),
        lease_s=_lease(topology),
        # Renewed when half of it is left, so an outage may begin with half of it; a second to be connected again.
        outage_s=Promised(
            ETCD_LEASE_S / 2 - 1 if topology.discovery == "etcd" else 0.0,
            "documented: a process ends when its lease has expired (runtime, discovery client), and only then",
        ),
        request_timeout_s=Promised(5.0, "measured on 1.4.2: an attempt on a frozen worker lasts 5 s"),
        grace_s=Promised(5.0, "documented: fault-tolerance/graceful-shutdown"),
        drain_s=Promised(900.0, "documented: fault-tolerance/graceful-shutdown"),
        frontend_drain_s=Promised(5.0, "documented: fault-tolerance/graceful-shutdown"),
    )


def _lease(topology: Topology) -> Promised[float]:
    if topology.discovery == "etcd":
        return Promised(float(ETCD_LEASE_S), "documented: ETCD_LEASE_TTL, which every process is given")
    return Promised(10.0, "documented: discovery over files has a lease of 10 s")
