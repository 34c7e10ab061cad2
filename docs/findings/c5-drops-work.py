"""C5/drops-work: a worker that drains ends a request with its last token, and the client gets an error all the same.

Six workers, a request on each that must not migrate (limit 0), twelve times a trial. Each worker gets SIGTERM while it generates. It ends its
request with all tokens and says so; then it shuts down at once, and at times the end of the stream is lost with its
connections. A request that may migrate is moved then, and its client sees nothing of it, or two finishes (P1/two-finishes).

The workers leave as every Python program does, through the interpreter's own end.

Promised (fault-tolerance/graceful-shutdown): a worker finishes the requests that it has before it exits. The control sends no
SIGTERM.
"""

from __future__ import annotations

import http.client
import threading

from cluster import Answer, Cluster, Whole, main

WORKERS = 6
ROUNDS = 6
TOKENS = 100
TEXT = "abcdefghij"


def read(answer: Answer, into: list[Whole]) -> None:
    into.append(answer.read())


def drained(*, stream: bool, with_fault: bool) -> list[str]:
    """What was wrong with requests whose workers had ended them."""
    wrong = []
    with Cluster(workers=WORKERS, migration_limit=0, engine="bytes", text=TEXT, finalise=True) as cluster:
        answers = [cluster.send(max_tokens=TOKENS, stream=stream) for _ in range(WORKERS)]
        got: list[list[Whole]] = [[] for _ in answers]
        readers = [threading.Thread(target=read, args=pair) for pair in zip(answers, got, strict=True)]
        for reader in readers:
            reader.start()
        cluster.wait(lambda: all(cluster.holder(answer) for answer in answers), "each request is on a worker")
        holders = [cluster.holder(answer) or "" for answer in answers]
        for title in set(holders) if with_fault else ():
            cluster.stop(title)
        for reader in readers:
            reader.join()
        for answer, holder, [whole] in zip(answers, holders, got, strict=True):
            ended = f'"ended", "request_id": "{answer.id}"' in cluster.log(holder)
            if ended and (whole.status != http.client.OK or whole.errors or whole.cut):
                wrong.append(
                    f"status {whole.status}, {len(whole.text)} tokens, {(whole.errors or [whole.cut])[0][:90]}"
                )
    return wrong


def trial(with_fault: bool) -> str:
    rounds = [drained(stream=stream, with_fault=with_fault) for stream in (False, True) for _ in range(ROUNDS)]
    wrong = [what for found in rounds for what in found]
    return (
        f"{len(wrong)} of {len(rounds) * WORKERS} that their workers had ended; the last: {wrong[-1]}" if wrong else ""
    )


if __name__ == "__main__":
    main("C5/drops-work", trial)
