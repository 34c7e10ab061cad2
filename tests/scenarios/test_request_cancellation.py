"""A client leaves, and the engine stops: the classic scenario, and clients that close their socket at a token."""

from __future__ import annotations

import pytest
from classic import (
    CASES,
    CLIENT_TIMEOUT_MS,
    STORY_CHARS,
    Figures,
    begun_on,
    expect_completed,
    of_real_processes,
    on_all_engines,
    on_disaggregated,
    on_slow_prefill,
    unless_known,
    until_cancelled,
    until_over,
)

from ftmodel.steps import Begun, Cancel, Sent, Submit, Token
from ftmodel.testing import Cluster

LONG_PROMPT_CHARS = 1000
"""To read so many takes a slow prefill worker some seconds."""

pytestmark = [
    *of_real_processes,
    pytest.mark.ftmodel(workers=1, known_issues="known_issues.toml"),
]


@on_all_engines
def test_request_cancellation_vllm(cluster: Cluster, figures: Figures) -> None:
    for name, api, stream in CASES:
        cluster.do(
            Submit(name=name, api=api, stream=stream, prompt_chars=STORY_CHARS, max_tokens=figures.story_tokens),
            Cancel(name=f"leave-{name}", request=name, how="timeout", at=Sent(name), skew_ms=CLIENT_TIMEOUT_MS),
        )
        until_over(cluster, name, within_s=2 * CLIENT_TIMEOUT_MS / 1000)
        until_cancelled(cluster, name)
    cluster.check()
    assert cluster.judge().requests["cancelled"] == len(CASES)


@on_all_engines
def test_closing_the_socket_at_a_token_cancels(cluster: Cluster, figures: Figures) -> None:
    cases = [("chat-at-1", "chat", 1), ("completion-at-20", "completion", 20), ("chat-at-100", "chat", 100)]
    for name, api, k in cases:
        cluster.do(
            Submit(name=name, api=api, max_tokens=figures.story_tokens),
            Cancel(name=f"leave-{name}", request=name, at=Token(name, k)),
        )
        until_over(cluster, name, within_s=figures.story_within_s)
        until_cancelled(cluster, name)
    cluster.check()
    assert cluster.judge().requests["cancelled"] == len(cases)


@on_all_engines
def test_of_two_requests_on_one_worker_one_is_cancelled_and_one_is_kept(cluster: Cluster, figures: Figures) -> None:
    cluster.do(
        Submit(name="kept", max_tokens=figures.story_tokens),
        Submit(name="left", max_tokens=figures.story_tokens, at=Token("kept", 1)),
        Cancel(name="leave", request="left", at=Token("left", 50)),
    )
    until_over(cluster, "left", within_s=figures.story_within_s)
    until_cancelled(cluster, "left")
    until_over(cluster, "kept", within_s=figures.story_within_s)
    expect_completed(cluster, "kept")
    assert cluster.judge().requests["cancelled"] == 1


@on_disaggregated
@pytest.mark.ftmodel(workers=1, prefill_workers=1)
def test_request_cancellation_vllm_decode(cluster: Cluster, figures: Figures) -> None:
    cluster.do(
        Submit(name="left", prompt_chars=STORY_CHARS, max_tokens=figures.story_tokens),
        Cancel(name="leave", request="left", at=Token("left", 20)),
    )
    until_over(cluster, "left", within_s=figures.story_within_s)
    until_cancelled(cluster, "left")
    cluster.check()
    assert len(begun_on(cluster.evidence, "left", "prefill")) == 1
    assert cluster.judge().requests["cancelled"] == 1


@on_slow_prefill
@pytest.mark.ftmodel(workers=1, prefill_workers=1)
def test_request_cancellation_vllm_prefill(cluster: Cluster, figures: Figures) -> None:
    """Documented: with a request those are cancelled that it has made further down, so decoding never begins."""
    cluster.do(
        Submit(name="left", prompt_chars=LONG_PROMPT_CHARS, max_tokens=figures.story_tokens),
        Cancel(name="leave", request="left", at=Begun("left"), skew_ms=500),
    )
    until_over(cluster, "left", within_s=figures.story_within_s)
    cluster.check()
    unless_known(cluster, "left")
    until_cancelled(cluster, "left", "prefill")
    assert cluster.evidence.status("left") is None
    assert begun_on(cluster.evidence, "left", "worker") == set()
