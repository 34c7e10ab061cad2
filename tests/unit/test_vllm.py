"""The vLLM engine: how its workers are started on what there is, what its lines mean, and what is sure of its tokens."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from ftmodel import engines, systems, topology
from ftmodel.engines import hub, model
from ftmodel.engines.vllm import OWN_MODEL
from ftmodel.errors import UsageError
from ftmodel.systems import Command, Pattern, Place
from ftmodel.targets.real import devices
from ftmodel.targets.real.clock import Clock
from ftmodel.targets.real.logs import LogFile

VLLM = engines.find("vllm")
TOP = topology.find("vllm")
BIG = "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
ID = "447216ac-dcdc-44ca-a20a-81b714a23b3d"
RECEIVED = {"message": "request received", "target": "dynamo_runtime::ingress::push_handler", "request_id": ID}
COMPLETED = {"message": "request completed", "target": "dynamo_runtime::ingress::push_handler", "request_id": ID}
BEGUN = {"message": f"Decode Request ID: {ID}", "target": "log"}
ABORTING = {"message": f"Aborting Request ID: {ID}", "target": "log"}
ABORTED = {"message": f"Aborted Request ID: {ID}", "target": "log"}
FIRST = {"message": f"[DECODE] request: {ID} generate - interval 0.0091 seconds", "target": "log"}
OVER = {"message": f"[DECODE] request: {ID} generate - total elapsed 0.0830 seconds", "target": "log"}
OF_A_CHOICE = {"message": f"Completed token generation for request {ID}: 19 output tokens, finish_reason=length"}


def worker(device: str, release: tuple[int, int] = (1, 6), folder: Path = Path("/scratch/1")) -> Command:
    place = Place(
        python=Path("python3"), scratch=folder, model=Path("/scratch/model-0"), http_port=18000, system_port=19000,
        plane_port=19001, ports=(19002, 19003), shared=Path("/scratch/shared"), device=device,
    )  # fmt: skip
    return systems.find("dynamo").launch("worker", TOP, VLLM, place, 3, release)


def rows(release: tuple[int, int] = (1, 6)) -> tuple[Pattern, ...]:
    spoken = tuple(row for row in VLLM.patterns if row.since <= release < row.until)
    return (*spoken, *(row for row in systems.find("dynamo").dialect((1, 6)).patterns if row.role != "frontend"))


def meanings(folder: Path, *lines: dict[str, Any], release: tuple[int, int] = (1, 6)) -> list[str]:
    path = folder / "w1.log"
    file = LogFile(path, "w1", rows(release), Clock())
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = file.poll()
    assert all(line.id == ID for line in found)
    return [line.meaning for line in found if line.meaning not in ("arrived", "finished")]


def test_a_worker_is_started_by_exec_with_ports_of_its_own_and_the_flags_of_the_classic_tests() -> None:
    command = worker("gpu")
    assert not command.forks
    assert command.module == "dynamo.vllm"
    said = " ".join(command.argv)
    assert "--enforce-eager" in said
    assert "--max-model-len 8192" in said
    assert "--gpu-memory-utilization 0.45" in said
    assert (command.env["DYN_VLLM_KV_EVENT_PORT"], command.env["VLLM_NIXL_SIDE_CHANNEL_PORT"]) == ("19002", "19003")
    assert command.env["DYN_SYSTEM_PORT"] == "19000"
    assert command.env["TORCHINDUCTOR_CACHE_DIR"] == "/scratch/shared/inductor"
    assert "dynamo.vllm" not in systems.find("dynamo").preload(TOP, VLLM)


def test_on_a_cpu_it_gets_its_cache_and_its_threads_and_no_share_of_a_gpu() -> None:
    command = worker("cpu")
    assert command.env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert command.env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert command.env["OMP_NUM_THREADS"] == "1"
    assert "--gpu-memory-utilization" not in command.argv
    assert command.argv[command.argv.index("--dtype") + 1] == "bfloat16"


def test_a_request_that_ends_by_itself_is_told_once_however_many_choices_it_has(tmp_path: Path) -> None:
    lines = (RECEIVED, BEGUN, FIRST, OF_A_CHOICE, OF_A_CHOICE, COMPLETED, OVER)
    assert meanings(tmp_path, *lines) == ["begun", "ended"]


def test_an_aborted_request_has_no_other_end_though_the_runtime_calls_it_completed_first(tmp_path: Path) -> None:
    early = (RECEIVED, BEGUN, FIRST, COMPLETED, ABORTING, ABORTED, OVER)
    late = (RECEIVED, BEGUN, FIRST, ABORTING, OF_A_CHOICE, ABORTED, COMPLETED, OVER)
    assert meanings(tmp_path, *early) == meanings(tmp_path, *late) == ["begun", "aborting", "aborted"]


def test_a_request_that_comes_back_to_its_worker_has_an_end_of_its_own_each_time(tmp_path: Path) -> None:
    lines = (BEGUN, FIRST, ABORTING, ABORTED, OVER, BEGUN, FIRST, OVER)
    assert meanings(tmp_path, *lines) == ["begun", "aborting", "aborted", "begun", "ended"]


def test_releases_that_do_not_time_a_request_tell_its_end_by_the_runtime(tmp_path: Path) -> None:
    assert meanings(tmp_path, RECEIVED, BEGUN, COMPLETED, release=(1, 0)) == ["begun", "ended"]
    assert meanings(tmp_path, RECEIVED, BEGUN, ABORTED, COMPLETED, release=(0, 9)) == ["begun", "aborted"]


def test_tokens_are_counted_with_the_model_that_is_made_and_with_no_other() -> None:
    own = engines.of(TOP)
    assert own is VLLM
    assert (own.token_chars, own.count(" abc def")) == (4, 2)
    assert not own.exact_text
    big = engines.of(dataclasses.replace(TOP, model=BIG))
    assert (big.token_chars, big.count("any piece of text"), big.count("")) == (0, 1, 0)
    assert big.stop is None


def test_its_own_model_is_made_with_weights_and_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert VLLM.model is not None
    made = VLLM.model(OWN_MODEL, tmp_path / "made", VLLM.options)
    assert {path.name for path in made.iterdir()} >= {"config.json", "tokenizer.json", "model.safetensors"}
    assert VLLM.model(str(tmp_path), tmp_path / "other", VLLM.options) == tmp_path
    assert not (tmp_path / "other").exists()


def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, here: bool) -> list[dict[str, Any]]:
    """What the hub's library is asked, where the model is in the cache, or there is no network."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(name: str, **settings: Any) -> str:
        asked.append({"name": name, **settings})
        if here:
            return str(tmp_path)
        raise LocalEntryNotFoundError("no such snapshot, and the hub is not reached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_a_model_of_the_hub_that_is_cached_needs_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = cached(monkeypatch, tmp_path, here=True)
    assert hub.fetch(BIG, weights=True) == tmp_path
    assert [ask["local_files_only"] for ask in asked] == [True]


def test_weights_are_not_loaded_where_the_engine_makes_them_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = cached(monkeypatch, tmp_path, here=True)
    hub.fetch(BIG, weights=False)
    assert "*.safetensors" in asked[0]["ignore_patterns"]


def test_offline_the_message_names_the_model_and_ends_in_the_command_that_loads_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cached(monkeypatch, tmp_path, here=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError) as told:
        hub.fetch(BIG, weights=True)
    assert str(told.value).startswith(f"model {BIG}: not in the cache, and not loaded (HF_HUB_OFFLINE is set)")
    assert str(told.value).endswith(f"try: HF_HUB_OFFLINE=0 hf download {BIG}")


def test_what_is_no_name_of_the_hub_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a folder, or a name of the hub"):
        hub.fetch("a/b/c", weights=True)


def test_a_gpu_is_found_by_its_device(tmp_path: Path) -> None:
    assert not devices.has_gpu(tmp_path)
    for name in ("nvidia-uvm", "nvidiactl", "nvme0"):
        (tmp_path / name).touch()
    assert not devices.has_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert devices.has_gpu(tmp_path)


def test_each_id_is_followed_by_one_word_and_all_words_come_before_one_comes_again() -> None:
    said = [model.successor(ord("\n"))]
    while len(said) < model.WORDS:
        said.append(model.successor(said[-1]))
    assert set(said) == set(range(model.BYTES, model.VOCABULARY))
    assert model.successor(said[-1]) == said[0]
    assert len({model.successor(byte) for byte in range(model.BYTES)}) == model.BYTES


def test_the_word_that_follows_is_far_ahead_of_all_others() -> None:
    codes = model._codes()
    scale = model.HIDDEN**0.5
    head = [[0.0] * model.HIDDEN for _ in codes]
    for token_id in range(model.VOCABULARY):
        row = head[model.successor(token_id)]
        head[model.successor(token_id)] = [a + b for a, b in zip(row, codes[token_id], strict=True)]
    for token_id in (0, ord("\n"), ord(":"), 255, 256, 1000, 2171, 4095):
        code = codes[token_id]
        norm = sum(value * value for value in code) ** 0.5
        scores = [scale * sum(a * b for a, b in zip(code, row, strict=True)) / norm for row in head]
        best, second = sorted(scores, reverse=True)[:2]
        assert scores.index(best) == model.successor(token_id)
        assert best - second > 15


def test_the_weights_are_those_that_the_configuration_asks_for_and_never_vary(tmp_path: Path) -> None:
    first = model.add_weights(model.make_model(tmp_path / "a")) / "model.safetensors"
    second = model.add_weights(model.make_model(tmp_path / "b")) / "model.safetensors"
    assert first.read_bytes() == second.read_bytes()
    data = first.read_bytes()
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    assert {name: tuple(row["shape"]) for name, row in head.items()} == dict(model.weights())
    assert max(row["data_offsets"][1] for row in head.values()) == len(data) - 8 - length
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert head["lm_head.weight"]["shape"] == [config["vocab_size"], config["hidden_size"]]
