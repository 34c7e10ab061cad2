"""An answer that a grammar shapes, where the engine heeds it: nobody knows how many tokens its text has."""

from __future__ import annotations

import dataclasses

import pytest
from histories import Ask, Story

from ftmodel.history import Item
from ftmodel.invariants import Judgement, judge


def answered(text: str, finish: str = "length", *, guided: bool = True) -> Story:
    """An answer of at most 50 tokens, of which each could have four characters."""
    story = Story(exact=False)
    ask = Ask(story, "r1", 5.0, 50, stream=False, guided=guided).begin("w1", 5.004)
    ask.stop("ended", 5.4).head(5.41).read(5.42, Item("text", text), Item("finish", finish), Item("usage", "40", 0, 50))
    ask.end("eof", 5.5, success=True)
    return story


def judged(story: Story, *, heeds: bool = True) -> Judgement:
    return judge([dataclasses.replace(story.setting, guides=heeds), *story.told(90.0)[1:]])


def lengths(judgement: Judgement) -> list[str]:
    return [finding.signature for finding in judgement.findings if finding.invariant in ("T2", "P5")]


ONE_BYTE_A_TOKEN = "{" + "\t" * 49


def test_tokens_of_one_character_are_not_too_few() -> None:
    assert lengths(judged(answered(ONE_BYTE_A_TOKEN))) == []


@pytest.mark.parametrize("finish", ["length", "stop"])
def test_it_may_end_by_itself(finish: str) -> None:
    assert lengths(judged(answered("{}", finish))) == []


def test_more_than_its_tokens_can_say_is_too_long() -> None:
    assert lengths(judged(answered("{" + "\t" * 200))) == ["T2/long"]


def test_an_engine_that_does_not_heed_it_is_judged_as_ever() -> None:
    assert lengths(judged(answered(ONE_BYTE_A_TOKEN), heeds=False)) == ["T2/short"]
    assert lengths(judged(answered(" abc" * 50, "stop"), heeds=False)) == ["T2/finish-reason"]


def test_an_answer_that_no_grammar_shapes_is_judged_as_ever() -> None:
    assert lengths(judged(answered(ONE_BYTE_A_TOKEN, guided=False))) == ["T2/short"]
