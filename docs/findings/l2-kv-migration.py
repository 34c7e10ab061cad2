"""L2/error-in-stream, X3/router-outcome: with the kv router, streams whose worker dies are not moved.

When such a stream is to be placed again, the router still has the request booked on the dead worker: "Cannot recreate
stream", "failed to book scheduler state: Request ... already exists". The stream ends in an error, with all but one of
its ten attempts left and a living worker beside it. With round robin the same streams go on.

Promised (fault-tolerance/request-migration): with a limit above 0 and a healthy worker left, the client "seamlessly
continues receiving tokens"; the router makes no difference there. In the control nobody dies.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from cluster import Cluster, main

STREAMS = 4
TOKENS = 300


def trial(with_fault: bool) -> str:
    lost = {router: broken(router, with_fault) for router in ("kv", "round-robin")}
    if not lost["kv"][0]:
        return ""
    return "; ".join(f"{router}: {errors} of {hit} streams got an error" for router, (errors, hit) in lost.items())


def broken(router: str, with_fault: bool) -> tuple[int, int]:
    """How many streams ended in an error, of those on the worker that was killed."""
    with Cluster(workers=2, migration_limit=10, router=router) as cluster, ThreadPoolExecutor() as pool:
        answers = [cluster.send(max_tokens=TOKENS) for _ in range(STREAMS)]
        cluster.wait(lambda: all(cluster.holder(answer) for answer in answers), "each request is on a worker")
        victim = cluster.holder(answers[0]) or ""
        hit = sum(cluster.holder(answer) == victim for answer in answers)
        reading = [pool.submit(answer.read) for answer in answers]
        if with_fault:
            cluster.kill(victim)
        return sum(bool(future.result().errors) for future in reading), hit


if __name__ == "__main__":
    main("L2/error-in-stream (kv router)", trial)
