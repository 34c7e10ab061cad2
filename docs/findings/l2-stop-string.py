"""L2/error-in-stream, L2/status-500: a request that comes to its stop string fails, though all workers are well.

Three mockers, limit 3. The frontend sees the stop string and has the mocker abort, then takes the end of its stream for a
lost connection ("Stream ended before generation completed") and migrates the request to the next, until the limit is
exhausted. A stream ends in an error, a request that is not streamed gets status 500.

Promised (fault-tolerance/request-migration): stop conditions are kept, and what is migrated is a request whose worker was
lost; none was. In the control the requests have no stop string.
"""

from __future__ import annotations

from cluster import Cluster, main

STOPS = [" a", " b", " c", " d"]
"""A token of the mocker's is a space and three random letters: one in six ends the answer."""
TOKENS = 60


def trial(with_fault: bool) -> str:
    wrong = []
    for stream in (True, False):
        with Cluster(workers=3, migration_limit=3) as cluster:
            options = {"stop": STOPS} if with_fault else {}
            got = cluster.send(max_tokens=TOKENS, stream=stream, **options).read()
            if got.errors:
                wrong.append(f"{'streamed' if stream else 'not streamed'}: {got.status} {got.errors[0][:70]}")
    return "; ".join(wrong)


if __name__ == "__main__":
    main("L2/error-in-stream, L2/status-500", trial)
