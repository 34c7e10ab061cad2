"""L2/error-in-stream: a migrating stream that meets a second dead worker ends in an error, though a third is healthy.

Three workers, limit 10. Four streams run on one worker, four on another, none on the third. That idle one is killed,
then the first. Streams of the first are taken to the idle one, are refused a connection, and are given up ("Cannot
recreate stream") with nine attempts left.

Promised (fault-tolerance/request-migration): with a limit above 0 and a healthy worker left, the request completes; a
worker that is unreachable when a stream is created costs one attempt, and another is made. The control kills nobody.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from cluster import Answer, Cluster, main

ROUNDS = 4
TOKENS = 200


def trial(with_fault: bool) -> str:
    with Cluster(workers=3, migration_limit=10) as cluster, ThreadPoolExecutor() as pool:

        def place(max_tokens: int) -> tuple[Answer, str]:
            answer = cluster.send(max_tokens=max_tokens)
            cluster.wait(lambda: cluster.holder(answer) is not None, "the request is on a worker")
            return answer, cluster.holder(answer) or ""

        turns = []
        for _ in range(3):  # round robin: this is the order from now on
            answer, title = place(1)
            answer.read()
            turns.append(title)
        idle, victim, _healthy = turns
        reading = []
        for _ in range(ROUNDS):
            for turn in turns:
                answer, title = place(1 if turn == idle else TOKENS)
                if title != turn:
                    raise RuntimeError(f"placed on {title}, expected {turn}")
                if turn == idle:
                    answer.read()
                else:
                    reading.append(pool.submit(answer.read))
        if with_fault:
            cluster.kill(idle)
            cluster.kill(victim)
        errors = [error for future in reading for error in future.result().errors]
        given_up = cluster.log("frontend").count("Cannot recreate stream")
        return f"{len(errors)} of {2 * ROUNDS} streams got {errors[0][:60]}; {given_up} given up" if errors else ""


if __name__ == "__main__":
    main("L2/error-in-stream", trial)
