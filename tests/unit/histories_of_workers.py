"""Stories of workers and frontends: two frontends of which one is killed and one drains, and a drain that takes long."""

from __future__ import annotations

import dataclasses

from histories import FRONTEND, Ask, Story

from ftmodel.history import Event

SECOND = "frontend-2"
HEALED = "frontend-2-2"


def of_dynamo(story: Story, **setting: object) -> Story:
    """With what is promised of those who are asked to stop."""
    promise = dataclasses.replace(story.setting.promise, serves_on_s=5.0, grace_s=905.0, frontend_drain_s=5.0)
    story.setting = dataclasses.replace(story.setting, promise=promise, **setting)  # type: ignore[arg-type]
    return story


def two_frontends(*, exact: bool) -> list[Event]:
    """One frontend is killed with a stream and comes back; a worker dies; the other frontend drains with a stream."""
    story = of_dynamo(Story(exact=exact), frontends=2)
    story.start(SECOND, 2, 0.01, role="frontend")
    for slot in (1, 2):
        story.join(f"w{slot}", 0.6 + slot / 10, SECOND)
    Ask(story, "r1", 1.0, 50).whole("w1", 1.0)
    Ask(story, "r2", 1.02, 50, frontend=SECOND).whole("w2", 1.02)
    broken = Ask(story, "r3", 2.0, 500, frontend=SECOND).begin("w1", 2.004)
    broken.run(80, 2.01)
    Ask(story, "r4", 2.2, 500).whole("w1", 2.2)
    story.fault("kill-frontend", SECOND, 2.6)
    story.exit(SECOND, 2.6, unlisted_s=2.6)
    broken.end("cut", 2.602)
    broken.stop("aborted", 2.61)
    Ask(story, "r5", 3.0, 50, frontend=SECOND).end("refused", 3.001)
    story.start(HEALED, 2, 4.0, role="frontend")
    for slot in (1, 2):
        story.join(f"w{slot}", 4.4 + slot / 10, HEALED)
    moved = Ask(story, "r6", 6.0, 300, frontend=HEALED).begin("w1", 6.004)
    moved.run(90, 6.01)
    story.kill("w1", 6.7)
    moved.stop("died", 6.7).move("migrating", 6.71).begin("w2", 6.74)
    end_s = moved.run(210, 6.75)
    moved.stop("ended", end_s - 0.001).finish(end_s)
    kept = Ask(story, "r7", 11.0, 1700).begin("w2", 11.004)
    kept.run(150, 11.01)
    story.fault("stop-frontend", FRONTEND, 12.0)
    Ask(story, "r8", 12.5, 50).refuse(12.51, 503)
    Ask(story, "r9", 13.0, 50, frontend=HEALED).whole("w2", 13.0)
    end_s = kept.run(1550, 12.02)
    kept.stop("ended", end_s - 0.001).finish(end_s)
    story.exit(FRONTEND, end_s + 0.02, unlisted_s=end_s)
    story.mark("steps-done", 30.0)
    story.mark("heal", 50.0)
    story.start("w1-2", 1, 50.0)
    story.start("frontend-1-2", 1, 50.0, role="frontend")
    story.join("w1-2", 50.4, HEALED)
    story.join("w1-2", 50.5, "frontend-1-2")
    story.join("w2", 50.6, "frontend-1-2")
    story.mark("healed", 51.0)
    return story.told(80.0)


def long_drain(*, exact: bool) -> list[Event]:
    """A worker is asked to stop with a long stream and finishes it; much later others are still served in turns."""
    story = of_dynamo(Story(exact=exact, workers=3))
    kept = Ask(story, "r1", 1.0, 2600).begin("w1", 1.004)
    kept.run(150, 1.01)
    story.fault("stop-worker", "w1", 2.0)
    story.lives["w1"].unlisted_s = 2.05
    for i, title in enumerate(("w2", "w3", "w2", "w3")):
        Ask(story, f"e{i}", 14.8 + i / 5, 30).whole(title, 14.8 + i / 5)
    end_s = kept.run(2450, 2.02)
    kept.stop("ended", end_s - 0.001).finish(end_s)
    story.exit("w1", end_s + 0.1, unlisted_s=2.05)
    for i in range(20):
        Ask(story, f"l{i}", 34.0 + i / 4, 30).whole(("w2", "w3")[i % 2], 34.0 + i / 4)
    Ask(story, "long", 39.0, 600).whole("w2", 39.0)
    story.mark("steps-done", 43.0)
    story.mark("heal", 60.0)
    story.start("w1-2", 1, 60.0)
    story.join("w1-2", 60.4)
    story.mark("healed", 60.5)
    return story.told(90.0)


STORIES = {
    f"{tell.__name__}-{'counting' if exact else 'mocker'}": tell(exact=exact)
    for tell in (two_frontends, long_drain)
    for exact in (True, False)
}
