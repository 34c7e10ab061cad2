"""The twin of an answer: what an engine with exact text must have said, compared while the answer arrives.

The counting engine's text is a function of the request's key and the position (`ftmodel.engines.counting.worker`).
Its characters are split over tokens, and a frontend withholds an unfinished one: so at any time the text must be a
prefix of the twin. Only the last character may be lacking for good, where max_tokens cuts through it. A request with
stop strings ends before the first of them; what it says behind that is compared too, for a leak is another's to judge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from ftmodel.engines.counting.worker import Course, choice_key, course, text
from ftmodel.history import RequestSent

BROKEN: Final = "\ufffd"
"""What a decoder shows for bytes that are no character."""
BROKEN_MOST: Final = 3
"""A cut character has at most three bytes, each of which a decoder may show."""
BEYOND_TOKENS: Final = 256
"""How far past max_tokens an answer that is too long is still recognised."""
PROBE_CHARS: Final = 12
WORD_CHARS: Final = 4

FOREIGN_TOKENS: Final = 3
"""So many consecutive tokens of another request are no accident."""

Difference = Literal["lost", "doubled", "reordered", "differs"]


@dataclass(slots=True)
class Twin:
    """One choice's text as it arrives, beside what it must be."""

    key: bytes
    max_tokens: int
    stops: tuple[str, ...] = ()
    differs_at: int | None = None
    """Position of the first character that is not the expected one."""
    over: bool = False
    """The text went on as it should, but past max_tokens."""
    _pieces: list[str] = field(default_factory=list)
    _length: int = 0
    _expected: str = ""
    _width: int = 1
    stops_at: int | None = None
    """Where the first stop string begins, if there is one within max_tokens."""

    def __post_init__(self) -> None:
        path: Course = course(self.key)
        self._width = path.script.width
        self._expected = whole_text(self.key, self.max_tokens)
        places = (place for stop in self.stops if stop and (place := self._expected.find(stop)) >= 0)
        self.stops_at = min(places, default=None)

    def take(self, piece: str) -> None:
        """Compare one more piece; costs as much as the piece is long."""
        at = self._length
        self._pieces.append(piece)
        self._length += len(piece)
        if self.differs_at is None and not self._expected.startswith(piece, at) and not self._ends(piece, at):
            self._past(piece, at)

    def _ends(self, piece: str, at: int) -> bool:
        """The piece ends the text with what a decoder shows for a character that max_tokens cuts."""
        tail = piece[max(0, len(self._expected) - at) :]
        return (
            self.max_tokens % self._width != 0
            and at + len(piece) <= len(self._expected) + BROKEN_MOST
            and tail.strip(BROKEN) == ""
            and (piece[: len(piece) - len(tail)] == self._expected[at:])
        )

    def _past(self, piece: str, at: int) -> None:
        longer = whole_text(self.key, self.max_tokens + BEYOND_TOKENS)
        if at + len(piece) > len(self._expected) and longer.startswith(piece[: max(0, len(longer) - at)], at):
            self.over, self._expected = True, longer
            return
        common = next((i for i, letter in enumerate(piece) if longer[at + i : at + i + 1] != letter), len(piece))
        self.differs_at = at + common

    @property
    def text(self) -> str:
        """All that was read."""
        return "".join(self._pieces)

    @property
    def least_tokens(self) -> int:
        """Tokens that the text shows; a withheld character can hide up to three more."""
        return self._length // WORD_CHARS if self._width == 1 else self._length * self._width

    @property
    def most_tokens(self) -> int:
        """Tokens that the client can have received, withheld ones included."""
        return min(self.max_tokens, self.least_tokens + self._width - 1) if not self.over else self.least_tokens

    @property
    def complete(self) -> bool:
        """The text is all of the twin.

        What real frontends do with a cut last character is decided here and in `_ends` alone: leaving it out and
        showing U+FFFD for it are both taken as whole.
        """
        end = len(self._expected) if self.stops_at is None else self.stops_at
        return self.differs_at is None and not self.over and self._length >= end

    @property
    def leaks(self) -> bool:
        """The text went on where a stop string should have ended it."""
        return self.stops_at is not None and self._length > self.stops_at

    @property
    def tokens(self) -> range:
        """How many tokens there can be to a complete text: one number, unless a stop string ends it.

        Then the tokens of the stop string are generated too, and maybe counted. Without one the last character may be
        cut, and its tokens count all the same.
        """
        if self.stops_at is None:
            return range(self.max_tokens, self.max_tokens + 1)
        least, longest = self.stops_at, max(len(stop) for stop in self.stops)
        if self._width == 1:
            return range(least // WORD_CHARS, -(-(least + longest) // WORD_CHARS) + 2)
        return range(least * self._width, (least + longest + 1) * self._width + 1)


def whole_text(key: bytes, max_tokens: int) -> str:
    """The complete characters of the first max_tokens tokens."""
    whole = max_tokens - max_tokens % course(key).script.width
    return text(key, 0, whole)


def difference(twin: Twin) -> Difference:
    """What is wrong with a text that differs: told by what stands behind the first difference."""
    got = twin.text
    at = twin.differs_at or 0
    if course(twin.key).script.width == 1:
        at -= at % WORD_CHARS
    expected = whole_text(twin.key, twin.max_tokens + BEYOND_TOKENS)
    if sorted(got) == sorted(expected[: len(got)]):
        return "reordered"
    probe = got[at:].lstrip(BROKEN)[:PROBE_CHARS]
    found = expected.find(probe) if probe else -1
    if found >= 0:
        return "lost" if found > at else "doubled"
    if course(twin.key).script.width > 1 and _is_thinned(got[at:], expected[at:]):
        return "lost"  # in several places
    return "differs"


def foreign_part(twin: Twin, key: bytes, max_tokens: int) -> str:
    """What a text that differs has of the answer to another key, from its first difference on; "" if nothing.

    As long as `FOREIGN_TOKENS` tokens at least, and two characters.
    """
    width = course(key).script.width
    size = WORD_CHARS * FOREIGN_TOKENS if width == 1 else max(2, -(-FOREIGN_TOKENS // width))
    theirs, got = whole_text(key, max_tokens), twin.text
    grams = {theirs[i : i + size] for i in range(len(theirs) - size + 1)}
    ours = whole_text(twin.key, twin.max_tokens + BEYOND_TOKENS)
    parts = (got[i : i + size] for i in range(max(0, (twin.differs_at or 0) - WORD_CHARS), len(got) - size + 1))
    return next((part for part in parts if part in grams and part not in ours), "")


def _is_thinned(got: str, expected: str) -> bool:
    """True if what was got is what was expected with characters left out."""
    rest = iter(expected)
    return all(char in rest for char in got if char not in BROKEN)


def twin_of(sent: RequestSent, choice: int) -> Twin:
    """The twin of one choice of this request.

    Stop strings count only behind min_tokens, and where that is depends on who looks for them: such a text may end at
    any of them, and is compared as if it had none.
    """
    stops = () if sent.min_tokens else sent.stop
    return Twin(choice_key(sent.key.encode(), choice), sent.max_tokens, stops)
