"""What the classic scenarios share: where they are played, their figures, and what the original looks for in the logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest

from ftmodel.evidence import Evidence
from ftmodel.steps import Api, WorkerRole
from ftmodel.testing import Cluster

STORY_CHARS: Final = len("Tell me a long long long story about yourself?")
CLIENT_TIMEOUT_MS: Final = 1000
"""The original's client waits so long."""
TOLD_WITHIN_S: Final = 2.0
"""From a client's leaving to the lines that tell of it: the judge's abort_bound_s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How long an answer is: the original's figures on vLLM, and scaled for engines that make a token in 5 or 6 ms."""

    story_tokens: int
    """Of an answer that is not over when a client of one second has left, nor two seconds later."""
    story_within_s: float
    """It is whole by then, a migration included."""
    ready_within_s: float
    """A process that is started while the cluster runs has answered by then."""


ORIGINAL: Final = Figures(story_tokens=8000, story_within_s=240, ready_within_s=240)
SCALED: Final = Figures(story_tokens=800, story_within_s=30, ready_within_s=15)


def _on(topology: str, figures: Figures, *marks: pytest.MarkDecorator) -> object:
    return pytest.param(
        figures, id=topology.removesuffix(".toml"), marks=[pytest.mark.ftmodel(topology=topology), *marks]
    )


_FILES: Final = _on("aggregated", SCALED)
_SERVICES: Final = _on("etcd-nats", SCALED, pytest.mark.services)
_COUNTING: Final = _on("counting", SCALED)
_VLLM: Final = _on("vllm", ORIGINAL, pytest.mark.vllm, pytest.mark.gpu_1, pytest.mark.slow)

of_real_processes: Final = (pytest.mark.e2e, pytest.mark.real)
"""What every scenario is marked with."""
on_mockers = pytest.mark.parametrize("figures", [_FILES, _SERVICES])
"""Over files and TCP, and over etcd and NATS."""
on_services = pytest.mark.parametrize("figures", [_SERVICES])
on_disaggregated = pytest.mark.parametrize(
    "figures", [_on("disaggregated-tcp", SCALED), _on("disaggregated", SCALED, pytest.mark.services)]
)
"""A prefill worker reads the prompt, another decodes."""
on_slow_prefill = pytest.mark.parametrize(
    "figures", [_on("disaggregated-tcp", SCALED), _on("slow-prefill.toml", SCALED, pytest.mark.services)]
)
"""To read a prompt takes seconds."""
on_all_engines = pytest.mark.parametrize("figures", [_FILES, _SERVICES, _COUNTING, _VLLM])
"""The counting engine too, of whose text each character is known, and vLLM with the original's figures."""


def expect_completed(cluster: Cluster, *requests: str) -> None:
    """Nothing is violated that is not known, and each of these requests was answered in full, or see `unless_known`."""
    cluster.check()
    for request in requests:
        if request in cluster.judge().completed:
            continue
        unless_known(cluster, request)
        pytest.fail(f"{request} was not answered in full; next less {cluster.folder / 'history.jsonl'}", pytrace=False)


def unless_known(cluster: Cluster, request: str) -> None:
    """Where a known issue befell this request, the test is expected to fail, and says which."""
    judgement = cluster.judge()
    assert cluster.outcome is not None
    for finding in judgement.findings:
        if finding.subject == request and (issue := cluster.outcome.known.get(finding.signature)):
            pytest.xfail(f"{finding.signature}: {finding.message} (known: {issue.reason})")


def until_over(cluster: Cluster, *requests: str, within_s: float) -> None:
    """Wait until the client is done with each of these requests."""
    for request in requests:
        cluster.wait(f"the end of {request}", lambda seen, name=request: seen.over(name), within_s=within_s)


def until_cancelled(cluster: Cluster, request: str, role: WorkerRole = "worker") -> None:
    """Wait until the frontend has told the Kill, and the worker the abort of exactly the id that was new to it."""
    cluster.wait(
        f"the Kill that the frontend sends when the client of {request} has left",
        lambda seen: (over := seen.over(request)) and seen.told("kill", since=over.at),
        within_s=TOLD_WITHIN_S,
    )
    cluster.wait(
        f"the abort of {request} on the {role} on which it was new",
        lambda seen: is_aborted(seen, request, role),
        within_s=TOLD_WITHIN_S,
    )


def is_aborted(seen: Evidence, request: str, role: WorkerRole = "worker") -> bool:
    """The one worker of this role on which the request's id was new has told that it is aborted.

    A mocker says that it was told of the cancel (1.6), or nothing at all (1.4): then its counter stands in, which A1 judges.
    """
    begun = begun_on(seen, request, role)
    if seen.setting.engine_ids:
        meaning = "aborted"
    elif "signalled" in seen.setting.proven:
        meaning = "signalled"
    else:
        return len(begun) == 1
    return len(begun) == 1 and begun == {line.title for line in seen.told(meaning, of=request)} & seen.titles(role)


def begun_on(seen: Evidence, request: str, role: WorkerRole) -> set[str]:
    """The workers of this role to which the request's id was new."""
    return {line.title for line in seen.told("begun", of=request)} & seen.titles(role)


def until_ready(cluster: Cluster, step: str, *, within_s: float) -> None:
    """Wait until the process that this step started has answered, or another through it."""
    cluster.wait(
        f"an answer of what {step} started",
        lambda seen: (done := seen.done(step)) and seen.answers(done.subject),
        within_s=within_s,
    )


def is_migrated(seen: Evidence, request: str) -> bool:
    """The frontend has told that it makes the request's stream anew."""
    return bool(seen.told("migrating", of=request))


CASES: Final[tuple[tuple[str, Api, bool], ...]] = (
    ("completion", "completion", False),
    ("chat", "chat", False),
    ("streamed-chat", "chat", True),
)
"""The original's requests, one after the other: name, API, streamed or not."""
