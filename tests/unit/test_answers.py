"""Answers are taken apart into what a client received, however the bytes were cut on their way."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftmodel.history import Item
from ftmodel.targets.real.answers import Stream, chunk

ID = "0a1b2c3d-0000-4000-8000-000000000001"
MODEL = "tiny"
OTHER = "ffffffff-0000-4000-8000-000000000002"


def completion(text: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": f"cmpl-{ID}", "choices": [{"index": 0, "text": text, "finish_reason": None}], **more}


def chat(content: str | None = None, reason: str | None = None, index: int = 0) -> dict[str, Any]:
    delta = {"role": "assistant", "content": content}
    return {"id": f"chatcmpl-{ID}", "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}


def data(row: object) -> bytes:
    return b"data: " + json.dumps(row, ensure_ascii=False).encode() + b"\n\n"


def read(body: bytes, *cuts: int) -> tuple[Item, ...]:
    """What a client receives if the body comes in pieces that end at these offsets."""
    stream = Stream(ID, MODEL)
    ends = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    items = [item for begin, end in pairwise(ends) for item in stream.feed(body[begin:end])]
    return (*items, *stream.end())


def one(row: object) -> tuple[Item, ...]:
    return tuple(chunk(json.dumps(row), ID, MODEL))


PIECES = [
    data(completion(" abc")),
    data(completion("żółć \U0001f980\u2028.")),
    data(chat(" def")),
    data(chat("", "length", index=1)),
    data({"id": f"cmpl-{OTHER}", "choices": [{"text": "x"}]}),
    data({"id": f"cmpl-{ID}", "choices": [], "usage": {"completion_tokens": 3}}),
    data({"error": {"message": "no worker"}}),
    data(completion()),
    b"data: [DONE]\n\n",
    b": keep-alive\n\n",
    b"event: error\n: the worker is gone\n\n",
    b'event: error\ndata: {"message": "gone"}\n\n',
    b"event: error\n\n",
    b"data: {not json\n\n",
    b"nonsense\n",
    b"\r\n",
    b"data:[DONE]\r\n\r\n",
    b"\xff\xfe\n",
    b"data: {",
]


@given(st.lists(st.sampled_from(PIECES), max_size=8), st.lists(st.integers(0, 5000), max_size=12))
def test_the_items_do_not_depend_on_where_the_bytes_were_cut(pieces: list[bytes], cuts: list[int]) -> None:
    body = b"".join(pieces)
    assert read(body, *cuts) == read(body)


def test_a_body_that_comes_byte_by_byte_gives_the_same_items() -> None:
    body = b"".join(PIECES)
    assert read(body, *range(len(body))) == read(body)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=3))
def test_no_bytes_at_all_break_the_reading(body: bytes, cuts: list[int]) -> None:
    assert read(body, *cuts) == read(body)


def test_a_streamed_completion_is_its_texts_its_finish_and_done() -> None:
    last = completion(" def")
    last["choices"][0]["finish_reason"] = "length"
    body = data(completion(" abc")) + data(last) + b"data: [DONE]\n\n"
    assert read(body) == (Item("text", " abc"), Item("text", " def"), Item("finish", "length"), Item("done"))


def test_a_streamed_chat_tells_the_choice_of_each_text() -> None:
    body = data(chat(" abc")) + data(chat(" def", index=1)) + data(chat(None, "stop", 1))
    assert read(body) == (Item("text", " abc"), Item("text", " def", 1), Item("finish", "stop", 1))


def test_a_line_is_an_item_as_soon_as_it_is_whole() -> None:
    stream = Stream(ID, MODEL)
    body = data(completion(" abc"))
    assert stream.feed(body[:-3]) == ()
    assert stream.feed(body[-3:-1]) == (Item("text", " abc"),)
    assert stream.feed(body[-1:]) == ()
    assert stream.end() == ()


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (b"event: error\n: the worker is gone\n\n", "the worker is gone"),
        (b"event: error\ndata: the worker is gone\n\n", "the worker is gone"),
        (b"event:error\r\n:the worker is gone\r\n\r\n", "the worker is gone"),
        (b"event: error\n\n", ""),
        (b"event: error\n", ""),
        (b'data: {"error": {"message": "the worker is gone"}}\n\n', "the worker is gone"),
        (b'data: {"error": "the worker is gone"}\n\n', "the worker is gone"),
        (b'data: {"message": "the worker is gone", "code": 500}\n\n', "the worker is gone"),
    ],
)
def test_an_error_in_a_stream_is_one_error_in_whatever_form(event: bytes, told: str) -> None:
    assert read(event) == (Item("error", told),)


@pytest.mark.parametrize("event", [b"event: error\n: gone\n\n", b"event: error\n\n", b"event: message\n"])
def test_what_follows_an_error_event_is_no_error(event: bytes) -> None:
    assert read(event + data(completion(" abc")) + b": ping\n\n")[-1] == Item("text", " abc")


def test_a_comment_is_nothing() -> None:
    assert read(b": keep-alive\n\n:\n\n") == ()


def test_a_line_without_its_end_is_malformed() -> None:
    assert read(b"data: [DONE]") == (Item("malformed", "data: [DONE]"),)


@pytest.mark.parametrize("line", ["nonsense", "{}", "data; x"])
def test_a_line_that_is_no_event_is_malformed(line: str) -> None:
    assert read(line.encode() + b"\n") == (Item("malformed", line),)


@pytest.mark.parametrize(
    "said",
    [
        "{",
        "[]",
        "7",
        "null",
        "",
        '{"choices": 5}',
        '{"choices": [5]}',
        '{"choices": [{"text": 5}]}',
        '{"choices": [{"text": "a", "index": "x"}]}',
        '{"choices": [{"delta": "abc"}]}',
        '{"choices": [{"delta": {"content": ["abc"]}}]}',
        '{"choices": [], "usage": {"completion_tokens": "many"}}',
    ],
)
def test_a_chunk_of_another_shape_is_malformed_as_a_whole(said: str) -> None:
    assert tuple(chunk(said, ID, MODEL)) == (Item("malformed", said),)


def test_a_chunk_that_says_nothing_is_empty() -> None:
    assert one(completion()) == one(completion("")) == one({"id": ID, "choices": []}) == (Item("empty"),)


def test_an_answer_that_is_not_streamed_is_taken_apart_like_a_chunk() -> None:
    row = {
        "id": f"chatcmpl-{ID}",
        "error": None,
        "choices": [
            {"index": 0, "message": {"content": " abc def"}, "finish_reason": "length"},
            {"index": 1, "message": {"content": " ghi"}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3},
    }
    assert one(row) == (
        Item("text", " abc def"),
        Item("finish", "length"),
        Item("text", " ghi", 1),
        Item("finish", "stop", 1),
        Item("usage", "9", count=3),
    )


def test_an_error_that_is_not_streamed_is_an_error() -> None:
    assert one({"message": "no instances", "type": "Service Unavailable", "code": 503}) == (
        Item("error", "no instances"),
    )


def test_a_long_error_is_kept_in_part() -> None:
    (item,) = one({"error": {"message": "x" * 10_000}})
    assert len(item.value) == 300


def test_a_foreign_id_is_told_with_each_item_and_the_own_one_never() -> None:
    row = {**completion(" abc"), "usage": {"completion_tokens": 1}}
    assert all(item.answer_id == "" for item in one(row))
    row["id"] = f"cmpl-{OTHER}"
    assert one(row) == (Item("text", " abc", answer_id=row["id"]), Item("usage", count=1, answer_id=row["id"]))
    del row["id"]
    assert all(item.answer_id == "" for item in one(row))


def test_a_foreign_model_is_told_with_each_item_and_the_own_one_never() -> None:
    assert all(item.model == "" for item in one({**completion(" abc"), "model": MODEL}))
    assert [item.model for item in one({**completion(" abc"), "model": "other"})] == ["other"]


def test_usage_tells_the_tokens_of_prompt_and_completion() -> None:
    row = {"id": f"cmpl-{ID}", "choices": [], "usage": {"prompt_tokens": 13, "completion_tokens": 5}}
    assert one(row) == (Item("usage", "13", count=5),)
