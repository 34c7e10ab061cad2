"""Systems and engines are data, found by name; the wording of each release stands in exactly one table."""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from ftmodel import engines, systems, topology
from ftmodel.errors import TopologyError
from ftmodel.systems import METRICS, Pattern, Place, Role, System

HERE = Path(__file__).parents[2] / "ftmodel"
STRATEGIES = HERE.parent / "strategies"
ROLES = get_args(Role)
MEANINGS = {
    "armed-error",
    "begun", "ended", "aborted", "failed", "finished", "arrived", "armed-death", "signalled", "selected", "kill",
    "aborting", "client-gone", "migrating", "retrying", "given-up", "panic", "traceback", "assertion",
}  # fmt: skip
"""Meanings of log lines that judging knows; a new one gets its row here and its sense in `history.LogLine`."""


@pytest.fixture(params=systems.names())
def system(request: pytest.FixtureRequest) -> System:
    return systems.find(request.param)


def patterns() -> list[Pattern]:
    found = [pattern for name in engines.names() for pattern in engines.find(name).patterns]
    for name in systems.names():
        found += [pattern for dialect in systems.find(name).dialects for pattern in dialect.patterns]
    return found


def test_every_system_and_engine_is_found_by_its_own_name() -> None:
    assert systems.names()
    assert [systems.find(name).name for name in systems.names()] == list(systems.names())
    assert {"mocker", "counting"} <= set(engines.names())
    assert [engines.find(name).name for name in engines.names()] == list(engines.names())


@pytest.mark.parametrize("name", ["nonsense", "", "model", "os"])
def test_an_unknown_engine_or_system_is_told_with_those_that_exist(name: str) -> None:
    with pytest.raises(TopologyError, match=re.escape(f"system {name!r}: unknown, expected one of dynamo")):
        systems.find(name)
    with pytest.raises(TopologyError, match=re.escape(f"engine {name!r}: unknown, expected one of counting, mocker")):
        engines.find(name)


def test_no_release_has_two_dialects(system: System) -> None:
    ranges = sorted((dialect.since, dialect.until) for dialect in system.dialects)
    assert all(since < until for since, until in ranges)
    assert all(until <= since for (_, until), (since, _) in pairwise(ranges))


@pytest.mark.parametrize("release", [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6)])
def test_the_releases_of_today_have_a_dialect(release: tuple[int, int]) -> None:
    dialect = systems.find("dynamo").dialect(release)
    assert dialect.since <= release < dialect.until


@pytest.mark.parametrize("release", [(0, 4), (1, 7), (2, 0)])
def test_an_unknown_release_is_told_with_those_that_are_known(release: tuple[int, int]) -> None:
    with pytest.raises(TopologyError) as told:
        systems.find("dynamo").dialect(release)
    shown = ".".join(map(str, release))
    assert str(told.value) == (f"dynamo {shown}: no dialect for this release; expected 1.1 up to 1.7 (exclusive)")


@pytest.mark.parametrize(
    ("release", "lacked"),
    [((0, 5), "discovery over files"), ((0, 7), "start without NATS"), ((0, 9), "worker_id"), ((1, 0), "worker_id")],
)
def test_a_release_that_cannot_be_tested_is_told_with_what_it_lacks(release: tuple[int, int], lacked: str) -> None:
    with pytest.raises(TopologyError, match=rf"this release lacks .*{lacked}.*; expected 1\.1 up to 1\.7"):
        systems.find("dynamo").dialect(release)


@pytest.mark.parametrize(
    ("release", "name"), [((1, 1), "/scratch/model"), ((1, 3), "/scratch/model"), ((1, 4), "tiny"), ((1, 6), "tiny")]
)
def test_a_model_is_served_under_its_path_where_frontends_look_names_up(release: tuple[int, int], name: str) -> None:
    dynamo, top, mocker = systems.find("dynamo"), topology.find("aggregated"), engines.find("mocker")
    model = Path("/scratch/model")
    place = Place(python=Path("python3"), scratch=Path("/scratch"), model=model, http_port=18000, system_port=19000)
    assert dynamo.served(top, model, release) == name
    command = dynamo.launch("worker", top, mocker, place, 3, release)
    assert command.argv[command.argv.index("--model-name") + 1] == name


@pytest.mark.parametrize(
    ("release", "message"),
    [
        ((1, 1), "Stream disconnected... recreating stream... Disconnected: Stream ended before generation completed"),
        ((1, 2), "Stream disconnected... recreating stream... Disconnected: Stream ended before generation completed"),
        ((1, 3), "Stream disconnected, recreating stream"),
        ((1, 6), "Stream disconnected, recreating stream"),
    ],
)
def test_a_migration_is_told_in_the_words_of_its_release(release: tuple[int, int], message: str) -> None:
    rows = systems.find("dynamo").dialect(release).patterns
    assert [row.meaning for row in rows if row.text in message] == ["migrating"]


def test_where_an_error_is_the_last_word_of_a_stream_nothing_more_is_expected() -> None:
    promises = systems.find("dynamo").promises
    top = topology.find("aggregated")
    assert [promises(top, release).broken_stream.value for release in ((1, 1), (1, 2), (1, 6))] == [
        ("error",),
        ("error", "done"),
        ("error", "done"),
    ]


@pytest.mark.parametrize(("release", "host"), [((1, 1), "lo"), ((1, 4), "lo"), ((1, 6), "127.0.0.1")])
def test_what_differs_in_the_environment_goes_by_the_release(release: tuple[int, int], host: str) -> None:
    place = Place(python=Path("python3"), scratch=Path("/s"), model=Path("/m"), http_port=18000, system_port=19000)
    top, mocker = topology.find("aggregated"), engines.find("mocker")
    env = systems.find("dynamo").launch("frontend", top, mocker, place, 3, release).env
    assert env["DYN_TCP_RESPONSE_STREAM_HOST"] == host


@pytest.mark.parametrize(("version", "release"), [("1.4.2", (1, 4)), ("1.6", (1, 6)), ("1.10.0rc1+cu12", (1, 10))])
def test_the_release_is_the_first_two_numbers_of_a_version(version: str, release: tuple[int, int]) -> None:
    assert systems.release(version) == release


def test_every_metric_row_has_one_of_ftmodels_own_names(system: System) -> None:
    rows = [row for dialect in system.dialects for row in dialect.metrics]
    rows += [row for name in engines.names() for row in engines.find(name).metrics]
    assert all(row.name in METRICS[row.role] for row in rows)


def test_no_metric_of_a_role_is_read_from_two_places_at_once(system: System) -> None:
    for dialect in system.dialects:
        for name in engines.names():
            rows = [(row.role, row.name) for row in (*dialect.metrics, *engines.find(name).metrics)]
            assert len(set(rows)) == len(rows)


def test_every_pattern_has_a_role_a_text_and_a_meaning_that_judging_knows() -> None:
    for pattern in patterns():
        assert pattern.role in (*ROLES, "any")
        assert pattern.text
        assert pattern.meaning in MEANINGS


def test_an_engine_that_logs_ids_tells_begin_and_every_end() -> None:
    for name in engines.names():
        engine = engines.find(name)
        told = {pattern.meaning for pattern in engine.patterns}
        assert engine.engine_ids == ({"begun", "ended", "aborted"} <= told)
        assert ("armed-death" in told) == engine.arms


@pytest.mark.parametrize("name", topology.presets())
@pytest.mark.parametrize("role", ROLES)
def test_every_role_of_every_preset_has_a_command_on_loopback(name: str, role: Role, tmp_path: Path) -> None:
    top = topology.find(name)
    system, engine = systems.find(top.system), engines.find(top.engine)
    place = Place(
        python=Path("python3"), scratch=tmp_path, model=tmp_path / "model", http_port=18000, system_port=19000,
        ports=tuple(range(20000, 20000 + engine.ports + sum(way.ports for way in engine.handoffs.values()))),
    )  # fmt: skip
    for dialect in system.dialects:
        command = system.launch(role, top, engine, place, 3, dialect.since)
        assert command.module
        said = " ".join((*command.argv, *command.env.values()))
        assert "{" not in said
        assert "0.0.0.0" not in said
        assert ("18000" if role == "frontend" else "19000") in said
        assert str(tmp_path) in said


def test_every_promise_says_where_it_comes_from(system: System) -> None:
    for name in topology.presets():
        promises = system.promises(topology.find(name), system.dialects[0].since)
        for promise in dataclasses.astuple(promises):
            assert promise[1].startswith(("documented", "measured", "wished"))


def test_the_timeouts_around_which_skews_are_drawn_lie_a_tenth_beside_the_promised_ones(system: System) -> None:
    promises = system.promises(topology.find("aggregated"), system.dialects[0].since)
    lease_ms = 1000 * promises.lease_s.value
    assert {round(0.9 * lease_ms), round(1.1 * lease_ms)} <= set(promises.timeouts_ms())
    assert all(isinstance(ms, int) and ms > 0 for ms in promises.timeouts_ms())


def test_an_engine_counts_the_tokens_of_its_texts() -> None:
    assert engines.find("mocker").count(" abc def") == 2
    counting = engines.find("counting").count
    assert [counting(text) for text in ("", " abc def", "żó", "🦀")] == [0, 2, 4, 4]


def test_the_instances_and_the_identity_of_a_worker_are_read_from_what_it_answers() -> None:
    dynamo = systems.find("dynamo")
    rows = [{"endpoint": "generate", "instance_id": 255}, {"endpoint": "clear_kv_blocks", "instance_id": 7}]
    assert dynamo.instances({"instances": rows}) == ("255",)
    assert dynamo.instances({}) == dynamo.instances({"instances": None}) == ()
    assert dynamo.identity('a{worker_id="ff",x="y"} 1') == "255"
    assert dynamo.identity("a 1") is None


def test_no_systems_name_stands_outside_its_folder_the_topologies_and_the_engines() -> None:
    """A second system is one folder and nothing else. (Engines are launched as the tested system launches them.)"""
    allowed = (HERE / "topologies", HERE / "engines", *(HERE / "systems" / name for name in systems.names()))
    named = re.compile("|".join(systems.names()), re.IGNORECASE)
    found = [
        f"{path.relative_to(HERE.parent)}:{number}: {line.strip()}"
        for root in (HERE, STRATEGIES)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".pyc" and not any(path.is_relative_to(place) for place in allowed)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if named.search(line)
    ]
    assert found == []
