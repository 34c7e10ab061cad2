"""L3/hang: a stream on a worker that is frozen gets nothing more, though its lease ran out long ago and another is free.

Two workers, and a stream on each that may migrate. One worker is frozen (SIGSTOP), as by a hung device or a paused
container. Its lease of 10 s runs out and it leaves the lists, so the frontend knows. The stream on it is neither moved nor
ended, for as long as this waits; the other completes. In the control nothing is frozen.

Promised (fault-tolerance/request-migration): a request on a worker that cannot be reached goes on on another. The wait is
several times what detection by the lease takes.
"""

from __future__ import annotations

import os
import signal
import threading
import time

from cluster import Answer, Cluster, main

TOKENS = 400
LEASE_S = 10
WAIT_S = 45.0


def read(answer: Answer, came_s: list[float]) -> None:
    answer.open()
    came_s.extend(time.monotonic() for _ in answer.lines())


def trial(with_fault: bool) -> str:
    with Cluster(workers=2, migration_limit=3) as cluster:
        answers = [cluster.send(max_tokens=TOKENS) for _ in range(2)]
        came: list[list[float]] = [[] for _ in answers]
        readers = [threading.Thread(target=read, args=pair) for pair in zip(answers, came, strict=True)]
        for reader in readers:
            reader.start()
        cluster.wait(lambda: all(len(times) > 5 for times in came), "five tokens of each")
        victim = cluster.holder(answers[0]) or ""
        process = cluster.processes[victim]
        if with_fault:
            os.killpg(process.pid, signal.SIGSTOP)
        frozen_s = time.monotonic()
        try:
            if with_fault:
                cluster.wait(lambda: len(cluster.listed()) == 1, "the frozen worker off the list", 3 * LEASE_S)
            off_s = time.monotonic() - frozen_s
            readers[0].join(WAIT_S)
            if readers[0].is_alive():
                silent_s = time.monotonic() - came[0][-1]
                return f"off the list after {off_s:.0f} s, and nothing came for {silent_s:.0f} s; {len(came[1])} of the other"
            return ""
        finally:
            if with_fault:
                os.killpg(process.pid, signal.SIGCONT)
            for reader in readers:
                reader.join()


if __name__ == "__main__":
    main("L3/hang", trial)
