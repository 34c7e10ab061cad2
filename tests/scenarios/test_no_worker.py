"""A request for which there is no worker at all: a status that says so, and service again as soon as there is one."""

from __future__ import annotations

import itertools

import pytest
from classic import Figures, expect_completed, of_real_processes, on_mockers, until_over, until_ready

from ftmodel.evidence import Evidence
from ftmodel.steps import Gone, Slot, StartWorker, StopWorker, Submit
from ftmodel.testing import Cluster

pytestmark = [*of_real_processes, pytest.mark.ftmodel(workers=1, known_issues="known_issues.toml")]

NOT_HERE = (404, 503)
"""The model is not known, or there is no usable service (fault-tolerance/request-rejection): no failure, and no answer."""


@on_mockers
def test_without_a_worker_the_status_says_so_and_a_new_worker_serves(cluster: Cluster, figures: Figures) -> None:
    cluster.do(StopWorker(name="stop", worker=Slot(1)))
    cluster.wait("the end of the only worker", lambda seen: seen.exited("w1"), within_s=10)
    cluster.wait(
        "an empty list that was asked for since", is_empty, within_s=cluster.evidence.setting.bounds.list_bound_s
    )
    requests = [f"r{n}" for n in range(1, 5)]
    kinds = itertools.product(("completion", "chat"), (True, False))
    for name, (api, stream) in zip(requests, kinds, strict=True):
        cluster.do(Submit(name=name, api=api, stream=stream))
    until_over(cluster, *requests, within_s=10)
    cluster.do(StartWorker(name="start", slot=1, at=Gone("stop")))
    until_ready(cluster, "start", within_s=figures.ready_within_s)
    cluster.do(Submit(name="after"))
    until_over(cluster, "after", within_s=figures.story_within_s)
    expect_completed(cluster, "after")
    statuses = {name: cluster.evidence.status(name) for name in requests}
    assert set(statuses.values()) <= set(NOT_HERE), statuses


def is_empty(seen: Evidence) -> bool:
    """The frontend's list, asked for after the worker had ended, has no worker, and the model is gone from its own."""
    ended, listed = seen.exited("w1"), seen.listed()
    assert ended is not None
    return listed is not None and listed.at.before_s > ended.at.after_s and not listed.titles and not listed.models
