"""L2/status-503: one request with a stop string, and for five seconds every request gets 503, though all workers are well.

Three mockers, limit 3. One stream comes to its stop string. The frontend has the mocker abort, takes the end of its stream
for a lost connection, migrates the request to the next mocker, where the same happens, until the limit is exhausted; and
it leaves each out of its routing for a time. Requests without any stop string then get 503, "not ready to serve requests".

Promised: 503 "indicates that the service is unavailable" (fault-tolerance/request-rejection), and a worker is left out when
it has failed (fault-tolerance/request-migration); none has. In the control the stream has no stop string.
"""

from __future__ import annotations

import http.client

from cluster import Cluster, main

STOPS = [" a", " b", " c", " d"]
"""A token of the mocker's is a space and three random letters: one in six ends the answer."""
TOKENS = 60
REQUESTS = 3


def trial(with_fault: bool) -> str:
    with Cluster(workers=3, migration_limit=3) as cluster:
        options = {"stop": STOPS} if with_fault else {}
        first = cluster.send(max_tokens=TOKENS, **options).read()
        later = [cluster.send(max_tokens=2, stream=False).read() for _ in range(REQUESTS)]
        wrong = [got for got in later if got.status != http.client.OK]
        alive = sum(process.poll() is None for process in cluster.processes.values()) - 1
        listed, lost = len(cluster.listed()), cluster.log("frontend").count("Stream disconnected, recreating stream")
        if not wrong:
            return ""
        return (
            f"{len(wrong)} of {REQUESTS} got {wrong[0].status} {wrong[0].errors[0][:60]}; {alive} workers alive, {listed}"
            f" listed; the first request was moved {lost} times and got {(first.errors or first.finishes)[0][:60]}"
        )


if __name__ == "__main__":
    main("L2/status-503", trial)
