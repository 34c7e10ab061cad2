"""Synthetic histories of a disaggregated cluster: prefill workers read prompts, others answer."""

from __future__ import annotations

from histories import Ask, Story

from ftmodel.history import Event


def lost_prefill(*, exact: bool = False) -> list[Event]:
    """A prefill worker dies with a prompt, whose request fails; one that decodes dies too; clients leave in both phases."""
    story = Story(exact=exact, prefills=2)
    Ask(story, "r1", 1.0, 50).whole("w1", 1.0)
    broken = Ask(story, "r2", 2.0, 50).prefill("p2", 2.004, 2.4, "died")
    story.kill("p2", 2.4)
    broken.refuse(2.41, 503)
    moved = Ask(story, "r3", 13.0, 200).prefill("p1", 13.004, 15.9).begin("w1", 15.904)
    moved.run(60, 15.91)
    story.kill("w1", 16.4)
    moved.stop("died", 16.4).move("migrating", 16.41).prefill("p1", 16.42, 19.3).begin("w2", 19.304)
    end_s = moved.run(140, 19.31)
    moved.stop("ended", end_s - 0.001).finish(end_s)
    told = Ask(story, "r4", 21.0, 900).prefill("p1", 21.004, 21.31, "finished")
    told.leave(21.3)
    story.lives["p1"].cancelled.append(21.31)
    left = Ask(story, "r5", 24.0, 900).prefill("p1", 24.004, 26.9).begin("w2", 26.904)
    left.run(20, 26.91)
    left.leave(27.1)
    between = Ask(story, "r6", 28.0, 30).prefill("p1", 28.004, 30.9).begin("w2", 30.904)
    between.leave(30.906)
    Ask(story, "r7", 32.0, 40).whole("w2", 32.0)
    return _calm(story)


def drained_prefill(*, exact: bool = False) -> list[Event]:
    """A prefill worker is asked to stop with a prompt: it reads that to its end, and exits; another joins."""
    story = Story(exact=exact, prefills=2)
    kept = Ask(story, "r1", 1.0, 50).prefill("p2", 1.004, 3.9).begin("w1", 3.904)
    story.fault("stop-worker", "p2", 1.5)
    story.lives["p2"].unlisted_s = 1.6
    end_s = kept.run(50, 3.91)
    kept.stop("ended", end_s - 0.001).finish(end_s)
    story.exit("p2", 4.1, unlisted_s=1.6)
    story.start("p2-2", 2, 6.0, role="prefill")
    story.join("p2-2", 6.5)
    Ask(story, "r2", 8.0, 50).prefill("p2-2", 8.004, 10.9).whole("w2", 11.0)
    story.fault("freeze-worker", "p2-2", 14.0)
    Ask(story, "r3", 15.0, 50).whole("w1", 15.0)
    story.fault("thaw-worker", "p2-2", 16.0)
    return _calm(story)


def _calm(story: Story) -> list[Event]:
    """Heal, and the rest."""
    story.mark("steps-done", 34.0)
    story.mark("heal", 44.0)
    dead = [life for life in story.lives.values() if life.until_s < 40.0 and not life.title.endswith("-2")]
    for life in dead:
        if f"{life.title}-2" not in story.lives:
            story.start(f"{life.title}-2", int(life.title[1:]), 44.0, role=life.role)
            story.join(f"{life.title}-2", 44.4)
    story.mark("healed", 44.5)
    return story.told(75.0)


STORIES = {f"{tell.__name__}-mocker": tell() for tell in (lost_prefill, drained_prefill)}
