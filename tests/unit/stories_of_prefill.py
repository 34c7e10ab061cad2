"""What befalls a request in the phases of a disaggregated cluster, told as stories."""

from __future__ import annotations

from collections.abc import Callable

from histories import Ask, Story

Tell = Callable[[], Story]


def read_by_p1(until_s: float) -> tuple[Story, Ask]:
    """A request whose prompt p1 reads from 2.0 s up to then; it is still open."""
    story = Story(exact=False, prefills=1)
    return story, Ask(story, "r1", 2.0, 200).prefill("p1", 2.004, until_s)


def killed_in_prefill() -> Story:
    """p1 dies with the prompt."""
    story = Story(exact=False, prefills=1)
    ask = Ask(story, "r1", 2.0, 200).prefill("p1", 2.004, 3.0, "died")
    story.kill("p1", 3.0)
    ask.refuse(3.01, 503)
    return story


def answered(tokens: int) -> tuple[Story, Ask]:
    """p1 has read the prompt, and w1 has given so many tokens."""
    story, ask = read_by_p1(4.0)
    ask.begin("w1", 4.01)
    ask.run(tokens, 4.02)
    return story, ask


def killed_in_decode() -> Story:
    """w1 dies after 20 tokens."""
    story, ask = answered(20)
    story.kill("w1", 4.5)
    ask.stop("died", 4.5).error(4.52)
    return story


def left_in_prefill() -> Story:
    """The client leaves while p1 reads."""
    story, ask = read_by_p1(2.51)
    ask.leave(2.5)
    return story


def left_between() -> Story:
    """The client leaves when p1 is done, and w1 has no token yet."""
    story, ask = read_by_p1(4.0)
    ask.begin("w1", 4.01)
    ask.leave(4.02)
    return story


def left_in_decode() -> Story:
    """The client leaves after 20 tokens."""
    story, ask = answered(20)
    ask.leave(4.5)
    return story


STORIES: dict[str, Tell] = {
    "prefill-killed-during-prefill": killed_in_prefill,
    "decode-killed-during-decode": killed_in_decode,
    "cancelled-during-remote-prefill": left_in_prefill,
    "cancelled-between-prefill-and-decode": left_between,
    "cancelled-during-decode": left_in_decode,
}
"""By situation: a story in which it happens once."""
NEAR: list[tuple[str, Tell]] = [
    ("prefill-killed-during-prefill", killed_in_decode),
    ("decode-killed-during-decode", killed_in_prefill),
    ("cancelled-during-remote-prefill", left_between),
    ("cancelled-during-remote-prefill", left_in_decode),
    ("cancelled-between-prefill-and-decode", left_in_prefill),
    ("cancelled-between-prefill-and-decode", left_in_decode),
    ("cancelled-during-decode", left_between),
]
"""Situations, and stories of others that are like them."""
