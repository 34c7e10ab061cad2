"""etcd away for less and for more than the lease, and NATS restarted, while requests come."""

from __future__ import annotations

import pytest
from classic import Figures, expect_completed, of_real_processes, on_services, until_over

from ftmodel.steps import After, Heal, OnService, Submit
from ftmodel.testing import Cluster

pytestmark = [*of_real_processes, pytest.mark.ftmodel(workers=2, known_issues="known_issues.toml")]

SHORT_MS = 1_000
"""Its own start takes etcd one or two seconds more: less than the half of a lease of 10 s that is left at any time."""
LONG_MS = 15_000
"""More than the lease."""
EVERYBODY = ("frontend-1", "w1", "w2")


@on_services
def test_an_etcd_outage_shorter_than_the_lease_does_no_lasting_damage(cluster: Cluster, figures: Figures) -> None:
    cluster.do(
        Submit(name="across", max_tokens=figures.story_tokens),
        OnService(name="kill", kind="kill-etcd", at=After("across")),
        OnService(name="start", kind="start-etcd", at=After("kill"), skew_ms=SHORT_MS),
        Submit(name="in-it", at=After("kill"), skew_ms=500),
        Submit(name="after", at=After("start")),
    )
    until_over(cluster, "across", "in-it", "after", within_s=figures.story_within_s)
    ended = [title for title in EVERYBODY if cluster.evidence.exited(title)]
    expect_completed(cluster, "across", "in-it", "after")
    assert ended == []


@on_services
def test_an_etcd_outage_longer_than_the_lease_ends_everybody_and_successors_serve(
    cluster: Cluster, figures: Figures
) -> None:
    """Documented: a process whose lease has expired ends, and it is an orchestrator's work to start another."""
    cluster.do(
        OnService(name="kill", kind="kill-etcd"),
        OnService(name="start", kind="start-etcd", at=After("kill"), skew_ms=LONG_MS),
    )
    for title in EVERYBODY:
        cluster.wait(f"the end of {title}", lambda seen, title=title: seen.exited(title), within_s=LONG_MS / 1000 + 15)
    cluster.do(Heal(name="heal", at=After("start")))
    for title in ("w1-2", "w2-2"):
        cluster.wait(
            f"an answer of {title}", lambda seen, title=title: seen.answers(title), within_s=figures.ready_within_s
        )
    cluster.do(Submit(name="after"))
    until_over(cluster, "after", within_s=figures.story_within_s)
    expect_completed(cluster, "after")


@on_services
def test_a_nats_restart_is_outlived(cluster: Cluster, figures: Figures) -> None:
    cluster.do(
        Submit(name="across", max_tokens=figures.story_tokens),
        OnService(name="kill", kind="kill-nats", at=After("across"), skew_ms=200),
        OnService(name="start", kind="start-nats", at=After("kill"), skew_ms=1000),
    )
    cluster.wait("the start of NATS", lambda seen: seen.done("start"), within_s=figures.ready_within_s)
    until_over(cluster, "across", within_s=figures.story_within_s)
    cluster.do(Submit(name="after"))
    until_over(cluster, "after", within_s=figures.story_within_s)
    expect_completed(cluster, "across", "after")
