"""The wording of Dynamo's logs and metrics, by release. Checked on every run by a control and a calibration run."""

from __future__ import annotations

from typing import Final

from ftmodel.systems import Dialect, MetricRow, Pattern

_MIGRATION: Final = "dynamo_llm::migration"
_HANDLER: Final = "push_handler"

_COMMON: Final = (
    Pattern(role="worker", meaning="arrived", text="request received", target=_HANDLER, keep=("instance_id",)),
    Pattern(role="worker", meaning="finished", text="request completed", target=_HANDLER),
    # Kill, mostly; 1.6 has sent Stop for an answer that was not streamed. Either is documented to end a request.
    Pattern(role="frontend", meaning="kill", text="issued control message", id_field=None, keep=("control_msg",)),
    Pattern(role="frontend", meaning="client-gone", text="closed unexpectedly; issuing cancellation", id_field=None),
    Pattern(role="frontend", meaning="selected", text="Selected worker", keep=("worker_id",)),
    Pattern(role="frontend", meaning="migrating", text="Stream disconnected, recreating stream", keep=("error",)),
    Pattern(
        role="frontend", meaning="retrying", text="Creating new stream, retrying", target=_MIGRATION, keep=("error",)
    ),
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

DIALECTS: Final = (
    Dialect(
        since=(1, 4),
        until=(1, 5),
        patterns=_COMMON,
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
            Pattern(role="worker", meaning="signalled", text="request cancellation received"),
        ),
        metrics=(*_FRONTEND_METRICS, *_WORKER_METRICS),
    ),
)
