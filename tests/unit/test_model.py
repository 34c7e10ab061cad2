"""The model directory: a byte-level tokenizer of which every id decodes, and a prompt has one token per byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftmodel.engines import model
from ftmodel.engines.model import BEGIN_ID, BYTES, CONTEXT_TOKENS, END_ID, VOCABULARY, byte_letters, make_model, word

BYTE_OF = {letter: byte for byte, letter in byte_letters().items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The files of the model directory, read."""
    folder = make_model(tmp_path_factory.mktemp("deep") / "model")
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.iterdir()}


def spelled(letters: str) -> bytes:
    """What a byte-level decoder makes of a token: each letter stands for a byte."""
    return bytes(BYTE_OF[letter] for letter in letters)


def test_every_id_of_the_vocabulary_decodes_to_bytes_of_its_own(made: dict[str, Any]) -> None:
    vocabulary = made["tokenizer.json"]["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(VOCABULARY))
    decoded = {token_id: spelled(letters) for letters, token_id in vocabulary.items()}
    assert len(set(decoded.values())) == VOCABULARY
    assert all(decoded[byte] == bytes([byte]) for byte in range(BYTES))


def test_every_id_above_the_bytes_is_a_word_of_a_space_and_three_letters(made: dict[str, Any]) -> None:
    vocabulary = made["tokenizer.json"]["model"]["vocab"]
    for letters, token_id in vocabulary.items():
        if token_id >= BYTES:
            text = spelled(letters).decode("ascii")
            assert text == word(token_id)
            assert len(text) == 4
            assert text[0] == " "
            assert text[1:].isalpha()


def test_a_prompt_has_one_token_per_byte_because_nothing_is_ever_merged(made: dict[str, Any]) -> None:
    tokenizer = made["tokenizer.json"]
    assert tokenizer["model"]["merges"] == []
    assert not tokenizer["model"]["ignore_merges"]
    assert tokenizer["normalizer"] is None
    assert tokenizer["pre_tokenizer"]["type"] == tokenizer["decoder"]["type"] == "ByteLevel"
    assert not tokenizer["pre_tokenizer"]["add_prefix_space"]


def test_each_byte_has_a_letter_of_its_own_that_is_seen() -> None:
    letters = byte_letters()
    assert sorted(letters) == list(range(BYTES))
    assert len(set(letters.values())) == BYTES
    assert all(letter.isprintable() and not letter.isspace() for letter in letters.values())
    assert (letters[ord("a")], letters[ord(" ")], letters[ord("\n")]) == ("a", "Ġ", "Ċ")


@given(st.integers())
def test_only_the_ids_of_words_have_a_word(token_id: int) -> None:
    if BYTES <= token_id < VOCABULARY:
        assert len(word(token_id)) == 4
    else:
        with pytest.raises(ValueError, match=f"word id {token_id}: expected {BYTES} to {VOCABULARY - 1}"):
            word(token_id)


def test_the_two_special_ids_lie_above_the_vocabulary_and_are_told_alike_everywhere(made: dict[str, Any]) -> None:
    special = {row["content"]: row["id"] for row in made["tokenizer.json"]["added_tokens"]}
    assert special == {"<|begin|>": BEGIN_ID, "<|end|>": END_ID}
    assert min(special.values()) == VOCABULARY
    named = made["tokenizer_config.json"]
    assert (named["bos_token"], named["eos_token"]) == ("<|begin|>", "<|end|>")
    for name in ("config.json", "generation_config.json"):
        assert (made[name]["bos_token_id"], made[name]["eos_token_id"]) == (BEGIN_ID, END_ID)
    assert made["config.json"]["vocab_size"] == VOCABULARY + len(special)


def test_the_longest_sequence_is_told_alike_everywhere(made: dict[str, Any]) -> None:
    assert made["config.json"]["max_position_embeddings"] == CONTEXT_TOKENS
    assert made["tokenizer_config.json"]["model_max_length"] == CONTEXT_TOKENS


def test_the_content_never_varies(tmp_path: Path) -> None:
    first, second = make_model(tmp_path / "a"), make_model(tmp_path / "b")
    make_model(second)
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (first, second)]
    assert contents[0] == contents[1]
    assert set(contents[0]) == set(model._files())
