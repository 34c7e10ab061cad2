"""The model directory that the workers serve: a tokenizer and a configuration, made locally; with weights, if asked.

The tokenizer is a byte-level BPE without merges. Its ids 0 to 255 are the bytes themselves, so a prompt has one token
per byte of UTF-8; the ids above are four-character words (a space and three letters), which no prompt is ever encoded
to but which an engine may emit. Every id decodes to text: the mocker emits ids up to a few thousand, and with a smaller
vocabulary its streams would be empty.

The weights make a model that counts. Each id has a random code; the last matrix holds, for each word, the code of the
id that it follows: the word before it, or the last byte of a prompt (`successor`). The layers compute as any do, but add
nothing. So an answer is words that follow each other, none twice in thousands, each far ahead of all others: the same at
any temperature, in any batch, on any device, and each token has four characters. (Weights that an engine makes up itself
give every id much the same chance, and an answer repeats two words for ever.)
"""

from __future__ import annotations

import json
import math
import random
import string
import struct
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

BYTES: Final = 256
WORDS: Final = 3840
VOCABULARY: Final = BYTES + WORDS
BEGIN_ID: Final = VOCABULARY
END_ID: Final = VOCABULARY + 1
CONTEXT_TOKENS: Final = 16384
"""Longest sequence, prompt and answer together, that the configuration admits."""
HIDDEN: Final = 64
LAYERS: Final = 12
"""So many make a token take some milliseconds in eager mode, which is bound by calls, on a CPU as on a GPU: a cancel
then falls into an answer, not behind it."""
SEED: Final = 20
_NORMAL: Final = tuple(NormalDist().inv_cdf((value + 0.5) / 256) for value in range(256))
"""By which a random byte becomes a value that is spread as a normal one."""


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


def add_weights(folder: Path) -> Path:
    """Write random weights, always the same, into a model directory and return it: model.safetensors, 3 MB."""
    shapes = weights()
    head: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        head[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    source = random.Random(SEED)  # noqa: S311 - the same weights each time
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            file.write(_values(name, shape, source))
    return folder


def weights() -> Mapping[str, tuple[int, ...]]:
    """The shape of each weight, by its name."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY + 2, HIDDEN)}
    for layer in range(LAYERS):
        below = f"model.layers.{layer}."
        shapes |= {f"{below}self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        shapes |= {f"{below}mlp.{name}_proj.weight": (2 * HIDDEN, HIDDEN) for name in ("gate", "up")}
        shapes[f"{below}mlp.down_proj.weight"] = (HIDDEN, 2 * HIDDEN)
        shapes |= {f"{below}{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY + 2, HIDDEN)}


def successor(token_id: int) -> int:
    """The word that the model says after this id, a word's or a byte's."""
    if token_id < BYTES:
        return BYTES + token_id * (WORDS // BYTES)
    return BYTES + (token_id - BYTES + 1) % WORDS


def _values(name: str, shape: tuple[int, ...], source: random.Random) -> bytes:
    """The values of one weight, as bfloat16: ones for a norm, nothing for what would add to the codes, else random."""
    count = math.prod(shape)
    if len(shape) == 1:
        return _bfloat16(1.0) * count
    if name == "model.embed_tokens.weight":
        return b"".join([_bfloat16(value) for row in _codes() for value in row])
    if name == "lm_head.weight":
        return _head()
    if "o_proj" in name or "down_proj" in name:
        return bytes(2 * count)
    table = [_bfloat16(value / math.sqrt(HIDDEN)) for value in _NORMAL]
    return b"".join([table[value] for value in source.randbytes(count)])


def _codes() -> list[list[float]]:
    """The code of each id that is a byte's or a word's."""
    source = random.Random(SEED)  # noqa: S311 - the same weights each time
    return [[_NORMAL[value] for value in source.randbytes(HIDDEN)] for _ in range(VOCABULARY + 2)]


def _head() -> bytes:
    """The last matrix: of each word the sum of the codes that it follows; bytes and special ids follow nothing."""
    codes = _codes()
    rows = [[0.0] * HIDDEN for _ in codes]
    for token_id in range(VOCABULARY):
        after = successor(token_id)
        rows[after] = [a + b for a, b in zip(rows[after], codes[token_id], strict=True)]
    return b"".join([_bfloat16(value) for row in rows for value in row])


def _bfloat16(value: float) -> bytes:
    """The upper half of a 32-bit float, rounded towards zero."""
    return struct.pack("<f", value)[2:]


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
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "vocab_size": VOCABULARY + len(special),
            "max_position_embeddings": CONTEXT_TOKENS,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "bos_token_id": BEGIN_ID,
            "eos_token_id": END_ID,
        },
        "generation_config.json": {"bos_token_id": BEGIN_ID, "eos_token_id": END_ID},
    }
