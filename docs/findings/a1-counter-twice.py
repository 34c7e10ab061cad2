"""A1/counter: a frontend counts a client twice that leaves a stream before its head has come.

One worker, frozen. A client sends a streamed request and leaves before anything has come; the worker is thawed. Promised
(fault-tolerance/request-cancellation): a closed client connection is counted once. The frontend counts it when the
connection closes, and again when the stream that nobody waits for begins. The control freezes nothing: the client leaves
after the first byte, and is counted once.
"""

from __future__ import annotations

import os
import signal

from cluster import Cluster, main

COUNTER = "dynamo_frontend_model_cancellation_total"


def trial(with_fault: bool) -> str:
    with Cluster(workers=1) as cluster:
        worker = cluster.processes["w1"].pid

        def counted() -> float:
            return cluster.metric("frontend", COUNTER)

        before = counted()
        if with_fault:
            os.kill(worker, signal.SIGSTOP)
        answer = cluster.send(max_tokens=600)
        if not with_fault:
            answer.open()
        cluster.wait(lambda: answer.id in cluster.log("frontend"), "the frontend has the request")
        answer.close()
        cluster.wait(lambda: counted() > before, "the client is counted")
        if with_fault:
            os.kill(worker, signal.SIGCONT)
        gone = "closed unexpectedly; issuing cancellation"
        cluster.wait(
            lambda: (
                cluster.metric("frontend", "dynamo_frontend_inflight_requests") == 0
                and cluster.log("frontend").count(gone) >= 1
            ),
            "the request is over",
        )
        times = counted() - before
        return f"counted {times:g} times; {cluster.log('frontend').count(gone)} log lines" if times != 1 else ""


if __name__ == "__main__":
    main("A1/counter", trial)
