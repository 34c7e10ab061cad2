"""The counting engine: a worker of our own whose tokens tell request and position (`worker.py`, run by path)."""

from __future__ import annotations

from pathlib import Path

from ftmodel.engines import Engine
from ftmodel.engines.counting.worker import DEFECTS, stop_text
from ftmodel.engines.model import CONTEXT_TOKENS
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
        "--defect",
        "{defect}",
        "--defect-every",
        "{defect_every}",
    ),
    options={"pace_ms": 5.0, "prefill_ms": 5.0, "slots": 256, "defect": "none", "defect_every": 1},
    choices={"defect": ("none", *DEFECTS)},
    patterns=(
        # Of what it is asked for it makes the first token, whatever is left.
        Pattern(role="prefill", meaning="begun", text="Prefill Request ID: ", target=_TARGET, keep=("position",)),
        Pattern(
            role="worker",
            meaning="begun",
            text="Decode Request ID: ",
            target=_TARGET,
            keep=("position", "max_tokens", "prompt_tokens", "n", "min_tokens", "stop"),
        ),
        Pattern(role="worker", meaning="ended", text="Ended Request ID: ", target=_TARGET, keep=("tokens", "reason")),
        Pattern(role="worker", meaning="aborted", text="Aborted Request ID: ", target=_TARGET, keep=("tokens",)),
        Pattern(role="worker", meaning="failed", text="Failed Request ID: ", target=_TARGET, keep=("error",)),
        Pattern(role="worker", meaning="armed-death", text="Armed death Request ID: ", target=_TARGET),
        Pattern(  # of the other orders; the row above has the first say
            role="worker", meaning="armed-error", text="Armed ", target=_TARGET, keep=("how", "position")
        ),
    ),
    metrics=(
        MetricRow(role="worker", name="running", metric="vllm:num_requests_running"),
        MetricRow(role="worker", name="waiting", metric="vllm:num_requests_waiting"),
        MetricRow(role="worker", name="kv", metric="vllm:kv_cache_usage_perc"),
    ),
    slots=256,
    exact_text=True,
    context_tokens=CONTEXT_TOKENS,
    token_chars=0,
    count=_count,
    engine_ids=True,
    arms=True,
    stop=lambda key, position: stop_text(key.encode(), position),
)
