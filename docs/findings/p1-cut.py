"""P1/cut: a stream ends in a broken connection, without a word of what went wrong.

The same panic as in l2-cut.py, seen by a client whose request need not have completed: whatever befalls a request, its
stream must say so. Dynamo ends a stream that it cannot finish with an error object and [DONE] (seen when all workers are
killed); here there is neither. The control kills the only worker at a character's edge: an error, then [DONE].
"""

from __future__ import annotations

from cluster import Cluster, main

TEXT = "😀😁😂😃😄😅😆😇😈😉"
INSIDE_SECOND, EDGE = 5, 8


def trial(with_fault: bool) -> str:
    with Cluster(workers=2 if with_fault else 1, engine="bytes", text=TEXT) as cluster:
        cluster.order_death(INSIDE_SECOND if with_fault else EDGE)
        got = cluster.send(max_tokens=len(TEXT.encode())).read()
        return f"after {got.text} the connection broke: {got.cut}; errors {got.errors}" if got.cut else ""


if __name__ == "__main__":
    main("P1/cut", trial)
