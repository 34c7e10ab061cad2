"""Topologies are small TOML files; what is wrong in one is told with file, key and what is possible."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftmodel import engines, systems, topology
from ftmodel.errors import TopologyError
from ftmodel.steps import SLOTS

PROMISED = ("aggregated", "counting")
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
        ("router_mode", '"sideways"', "'round-robin' or 'random'"),
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
