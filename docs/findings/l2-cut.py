"""L2/cut: a stream that was migrated in the middle of a 4-byte character ends in a broken connection.

Two workers emit a text of 4-byte characters, one token a byte. The worker that serves the request dies when it has sent
one byte of the second character. The frontend takes the request to the other worker and then drops the client's
connection: no finish, no error, no [DONE] (its task has panicked, see r5-panic.py).

Promised (fault-tolerance/request-migration): with a limit above 0 and a healthy worker left, the client "seamlessly
continues receiving tokens". The control, in which nobody dies, shows that one worker's stream of this text is whole.
"""

from __future__ import annotations

from cluster import Cluster, main

TEXT = "😀😁😂😃😄😅😆😇😈😉"
INSIDE_SECOND = 5


def trial(with_fault: bool) -> str:
    with Cluster(workers=2, engine="bytes", text=TEXT) as cluster:
        if with_fault:
            cluster.order_death(INSIDE_SECOND)
        got = cluster.send(max_tokens=len(TEXT.encode())).read()
        return f"after {got.text} the connection broke: {got.cut}" if got.cut else ""


if __name__ == "__main__":
    main("L2/cut", trial)
