"""P1/two-finishes: a stream carries two chunks with a finish_reason for its one choice.

Two workers. The one that serves the request dies right after its last token went out with the finish, before it has
closed its stream. Nothing is left to generate, yet the frontend migrates the request, asks the other worker for
max_tokens = 0, and passes on the finish that comes back too.

Promised: the API is OpenAI's (components/frontend), where a choice has one finish_reason; and a migration stays "within
the originally requested limits" (fault-tolerance/request-migration). The control, in which nobody dies, has one finish.
"""

from __future__ import annotations

from cluster import Cluster, main

TEXT = "abcdefgh"


def trial(with_fault: bool) -> str:
    with Cluster(workers=2, engine="bytes", text=TEXT) as cluster:
        if with_fault:
            cluster.order_death(len(TEXT))
        got = cluster.send(max_tokens=len(TEXT)).read()
        if len(got.finishes) == 1:
            return ""
        asked = [title for title in ("w1", "w2") if '"max_tokens": 0' in cluster.log(title)]
        return f"text {got.text}, finish_reason {got.finishes}; asked for max_tokens 0: {' '.join(asked) or 'nobody'}"


if __name__ == "__main__":
    main("P1/two-finishes", trial)
