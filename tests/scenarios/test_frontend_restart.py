"""A frontend is replaced while its workers stay up."""

from __future__ import annotations

import pytest
from classic import Figures, expect_completed, of_real_processes, on_mockers, until_over, until_ready

from ftmodel.steps import Gone, KillFrontend, StartFrontend, StopFrontend, Submit, Token
from ftmodel.testing import Cluster

pytestmark = [*of_real_processes, pytest.mark.ftmodel(workers=2, known_issues="known_issues.toml")]


@on_mockers
def test_a_frontend_that_is_stopped_finishes_its_stream_and_its_successor_serves(
    cluster: Cluster, figures: Figures
) -> None:
    cluster.do(
        Submit(name="open", max_tokens=200),
        StopFrontend(name="stop", at=Token("open", 20)),
        StartFrontend(name="start", at=Gone("stop")),
    )
    until_over(cluster, "open", within_s=figures.story_within_s)
    until_ready(cluster, "start", within_s=figures.ready_within_s)
    cluster.do(Submit(name="after", max_tokens=50))
    until_over(cluster, "after", within_s=figures.story_within_s)
    expect_completed(cluster, "open", "after")


@on_mockers
def test_a_frontend_that_is_killed_leaves_no_work_behind_and_its_successor_serves(
    cluster: Cluster, figures: Figures
) -> None:
    cluster.do(
        Submit(name="open", max_tokens=figures.story_tokens),
        KillFrontend(name="kill", at=Token("open", 20)),
        StartFrontend(name="start", at=Gone("kill")),
    )
    until_over(cluster, "open", within_s=figures.story_within_s)
    until_ready(cluster, "start", within_s=figures.ready_within_s)
    cluster.do(Submit(name="after", max_tokens=50))
    until_over(cluster, "after", within_s=figures.story_within_s)
    expect_completed(cluster, "after")
    assert "open" not in cluster.judge().completed
