"""T2/short: a whole answer lacks its last character, though all of its tokens were generated.

As t1-lost.py, with the migration inside the last character: what arrives is a beginning of the text, ends as a whole
answer (finish_reason length, [DONE]), and is short by the tokens of one character.

Promised (fault-tolerance/request-migration): "No tokens are lost or duplicated during the transition". The control, in
which nobody dies, shows that the text arrives whole from one worker.
"""

from __future__ import annotations

from cluster import Cluster, main

TEXT = "一二三四五六七八九十"
INSIDE_LAST = len(TEXT.encode()) - 2


def trial(with_fault: bool) -> str:
    with Cluster(workers=2, engine="bytes", text=TEXT) as cluster:
        if with_fault:
            cluster.order_death(INSIDE_LAST)
        got = cluster.send(max_tokens=len(TEXT.encode())).read()
        if got.status != 200 or got.errors or got.cut:
            raise RuntimeError(f"another failure: {got}")
        short = len(got.text.encode()) < len(TEXT.encode())
        return f"got {got.text}, {len(got.text.encode())} of {len(TEXT.encode())} tokens" if short else ""


if __name__ == "__main__":
    main("T2/short", trial)
