"""What a frontend makes of tokens: text, of which it withholds half characters and what may become a stop string."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import Final

from ftmodel.engines.counting.worker import BYTES, WORDS, token_bytes

_BYTES: Final = [token_bytes(token_id) for token_id in range(BYTES + WORDS)]
_Decoder: Final = codecs.getincrementaldecoder("utf-8")


def bytes_of(tokens: list[int]) -> bytes:
    """What these ids decode to; nothing for those beyond the vocabulary."""
    try:
        return b"".join([_BYTES[token] for token in tokens])
    except IndexError:
        return b"".join(map(token_bytes, tokens))


@dataclass(slots=True)
class Answer:
    """One choice of an answer, so far."""

    stops: tuple[str, ...] = ()
    tokens: int = 0
    """Tokens that make up what was told, withheld ones included."""
    finish: str | None = None
    held: str = ""
    """Text that may be the beginning of a stop string, so that it is told later, or not."""
    _decoder: codecs.IncrementalDecoder = field(default_factory=lambda: _Decoder("replace"))

    def take(self, tokens: list[int], finish: str | None) -> str:
        """The text that these tokens add; with the last ones all that was withheld. A stop string finishes it."""
        if not self.stops:
            self.tokens += len(tokens)
            self.finish = finish
            return self._decoder.decode(bytes_of(tokens), final=finish is not None)
        told = ""
        for token in tokens:
            self.tokens += 1
            told += self._look(self._decoder.decode(bytes_of([token])))
            if self.finish is not None:
                return told
        if finish is not None:
            self.finish = finish
            told += self.held + self._decoder.decode(b"", final=True)
        return told

    def _look(self, piece: str) -> str:
        """What can be told of the text with this piece: what stands before a stop string, or cannot begin one."""
        text = self.held + piece
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if places:
            self.finish, self.held = "stop", ""
            return text[: min(places)]
        for kept in range(min(len(text), max(map(len, self.stops)) - 1), 0, -1):
            if any(stop.startswith(text[-kept:]) for stop in self.stops):
                self.held = text[-kept:]
                return text[:-kept]
        self.held = ""
        return text
