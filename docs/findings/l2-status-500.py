"""L2/status-500: a request routed to a worker that has just died gets HTTP 500, though two others are healthy.

Three workers, limit 3. One idle worker is killed; six requests are sent right after, and those routed to the dead one
in their turn are refused: the frontend's log says "Connection refused", and tries nowhere else.

Promised (fault-tolerance/request-migration, "New Request Migration"): where a worker is unreachable when the connection
is made, the frontend takes one attempt off and makes a new stream. The control kills nobody.
"""

from __future__ import annotations

import http.client

from cluster import Cluster, main


def trial(with_fault: bool) -> str:
    with Cluster(workers=3, migration_limit=3) as cluster:
        if with_fault:
            cluster.kill("w1")
        wrong = []
        for _ in range(6):
            answer = cluster.send(max_tokens=2, stream=False)
            status = answer.open()
            body = answer.response.read().decode()
            answer.close()
            if status != http.client.OK:
                wrong.append(f"status {status} {body[:120]}")
        return f"{len(wrong)} of 6 requests failed, two healthy workers left: {wrong[0]}" if wrong else ""


if __name__ == "__main__":
    main("L2/status-500", trial)
