"""The counting engine: a worker of our own whose tokens tell request and position (`worker.py`, run by path)."""

from __future__ import annotations

from pathlib import Path

from ftmodel.engines import Engine
from ftmodel.systems import MetricRow, Pattern

_TARGET = "counting"


def _count(text: str) -> int:
    """Words are ASCII, four characters a token; in the other scripts each byte of a character is a token."""
    return len(text) // 4 if text.isascii() else len(text.encode())


ENGINE = Engine(
    name="counting",
    module=str(Path(__file__).with_name("worker.py")),
    arguments=(
        "--model-path",
        "{model}",
        "--model-name",
        "{name}",
        "--migration-limit",
        "{migration_limit}",
        "--armed",
        "{armed}",
        "--pace-ms",
        "{pace_ms}",
        "--prefill-ms",
        "{prefill_ms}",
        "--slots",
        "{slots}",
    ),
    options={"pace_ms": 5.0, "prefill_ms": 5.0, "slots": 256},
    patterns=(
        Pattern(
            role="worker",
            meaning="begun",
            text="Decode Request ID: ",
            target=_TARGET,
            keep=("position", "max_tokens", "prompt_tokens", "n"),
        ),
        Pattern(role="worker", meaning="ended", text="Ended Request ID: ", target=_TARGET, keep=("tokens", "reason")),
        Pattern(role="worker", meaning="aborted", text="Aborted Request ID: ", target=_TARGET, keep=("tokens",)),
        Pattern(role="worker", meaning="failed", text="Failed Request ID: ", target=_TARGET, keep=("error",)),
        Pattern(role="worker", meaning="armed-death", text="Armed death Request ID: ", target=_TARGET),
    ),
    metrics=(
        MetricRow(role="worker", name="running", metric="vllm:num_requests_running"),
        MetricRow(role="worker", name="waiting", metric="vllm:num_requests_waiting"),
        MetricRow(role="worker", name="kv", metric="vllm:kv_cache_usage_perc"),
    ),
    slots=256,
    exact_text=True,
    token_chars=0,
    count=_count,
    engine_ids=True,
    arms=True,
)
