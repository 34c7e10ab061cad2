"""Measures, of one cluster that serves thousands of requests: the memory that each process has of its own.

No finding: it tells how long processes warm up, and what they still grow by then. A frontend and two workers; completions
and chats of many lengths, some of whose clients leave; now and then a worker is killed and another one started.

    python growth.py --requests 2000 --kill-every 40
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import random
import signal
import statistics
import sys
import time
from collections.abc import Iterator

from cluster import Cluster

TEXT = "abcdefgh ijkl mnop"
WIDE = 16
"""Clients at once."""
REJOIN_S = 3.0
"""A worker that was started again is on the list by then."""
STAGES = (0, 300, 600)
"""By requests: what is told apart."""
LEAVES_AFTER = 3
"""Lines of a stream, then its client leaves."""


def own_bytes(pid: int) -> int:
    """What is resident and no file's."""
    _, resident, shared = map(int, pathlib.Path(f"/proc/{pid}/statm").read_text().split()[:3])
    return (resident - shared) * os.sysconf("SC_PAGESIZE")


def ask(cluster: Cluster, rng: random.Random) -> None:
    """Send a request and read its answer, or leave in the midst of it."""
    stream = rng.random() < 0.8
    answer = cluster.send(
        max_tokens=rng.choice((2, 10, 50, 200)), stream=stream, chat=rng.random() < 0.4,
        text="x" * rng.choice((40, 40, 1000, 4000)) + "\n",
    )  # fmt: skip
    if stream and rng.random() < 0.2:
        answer.open()
        for _ in zip(range(LEAVES_AFTER), answer.lines(), strict=False):
            pass
        answer.close()
    else:
        answer.read()


def samples(cluster: Cluster, requests: int, kill_every: int) -> Iterator[tuple[int, dict[str, int]]]:
    """(requests so far, bytes by process), each time that no request is open."""
    rng = random.Random(1)
    sent = killed = 0
    with concurrent.futures.ThreadPoolExecutor(WIDE) as pool:
        while True:
            yield sent, {title: own_bytes(process.pid) for title, process in cluster.processes.items()}
            if sent >= requests:
                return
            count = rng.randint(1, 2 * WIDE)
            seeds = [rng.random() for _ in range(count)]
            list(pool.map(lambda seed: ask(cluster, random.Random(seed)), seeds))
            sent += count
            if kill_every and sent - killed >= kill_every:
                killed = sent
                title = rng.choice(("w1", "w2"))
                cluster.kill(title)
                cluster.start_worker(title)
                time.sleep(REJOIN_S)


def main() -> None:
    """Print the memory now and then, and by how much the frontend grew in each stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--kill-every", type=int, default=0, help="requests between two kills (0: none)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    points: list[tuple[int, int]] = []
    with Cluster(workers=2, engine="bytes", text=TEXT) as cluster:
        for sent, used in samples(cluster, arguments.requests, arguments.kill_every):
            points.append((sent, used["frontend"]))
            print(sent, *(f"{title} {used[title] / 2**20:.2f} MiB" for title in sorted(used)), flush=True)
    for begin, end in zip(STAGES, (*STAGES[1:], arguments.requests + 1), strict=True):
        stage = [point for point in points if begin <= point[0] < end]
        if len(stage) > 2:
            slope = statistics.linear_regression(*zip(*stage, strict=True)).slope
            print(f"frontend, requests {stage[0][0]} to {stage[-1][0]}: {slope / 1024:+.2f} KiB a request")


if __name__ == "__main__":
    main()
