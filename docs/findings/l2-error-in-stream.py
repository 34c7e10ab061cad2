"""L2/error-in-stream: a migrating stream that meets a second dead worker ends in an error, though a third is healthy.

Three workers, limit 10, twelve streams. Two workers are killed at once. The streams of one are taken to the other, are
refused a connection there, and are given up at once ("Cannot recreate stream"), with nine attempts left.

Promised (fault-tolerance/request-migration): with a limit above 0 and a healthy worker left, the request completes;
a worker that is unreachable when the stream is created costs one attempt, and another is made. The control kills nobody.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from cluster import Cluster, main

STREAMS = 12
TOKENS = 200


def trial(with_fault: bool) -> str:
    with Cluster(workers=3, migration_limit=10) as cluster, ThreadPoolExecutor(STREAMS) as pool:
        answers = [cluster.send(max_tokens=TOKENS) for _ in range(STREAMS)]
        reading = [pool.submit(answer.read) for answer in answers]
        cluster.wait(lambda: all(cluster.holder(answer) for answer in answers), "every stream is on a worker")
        if with_fault:
            cluster.kill("w1", "w2")
        whole = [future.result() for future in reading]
        wrong = [got.errors[0] for got in whole if got.errors]
        given_up = cluster.log("frontend").count("Cannot recreate stream")
        return f"{len(wrong)} of {STREAMS} got {wrong[0][:110]}; given up: {given_up}" if wrong else ""


if __name__ == "__main__":
    main("L2/error-in-stream", trial)
