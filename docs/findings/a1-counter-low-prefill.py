"""A1/counter-low: a prefill worker is not told that the client of the request that it reads has left.

A prefill worker that takes some seconds for a prompt, and a worker that decodes. The client leaves half a second after
the prefill worker has begun. That reads the prompt to its end, seconds later, and its `dynamo_component_cancellation_total`
stays at 0.

Promised (fault-tolerance/request-cancellation): when a client cancels a request at the frontend, all associated
sub-requests on downstream workers are cancelled; the counter is that of requests cancelled by the work handler, with
`prefill` among its components. In the control the client stays.
"""

from __future__ import annotations

import time

from cluster import Cluster, main

ABORT_BOUND_S = 2.0
READ_S = 0.5
PREFILL_BOUND_S = 30.0
OF_GENERATE = 'dynamo_endpoint="generate"'


def trial(with_fault: bool) -> str:
    with Cluster(workers=1, prefills=1, prefill_speedup=0.004) as cluster:

        def metric(name: str) -> float:
            return cluster.metric("p1", f"dynamo_component_{name}", OF_GENERATE)

        cluster.wait(lambda: metric("inflight_requests") == 0, "the first requests are over", PREFILL_BOUND_S)
        before = metric("cancellation_total")
        answer = cluster.send(max_tokens=10)
        cluster.wait(lambda: answer.id in cluster.log("p1"), "the prefill has begun")
        if not with_fault:
            answer.read()
            return ""
        time.sleep(READ_S)
        answer.close()
        left_s = time.monotonic()
        cluster.wait(lambda: metric("inflight_requests") == 0, "the prefill is over", PREFILL_BOUND_S)
        over_s, counted = time.monotonic() - left_s, metric("cancellation_total") - before
        return f"read on for {over_s:.1f} s after the client left, 0 cancels counted" if not counted else ""


if __name__ == "__main__":
    main("A1/counter-low", trial)
