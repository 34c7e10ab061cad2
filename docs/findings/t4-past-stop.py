"""T4/past-stop: a stop string that spans a migration is not seen, and the answer runs on to max_tokens.

Two workers emit "abcdefghij", one token a character. The stop string is "ef". The worker that serves the request dies
between the two; the other goes on with "f". The frontend has forgotten the "e", and passes on "fghij" too, with the finish
"length".

Promised (fault-tolerance/request-migration): stop conditions are kept "to ensure complete state preservation". In the
control nobody dies: the answer ends at the stop string, with the finish "stop".
"""

from __future__ import annotations

from cluster import Cluster, main

TEXT = "abcdefghij"
STOP = "ef"
INSIDE_STOP = TEXT.index(STOP) + 1


def trial(with_fault: bool) -> str:
    wrong = []
    for stream in (True, False):
        with Cluster(workers=2, engine="bytes", text=TEXT) as cluster:
            if with_fault:
                cluster.order_death(INSIDE_STOP)
            got = cluster.send(max_tokens=len(TEXT), stream=stream, stop=[STOP]).read()
            if got.status != 200 or got.errors or got.cut:
                raise RuntimeError(f"another failure: {got}")
            if got.finishes != ["stop"] or len(got.text) > TEXT.index(STOP) + len(STOP):
                wrong.append(f"{'streamed' if stream else 'not streamed'}: {got.text}, finish_reason {got.finishes}")
    return "; ".join(wrong)


if __name__ == "__main__":
    main("T4/past-stop", trial)
