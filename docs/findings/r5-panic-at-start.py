"""R5/panic: a task of a frontend panics when it finds prefill workers and those that decode at the same moment.

A prefill worker and a worker that decodes are up. Ten frontends are started, one after the other. In the log of some of
them: "Failed to send ready signal", and "panicked at". The frontend goes on.

Promised: nothing in words. In the control the one worker is no prefill worker, and does all itself.
"""

from __future__ import annotations

from cluster import Cluster, free_port, main

FRONTENDS = 10


def trial(with_fault: bool) -> str:
    plane = {"discovery": "etcd", "plane": "nats"}
    with Cluster(workers=1, prefills=int(with_fault), handoff="bootstrap", **plane) as cluster:
        for number in range(2, FRONTENDS + 2):
            title = f"frontend-{number}"
            cluster.start(
                title, "-m", "dynamo.frontend", "--http-host", "127.0.0.1", "--http-port", str(free_port()),
                "--router-mode", "round-robin",
            )  # fmt: skip
            cluster.wait(lambda title=title: "added model" in cluster.log(title), f"{title} has the model")
        titles = [title for title in cluster.processes if title.startswith("frontend")]
        panics = [title for title in titles if "panicked at" in cluster.log(title)]
        return f"{len(panics)} of {len(titles)} frontends panicked" if panics else ""


if __name__ == "__main__":
    main("R5/panic", trial)
