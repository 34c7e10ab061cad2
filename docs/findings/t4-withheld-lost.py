"""T4/withheld-lost: a character before a stop string is lost where a migration falls in the middle of it.

As t1-lost.py, with the second character as the stop string: two workers emit 3-byte characters, one token a byte, and the
one that serves the request dies after the first byte of the first. The answer ends at its stop string, with the finish
"stop", but what stood before it is missing.

Promised (fault-tolerance/request-migration): "No tokens are lost or duplicated during the transition". The control, in
which nobody dies, has the first character.
"""

from __future__ import annotations

from cluster import Cluster, main

TEXT = "一二三四五六七八九十"
INSIDE_FIRST = 1


def trial(with_fault: bool) -> str:
    wrong = []
    for stream in (True, False):
        with Cluster(workers=2, engine="bytes", text=TEXT) as cluster:
            if with_fault:
                cluster.order_death(INSIDE_FIRST)
            got = cluster.send(max_tokens=len(TEXT.encode()), stream=stream, stop=[TEXT[1]]).read()
            if got.status != 200 or got.errors or got.cut or got.finishes != ["stop"]:
                raise RuntimeError(f"another failure: {got}")
            if got.text != TEXT[0]:
                wrong.append(f"{'streamed' if stream else 'not streamed'}: got {got.text!r}, expected {TEXT[0]!r}")
    return "; ".join(wrong)


if __name__ == "__main__":
    main("T4/withheld-lost", trial)
