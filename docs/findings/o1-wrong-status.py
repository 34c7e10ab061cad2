"""O1/wrong-status: a request that is not streamed and whose client left is counted as a success.

Eight requests of about four seconds, one after the other; each client leaves after a third of a second. Each is counted
in `dynamo_frontend_model_cancellation_total`, and some of them in `dynamo_frontend_requests_total` with status success.

Expected: the one counter agrees with the other; a request that was cancelled has no success. The control reads each
answer to its end.
"""

from __future__ import annotations

import time

from cluster import Cluster, main

CLIENTS = 8
UNDER_WAY_S = 0.3
COUNTED_S = 1.0


def trial(with_fault: bool) -> str:
    with Cluster(workers=4) as cluster:
        before = counted(cluster)
        for number in range(CLIENTS):
            answer = cluster.send(max_tokens=600 if with_fault else 20, stream=False, chat=number % 2 == 0)
            if with_fault:
                time.sleep(UNDER_WAY_S)  # it is under way on a worker
            else:
                answer.open()
            answer.close()
            time.sleep(COUNTED_S)
        successes = counted(cluster) - before
        expected = 0 if with_fault else CLIENTS
        return f"{successes:g} successes counted, expected {expected}" if successes > expected else ""


def counted(cluster: Cluster) -> float:
    """Requests that the frontend has counted as successful."""
    return cluster.metric("frontend", "dynamo_frontend_requests_total", 'status="success"')


if __name__ == "__main__":
    main("O1/wrong-status", trial)
