"""What Dynamo promises, with the page that says so (in its documentation's folder) or how it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ftmodel.systems import Promised, Promises

if TYPE_CHECKING:
    from ftmodel.topology import Topology

_MIGRATE: Literal["migrate"] = "migrate"


def promises(topology: Topology, release: tuple[int, int]) -> Promises:
    """The promises of a release (major, minor) over this topology."""
    return Promises(
        recovery=Promised(_MIGRATE, "documented: fault-tolerance/request-migration"),
        shun_s=Promised(5.0, "documented: fault-tolerance/request-migration; forgotten at each change: measured"),
        broken_stream=Promised(("error", "done"), "measured on 1.4.2"),
        lease_s=Promised(10.0, "documented: discovery over files has a lease of 10 s"),
        request_timeout_s=Promised(5.0, "measured on 1.4.2: an attempt on a frozen worker lasts 5 s"),
        grace_s=Promised(5.0, "documented: fault-tolerance/graceful-shutdown"),
        drain_s=Promised(900.0, "documented: fault-tolerance/graceful-shutdown"),
        frontend_drain_s=Promised(5.0, "documented: fault-tolerance/graceful-shutdown"),
    )
