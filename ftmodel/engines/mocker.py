"""The mocker: Dynamo's own simulation of an engine. No GPU; its text differs from run to run, so counts alone are exact."""

from __future__ import annotations

from ftmodel.engines import Engine, Handoff
from ftmodel.systems import MetricRow

ENGINE = Engine(
    name="mocker",
    module="dynamo.mocker.main",
    arguments=(
        "--model-path",
        "{model}",
        "--model-name",
        "{name}",
        "--num-gpu-blocks-override",
        "{blocks}",
    ),
    role_arguments={"worker": ("--speedup-ratio", "{speedup}"), "prefill": ("--speedup-ratio", "{prefill_speedup}")},
    options={"speedup": 1.0, "prefill_speedup": 1.0, "blocks": 16384, "handoff": "bootstrap"},
    choices={"handoff": ("bootstrap", "sequential")},
    # By bootstrap the request goes to both at once, and they find each other; else to decode when it is prefilled.
    handoffs={
        "bootstrap": Handoff(
            prefill=("--disaggregation-mode", "prefill", "--bootstrap-ports", "{port1}"),
            decode=("--disaggregation-mode", "decode"),
            ports=1,
        ),
        "sequential": Handoff(prefill=("--disaggregation-mode", "prefill"), decode=("--disaggregation-mode", "decode")),
    },
    patterns=(),
    metrics=(
        MetricRow(role="worker", name="running", metric="vllm:num_requests_running"),
        MetricRow(role="worker", name="waiting", metric="vllm:num_requests_waiting"),
        MetricRow(role="worker", name="kv", metric="vllm:kv_cache_usage_perc"),
    ),
    slots=256,
    block_tokens=64,  # dynamo.mocker --help: --block-size, as vLLM
    exact_text=False,
    token_chars=4,  # its ids lie among the words of the model directory, which are a space and three letters each
    count=lambda text: len(text) // 4,
    engine_ids=False,
    arms=False,
    stop=lambda _key, _position: " q",  # its text is random: one word in 26 begins so
)
