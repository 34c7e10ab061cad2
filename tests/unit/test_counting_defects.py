"""The counting engine's orders, options and defects: each does what its sentence says, and nothing else goes wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ftmodel import engines
from ftmodel.engines.counting import worker
from ftmodel.engines.counting.worker import (
    DEFECTS,
    FOREIGN_TOKENS,
    MIDDLE,
    ORDERS,
    PHANTOM,
    Engine,
    course,
    stop_text,
    strikes,
    text,
    text_until_stop,
    token_ids,
)

KEY = b"request 3:"
OTHER = b"request 4:"
keys = st.integers(0, 10_000).map(lambda number: f"request {number}:".encode())
TOKENS = 20


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


class Log(list[tuple[str, dict[str, object]]]):
    """What was logged: the first word, and the fields."""

    def put(self, _level: str, message: str, /, **fields: object) -> None:
        self.append((message.removesuffix(f" Request ID: {fields.get('request_id')}"), fields))

    @property
    def words(self) -> list[str]:
        return [word for word, _ in self]

    def of(self, word: str) -> dict[str, object]:
        return next(fields for found, fields in self if found == word)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Log:
    found = Log()
    monkeypatch.setattr(worker, "log", found.put)
    return found


def engine(*flags: str, pace_ms: float = 0) -> Engine:
    return Engine(worker.parse_arguments(["--model-path=m", f"--pace-ms={pace_ms}", "--prefill-ms=0", *flags]))


def asked(tokens: int = TOKENS, key: bytes = KEY, done: Sequence[int] = (), **more: Any) -> dict[str, Any]:
    conditions = {"max_tokens": tokens, **more.pop("stop_conditions", {})}
    return {"token_ids": [*key, 10, *done], "stop_conditions": conditions, **more}


async def answer(engine: Engine, request: dict[str, Any], name: str = "a") -> list[dict[str, Any]]:
    return [item async for item in engine.generate(request, Context(name))]


def spelled(items: list[dict[str, Any]]) -> list[int]:
    return [token for item in items for token in item["token_ids"]]


def with_defect(name: str, tokens: int = TOKENS, key: bytes = KEY) -> list[dict[str, Any]]:
    async def scene() -> list[dict[str, Any]]:
        return await answer(engine(f"--defect={name}"), asked(tokens, key))

    return asyncio.run(asyncio.wait_for(scene(), 5))


# --- stop strings


def begins_at_token(key: bytes, stop: str, near: int) -> int:
    """The token at which the answer first has this text."""
    before = text(key, 0, near).partition(stop)[0]
    return len(before) // 4 if course(key).script.width == 1 else len(before.encode())


@given(keys, st.integers(1, 300))
def test_a_stop_text_begins_first_at_its_token_or_somewhat_behind(key: bytes, position: int) -> None:
    stop, width = stop_text(key, position), course(key).script.width
    begin = begins_at_token(key, stop, position + 100 * width + 8)
    assert position - width < begin <= position + 100 * width
    if width > 1:
        assert begin == position - position % width


@given(keys, st.integers(1, 300))
def test_a_stop_text_spans_tokens(key: bytes, position: int) -> None:
    stop = stop_text(key, position)
    assert len(stop.encode()) == (4 if course(key).script.width == 1 else course(key).script.width)
    if course(key).script.width == 1:
        assert stop[2] == " "


def test_a_stop_text_goes_on_to_a_later_token_if_the_answer_has_it_before(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stop_text(KEY, 5) == "wn e"
    monkeypatch.setattr(worker, "text", lambda _key, _start, count: " abc abc abd abe"[: 4 * count])
    assert stop_text(KEY, 1) == "bd a"


def test_behind_all_that_a_script_has_there_is_no_stop_text() -> None:
    with pytest.raises(ValueError, match="no stop string begins first at token 5000, expected an earlier token"):
        stop_text(KEY, 5000)


@given(keys, st.integers(1, 100), st.integers(0, 200))
def test_the_text_until_a_stop_ends_right_before_it(key: bytes, position: int, more: int) -> None:
    stop = stop_text(key, position)
    whole = text(key, 0, position + 8 + more)
    assume(stop in whole)
    cut = text_until_stop(key, position + 8 + more, [stop])
    assert stop not in cut
    assert whole.startswith(cut + stop)


@given(keys, st.integers(0, 100))
def test_the_first_of_several_stops_counts_and_none_that_never_comes(key: bytes, tokens: int) -> None:
    whole = text(key, 0, tokens)
    assert text_until_stop(key, tokens, []) == text_until_stop(key, tokens, ["\n", ""]) == whole
    if len(whole) > 8:
        assert text_until_stop(key, tokens, [whole[8:], whole[3:]]) == whole[:3]


# --- options


def test_what_the_frontend_does_by_itself_is_only_logged(logged: Log) -> None:
    request = asked(stop_conditions={"min_tokens": 9, "stop": ["wn e", "q"]})
    assert spelled(asyncio.run(scene_of(request))) == token_ids(KEY, 0, TOKENS)
    assert logged.of("Decode") | {"min_tokens": 9, "stop": 2} == logged.of("Decode")


async def scene_of(request: dict[str, Any], *flags: str) -> list[dict[str, Any]]:
    return await answer(engine(*flags), request)


def test_an_ordinary_request_logs_no_options(logged: Log) -> None:
    asyncio.run(scene_of(asked(stop_conditions={"min_tokens": None, "stop": None}, output_options=None)))
    assert not {"min_tokens", "stop"} & logged.of("Decode").keys()


def test_log_probabilities_tell_the_position_and_rank_the_alternatives(logged: Log) -> None:
    items = asyncio.run(scene_of(asked(3, done=token_ids(KEY, 0, 2), output_options={"logprobs": 2})))
    assert [item["log_probs"] for item in items] == [[-2 / 1024], [-3 / 1024], [-4 / 1024]]
    first, second = items[0]["top_logprobs"][0]
    assert first == {"rank": 1, "token_id": token_ids(KEY, 2, 1)[0], "token": " fbv", "logprob": -2 / 1024}
    assert (second["rank"], second["token"], second["logprob"]) == (2, " fbw", -1 - 2 / 1024)


@pytest.mark.parametrize(("wanted", "shown"), [(0, 1), (1, 1), (5, 5)])
def test_the_chosen_token_is_always_among_the_alternatives(wanted: int, shown: int, logged: Log) -> None:
    (item,) = asyncio.run(scene_of(asked(1, output_options={"logprobs": wanted})))
    assert len(item["top_logprobs"][0]) == shown
    assert item["top_logprobs"][0][0]["token_id"] == item["token_ids"][0]


# --- orders


def ordered(tmp_path: Path, content: str, tokens: int = 6) -> list[dict[str, Any]]:
    (tmp_path / "a").write_text(content)
    return asyncio.run(asyncio.wait_for(scene_of(asked(tokens), f"--armed={tmp_path}"), 5))


def test_an_engine_ordered_to_fail_raises_and_says_so_before(tmp_path: Path, logged: Log) -> None:
    with pytest.raises(RuntimeError, match="ordered to fail at token 3"):
        ordered(tmp_path, "3 error")
    assert logged.words == ["Decode", "Started", "Armed error", "Failed"]
    assert logged.of("Armed error") == {"request_id": "a", "position": 3, "how": "error"}
    assert logged.of("Failed")["tokens"] == 3
    assert not list(tmp_path.iterdir())


def test_one_ordered_to_be_cancelled_ends_with_that_finish(tmp_path: Path, logged: Log) -> None:
    *tokens, last = ordered(tmp_path, "3 cancelled")
    assert spelled(tokens) == token_ids(KEY, 0, 3)
    assert last == {"token_ids": [], "index": 0, "finish_reason": "cancelled"}
    assert logged.words[2:] == ["Armed cancelled", "Failed"]
    assert logged.of("Failed")["error"] == "cancelled"


def test_one_ordered_to_lack_a_finish_just_ends(tmp_path: Path, logged: Log) -> None:
    items = ordered(tmp_path, "3 no-finish")
    assert spelled(items) == token_ids(KEY, 0, 3)
    assert not any("finish_reason" in item for item in items)
    assert logged.words[2:] == ["Armed no-finish", "Failed"]
    assert logged.of("Failed")["error"] == "no-finish"


def test_one_ordered_to_stall_stays_until_it_is_aborted(tmp_path: Path, logged: Log) -> None:
    async def scene() -> None:
        (tmp_path / "a").write_text("3 stall")
        stalled, context = engine(f"--armed={tmp_path}"), Context("a")
        items = stalled.generate(asked(6), context)
        assert spelled([await anext(items) for _ in range(3)]) == token_ids(KEY, 0, 3)
        silence = asyncio.ensure_future(anext(items, None))
        await asyncio.sleep(0.05)
        assert not silence.done()
        assert stalled.running
        context.stop.set_result(True)
        assert await silence is None
        assert not stalled.running

    asyncio.run(asyncio.wait_for(scene(), 5))
    assert logged.words[2:] == ["Armed stall", "Aborted"]
    assert logged.of("Armed stall")["position"] == 3


@pytest.mark.parametrize("content", ["3", "3 die", "3 die\n"])
def test_one_ordered_to_die_kills_its_process_group(
    content: str, tmp_path: Path, logged: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, _signal: killed.append(group))
    ordered(tmp_path, content)
    assert killed == [os.getpgid(0)]
    assert logged.of("Armed death") == {"request_id": "a", "position": 3, "how": "die"}


@pytest.mark.parametrize("content", ["", "x", "3 nonsense", "7"])
def test_a_file_without_an_order_that_is_due_is_left_alone(content: str, tmp_path: Path, logged: Log) -> None:
    assert spelled(ordered(tmp_path, content)) == token_ids(KEY, 0, 6)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("how", ["cancelled", "no-finish"])
def test_an_order_for_the_end_is_obeyed_behind_the_last_token(how: str, tmp_path: Path, logged: Log) -> None:
    items = ordered(tmp_path, f"6 {how}")
    assert spelled(items) == token_ids(KEY, 0, 6)
    assert items[5]["finish_reason"] == "length"
    assert (logged.words[-2:], logged.of(f"Armed {how}")["position"]) == ([f"Armed {how}", "Failed"], 6)


def test_orders_other_than_death_are_read_by_one_pattern() -> None:
    rows = engines.find("counting").patterns
    for how in ORDERS:
        message = f"Armed {'death' if how == 'die' else how} Request ID: a"
        meaning = next(row.meaning for row in rows if row.text in message)
        assert meaning == ("armed-death" if how == "die" else "armed-error")


# --- defects


def test_defects_are_known_by_name_and_told_in_a_sentence() -> None:
    assert engines.find("counting").choices == {"defect": ("none", *DEFECTS)}
    assert all(sentence.endswith(".") for sentence in DEFECTS.values())
    with pytest.raises(SystemExit):
        worker.parse_arguments(["--model-path=m", "--defect=nonsense"])


@given(st.lists(keys, min_size=200, max_size=200, unique=True), st.integers(2, 5))
def test_one_in_n_requests_is_struck(found: list[bytes], every: int) -> None:
    assert all(strikes(key, 1) for key in found)
    assert 0.4 / every < sum(strikes(key, every) for key in found) / len(found) < 2 / every


SPOILING = ("drops-token", "doubles-token", "reorders-tokens", "foreign-tokens", "wrong-usage", "no-finish-reason")


@pytest.mark.parametrize("defect", ["none", *SPOILING])
def test_a_short_request_is_clean(defect: str, logged: Log) -> None:
    items = with_defect(defect, MIDDLE + 1)
    assert spelled(items) == token_ids(KEY, 0, MIDDLE + 1)
    assert [item.get("finish_reason") for item in items] == [None] * MIDDLE + ["length"]
    assert logged.words == ["Decode", "Started", "Ended"]


@pytest.mark.parametrize("defect", SPOILING)
def test_a_request_that_is_not_struck_is_clean(defect: str, logged: Log) -> None:
    spared = next(key for number in range(50) if not strikes(key := f"request {number}:".encode(), 3))
    items = asyncio.run(scene_of(asked(key=spared), f"--defect={defect}", "--defect-every=3"))
    assert spelled(items) == token_ids(spared, 0, TOKENS)
    assert items[-1] == {"token_ids": token_ids(spared, TOKENS - 1, 1), "index": 0, "finish_reason": "length"}


@pytest.mark.parametrize("defect", SPOILING)
def test_a_spoiled_answer_is_a_whole_one_in_the_log(defect: str, logged: Log) -> None:
    with_defect(defect)
    assert logged.words == ["Decode", "Started", "Ended"]
    assert logged.of("Ended")["tokens"] == TOKENS


def test_drops_token(logged: Log) -> None:
    ids = token_ids(KEY, 0, TOKENS)
    assert spelled(with_defect("drops-token")) == ids[:MIDDLE] + ids[MIDDLE + 1 :]


def test_doubles_token(logged: Log) -> None:
    ids = token_ids(KEY, 0, TOKENS)
    assert spelled(with_defect("doubles-token")) == ids[: MIDDLE + 1] + ids[MIDDLE:]


def test_reorders_tokens(logged: Log) -> None:
    ids = token_ids(KEY, 0, TOKENS)
    ids[MIDDLE], ids[MIDDLE + 1] = ids[MIDDLE + 1], ids[MIDDLE]
    assert spelled(with_defect("reorders-tokens")) == ids


def test_reordered_tokens_are_never_equal(logged: Log) -> None:
    numbers = (number for number in range(2000))
    found = (f"request {number}:".encode() for number in numbers)
    key = next(key for key in found if len(set(token_ids(key, MIDDLE, 2))) == 1)
    assert spelled(with_defect("reorders-tokens", key=key)) != token_ids(key, 0, TOKENS)


def test_foreign_tokens_are_those_of_the_request_before(logged: Log) -> None:
    async def scene() -> list[dict[str, Any]]:
        mixed = engine("--defect=foreign-tokens")
        for key in (KEY, OTHER):
            await answer(mixed, asked(2, key), "b")
        return await answer(mixed, asked(), "a")

    end = MIDDLE + FOREIGN_TOKENS
    ids = token_ids(KEY, 0, MIDDLE) + token_ids(OTHER, MIDDLE, FOREIGN_TOKENS) + token_ids(KEY, end, TOKENS - end)
    assert spelled(asyncio.run(scene())) == ids


def test_foreign_tokens_are_never_the_requests_own(logged: Log) -> None:
    assert spelled(with_defect("foreign-tokens"))[MIDDLE:] != token_ids(KEY, MIDDLE, TOKENS - MIDDLE)


def test_wrong_usage(logged: Log) -> None:
    *before, last = with_defect("wrong-usage")
    assert spelled(before) == token_ids(KEY, 0, TOKENS - 1)
    assert last["token_ids"] == [*token_ids(KEY, TOKENS - 1, 1), PHANTOM]
    prompt = len(KEY) + 1
    assert last["completion_usage"] == {
        "prompt_tokens": prompt + 1,
        "completion_tokens": TOKENS + 1,
        "total_tokens": prompt + TOKENS + 2,
    }


def test_no_finish_reason(logged: Log) -> None:
    items = with_defect("no-finish-reason")
    assert spelled(items) == token_ids(KEY, 0, TOKENS)
    assert not any("finish_reason" in item for item in items)


@pytest.mark.parametrize("defect", SPOILING)
def test_a_migrated_request_that_has_its_middle_behind_it_goes_on_clean(defect: str, logged: Log) -> None:
    request = asked(3, done=token_ids(KEY, 0, MIDDLE + FOREIGN_TOKENS))
    items = asyncio.run(scene_of(request, f"--defect={defect}"))
    assert spelled(items)[:3] == token_ids(KEY, MIDDLE + FOREIGN_TOKENS, 3)


def test_one_that_hangs_is_silent_until_it_is_aborted(logged: Log) -> None:
    async def scene() -> None:
        hung, context = engine("--defect=hangs"), Context("a")
        items = hung.generate(asked(), context)
        assert spelled([await anext(items) for _ in range(MIDDLE)]) == token_ids(KEY, 0, MIDDLE)
        silence = asyncio.ensure_future(anext(items, None))
        await asyncio.sleep(0.05)
        assert not silence.done()
        context.stop.set_result(True)
        assert await silence is None
        assert not hung.running

    asyncio.run(asyncio.wait_for(scene(), 5))
    assert logged.words == ["Decode", "Started", "Aborted"]


@pytest.mark.parametrize(("done", "deaths"), [(0, 1), (MIDDLE, 0)])
def test_one_that_dies_silently_does_so_once_in_the_life_of_a_request(
    done: int, deaths: int, logged: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    request = asked(TOKENS - done, done=token_ids(KEY, 0, done))
    asyncio.run(scene_of(request, "--defect=dies-silently"))
    assert codes == [0] * deaths
    assert "Armed death" not in logged.words


def aborted(defect: str, look: Callable[[Engine], None], logged: Log) -> None:
    """Abort a request at its second token and take two more, as the runtime does; look; wait a while and look again."""

    async def scene() -> None:
        faulty, context = engine(f"--defect={defect}", pace_ms=1), Context("a")
        items = faulty.generate(asked(), context)
        await anext(items)
        context.stop.set_result(True)
        taken = [item async for _, item in zip_first(2, items)]
        assert len(taken) == (0 if defect in ("none", "leaks-slot") else 2)
        await asyncio.to_thread(close, items)
        look(faulty)
        logged.append(("-", {}))
        await asyncio.sleep(0.2)
        look(faulty)

    asyncio.run(asyncio.wait_for(scene(), 5))


def close(items: Any) -> None:
    """Close a generator as the runtime does: in a thread without a loop."""
    with suppress(StopIteration):
        items.aclose().send(None)


async def zip_first(count: int, items: Any) -> Any:
    for place in range(count):
        if (item := await anext(items, None)) is None:
            return
        yield place, item


def running(engine: Engine) -> int:
    return len(engine.running)


def test_without_a_defect_an_abort_frees_the_slot(logged: Log) -> None:
    held: list[int] = []
    aborted("none", lambda engine: held.append(running(engine)), logged)
    assert held == [0, 0]
    assert logged.words == ["Decode", "Started", "Aborted", "-"]


def test_ignores_abort(logged: Log) -> None:
    held: list[int] = []
    aborted("ignores-abort", lambda engine: held.append(running(engine)), logged)
    assert held == [1, 0]
    assert logged.words == ["Decode", "Started", "-", "Ended"]
    assert logged.of("Ended")["tokens"] == TOKENS


def test_aborts_in_log_only(logged: Log) -> None:
    held: list[int] = []
    aborted("aborts-in-log-only", lambda engine: held.append(running(engine)), logged)
    assert held == [1, 0]
    assert logged.words == ["Decode", "Started", "Aborted", "-"]
    assert logged.of("Aborted")["reason"] == "killed"


def test_leaks_slot(logged: Log) -> None:
    held: list[int] = []
    aborted("leaks-slot", lambda engine: held.append(running(engine)), logged)
    assert held == [1, 1]
    assert logged.words == ["Decode", "Started", "Aborted", "-"]


def test_a_request_that_ends_by_itself_leaks_nothing(logged: Log) -> None:
    async def scene() -> None:
        leaking = engine("--defect=leaks-slot")
        await answer(leaking, asked())
        assert not leaking.running

    asyncio.run(scene())


@pytest.mark.parametrize(("defect", "shut"), [("none", [True, True]), ("admits-while-draining", [False, True])])
def test_admits_while_draining(defect: str, shut: list[bool], logged: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ADMITS_S", 0.05)

    async def scene() -> None:
        calls: list[bool] = []
        engine(f"--defect={defect}").drain(SimpleNamespace(shutdown=lambda: calls.append(True)))
        seen = [bool(calls)]
        await asyncio.sleep(0.1)
        assert [*seen, bool(calls)] == shut

    asyncio.run(scene())
    assert logged.words == ["Draining"]
