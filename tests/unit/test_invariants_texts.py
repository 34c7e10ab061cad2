"""The twin of an answer: what is taken as its prefix, as its whole, and what a difference is called."""

from __future__ import annotations

from itertools import count

import pytest

from ftmodel.engines.counting.worker import course, stop_text, text
from ftmodel.invariants.texts import BROKEN, Twin, difference, foreign_part, whole_text

KEYS = {course(key).script.width: key for key in (b"request r%d:" % i for i in range(200))}
"""A key of each script: words of one token, characters of two, three and four."""


def fed(key: bytes, max_tokens: int, *pieces: str) -> Twin:
    twin = Twin(key, max_tokens)
    for piece in pieces:
        twin.take(piece)
    return twin


@pytest.mark.parametrize("width", KEYS)
def test_a_text_is_as_expected_however_it_is_cut_into_pieces(width: int) -> None:
    whole = whole_text(KEYS[width], 60)
    for size in (1, 3, 7, len(whole)):
        twin = fed(KEYS[width], 60, *(whole[i : i + size] for i in range(0, len(whole), size)))
        assert (twin.differs_at, twin.over, twin.complete) == (None, False, True)
        assert twin.text == whole


@pytest.mark.parametrize("width", KEYS)
def test_a_prefix_is_as_expected_but_not_complete(width: int) -> None:
    twin = fed(KEYS[width], 60, whole_text(KEYS[width], 48))
    assert (twin.differs_at, twin.over, twin.complete) == (None, False, False)
    assert 48 == twin.least_tokens <= twin.most_tokens < 48 + width


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("tail", ["", BROKEN, BROKEN * 3])
def test_a_character_that_max_tokens_cuts_may_be_left_out_or_shown_as_broken(width: int, tail: str) -> None:
    max_tokens = width * 10 + 1
    whole = whole_text(KEYS[width], max_tokens)
    assert len(whole) == 10
    for pieces in ((whole + tail,), (whole, tail), (whole[:5], whole[5:], *tail)):
        twin = fed(KEYS[width], max_tokens, *pieces)
        assert (twin.differs_at, twin.over, twin.complete) == (None, False, True)
        assert twin.most_tokens == max_tokens


def test_a_broken_character_anywhere_else_is_a_difference() -> None:
    whole = whole_text(KEYS[3], 30)
    assert fed(KEYS[3], 30, whole[:5] + BROKEN, whole[5:]).differs_at == 5
    assert fed(KEYS[3], 30, whole + BROKEN).differs_at == len(whole)


@pytest.mark.parametrize("width", KEYS)
def test_a_text_that_goes_on_past_its_end_is_too_long_but_no_other_text(width: int) -> None:
    longer = text(KEYS[width], 0, 120)
    for pieces in ((longer,), (longer[:20], longer[20:]), tuple(longer)):
        twin = fed(KEYS[width], 60, *pieces)
        assert (twin.differs_at, twin.over, twin.complete) == (None, True, False)
        assert twin.least_tokens == 120


@pytest.mark.parametrize("width", KEYS)
def test_a_difference_is_called_by_what_stands_behind_it(width: int) -> None:
    whole = whole_text(KEYS[width], 120)
    unit = 4 if width == 1 else 1
    head, first, second, rest = (
        whole[: 8 * unit],
        whole[8 * unit : 9 * unit],
        whole[9 * unit : 10 * unit],
        whole[10 * unit :],
    )
    names = {
        "lost": head + second + rest,
        "doubled": head + first + first + second + rest,
        "reordered": head + second + first + rest,
        "differs": head + "?" * unit + second + rest,
    }
    for name, got in names.items():
        assert difference(fed(KEYS[width], 120, got)) == name


@pytest.mark.parametrize("width", KEYS)
def test_several_tokens_of_another_text_are_seen_wherever_they_stand(width: int) -> None:
    whole, unit = whole_text(KEYS[width], 120), 4 if width == 1 else 1
    other = next(
        key
        for key in (b"other %d" % i for i in count())
        if course(key).script is course(KEYS[width]).script and whole_text(key, width)[:unit] not in whole
    )
    part = whole_text(other, 40)[3 * unit : 7 * unit]
    for place in (0, 8 * unit, len(whole) - 2 * unit):
        twin = fed(KEYS[width], 120, whole[:place] + part + whole[place + len(part) :])
        assert foreign_part(twin, other, 40) in part
        assert foreign_part(twin, other, 40) != ""
        assert foreign_part(twin, b"a third", 40) == ""


@pytest.mark.parametrize("width", KEYS)
def test_a_text_with_a_stop_string_is_complete_before_it_and_leaks_behind_it(width: int) -> None:
    stop, whole = stop_text(KEYS[width], 20), whole_text(KEYS[width], 60)
    at = whole.index(stop)
    for until, complete, leaks in ((at - 1, False, False), (at, True, False), (at + 1, True, True)):
        twin = Twin(KEYS[width], 60, (stop,))
        twin.take(whole[:until])
        assert (twin.differs_at, twin.complete, twin.leaks) == (None, complete, leaks)
    assert Twin(KEYS[width], 8, (stop,)).stops_at is None


def test_a_character_lost_between_two_decoders_is_lost() -> None:
    whole = whole_text(KEYS[3], 90)
    assert difference(fed(KEYS[3], 90, whole[:6], whole[7:])) == "lost"
    assert difference(fed(KEYS[3], 90, whole[:6] + BROKEN, whole[7:])) == "lost"


@pytest.mark.parametrize("width", [2, 3, 4])
def test_a_text_that_lost_characters_in_several_places_close_together_has_lost_them(width: int) -> None:
    full = text(KEYS[width], 0, 60)
    assert difference(fed(KEYS[width], 60, full[:3] + full[4:6] + full[7:])) == "lost"
