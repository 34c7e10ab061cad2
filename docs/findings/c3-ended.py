"""C3/ended: etcd is away for two seconds, a fifth of the lease, and the frontend ends itself.

Etcd is killed and started again on the same port and with the same data, so every lease is still there, with its whole
time to run. Clients meanwhile look at the frontend's /health, as a load balancer does; each look asks etcd. Some
seconds after etcd is back the frontend logs "Unable to maintain lease" and "Unable to reconnect to ETCD cluster:
deadline exceeded", though it has reconnected several times by then, and exits with code 0. Nothing starts it again.

Promised (runtime, discovery client): the runtime is shut down if its lease expires. None has: etcd is asked all the time
how long each has to run. In the control etcd stays, and the looks are the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import urllib.request

from cluster import Cluster, main

OUTAGE_S = 2.0
LEASE_S = 10
AFTER_S = 12.0
CLIENTS = 4
EVERY_S = 0.05


def trial(with_fault: bool) -> str:
    os.environ["ETCD_LEASE_TTL"] = str(LEASE_S)
    with Cluster(workers=2, discovery="etcd") as cluster:
        over = threading.Event()
        clients = [threading.Thread(target=look, args=(cluster, over)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            return outage(cluster, with_fault)
        finally:
            over.set()
            for client in clients:
                client.join()


def look(cluster: Cluster, over: threading.Event) -> None:
    while not over.wait(EVERY_S):
        with contextlib.suppress(OSError):
            cluster.ask("frontend", "/health")


def outage(cluster: Cluster, with_fault: bool) -> str:
    frontend = cluster.processes["frontend"]
    time.sleep(1)
    known = leases(cluster)
    began_s = time.monotonic()
    if with_fault:
        os.killpg(cluster.processes["etcd"].pid, signal.SIGKILL)
        cluster.processes["etcd"].wait()
        time.sleep(OUTAGE_S)
        cluster.start_service("etcd")
    lasted_s = time.monotonic() - began_s
    if lasted_s > LEASE_S / 2 - 1:
        raise TimeoutError(f"etcd was away for {lasted_s:.1f} s: no short outage")
    left_s: dict[str, int] = {}
    while time.monotonic() < began_s + AFTER_S:
        if frontend.poll() is not None:
            after_s = time.monotonic() - began_s
            alive = [left_s[lease] for lease in known if left_s.get(lease, 0) > 0]
            return (
                f"the frontend ended ({frontend.returncode}) {after_s:.1f} s after etcd went, for {lasted_s:.1f} s;"
                f" {len(alive)} of {len(known)} leases lived, with {min(alive, default=0)} s to run or more"
            )
        left_s = leases(cluster)
        time.sleep(0.05)
    return ""


def leases(cluster: Cluster) -> dict[str, int]:
    """The seconds that each lease has to run, as etcd tells."""

    def ask(path: str, body: dict) -> dict:
        url = f"http://127.0.0.1:{cluster.ports['etcd']}/v3/lease/{path}"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=5) as answer:
            return json.load(answer)

    ids = [row["ID"] for row in ask("leases", {}).get("leases", [])]
    return {id_: int(ask("timetolive", {"ID": id_}).get("TTL", 0)) for id_ in ids}


if __name__ == "__main__":
    main("C3/ended", trial)
