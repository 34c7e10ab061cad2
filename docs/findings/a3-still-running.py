"""A3/still-running: after a client has left, the mocker goes on generating for it to the end of its max_tokens.

One mocker. A stream of 600 tokens (3.6 s at 6 ms a token) is closed by its client after 5 tokens. Two seconds later the
worker's gauge `vllm:num_requests_running` is still 1; it comes to 0 when the 600 tokens would have been generated.

Promised (fault-tolerance/request-cancellation): cancellation lets requests "terminate early, saving computational
resources"; the engine is to see the signal and stop. The control reads the stream to its end.
"""

from __future__ import annotations

import time

from cluster import Cluster, main

ABORT_BOUND_S = 2.0


def trial(with_fault: bool) -> str:
    with Cluster(workers=1) as cluster:
        answer = cluster.send(max_tokens=600)
        answer.open()
        for number, _line in enumerate(answer.lines(), start=1):
            if with_fault and number == 5:
                break
        answer.close()
        left_s = time.monotonic()

        def running() -> float:
            return cluster.metric("w1", "vllm:num_requests_running")

        while time.monotonic() < left_s + ABORT_BOUND_S:
            time.sleep(0.05)
        late = running()
        cluster.wait(lambda: running() == 0, "the engine has stopped")
        over_s = time.monotonic() - left_s
        return (
            f"running = {late:g} {ABORT_BOUND_S:g} s after the client left, 0 only after {over_s:.1f} s" if late else ""
        )


if __name__ == "__main__":
    main("A3/still-running", trial)
