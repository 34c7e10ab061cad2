"""C5/drops-work: a worker is asked to stop right after it has received requests, and their clients get an error.

One worker, and a burst of requests that must not migrate (limit 0). When it says that it has received half of them, it gets
SIGTERM. It leaves the lists at once, and the frontend gives up each request whose response stream the worker has not yet
established ("Worker disconnected before response stream was established"), though the worker has it. Counted are only those
that the worker had received before the signal.

Promised (fault-tolerance/graceful-shutdown): a worker finishes the requests that it has before it exits. The control sends no
SIGTERM.
"""

from __future__ import annotations

import http.client
import threading

from cluster import Answer, Cluster, Whole, main

BURST = 24
ROUNDS = 3
TOKENS = 50


def read(answer: Answer, into: list[Whole]) -> None:
    into.append(answer.read())


def drained(*, with_fault: bool) -> tuple[int, list[str]]:
    """How many the worker had received when it was asked to stop, and what was wrong with those."""
    with Cluster(workers=1, migration_limit=0) as cluster:
        answers = [cluster.send(max_tokens=TOKENS) for _ in range(BURST)]
        got: list[list[Whole]] = [[] for _ in answers]
        readers = [threading.Thread(target=read, args=pair) for pair in zip(answers, got, strict=True)]
        for reader in readers:
            reader.start()
        cluster.wait(lambda: cluster.log("w1").count('"request received"') >= BURST // 2, "half of the burst received")
        received = [line for line in cluster.log("w1").splitlines() if '"request received"' in line]
        if with_fault:
            cluster.stop("w1")
        for reader in readers:
            reader.join()
    had = [whole for answer, [whole] in zip(answers, got, strict=True) if any(answer.id in line for line in received)]
    bad = [whole for whole in had if whole.status != http.client.OK or whole.errors or whole.cut]
    return len(had), [f"status {whole.status}, {(whole.errors or [whole.cut])[0][:90]}" for whole in bad]


def trial(with_fault: bool) -> str:
    rounds = [drained(with_fault=with_fault) for _ in range(ROUNDS)]
    wrong = [what for _, found in rounds for what in found]
    had = sum(count for count, _ in rounds)
    return f"{len(wrong)} of {had} that the worker had received; the last: {wrong[-1]}" if wrong else ""


if __name__ == "__main__":
    main("C5/drops-work", trial)
