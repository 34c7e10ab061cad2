"""T1/lost: a character is missing from a stream that was migrated while it was half generated.

Two workers emit a text of 3-byte characters, one token a byte. The worker that serves the request dies when it has sent
one byte of the second character; the other is asked for the rest, and is given that byte as the last token of its
prompt. The client's text lacks the whole character, though the tokens of all its bytes reached the frontend.

Promised (fault-tolerance/request-migration): "No tokens are lost or duplicated during the transition"; generation goes
on from the exact point of failure. The control, in which nobody dies, shows that the text arrives whole from one worker.
"""

from __future__ import annotations

from cluster import Cluster, main

TEXT = "一二三四五六七八九十"
INSIDE_SECOND = 4


def trial(with_fault: bool) -> str:
    with Cluster(workers=2, engine="bytes", text=TEXT) as cluster:
        if with_fault:
            cluster.order_death(INSIDE_SECOND)
        got = cluster.send(max_tokens=len(TEXT.encode())).read()
        if got.status != 200 or got.errors or got.cut:
            raise RuntimeError(f"another failure: {got}")
        return f"got {got.text}, expected {TEXT}" if got.text != TEXT else ""


if __name__ == "__main__":
    main("T1/lost", trial)
