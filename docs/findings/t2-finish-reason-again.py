"""T2/finish-reason, L2/status-503, R1/prefill-inflight: what is tried again is read twice, and then not at all.

A prefill worker and two workers that decode, over etcd and NATS; by bootstrap a request goes to both kinds at once. One of
those that decode is killed. A request that is sent to it cannot be: the frontend tries it again on the other, and sends it
to the prefill worker a second time, under the same id. On 1.4 that ends both within a millisecond: the client gets status
200, no text, finish reason `stop` and [DONE]. On 1.6 the prefill worker refuses what it already has, the frontend takes it
for a lost one, and for five seconds each request gets 503. A healthy worker of each kind was there all the time.

Promised (fault-tolerance/request-migration): where a worker is unreachable when the connection is made, the frontend makes a
new stream, and the request completes on a healthy worker. In the control nobody is killed.
"""

from __future__ import annotations

import time

from cluster import Cluster, main

REQUESTS = 8
REST_S = 10.0


def trial(with_fault: bool) -> str:
    with Cluster(workers=2, prefills=1, handoff="bootstrap", discovery="etcd", plane="nats") as cluster:
        if with_fault:
            cluster.kill("w1")
        answers = [cluster.send(max_tokens=20).read() for _ in range(REQUESTS)]
        empty = sum(a.status == 200 and not (a.text or a.errors or a.cut) for a in answers)
        broken = sum(bool(a.errors) and a.status == 200 for a in answers)
        refused = sum(a.status == 503 for a in answers)
        end_s = time.monotonic() + REST_S

        def held() -> float:
            return cluster.metric("p1", "dynamo_component_inflight_requests", 'dynamo_endpoint="generate"')

        while held() and time.monotonic() < end_s:
            time.sleep(0.1)
        left = held()
        if empty or broken or refused or left:
            return (
                f"of {REQUESTS}: {empty} empty answers, {broken} errors in the stream, {refused} refused with status 503,"
                f" {left:g} on p1 {REST_S:g} s after the last"
            )
        return ""


if __name__ == "__main__":
    main("T2/finish-reason", trial)
