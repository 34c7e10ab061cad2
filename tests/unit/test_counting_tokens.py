"""The counting engine: any token lost, doubled, swapped or foreign must show, and a restart must go on exactly."""

from __future__ import annotations

import argparse
import asyncio
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ftmodel.engines.counting import worker
from ftmodel.engines.counting.worker import (
    NEWLINE,
    SCRIPTS,
    Engine,
    Script,
    choice_key,
    course,
    parse_prompt,
    text,
    token_bytes,
    token_ids,
)
from ftmodel.engines.model import VOCABULARY, byte_letters, make_model, word

keys = st.integers(0, 10_000).map(lambda number: f"request {number}:".encode())
lengths = st.integers(2, 200)


def spelled(ids: list[int]) -> bytes:
    return b"".join(map(token_bytes, ids))


def test_every_script_is_reached() -> None:
    assert {course(f"request {number}:".encode()).script for number in range(100)} == set(SCRIPTS)


def test_the_text_of_a_key_never_changes() -> None:
    """A changed hash or script would make every stored history look violated."""
    assert [text(f"request {number}:".encode(), 0, 12) for number in (3, 4, 0, 6)] == [
        " ctt dxu fbv aol bsm cwn eao fep arf bvg czh edi",
        "ǏĳʔǸŜʽ",
        "濖劇蜯槠",
        "𨕮𡿳𦅗",
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"width-{script.width}")
def test_scripts_have_a_prime_number_of_plain_characters(script: Script) -> None:
    assert all(script.size % divisor for divisor in range(2, int(script.size**0.5) + 1))
    assert script.first + script.size <= VOCABULARY or script.width > 1
    if script.width > 1:
        letters = [chr(script.first + index) for index in range(script.size)]
        assert all(unicodedata.category(letter)[0] in "LS" for letter in letters)
        assert all(unicodedata.normalize("NFC", letter) == letter for letter in letters)
        assert {len(letter.encode()) for letter in letters} == {script.width}


@given(keys)
def test_a_window_of_the_scripts_size_repeats_no_character(key: bytes) -> None:
    script = course(key).script
    ids = token_ids(key, 0, script.size * script.width)
    places = [tuple(ids[at : at + script.width]) for at in range(0, len(ids), script.width)]
    assert len(set(places)) == script.size


@given(keys, lengths)
def test_no_newline_is_emitted_and_every_id_decodes(key: bytes, count: int) -> None:
    ids = token_ids(key, 0, count)
    assert NEWLINE not in ids
    assert all(token_bytes(token_id) for token_id in ids)


@given(keys, lengths)
def test_whole_characters_decode_without_loss(key: bytes, count: int) -> None:
    whole = count * course(key).script.width
    assert text(key, 0, whole).encode() == spelled(token_ids(key, 0, whole))


@given(keys, st.data(), lengths)
def test_a_lost_token_shows(key: bytes, data: st.DataObject, count: int) -> None:
    ids = token_ids(key, 0, count + 1)
    at = data.draw(st.integers(0, count - 1))
    assume(ids[at] != ids[at + 1])
    assert spelled(ids[:at] + ids[at + 1 :]) != spelled(ids[:-1])


@given(keys, st.data(), lengths)
def test_a_doubled_token_shows(key: bytes, data: st.DataObject, count: int) -> None:
    ids = token_ids(key, 0, count + 1)
    at = data.draw(st.integers(0, count - 1))
    assume(ids[at] != ids[at + 1])
    assert spelled(ids[: at + 1] + ids[at:-1]) != spelled(ids)


@given(keys, st.data(), lengths)
def test_two_unequal_tokens_swapped_show(key: bytes, data: st.DataObject, count: int) -> None:
    ids = token_ids(key, 0, count)
    first, second = data.draw(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)))
    assume(ids[first] != ids[second])
    swapped = list(ids)
    swapped[first], swapped[second] = ids[second], ids[first]
    assert spelled(swapped) != spelled(ids)


@given(keys, keys, st.data(), lengths)
def test_an_unequal_token_of_another_request_shows(key: bytes, other: bytes, data: st.DataObject, count: int) -> None:
    ids, others = token_ids(key, 0, count), token_ids(other, 0, count)
    at = data.draw(st.integers(0, count - 1))
    assume(ids[at] != others[at])
    assert spelled([*ids[:at], others[at], *ids[at + 1 :]]) != spelled(ids)


@given(st.sets(keys, min_size=2, max_size=2), st.integers(24, 200))
def test_two_requests_have_two_texts(pair: set[bytes], count: int) -> None:
    one, two = pair
    assert text(one, 0, count) != text(two, 0, count)


@given(keys, st.integers(0, 300), lengths, st.binary(max_size=40))
def test_a_migrated_request_goes_on_at_its_position(key: bytes, done: int, count: int, before: bytes) -> None:
    prompt = [*before, NEWLINE, *key, NEWLINE]
    assert parse_prompt(prompt) == (key, 0)
    found, position = parse_prompt(prompt + token_ids(key, 0, done))
    assert (found, position) == (key, done)
    assert token_ids(key, 0, done) + token_ids(found, position, count) == token_ids(key, 0, done + count)


@pytest.mark.parametrize(
    ("prompt", "key"),
    [(b"no newline", b"no newline"), (b"", b""), (b"\n", b"\n"), (b"empty line\n\n", b"empty line\n\n")],
)
def test_a_prompt_without_a_key_line_is_its_own_key(prompt: bytes, key: bytes) -> None:
    assert parse_prompt(list(prompt)) == (key, 0)


def test_choices_of_one_request_differ() -> None:
    assert len({text(choice_key(b"request 1:", index), 0, 24) for index in range(8)}) == 8
    assert choice_key(b"request 1:", 0) == b"request 1:"


def test_ids_decode_as_the_model_directory_says(tmp_path: Path) -> None:
    vocabulary = json.loads((make_model(tmp_path) / "tokenizer.json").read_text())["model"]["vocab"]
    letters = byte_letters()
    for spelling, token_id in vocabulary.items():
        assert "".join(letters[byte] for byte in token_bytes(token_id)) == spelling
    assert token_bytes(VOCABULARY - 1) == word(VOCABULARY - 1).encode()
    assert token_bytes(VOCABULARY) == token_bytes(-1) == b""


class Context:
    """Dynamo's context of one request, as far as the worker uses it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stop: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def id(self) -> str:
        return self.name

    def is_killed(self) -> bool:
        return True

    def async_killed_or_stopped(self) -> asyncio.Future[bool]:
        return self.stop


def asked(max_tokens: int, **sampling: int) -> dict[str, Any]:
    ids = list(b"request 1:\n")
    return {"token_ids": ids, "stop_conditions": {"max_tokens": max_tokens}, "sampling_options": sampling}


async def answer(engine: Engine, context: Context, request: dict[str, Any]) -> list[dict[str, Any]]:
    return [item async for item in engine.generate(request, context)]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(worker, "log", lambda _level, message, /, **_fields: lines.append(message))
    return lines


@pytest.fixture
def options() -> Callable[..., argparse.Namespace]:
    def build(**changed: float) -> argparse.Namespace:
        flags = [f"--{name}={value}" for name, value in changed.items()]
        return worker.parse_arguments(["--model-path=m", "--pace-ms=0", "--prefill-ms=0", *flags])

    return build


Options = Callable[..., argparse.Namespace]


def test_each_choice_gets_its_text_and_one_finish(options: Options, logged: list[str]) -> None:
    async def scene() -> None:
        items = await answer(Engine(options()), Context("a"), asked(6, n=2))
        for index in (0, 1):
            mine = [item for item in items if item["index"] == index]
            assert [i for item in mine for i in item["token_ids"]] == token_ids(choice_key(b"request 1:", index), 0, 6)
            assert [item.get("finish_reason") for item in mine] == [None] * 5 + ["length"]

    asyncio.run(scene())
    assert logged == ["Decode Request ID: a", "Started Request ID: a", "Ended Request ID: a"]


def test_nothing_left_to_generate_is_a_finish_without_tokens(options: Options, logged: list[str]) -> None:
    async def scene() -> None:
        items = await answer(Engine(options()), Context("a"), asked(0))
        assert items == [{"token_ids": [], "index": 0, "finish_reason": "length"}]

    asyncio.run(scene())
    assert logged[-1] == "Ended Request ID: a"


def test_the_queue_keeps_its_order_and_an_abort_leaves_it_once(options: Options, logged: list[str]) -> None:
    async def scene() -> None:
        engine = Engine(options(slots=1, **{"prefill-ms": 20}))
        contexts = {name: Context(name) for name in "abc"}
        tasks = [asyncio.ensure_future(answer(engine, context, asked(2))) for context in contexts.values()]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (len(engine.running), len(engine.waiting)) == (1, 2)
        assert "vllm:num_requests_waiting" in engine.metrics()
        contexts["b"].stop.set_result(True)
        assert [len(items) for items in await asyncio.gather(*tasks)] == [2, 0, 2]
        assert (len(engine.running), len(engine.waiting)) == (0, 0)

    asyncio.run(scene())
    rest = [line for line in logged if not line.startswith("Decode")]
    assert [(line.split()[0], line[-1]) for line in rest] == [
        ("Started", "a"),
        ("Aborted", "b"),
        ("Ended", "a"),
        ("Started", "c"),
        ("Ended", "c"),
    ]


def test_a_closed_generator_is_an_abort(options: Options, logged: list[str]) -> None:
    async def scene() -> None:
        engine = Engine(options())
        items = engine.generate(asked(5), Context("a"))
        await anext(items)
        await items.aclose()  # type: ignore[attr-defined]
        assert not engine.running

    asyncio.run(scene())
    assert logged[-1] == "Aborted Request ID: a"


def test_an_error_of_its_own_is_logged_and_raised(
    options: Options, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        engine = Engine(options())
        monkeypatch.setattr(engine, "ordered", lambda _job, _position: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await answer(engine, Context("a"), asked(5))
        assert not engine.running

    asyncio.run(scene())
    assert logged[-1] == "Failed Request ID: a"


def test_a_prompt_beyond_the_context_is_refused(
    options: Options, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        monkeypatch.setattr("importlib.import_module", lambda _name: None)
        with pytest.raises(ValueError, match="prompt of 11 tokens: expected 10 at most"):
            await answer(Engine(options(context=10)), Context("a"), asked(5))

    asyncio.run(scene())
    assert logged == ["Decode Request ID: a", "Failed Request ID: a"]


def test_tokens_never_come_closer_than_the_pace(options: Options, logged: list[str]) -> None:
    async def scene() -> None:
        engine = Engine(options(**{"pace-ms": 5, "prefill-ms": 10}))
        begun = engine.loop.time()
        assert len(await answer(engine, Context("a"), asked(8))) == 8
        assert engine.loop.time() - begun >= 0.010 + 7 * 0.005

    asyncio.run(scene())


def test_an_order_is_taken_once_and_from_its_position_on(
    options: Options, logged: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths: list[int] = []

    async def obey(_call: object, position: int, _how: str) -> list[dict[str, Any]]:
        deaths.append(position)
        return []

    async def scene() -> None:
        engine = Engine(worker.parse_arguments(["--model-path=m", "--pace-ms=0", f"--armed={tmp_path}"]))
        monkeypatch.setattr(engine, "obey", obey)
        (tmp_path / "a").write_text("3")
        await answer(engine, Context("b"), asked(6))
        await answer(engine, Context("a"), asked(6))
        await answer(engine, Context("a"), asked(6))

    asyncio.run(scene())
    assert deaths == [3]
    assert not list(tmp_path.iterdir())
