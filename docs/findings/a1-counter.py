"""A1/counter: a frontend counts a request as cancelled whose client waited to the end.

Two workers emit a text of 2-byte characters, one token a byte. The worker that serves a request (not streamed) dies in
the middle of a character. The frontend's task panics on the migrated request (r5-panic.py), its client gets HTTP 500,
and `dynamo_frontend_model_cancellation_total` rises by one; the healthy worker is told to abort the request.

Promised (fault-tolerance/request-cancellation): the counter is that of clients that disconnected before their response
was fully delivered. Nobody disconnected. The control, in which nobody dies, counts nothing.
"""

from __future__ import annotations

import contextlib

from cluster import Cluster, main

TEXT = "éàüöäßñçøå"
INSIDE_SECOND = 3


def trial(with_fault: bool) -> str:
    with Cluster(workers=2, engine="bytes", text=TEXT) as cluster:

        def counted() -> float:
            return cluster.metric("frontend", "dynamo_frontend_model_cancellation_total")

        before = counted()
        if with_fault:
            cluster.order_death(INSIDE_SECOND)
        answer = cluster.send(max_tokens=len(TEXT.encode()), stream=False)
        status = answer.open()
        answer.response.read()
        answer.close()
        with contextlib.suppress(TimeoutError):
            cluster.wait(lambda: counted() > before, "the counter has risen", bound_s=1)
        rise = counted() - before
        return f"status {status}, and {rise:g} cancellation counted, though nobody left" if rise else ""


if __name__ == "__main__":
    main("A1/counter", trial)
