"""The model directory that the workers serve: a tokenizer and a configuration, no weights, made locally.

The tokenizer is a byte-level BPE without merges. Its ids 0 to 255 are the bytes themselves, so a prompt has one token
per byte of UTF-8; the ids above are four-character words (a space and three letters), which no prompt is ever encoded
to but which an engine may emit. Every id decodes to text: the mocker emits ids up to a few thousand, and with a smaller
vocabulary its streams would be empty.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any, Final

BYTES: Final = 256
WORDS: Final = 3840
VOCABULARY: Final = BYTES + WORDS
BEGIN_ID: Final = VOCABULARY
END_ID: Final = VOCABULARY + 1
CONTEXT_TOKENS: Final = 16384
"""Longest sequence, prompt and answer together, that the configuration admits."""


def byte_letters() -> dict[int, str]:
    """The letter by which a byte-level tokenizer writes each byte value: printable ones as they are, others moved up."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = (byte for byte in range(BYTES) if byte not in set(printable))
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(moved)}


def word(token_id: int) -> str:
    """The text of the word with this id, `BYTES <= token_id < VOCABULARY`."""
    if not BYTES <= token_id < VOCABULARY:
        raise ValueError(f"word id {token_id}: expected {BYTES} to {VOCABULARY - 1}")
    index = token_id - BYTES
    letters = string.ascii_lowercase
    return " " + letters[index // 676] + letters[index // 26 % 26] + letters[index % 26]


def make_model(folder: Path) -> Path:
    """Write the model directory into `folder` (made if missing) and return it. The content never varies."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _files().items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


def _files() -> dict[str, Any]:
    letters = byte_letters()
    space = letters[ord(" ")]
    vocabulary = {letters[byte]: byte for byte in range(BYTES)}
    vocabulary |= {space + word(i)[1:]: i for i in range(BYTES, VOCABULARY)}
    special = [
        {
            "id": i,
            "content": text,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for i, text in ((BEGIN_ID, "<|begin|>"), (END_ID, "<|end|>"))
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": special,
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": vocabulary,
                "merges": [],
            },
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin|>",
            "eos_token": "<|end|>",
            "model_max_length": CONTEXT_TOKENS,
            "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
        },
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "bfloat16",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": VOCABULARY + len(special),
            "max_position_embeddings": CONTEXT_TOKENS,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "bos_token_id": BEGIN_ID,
            "eos_token_id": END_ID,
        },
        "generation_config.json": {"bos_token_id": BEGIN_ID, "eos_token_id": END_ID},
    }
