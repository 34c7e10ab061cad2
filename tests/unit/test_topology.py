"""Topologies are small TOML files; what is wrong in one is told with file, key and what is possible."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ftmodel import engines, services, systems, topology
from ftmodel.errors import TopologyError, UsageError
from ftmodel.steps import SLOTS

PROMISED = (
    "aggregated", "counting", "etcd-nats", "two-frontends", "kv-router", "disaggregated", "disaggregated-tcp",
)  # fmt: skip
"""Presets that everybody may count on, as far as they are built."""
GOOD = {"system": f'"{systems.names()[0]}"', "engine": '"counting"'}


def file(folder: Path, **lines: str) -> Path:
    path = folder / "mine.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in {**GOOD, **lines}.items() if value))
    return path


def said(folder: Path, **lines: str) -> str:
    path = file(folder, **lines)
    with pytest.raises(TopologyError) as told:
        topology.find(str(path))
    assert str(told.value).startswith(f"{path}: ")
    return str(told.value)


def test_the_promised_presets_are_there() -> None:
    assert set(PROMISED) <= set(topology.presets())


@pytest.mark.parametrize("name", topology.presets())
def test_a_preset_loads_says_what_it_is_and_names_what_exists(name: str) -> None:
    found = topology.find(name)
    assert found.name == name
    assert found.about
    assert found.system in systems.names()
    assert found.engine in engines.names()
    assert set(found.workers) <= set(range(1, SLOTS + 1))


def test_a_topology_of_ones_own_is_a_file_named_by_its_path(tmp_path: Path) -> None:
    path = file(tmp_path, workers="[2, 3]", migration_limits="[0]", options="{pace_ms = 20}", http_port="18000")
    found = topology.find(str(path))
    assert found.name == "mine"
    assert found.workers == (2, 3)
    assert found.migration_limits == (0,)
    assert found.options == {"pace_ms": 20}
    assert found.http_port == 18000


@pytest.mark.parametrize("name", ["nonsense", "", "missing.toml", "aggregated.toml.bak", "../topologies/aggregated"])
def test_an_unknown_name_is_told_with_the_presets(name: str) -> None:
    with pytest.raises(TopologyError) as told:
        topology.find(name)
    assert f"topology {name!r}: unknown, expected one of {', '.join(topology.presets())}" in str(told.value)
    assert "ftmodel list topologies" in str(told.value)


def test_an_unknown_key_is_told_with_those_that_exist(tmp_path: Path) -> None:
    told = said(tmp_path, wrokers="[1]")
    assert "key wrokers: unknown" in told
    assert "migration_limits" in told


def test_an_unknown_option_of_the_engine_is_told_with_its_options(tmp_path: Path) -> None:
    told = said(tmp_path, options="{speed = 2}")
    assert "key options.speed: engine counting has none such, expected one of pace_ms, prefill_ms, slots" in told


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("engine", '"steam"', ", ".join(engines.names())),
        ("system", '"nonsense"', ", ".join(systems.names())),
        ("system", "", "required"),
        ("target", '"imagined"', "'real'"),
        ("router_mode", '"sideways"', "'round-robin', 'random'"),
        ("workers", '"two"', "tuple"),
        ("workers", "[0]", "greater than or equal to 1"),
        ("workers", f"[{SLOTS + 1}]", f"less than or equal to {SLOTS}"),
        ("workers", "[]", "at least 1 item"),
        ("migration_limits", "[-1]", "greater than or equal to 0"),
        ("migration_limits", "[]", "at least 1 item"),
        ("http_port", '"high"', "valid integer"),
        ("options", '{pace_ms = "slow"}', "expected float"),
    ],
)
def test_a_wrong_value_is_told_with_its_key_and_what_is_possible(
    tmp_path: Path, key: str, value: str, expected: str
) -> None:
    told = said(tmp_path, **{key: value})
    assert f"key {key}" in told
    assert "expected" in told
    assert expected in told


@pytest.mark.parametrize("content", [b"system = ", b"\xff\xfe", b"[["])
def test_what_is_no_toml_is_told_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(TopologyError, match="expected a TOML file") as told:
        topology.find(str(path))
    assert str(told.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", topology.presets())
def test_a_dumped_topology_is_found_again_as_it_was(name: str, tmp_path: Path) -> None:
    top = topology.find(name)
    path = tmp_path / "mine.toml"
    path.write_text(topology.dump(top))
    assert topology.find(str(path)) == top


def test_requests_over_nats_have_their_events_there_too_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert topology.find(str(file(tmp_path, request_plane='"nats"'))).event_plane == "nats"
    assert topology.find(str(file(tmp_path, request_plane='"nats"', event_plane='"zmq"'))).event_plane == "zmq"
    assert topology.find(str(file(tmp_path))).event_plane == "zmq"


@pytest.mark.parametrize(
    ("lines", "needs"),
    [
        ({}, []),
        ({"discovery": '"etcd"'}, ["etcd"]),
        ({"request_plane": '"nats"'}, ["nats"]),
        ({"event_plane": '"nats"'}, ["nats"]),
        ({"discovery": '"etcd"', "request_plane": '"nats"'}, ["etcd", "nats"]),
    ],
)
def test_a_topology_needs_the_services_that_its_planes_are(
    tmp_path: Path, lines: dict[str, str], needs: list[str]
) -> None:
    found = topology.find(str(file(tmp_path, **lines)))
    assert [service.name for service in services.needed(found)] == needs


def test_a_service_without_a_program_is_told_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.shutil, "which", lambda *_args, **_kept: None)
    with pytest.raises(UsageError, match=r"pip install 'ftmodel\[services\]'"):
        services.located([topology.find("etcd-nats")], Path("/somewhere/bin/python"))
    assert services.located([topology.find("aggregated")], Path("/somewhere/bin/python")) == {}


def test_components_get_arguments_and_environment_of_their_own(tmp_path: Path) -> None:
    lines = {
        "frontend": '{args = ["--namespace", "mine"]}',
        "worker": '{env = {CUDA_VISIBLE_DEVICES = "1", "A-B" = "x"}}',
    }
    found = topology.find(str(file(tmp_path, **lines)))
    assert found.frontend.args == ("--namespace", "mine")
    assert found.worker.env == {"CUDA_VISIBLE_DEVICES": "1", "A-B": "x"}
    again = tmp_path / "again.toml"
    again.write_text(topology.dump(found))
    assert topology.find(str(again)) == found


@pytest.mark.parametrize(
    ("table", "value", "expected"),
    [
        ("frontend", '{arguments = ["x"]}', "key frontend.arguments: unknown, expected one of args, env"),
        ("worker", '{args = "x"}', "key worker.args"),
        ("worker", "{env = {A = 1}}", "key worker.env.A"),
        (
            "frontend",
            '{args = ["--router-mode", "kv"]}',
            "key frontend.args: --router-mode is what key router_mode sets",
        ),
        ("worker", '{env = {DYN_SYSTEM_PORT = "1"}}', "key worker.env.DYN_SYSTEM_PORT: DYN_SYSTEM_PORT is what key"),
        (
            "worker",
            '{env = {ETCD_ENDPOINTS = "x"}}',
            "key worker.env.ETCD_ENDPOINTS: ETCD_ENDPOINTS is each cluster's own",
        ),
    ],
)
def test_what_a_component_cannot_be_given_is_told_with_its_key(
    tmp_path: Path, table: str, value: str, expected: str
) -> None:
    assert expected in said(tmp_path, **{table: value})


def test_a_disaggregated_cluster_has_workers_of_both_roles_and_what_each_is_given(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        engine='"mocker"',
        prefill_workers="[1, 2]",
        prefill='{args = ["--no-enable-prefix-caching"], env = {RUST_BACKTRACE = "1"}}',
    )
    found = topology.find(str(path))
    assert found.prefill_workers == (1, 2)
    assert found.prefill.args == ("--no-enable-prefix-caching",)
    again = tmp_path / "again.toml"
    again.write_text(topology.dump(found))
    assert topology.find(str(again)) == dataclasses.replace(found, name=found.name)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ({"prefill_workers": "[1]"}, "key prefill_workers: engine counting cannot prefill apart from decoding here"),
        ({"prefill_workers": "[1]"}, "expected engine mocker, or this key left out"),
        ({"prefill_workers": "[1]", "engine": '"vllm"'}, "key prefill_workers: engine vllm cannot"),
        ({"prefill_workers": "[0]", "engine": '"mocker"'}, "key prefill_workers.0: got 0, expected"),
        ({"prefill_workers": f"[{SLOTS + 1}]", "engine": '"mocker"'}, "key prefill_workers.0: got"),
        (
            {"prefill": '{args = ["--dp-size=1"]}', "engine": '"mocker"'},
            "key prefill: the cluster has no prefill workers, expected key prefill_workers too",
        ),
        (
            {"prefill_workers": "[1]", "engine": '"mocker"', "options": '{handoff = "by-mail"}'},
            "key options.handoff: got 'by-mail', expected one of bootstrap, sequential",
        ),
        (
            {"prefill_workers": "[1]", "engine": '"mocker"', "prefill": '{args = ["--disaggregation-mode=agg"]}'},
            "key prefill.args: --disaggregation-mode is what key prefill_workers sets, expected it there",
        ),
    ],
)
def test_a_cluster_that_cannot_be_disaggregated_so_is_told_with_what_is_possible(
    lines: dict[str, str], told: str, tmp_path: Path
) -> None:
    assert told in said(tmp_path, **lines)
