"""All workers are replaced, one by one, under load, and no request fails."""

from __future__ import annotations

import pytest
from classic import Figures, expect_completed, of_real_processes, on_mockers, until_over, until_ready

from ftmodel.steps import After, Gone, Slot, StartWorker, StopWorker, Submit, Token
from ftmodel.testing import Cluster

WORKERS = 3
BEFORE = 6
"""Requests that are open when a worker is asked to stop: two on each."""
SINCE = 10
"""Requests that follow, one each 50 ms."""

pytestmark = [*of_real_processes, pytest.mark.ftmodel(workers=WORKERS, known_issues="known_issues.toml")]


@on_mockers
def test_a_rolling_restart_of_all_workers_under_load_fails_no_request(cluster: Cluster, figures: Figures) -> None:
    requests = []
    for slot in range(1, WORKERS + 1):
        before = [f"before-{slot}-{n}" for n in range(BEFORE)]
        since = [f"since-{slot}-{n}" for n in range(SINCE)]
        cluster.do(
            *(Submit(name=name, max_tokens=200, stream=n % 2 == 0) for n, name in enumerate(before)),
            StopWorker(name=f"stop-{slot}", worker=Slot(slot), at=Token(before[-2], 20)),
            *(
                Submit(name=name, max_tokens=50, stream=n % 2 == 0, at=After(f"stop-{slot}"), skew_ms=50 * n)
                for n, name in enumerate(since)
            ),
            StartWorker(name=f"start-{slot}", slot=slot, at=Gone(f"stop-{slot}")),
        )
        until_ready(cluster, f"start-{slot}", within_s=figures.story_within_s)
        requests += before + since
    until_over(cluster, *requests, within_s=figures.story_within_s)
    expect_completed(cluster, *requests)
    held = {line.title for name in requests for line in cluster.evidence.told("begun", of=name)}
    assert held == {f"w{slot}" for slot in range(1, WORKERS + 1)} | {f"w{slot}-2" for slot in range(1, WORKERS)}
