"""M5/begun-after-cancel: a request whose client leaves in its prefill is sent to a worker that decodes when it is read.

A prefill worker that takes some seconds for a prompt, and a worker that decodes, which is to have the request when it is
read. The client leaves half a second after the prefill worker has begun. The prompt is read to its end, and then the
request is sent to the other worker: its log says that it received it, over two seconds after the client left.

Promised (fault-tolerance/request-cancellation): when a client cancels a request at the frontend, all associated
sub-requests on downstream workers are cancelled. In the control the client stays.
"""

from __future__ import annotations

import time

from cluster import Cluster, main

ABORT_BOUND_S = 2.0
READ_S = 0.5
PREFILL_BOUND_S = 30.0


def trial(with_fault: bool) -> str:
    with Cluster(workers=1, prefills=1, prefill_speedup=0.004) as cluster:
        cluster.wait(lambda: cluster.metric("p1", *INFLIGHT) == 0, "the first requests are over", PREFILL_BOUND_S)
        answer = cluster.send(max_tokens=600)
        cluster.wait(lambda: answer.id in cluster.log("p1"), "the prefill has begun")
        if not with_fault:
            answer.read()
            return ""
        time.sleep(READ_S)
        answer.close()
        left_s = time.monotonic()
        cluster.wait(lambda: cluster.metric("p1", *INFLIGHT) == 0, "the prefill is over", PREFILL_BOUND_S)
        over_s = time.monotonic() - left_s
        time.sleep(0.5)
        late = over_s > ABORT_BOUND_S and answer.id in cluster.log("w1")
        counted = cluster.metric("p1", "dynamo_component_cancellation_total", 'dynamo_endpoint="generate"')
        return (
            f"read on for {over_s:.1f} s after the client left, counted as {counted:g} cancels, then sent on to decode"
            if late
            else ""
        )


INFLIGHT = ("dynamo_component_inflight_requests", 'dynamo_endpoint="generate"')

if __name__ == "__main__":
    main("M5/begun-after-cancel", trial)
