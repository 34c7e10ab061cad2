"""R5/panic: a task of the frontend panics on a request that was migrated in the middle of a character.

Two workers emit a text of 2-byte characters, one token a byte. The worker that serves the request dies when it has sent
one byte of the second character. The frontend's log then tells of a panic in its detokenizer: an index that is no
boundary of a character. With 4-byte characters it is the same; with 3-byte ones the text lacks one (t1-lost.py).

Promised (fault-tolerance/request-migration): the migration is transparent to the client. A worker's death must not make
the frontend panic. The control, in which nobody dies, shows that the text as such does it no harm.
"""

from __future__ import annotations

from cluster import Cluster, main

TEXT = "éàüöäßñçøå"
INSIDE_SECOND = 3


def trial(with_fault: bool) -> str:
    with Cluster(workers=2, engine="bytes", text=TEXT) as cluster:
        if with_fault:
            cluster.order_death(INSIDE_SECOND)
        cluster.send(max_tokens=len(TEXT.encode())).read()
        lines = cluster.log("frontend").splitlines()
        found = [place for place, line in enumerate(lines) if "panicked at" in line]
        return " ".join(lines[found[0] : found[0] + 2])[-200:] if found else ""


if __name__ == "__main__":
    main("R5/panic", trial)
