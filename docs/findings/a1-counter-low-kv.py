"""A1/counter-low with the kv router: a worker does not count every request that it was told to cancel.

One mocker behind the kv router. 600 streams of 600 tokens, 24 at a time, each left by its client after five tokens.
Promised (fault-tolerance/request-cancellation): the worker counts each request that was cancelled by a stop, a kill or a
dropped connection, so `dynamo_component_cancellation_total` must rise by 600. The control reads no stream and leaves none.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from cluster import Cluster, main

COUNTER = "dynamo_component_cancellation_total"
CANCELS = 600


def trial(with_fault: bool) -> str:
    with Cluster(workers=1, router="kv") as cluster:

        def leave(_number: int) -> None:
            answer = cluster.send(max_tokens=600)
            answer.open()
            for number, _line in enumerate(answer.lines(), start=1):
                if number == 5:
                    break
            answer.close()

        def counted() -> float:
            return cluster.metric("w1", COUNTER, 'dynamo_endpoint="generate"')

        before, sent = counted(), CANCELS if with_fault else 0
        with ThreadPoolExecutor(24) as pool:
            list(pool.map(leave, range(sent)))
        inflight = "dynamo_component_inflight_requests"
        cluster.wait(lambda: cluster.metric("w1", inflight, 'dynamo_endpoint="generate"') == 0, "the worker is idle")
        rise = counted() - before
        return f"{rise:g} cancellations were counted of {sent}" if rise < sent else ""


if __name__ == "__main__":
    main("A1/counter-low (kv router)", trial)
