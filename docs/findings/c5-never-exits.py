"""C5/never-exits: a prefill worker that holds a request for nobody (R1/prefill-inflight) does not end when it is asked to.

Two prefill workers and two that decode, over etcd and NATS; by bootstrap a request goes to both kinds at once. One that
decodes is killed, and four requests are sent, one after the other. Then both prefill workers get SIGTERM. One that holds
nothing is gone in half a second. One that still holds a request, though each has been answered, lives on.

Promised (fault-tolerance/graceful-shutdown): a worker finishes what it has, and exits. In the control nobody is killed.
"""

from __future__ import annotations

import time

from cluster import Cluster, main

REQUESTS = 4
BOUND_S = 20.0


def trial(with_fault: bool) -> str:
    with Cluster(workers=2, prefills=2, handoff="bootstrap", discovery="etcd", plane="nats") as cluster:
        if with_fault:
            cluster.kill("w1")
        for _ in range(REQUESTS):
            cluster.send(max_tokens=20).read()
        prefills = {name: cluster.processes[name] for name in ("p1", "p2")}
        for name in prefills:
            cluster.stop(name)
        end_s = time.monotonic() + BOUND_S
        while any(process.poll() is None for process in prefills.values()) and time.monotonic() < end_s:
            time.sleep(0.1)
        left = [name for name, process in prefills.items() if process.poll() is None]
        return f"{', '.join(left)} still lived {BOUND_S:g} s after SIGTERM" if left else ""


if __name__ == "__main__":
    main("C5/never-exits", trial)
