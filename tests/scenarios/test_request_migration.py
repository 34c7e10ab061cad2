"""A request outlives its worker: the classic scenario, a kill at a token, a worker that is stopped, and the limit."""

from __future__ import annotations

import pytest
from classic import (
    STORY_CHARS,
    Figures,
    expect_completed,
    is_migrated,
    of_real_processes,
    on_all_engines,
    unless_known,
    until_over,
)

from ftmodel.steps import After, End, HolderOf, KillWorker, Sent, StopWorker, Submit, Token, VictimOf
from ftmodel.testing import Cluster

pytestmark = [
    *of_real_processes,
    pytest.mark.ftmodel(workers=2, migration_limit=3, known_issues="known_issues.toml"),
]


@on_all_engines
def test_request_migration_vllm(cluster: Cluster, figures: Figures) -> None:
    cluster.do(
        Submit(name="who", stream=False, max_tokens=100),
        Submit(name="story", stream=False, prompt_chars=STORY_CHARS, max_tokens=figures.story_tokens, at=End("who")),
        KillWorker(name="kill", worker=HolderOf("story"), at=Sent("story"), skew_ms=500),
    )
    until_over(cluster, "story", within_s=figures.story_within_s)
    expect_completed(cluster, "who", "story")
    assert is_migrated(cluster.evidence, "story")


@on_all_engines
@pytest.mark.parametrize("k", [1, 50])
def test_a_stream_whose_worker_is_killed_at_token_migrates(cluster: Cluster, figures: Figures, k: int) -> None:
    cluster.do(
        Submit(name="story", max_tokens=figures.story_tokens),
        KillWorker(name="kill", worker=HolderOf("story"), at=Token("story", k)),
    )
    until_over(cluster, "story", within_s=figures.story_within_s)
    expect_completed(cluster, "story")
    assert is_migrated(cluster.evidence, "story")


@on_all_engines
def test_a_stream_outlives_a_worker_that_is_stopped(cluster: Cluster, figures: Figures) -> None:
    """By SIGTERM alone: the worker finishes it, or where its own drain is shorter, another does."""
    cluster.do(
        Submit(name="story", max_tokens=figures.story_tokens),
        StopWorker(name="stop", worker=HolderOf("story"), at=Token("story", 50)),
    )
    until_over(cluster, "story", within_s=figures.story_within_s)
    expect_completed(cluster, "story")


@on_all_engines
def test_a_stream_that_is_longer_than_the_grace_of_its_worker_migrates(cluster: Cluster, figures: Figures) -> None:
    """As an orchestrator does it: SIGTERM, and SIGKILL when the grace is over."""
    cluster.do(
        Submit(name="story", max_tokens=figures.story_tokens),
        StopWorker(name="stop", worker=HolderOf("story"), at=Token("story", 50)),
        KillWorker(name="kill", worker=VictimOf("stop"), at=After("stop"), skew_ms=1000),
    )
    until_over(cluster, "story", within_s=figures.story_within_s)
    expect_completed(cluster, "story")
    assert is_migrated(cluster.evidence, "story")


@on_all_engines
@pytest.mark.ftmodel(workers=2, migration_limit=0)
def test_a_stream_that_may_not_migrate_ends_in_one_error(cluster: Cluster, figures: Figures) -> None:
    cluster.do(
        Submit(name="story", max_tokens=figures.story_tokens),
        KillWorker(name="kill", worker=HolderOf("story"), at=Token("story", 50)),
    )
    until_over(cluster, "story", within_s=figures.story_within_s)
    cluster.check()
    unless_known(cluster, "story")
    assert len(cluster.evidence.errors("story")) == 1
    assert {line.title for line in cluster.evidence.told("begun", of="story")} == {cluster.evidence.hit("kill").title}


@on_all_engines
@pytest.mark.ftmodel(workers=2, migration_limit=1)
def test_a_stream_one_past_the_migration_limit_ends_in_one_error(cluster: Cluster, figures: Figures) -> None:
    cluster.do(
        Submit(name="story", max_tokens=figures.story_tokens),
        KillWorker(name="first", worker=HolderOf("story"), at=Token("story", 50)),
        KillWorker(name="second", worker=HolderOf("story"), at=Token("story", 150)),
    )
    until_over(cluster, "story", within_s=figures.story_within_s)
    cluster.check()
    unless_known(cluster, "story")
    seen = cluster.evidence
    assert is_migrated(seen, "story")
    assert len(seen.errors("story")) == 1
    hits = {seen.hit(step).title for step in ("first", "second")}
    assert {line.title for line in seen.told("begun", of="story")} == hits
