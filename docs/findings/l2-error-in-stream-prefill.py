"""L2/error-in-stream: streams whose workers die are not placed again, since the prefill worker is taken for lost too.

A prefill worker and three workers that decode, over etcd and NATS; by bootstrap a request goes to both kinds at once. Each
that decodes has a stream. Two of them are killed. What they had is to be read and placed again; where that falls on the
other dead one, the frontend tries once more, with the prefill worker that has the request already. That refuses it, and is
left out for five seconds. A stream ends in an error, though a healthy worker of each kind was there all the time.

Promised (fault-tolerance/request-migration): with a healthy worker left, the client "seamlessly continues receiving tokens".
In the control nobody is killed.
"""

from __future__ import annotations

from cluster import Cluster, main

STREAMS = 6


def trial(with_fault: bool) -> str:
    setup = {"prefills": 1, "handoff": "bootstrap", "discovery": "etcd", "plane": "nats"}
    with Cluster(workers=3, migration_limit=10, **setup) as cluster:
        answers = [cluster.send(max_tokens=600) for _ in range(STREAMS)]
        cluster.wait(lambda: all(map(cluster.holder, answers)), "a worker has each stream")
        if with_fault:
            cluster.kill("w1")
            cluster.kill("w2")
        wholes = [answer.read() for answer in answers]
        broken = [whole.errors[0][:80] for whole in wholes if whole.errors]
        return f"{len(broken)} of {STREAMS} streams ended in an error: {broken[0]}" if broken else ""


if __name__ == "__main__":
    main("L2/error-in-stream", trial)
