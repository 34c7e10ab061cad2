"""T2/finish-reason: when a prefill worker dies with a prompt, the client gets an empty answer that looks whole.

A prefill worker that takes some seconds for a prompt, and a worker that decodes; by bootstrap the request goes to both at
once. The prefill worker is killed half a second after it has begun. The stream ends at once: status 200, no text, finish
reason `stop`, [DONE], no error; and it is counted as a success.

Promised (router/disaggregated-serving): a prefill or hand-off failure is returned to the request. In the control nobody is
killed.
"""

from __future__ import annotations

import time

from cluster import Cluster, main

READ_S = 0.5


def trial(with_fault: bool) -> str:
    with Cluster(workers=1, prefills=1, handoff="bootstrap", prefill_speedup=0.01) as cluster:
        answer = cluster.send(max_tokens=20)
        cluster.wait(lambda: answer.id in cluster.log("p1"), "the prefill has begun")
        if with_fault:
            time.sleep(READ_S)
            cluster.kill("p1")
        whole = answer.read()
        empty = whole.status == 200 and whole.dones == 1 and not (whole.text or whole.errors or whole.cut)
        return f"status 200, no text, finish {whole.finishes}, {whole.dones} [DONE], no error" if empty else ""


if __name__ == "__main__":
    main("T2/finish-reason", trial)
