"""What differs from release to release of Dynamo: the wording of logs and metrics, and how a process is started.

The wording is checked on every run by a control and a calibration run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ftmodel.systems import Dialect, MetricRow, Pattern

_MIGRATION: Final = "dynamo_llm::migration"
_HANDLER: Final = "push_handler"

_MOVES: Final = (
    Pattern(role="frontend", meaning="migrating", text="Stream disconnected, recreating stream", keep=("error",)),
    Pattern(
        role="frontend", meaning="retrying", text="Creating new stream, retrying", target=_MIGRATION, keep=("error",)
    ),
)
_MOVES_BEFORE_1_3: Final = (  # the error follows in the message
    Pattern(role="frontend", meaning="migrating", text="Stream disconnected... recreating stream"),
    Pattern(role="frontend", meaning="retrying", text="Creating new stream... retrying", target=_MIGRATION),
)

_COMMON: Final = (
    Pattern(role="worker", meaning="arrived", text="request received", target=_HANDLER, keep=("instance_id",)),
    Pattern(role="worker", meaning="finished", text="request completed", target=_HANDLER),
    # Kill, mostly; 1.6 has sent Stop for an answer that was not streamed. Either is documented to end a request.
    Pattern(role="frontend", meaning="kill", text="issued control message", id_field=None, keep=("control_msg",)),
    Pattern(role="frontend", meaning="client-gone", text="closed unexpectedly; issuing cancellation", id_field=None),
    Pattern(role="frontend", meaning="selected", text="Selected worker", keep=("worker_id",)),
    Pattern(role="frontend", meaning="given-up", text="Migration limit exhausted", keep=("error",)),
    Pattern(role="frontend", meaning="given-up", text="Cannot recreate stream", keep=("error",)),
    Pattern(role="any", meaning="panic", text="panicked at", id_field=None),
    Pattern(role="any", meaning="traceback", text="Traceback (most recent call last)", id_field=None),
    Pattern(role="any", meaning="assertion", text="AssertionError", id_field=None),
    Pattern(role="any", meaning="assertion", text="assertion failed", id_field=None),
)

_REQUESTS: Final = "dynamo_frontend_requests_total"
_FRONTEND_METRICS: Final = (
    MetricRow(role="frontend", name="inflight", metric="dynamo_frontend_inflight_requests"),
    MetricRow(role="frontend", name="queued", metric="dynamo_frontend_queued_requests"),
    MetricRow(role="frontend", name="plane_inflight", metric="dynamo_request_plane_inflight_requests"),
    MetricRow(role="frontend", name="disconnected", metric="dynamo_frontend_disconnected_clients"),
    MetricRow(role="frontend", name="cancellations", metric="dynamo_frontend_model_cancellation_total"),
    MetricRow(role="frontend", name="migrations", metric="dynamo_frontend_model_migration_total"),
    MetricRow(role="frontend", name="started", metric="dynamo_frontend_requests_started_total"),
    MetricRow(role="frontend", name="success", metric=_REQUESTS, labels={"status": "success"}),
    MetricRow(role="frontend", name="failed", metric=_REQUESTS, labels={"status": "error"}),
    MetricRow(role="frontend", name="cancelled", metric=_REQUESTS, labels={"error_type": "cancelled"}),
    MetricRow(role="frontend", name="not_found", metric=_REQUESTS, labels={"error_type": "not_found"}),
    # With the kv router alone.
    MetricRow(role="frontend", name="router_blocks", metric="dynamo_frontend_worker_active_decode_blocks"),
    MetricRow(role="frontend", name="router_prefill", metric="dynamo_frontend_worker_active_prefill_tokens"),
    MetricRow(role="frontend", name="context", metric="dynamo_frontend_model_context_length"),
    MetricRow(role="frontend", name="max_seqs", metric="dynamo_frontend_model_max_num_seqs"),
    *(
        MetricRow(
            role="frontend",
            name=f"cancellations_{api}_{type_}",
            metric="dynamo_frontend_model_cancellation_total",
            labels={"endpoint": endpoint, "request_type": type_},
        )
        for api, endpoint in (("completion", "completions"), ("chat", "chat_completions"))
        for type_ in ("stream", "unary")
    ),
)

_GENERATE: Final = {"dynamo_endpoint": "generate"}
_WORKER_METRICS: Final = (
    MetricRow(role="worker", name="inflight", metric="dynamo_component_inflight_requests", labels=_GENERATE),
    MetricRow(role="worker", name="cancellations", metric="dynamo_component_cancellation_total", labels=_GENERATE),
)

_NO_FILES: Final = "discovery over files and requests over TCP"
_NO_IDENTITY: Final = (
    "workers that start without NATS, and whose metrics bear their worker_id, by which those on the list are told apart"
)

DIALECTS: Final = (
    Dialect(since=(0, 5), until=(0, 7), lacks=_NO_FILES),
    Dialect(since=(0, 7), until=(1, 1), lacks=_NO_IDENTITY),
    Dialect(
        since=(1, 1),
        until=(1, 3),
        patterns=(*_COMMON, *_MOVES_BEFORE_1_3),
        metrics=(*_FRONTEND_METRICS, *_WORKER_METRICS),
    ),
    Dialect(
        since=(1, 3),
        until=(1, 5),
        patterns=(*_COMMON, *_MOVES),
        metrics=(
            *_FRONTEND_METRICS,
            *_WORKER_METRICS,
            MetricRow(role="frontend", name="active", metric="dynamo_frontend_active_requests"),
        ),
    ),
    Dialect(
        since=(1, 5),
        until=(1, 7),
        patterns=(
            *_COMMON,
            *_MOVES,
            Pattern(role="worker", meaning="signalled", text="request cancellation received"),
        ),
        metrics=(*_FRONTEND_METRICS, *_WORKER_METRICS),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """How the processes of a range of releases, [since, until), are started, where that differs."""

    since: tuple[int, int]
    until: tuple[int, int]
    own_names: bool = True
    """A model can have a name of its own; else a frontend takes one for a model of the Hugging Face hub."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment of every process."""


# The name of an interface up to 1.4; with an address there, the list of models stays empty for ever.
_INTERFACE: Final = {"DYN_TCP_RESPONSE_STREAM_HOST": "lo"}

MEANS: Final = (
    Means(since=(0, 0), until=(1, 4), own_names=False, env=_INTERFACE),
    Means(since=(1, 4), until=(1, 5), env=_INTERFACE),
    Means(since=(1, 5), until=(99, 0), env={"DYN_TCP_RESPONSE_STREAM_HOST": "127.0.0.1"}),
)


def means(release: tuple[int, int]) -> Means:
    """How a release, e.g. (1, 4), is started."""
    return next(row for row in MEANS if row.since <= release < row.until)
