"""T2/long: an answer has one token more than its max_tokens.

Two workers: one that can die at an exact token, and a mocker. The first dies right after its last token went out with the
finish, before it has closed its stream. Nothing is left to generate, yet the frontend migrates the request, asks the
mocker for max_tokens = 0, and passes on what comes back: one more token. (The same happens at times at the end of a drain
after SIGTERM, without any kill.)

Promised (fault-tolerance/request-migration): a migration stays "within the originally requested limits". The control, in
which nobody dies, has max_tokens tokens.
"""

from __future__ import annotations

from cluster import Cluster, main

TEXT = "abcdefgh"


def trial(with_fault: bool) -> str:
    with Cluster(workers=1, engine="bytes", text=TEXT) as cluster:
        cluster.engine = "mocker"
        cluster.start_worker("w2")
        cluster.wait(lambda: len(cluster.listed()) == 2, "the mocker is listed")

        def both_serve() -> bool:
            cluster.send(max_tokens=1, stream=False).read()
            return "request received" in cluster.log("w2")

        cluster.wait(both_serve, "the mocker serves the same model")
        if with_fault:
            cluster.order_death(len(TEXT))
        for _ in range(2):  # one of two in turn goes to the worker that dies
            got = cluster.send(max_tokens=len(TEXT)).read()
            if got.text.startswith(TEXT) and got.text != TEXT:
                return f"text {got.text!r}: more than the {len(TEXT)} tokens asked for; finishes {got.finishes}"
        return ""


if __name__ == "__main__":
    main("T2/long", trial)
