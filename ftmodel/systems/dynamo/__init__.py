"""NVIDIA Dynamo: an HTTP frontend that routes to workers, which it finds through files, etcd or NATS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ftmodel.systems import System
from ftmodel.systems.dynamo.dialect import DIALECTS
from ftmodel.systems.dynamo.documents import DOCUMENTS
from ftmodel.systems.dynamo.launch import PRELOAD_ENV, launch, preload, refuses, served
from ftmodel.systems.dynamo.promises import promises

ENDPOINT: Final = "generate"
"""The endpoint of a worker that serves requests; workers list others beside it."""


def instances(answer: Mapping[str, object]) -> tuple[str, ...]:
    """Instance ids of the serving endpoints, in decimal, from the answer of /health."""
    rows = answer.get("instances")
    listed = rows if isinstance(rows, list) else []
    return tuple(str(row["instance_id"]) for row in listed if row.get("endpoint") == ENDPOINT)


def identity(metrics: str) -> str | None:
    """The instance id, in decimal: the hex label worker_id that a worker's own metrics bear since 1.1."""
    _, found, rest = metrics.partition('worker_id="')
    return str(int(rest.partition('"')[0], 16)) if found else None


SYSTEM = System(
    name="dynamo",
    distribution="ai-dynamo",
    needs_modules=("dynamo.frontend.main", "dynamo.mocker.main"),
    promises=promises,
    dialects=DIALECTS,
    served=served,
    launch=launch,
    refuses=refuses,
    preload=preload,
    preload_env=PRELOAD_ENV,
    instances=instances,
    identity=identity,
    list_path="/health",
    models_path="/v1/models",
    metrics_path="/metrics",
    health_path="/health",
    live_path="/live",
    request_id_header="x-dynamo-request-id",
    documents=DOCUMENTS,
)
