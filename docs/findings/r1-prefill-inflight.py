"""R1/prefill-inflight, R1/frontend-plane: a prompt that was sent to a second prefill worker is held by the first, which waits for nobody.

Two prefill workers and two workers that decode, over etcd and NATS; by bootstrap a request goes to both kinds at once. One of
those that decode is killed. The next request that is sent to it cannot be: the frontend tries it again, on the other and on
the other prefill worker. The first prefill worker still has the request, and waits for a worker that never comes; the frontend's gauge of requests under
way stays up as well.

Promised (fault-tolerance/request-cancellation): the requests that a request has made further down end with it. In the control
nobody is killed.
"""

from __future__ import annotations

import time

from cluster import Cluster, main

REQUESTS = 4
REST_S = 15.0


def trial(with_fault: bool) -> str:
    with Cluster(workers=2, prefills=2, handoff="bootstrap", discovery="etcd", plane="nats") as cluster:
        if with_fault:
            cluster.kill("w1")
        for _ in range(REQUESTS):
            cluster.send(max_tokens=20).read()

        def held() -> dict[str, float]:
            name, of = "dynamo_component_inflight_requests", 'dynamo_endpoint="generate"'
            counts = {title: cluster.metric(title, name, of) for title in ("p1", "p2")}
            counts["frontend"] = cluster.metric("frontend", "dynamo_request_plane_inflight_requests")
            return {title: count for title, count in counts.items() if count}

        end_s = time.monotonic() + REST_S
        while held() and time.monotonic() < end_s:
            time.sleep(0.1)
        left = ", ".join(f"{count:g} on {title}" for title, count in held().items())
        return f"{REST_S:g} s after the last answer: {left} of {REQUESTS} requests" if left else ""


if __name__ == "__main__":
    main("R1/prefill-inflight, R1/frontend-plane", trial)
