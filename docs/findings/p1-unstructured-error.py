"""P1/unstructured-error: when all workers have left, a request gets 404 with an empty body instead of an error.

Two workers end by SIGTERM. The path of the model that was served a moment ago then answers 404 with nothing in it. Every
other failure of this frontend carries {"message", "type", "code"}, a model that it does not know too.

Promised (components/frontend): OpenAI-compatible endpoints; there an error has a JSON body, and clients read it. In the
control the workers stay.
"""

from __future__ import annotations

import contextlib

from cluster import Cluster, main

SETTLE_BOUND_S = 1.0
"""The path is closed a moment after the model has left the list."""


def trial(with_fault: bool) -> str:
    with Cluster(workers=2) as cluster:
        if with_fault:
            for title in ("w1", "w2"):
                cluster.stop(title)
            cluster.wait(lambda: not cluster.has_model(), "the model has left the list")
        bare: list[int] = []

        def is_bare() -> bool:
            answer = cluster.send(max_tokens=2, stream=False, chat=True)
            status = answer.open()
            bare.extend([] if answer.response.read() else [status])
            answer.close()
            return bool(bare)

        with contextlib.suppress(TimeoutError):
            cluster.wait(is_bare, "an answer without a body", SETTLE_BOUND_S)
        return f"status {bare[0]} with an empty body" if bare else ""


if __name__ == "__main__":
    main("P1/unstructured-error", trial)
