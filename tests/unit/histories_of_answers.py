"""Stories of answers: all that a request may ask for, requests that are wrong, cancels beside others, nobody to serve."""

from __future__ import annotations

import dataclasses

from histories import PACE_S, Ask, Story, moment

from ftmodel.engines.counting.worker import choice_key, stop_text, text
from ftmodel.history import ClientClosed, EngineErred, Event, Item, ReaderPaused

BAD = (
    ("malformed-json", 400),
    ("unknown-model", 404),
    ("negative-max-tokens", 400),
    ("prompt-too-long", 400),
)


def asked(*, exact: bool) -> list[Event]:
    """Usage in streams and elsewhere, several choices, a stop string, wrong requests, an engine that fails."""
    story = Story(exact=exact)
    Ask(story, "r1", 1.0, 60, usage=True).whole("w1", 1.0)
    Ask(story, "r2", 1.1, 80, api="chat", stream=False).whole("w2", 1.1)
    Ask(story, "r3", 1.2, 90, api="chat", usage=True).whole("w1", 1.2)
    if exact:
        _choices(story, 2.0)
        _stopped(story, 2.2)
    for i in range(4):
        for again in (0, 1):
            wrong, status = BAD[i]
            ask = Ask(
                story, f"b{i}{again}", 3.0 + i / 5 + again / 20, 8, wrong=wrong, stream=wrong == "prompt-too-long"
            )
            if exact or wrong != "prompt-too-long":
                ask.refuse(ask.sent_s + 0.01, status)
            else:
                ask.whole("w1", ask.sent_s)  # an engine that knows no longest prompt
    failed = Ask(story, "r4", 4.0, 200).begin("w1", 4.004)
    _err(failed, failed.run(70, 4.01), "error")
    failed.stop("failed", 4.45).error(4.46)
    _broken_off(story, 5.0)
    _slow(story, 6.0)
    return _calm(story, 60.0)


def _choices(story: Story, at_s: float) -> None:
    ask = Ask(story, "n2", at_s, 40, stream=False, n=2)
    ask.begin("w2", at_s + 0.004).stop("ended", at_s + 0.24).head(at_s + 0.25)
    for choice in (0, 1):
        said = text(choice_key(ask.key.encode(), choice), 0, 40)
        ask.read(at_s + 0.25, Item("text", said, choice), Item("finish", "length", choice))
    ask.read(at_s + 0.25, Item("usage", "40", count=80)).end("eof", at_s + 0.26, success=True)


def _stopped(story: Story, at_s: float) -> None:
    """A stop string: the frontend looks for it, and has the worker end."""
    key = "request s1 00000000:"  # as an Ask makes it
    stop = stop_text(key.encode(), 30)
    ask = Ask(story, "s1", at_s, 80, stream=False, stop=(stop,)).begin("w2", at_s + 0.004)
    assert ask.key == key
    whole = text(key.encode(), 0, 80)
    until = whole[: whole.index(stop)]
    ask.stop("aborted", at_s + 0.2).head(at_s + 0.2)
    through = until + stop
    tokens = -(-len(through) // 4) if through.isascii() else len(through.encode())
    ask.read(at_s + 0.2, Item("text", until), Item("finish", "stop"), Item("usage", "40", count=tokens))
    ask.end("eof", at_s + 0.21, success=True)


def _err(ask: Ask, at_s: float, how: str) -> None:
    assert ask.serving is not None
    title, _ = ask.serving
    ask.story.push(
        EngineErred(at=moment(at_s), request=ask.name, title=title, how=how, step=f"e-{ask.name}")  # type: ignore[arg-type]
    )


def _broken_off(story: Story, at_s: float) -> None:
    """The engine ends a stream without a finish, and its client is told."""
    ask = Ask(story, "r5", at_s, 200).begin("w2", at_s + 0.004)
    end_s = ask.run(70, at_s + 0.01)
    _err(ask, end_s, "no-finish")
    ask.stop("failed", end_s + 0.001).error(end_s + 0.01)


def _slow(story: Story, at_s: float) -> None:
    """A client that reads nothing for longer than an answer may take, and then reads the rest."""
    ask = Ask(story, "r6", at_s, 200).begin("w1", at_s + 0.004)
    half_s = ask.run(70, at_s + 0.01)
    ask.stop("ended", half_s + 130 * PACE_S)
    pause_s = story.setting.bounds.hang_bound_s + 5
    story.push(ReaderPaused(at=moment(half_s + pause_s, pause_s), request="r6"))
    ask.finish(ask.run(130, half_s + pause_s))


def beside(*, exact: bool) -> list[Event]:
    """One of two requests on a worker is cancelled, another is left after its end; the router keeps books."""
    story = Story(exact=exact)
    story.setting = dataclasses.replace(story.setting, router_mode="kv")
    kept = Ask(story, "r1", 1.0, 300).begin("w1", 1.004)
    kept.run(60, 1.01)
    left = Ask(story, "r2", 1.1, 900).begin("w1", 1.104)
    left.run(30, 1.11)
    left.leave(1.5)
    chat = Ask(story, "r3", 1.2, 900, api="chat").begin("w2", 1.204)
    chat.run(30, 1.21)
    chat.leave(1.6)
    end_s = kept.run(240, 1.51)
    kept.stop("ended", end_s - 0.001).finish(end_s)
    end_s = Ask(story, "r4", 7.0, 50).whole("w2", 7.0)
    story.push(ClientClosed(at=moment(end_s + 0.02), request="r4", how="close"))
    Ask(story, "r5", 12.0, 50, stream=False).whole("w1", 12.0)
    return _calm(story, 20.0)


def nobody(*, exact: bool) -> list[Event]:
    """All workers leave, and the frontend knows it: a request is told so. Later new ones serve again."""
    story = Story(exact=exact)
    Ask(story, "r1", 1.0, 50).whole("w1", 1.0)
    for title in ("w1", "w2"):
        story.fault("stop-worker", title, 2.0)
        story.exit(title, 2.1, unlisted_s=2.05)
    Ask(story, "r2", 7.0, 50).refuse(7.01, 503)
    Ask(story, "r3", 8.0, 50, stream=False).refuse(8.01, 503)
    story.start("w1-2", 1, 9.0)
    story.join("w1-2", 9.4)
    Ask(story, "r4", 12.0, 50).whole("w1-2", 12.0)
    story.mark("steps-done", 15.0)
    story.mark("heal", 35.0)
    story.start("w2-2", 2, 35.0)
    story.join("w2-2", 35.4)
    story.mark("healed", 35.5)
    return story.told(65.0)


def _calm(story: Story, ready_s: float) -> list[Event]:
    story.mark("steps-done", ready_s)
    story.mark("heal", ready_s + 1)
    story.mark("healed", ready_s + 1)
    return story.told(ready_s + 45)


STORIES = {
    f"{tell.__name__}-{'counting' if exact else 'mocker'}": tell(exact=exact)
    for tell in (asked, beside, nobody)
    for exact in (True, False)
}
