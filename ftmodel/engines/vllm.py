"""vLLM, on a GPU or a CPU. Its worker is started by exec; the engine runs in processes below it.

The model is made on the spot, unless the topology names one of the Hugging Face hub (or a folder). What it says is not
judged: with the model that is made each token has four characters, so answers are counted; with any other model not
even that is sure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ftmodel.engines import Device, Engine, hub
from ftmodel.engines.model import add_weights, make_model
from ftmodel.systems import MetricRow, Pattern

OWN_MODEL = "tiny"
"""The name of the model that is made on the spot."""


def _model(name: str, folder: Path, options: Mapping[str, float | str]) -> Path:
    if name == OWN_MODEL:
        return add_weights(make_model(folder))
    return hub.fetch(name, weights=options.get("load_format") != "dummy")


def _adapt(engine: Engine, model: str) -> Engine:
    """With another model a token may have any text: each piece of a stream is taken for one, which is the least."""
    if model == OWN_MODEL:
        return engine
    return dataclasses.replace(engine, token_chars=0, count=bool, stop=None)


ENGINE = Engine(
    name="vllm",
    module="dynamo.vllm",
    arguments=(
        "--model",
        "{model}",
        "--served-model-name",
        "{name}",
        "--enforce-eager",
        "--max-model-len",
        "{max_model_len}",
        "--load-format",
        "{load_format}",
        "--max-num-seqs",
        "{slots}",
    ),
    limit_arguments=("--migration-limit", "{migration_limit}"),
    options={
        "device": "auto",
        "max_model_len": 8192,
        "gpu_memory_utilization": 0.45,
        "kv_cache_gib": 1.0,
        "threads": 1,
        "slots": 128,
        "load_format": "auto",
    },
    choices={"device": ("auto", "cpu", "gpu"), "load_format": ("auto", "dummy")},
    env={
        "DYN_LOG": "debug,h2=info,hyper=info,tower=info,mio=info",  # the lines that tell of a request are of level debug
        "DYN_EVENT_PLANE": "zmq",
        "DYN_VLLM_KV_EVENT_PORT": "{port1}",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": "{port2}",
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_NO_USAGE_STATS": "1",
        # What is compiled at the first request of a kind takes 20 s; so each example finds what an earlier one has made.
        "VLLM_CACHE_ROOT": "{shared}/vllm",
        "TORCHINDUCTOR_CACHE_DIR": "{shared}/inductor",
        "TRITON_CACHE_DIR": "{shared}/triton",
    },
    ports=2,
    devices={
        "cpu": Device(
            arguments=("--dtype", "bfloat16"),
            env={
                "VLLM_CPU_KVCACHE_SPACE": "{kv_cache_gib}",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": "{threads}",
            },
        ),
        "gpu": Device(
            arguments=("--gpu-memory-utilization", "{gpu_memory_utilization}"),
            env={
                "VLLM_USE_FLASHINFER_SAMPLER": "0",
                "GLOO_SOCKET_IFNAME": "lo",
                "NCCL_SOCKET_IFNAME": "lo",
            },
        ),
    },
    patterns=(
        Pattern(role="worker", meaning="begun", text="Decode Request ID: ", id_field=""),
        Pattern(role="worker", meaning="begun", text="New Request ID: ", id_field=""),  # 0.5
        Pattern(role="worker", meaning="aborting", text="Aborting Request ID: ", id_field=""),
        Pattern(role="worker", meaning="aborted", text="Aborted Request ID: ", id_field=""),
        # A request is over, whichever way: an end of its own, unless an abort was told before. The runtime's word for it
        # comes too early at times: before the abort of a request whose client left before its first token.
        Pattern(
            role="worker",
            meaning="ended",
            text="[DECODE] request: ",
            also="generate - total elapsed",
            id_field="",
            since=(1, 1),
            unless=("aborting", "aborted"),
        ),
        Pattern(
            role="worker",
            meaning="ended",
            text="request completed",
            target="push_handler",
            until=(1, 1),
            unless=("aborting", "aborted"),
        ),
    ),
    metrics=(
        MetricRow(role="worker", name="running", metric="vllm:num_requests_running"),
        MetricRow(role="worker", name="waiting", metric="vllm:num_requests_waiting"),
        MetricRow(role="worker", name="kv", metric="vllm:kv_cache_usage_perc"),
    ),
    slots=128,
    exact_text=False,
    token_chars=4,
    count=lambda text: len(text) // 4,
    engine_ids=True,
    arms=False,
    guides=True,
    context_tokens=8192,
    stop=lambda _key, _position: " q",  # words follow each other by the alphabet: it comes, or not, as for any engine
    forks=False,
    boot_bound_s=240.0,
    alone=True,
    workers_most=2,
    own_health=True,
    parts={"engine": "VLLM::EngineCor", "rank": "VLLM::Worker"},
    model=_model,
    adapt=_adapt,
)
