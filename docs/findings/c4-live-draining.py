"""C4/live-draining: a frontend that got SIGTERM and still serves a stream answers 503 on /live.

One worker, one stream. The frontend gets SIGTERM while the stream runs: it says that it is draining, and serves the
stream to its end. From the first moment /live answers 503, "shutting_down", as it should when draining is over. An
orchestrator takes that for a process to be killed, and kills it with the stream.

Promised (fault-tolerance/graceful-shutdown): while the frontend drains, "/live continues to return 200 OK". The control
sends no SIGTERM.
"""

from __future__ import annotations

import http.client

from cluster import Cluster, main

TOKENS = 200
READ = 3


def trial(with_fault: bool) -> str:
    with Cluster(workers=1) as cluster:
        told = {}
        answer = cluster.send(max_tokens=TOKENS)
        assert answer.open() == http.client.OK
        lines = answer.lines()
        for _ in range(READ):
            next(lines)
        if with_fault:
            cluster.stop("frontend")
            cluster.wait(lambda: cluster.ask("frontend", "/health")[0] != http.client.OK, "the frontend drains")
        for path in ("/health", "/live"):
            told[path] = cluster.ask("frontend", path)
        rest = list(lines)
        answer.close()
        if not any("[DONE]" in line for line in rest):
            raise RuntimeError(f"the stream was not served to its end: {rest[-1:]}")
        status, body = told["/live"]
        if status == http.client.OK:
            return ""
        return f"/live: {status} {body[:80]}; /health: {told['/health'][1][:80]}; {len(rest)} lines were still to come"


if __name__ == "__main__":
    main("C4/live-draining", trial)
