"""A1/counter-high: a worker counts requests as cancelled that nobody cancelled.

One worker, 480 short requests, eight at a time, each read to its end by its client. The worker's
`dynamo_component_cancellation_total` rises by a few all the same.

Promised (fault-tolerance/request-cancellation): the counter is the "total number of requests cancelled by the work
handler", by a stop, a kill or a dropped connection. It needs no fault, only traffic that is read to the end; the
control is the same worker without that traffic.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from cluster import Cluster, main

COUNTER = "dynamo_component_cancellation_total"
REQUESTS = 480


def trial(with_fault: bool) -> str:
    with Cluster(workers=1) as cluster:

        def one(number: int) -> None:
            answer = cluster.send(max_tokens=8, stream=number % 2 == 0, chat=number % 4 < 2)
            assert answer.open() == 200
            answer.response.read()
            answer.close()

        def counted() -> float:
            return cluster.metric("w1", COUNTER, 'dynamo_endpoint="generate"')

        before = counted()
        if with_fault:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(one, range(REQUESTS)))
        cluster.wait(lambda: cluster.metric("w1", "dynamo_component_inflight_requests") == 0, "the worker is idle")
        rise = counted() - before
        return f"{rise:g} of {REQUESTS} completed requests were counted as cancelled" if rise else ""


if __name__ == "__main__":
    main("A1/counter-high", trial)
