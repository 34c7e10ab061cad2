"""Stories of stop strings, which a frontend withholds and hides, and of plans that are run again to be compared."""

from __future__ import annotations

import dataclasses

from histories import Ask, Story

from ftmodel.engines.counting.worker import stop_text
from ftmodel.history import Event, Item

WORD = " q"
"""Of the mocker's words none begins so before the one that a story lets it say."""


class Stopped(Ask):
    """A request with a stop string: what may be its beginning is withheld, and it is hidden itself."""

    def __init__(self, story: Story, name: str, at_s: float, max_tokens: int, stop_at: int) -> None:
        self.stop_at = stop_at
        key = f"request {name} 00000000:"
        self.stop_string = stop_text(key.encode(), stop_at) if story.exact else WORD
        super().__init__(story, name, at_s, max_tokens, stop=(self.stop_string,))

    def said(self) -> str:
        """The text so far, without the stop string and what could be the beginning of it."""
        text = super().said()
        if not self.story.exact and self.tokens > self.stop_at:
            text = text[: 4 * self.stop_at] + WORD
        place = text.find(self.stop_string)
        if place >= 0:
            return text[:place]
        held = (n for n in range(len(self.stop_string) - 1, 0, -1) if text.endswith(self.stop_string[:n]))
        return text[: len(text) - next(held, 0)]

    def said_in_full(self) -> str:
        """All the text before the stop string."""
        self.tokens = self.stop_at + 8
        return self.said()

    def hit(self, at_s: float) -> float:
        """The stop string is met: the frontend ends the answer, and has the engine end."""
        self.stop("aborted", at_s)
        self.story.log(self.frontend, "kill", at_s - 0.001)
        self.read(at_s + 0.001, Item("finish", "stop"), Item("usage", count=self.tokens))
        self.read(at_s + 0.002, Item("done"))
        return self.end("eof", at_s + 0.003, success=True)


def stops(*, exact: bool) -> list[Event]:
    """Answers that end at their stop string, one of them moved before, one moved in the midst of it."""
    story = Story(exact=exact, workers=3)
    Ask(story, "r1", 1.0, 50).whole("w2", 1.0)
    plain = Stopped(story, "r2", 1.1, 200, 60).begin("w2", 1.104)
    assert isinstance(plain, Stopped)
    plain.hit(plain.run(62, 1.11))
    moved = Stopped(story, "r3", 2.0, 300, 90).begin("w1", 2.004)
    assert isinstance(moved, Stopped)
    moved.run(40, 2.01)
    within = Stopped(story, "r4", 2.1, 300, 35).begin("w1", 2.104)
    assert isinstance(within, Stopped)
    within.run(35, 2.11)
    story.kill("w1", 2.6)
    moved.stop("died", 2.6).move("migrating", 2.61).begin("w2", 2.64)
    within.stop("died", 2.6).move("migrating", 2.61).begin("w3", 2.64)
    within.hit(within.run(2, 2.65))
    moved.hit(moved.run(52, 2.65))
    Ask(story, "r5", 4.0, 50).whole("w3", 4.0)
    story.mark("steps-done", 20.0)
    story.mark("heal", 40.0)
    story.start("w1-2", 1, 40.0)
    story.join("w1-2", 40.4)
    story.mark("healed", 40.5)
    return story.told(70.0)


def without_faults(*, exact: bool) -> list[Event]:
    """A plan that is run again without its faults."""
    story = Story(exact=exact)
    for i, title in enumerate(("w1", "w2", "w1", "w2"), start=1):
        Ask(story, f"r{i}", 1.0 + i / 5, 60, stream=i != 3).whole(title, 1.0 + i / 5)
    story.setting = dataclasses.replace(story.setting, variant="without-faults", completed=("r1", "r2"))
    story.mark("steps-done", 20.0)
    story.mark("heal", 20.0)
    story.mark("healed", 20.0)
    return story.told(50.0)


def one_more_worker(*, exact: bool) -> list[Event]:
    """A plan that is run again with one worker more."""
    story = Story(exact=exact, workers=3)
    moved = Ask(story, "r1", 1.0, 200).begin("w1", 1.004)
    moved.run(40, 1.01)
    Ask(story, "r2", 1.1, 60).whole("w2", 1.1)
    story.kill("w1", 2.0)
    moved.stop("died", 2.0).move("migrating", 2.01).begin("w2", 2.04)
    end_s = moved.run(160, 2.05)
    moved.stop("ended", end_s - 0.001).finish(end_s)
    Ask(story, "r3", 5.0, 60).whole("w3", 5.0)
    story.setting = dataclasses.replace(story.setting, variant="one-more-worker", completed=("r1", "r2"))
    story.mark("steps-done", 20.0)
    story.mark("heal", 40.0)
    story.start("w1-2", 1, 40.0)
    story.join("w1-2", 40.4)
    story.mark("healed", 40.5)
    return story.told(70.0)


STORIES = {
    f"{tell.__name__}-{'counting' if exact else 'mocker'}": tell(exact=exact)
    for tell in (stops, without_faults, one_more_worker)
    for exact in (True, False)
}
