"""Stories of outages: etcd is killed and soon back, or frozen so long that every process ends."""

from __future__ import annotations

import dataclasses

from histories import FRONTEND, Ask, Story, moment

from ftmodel.history import Event, Exited, FaultMade, Listed, Started, Told

BLIND = (2.0, 3.4)
"""From the outage on to the first list that is whole again; a frontend asks the control plane for it."""


def served(story: Story, title: str, at_s: float) -> None:
    """A life of a service begins, and soon serves."""
    story.push(Started(at=moment(at_s), title=title, role="service", slot=0, pid=77))
    story.push(Told(at=moment(at_s + 0.2), title=title, health=200, live=200))


def hit(story: Story, fault: str, title: str, at_s: float) -> None:
    """A verified fault on a service; a killed one ends."""
    made = FaultMade(at=moment(at_s), fault=fault, title=title, step=f"s-{fault}", verified=True)  # type: ignore[arg-type]
    story.push(made)
    if fault.startswith("kill"):
        story.push(Exited(at=moment(at_s), title=title, code=None, signal=9))


def over_etcd(*, exact: bool, workers: int = 3) -> Story:
    """A cluster that finds itself by etcd."""
    story = Story(exact=exact, workers=workers)
    promise = dataclasses.replace(story.setting.promise, outage_s=4.0)
    story.setting = dataclasses.replace(story.setting, discovery="etcd", promise=promise)
    served(story, "etcd", 0.005)
    return story


def blind(events: list[Event], from_s: float, to_s: float) -> list[Event]:
    """Nobody is listed meanwhile."""
    return [
        dataclasses.replace(e, titles=()) if isinstance(e, Listed) and from_s <= e.at.before_s < to_s else e
        for e in events
    ]


def short_outage(*, exact: bool) -> list[Event]:
    """Etcd is gone for a second; a worker dies meanwhile. Much later a stream survives the death of another worker."""
    story = over_etcd(exact=exact, workers=4)
    Ask(story, "r1", 1.0, 50).whole("w1", 1.0)
    hit(story, "kill-etcd", "etcd", BLIND[0])
    story.kill("w4", 2.3)
    Ask(story, "r2", 2.5, 50).refuse(2.51, 503)
    served(story, "etcd-2", 3.0)
    Ask(story, "r3", 3.1, 50).whole("w2", 3.1)
    moved = Ask(story, "r4", 24.0, 203).begin("w1", 24.004)
    moved.run(61, 24.01)
    story.kill("w1", 24.5)
    moved.stop("died", 24.5).move("migrating", 24.51).begin("w2", 24.55)
    end_s = moved.run(203 - 61, 24.56)
    moved.stop("ended", end_s - 0.001).finish(end_s)
    story.mark("steps-done", 40.0)
    story.mark("heal", 50.0)
    story.start("w1-2", 1, 50.0)
    story.start("w4-2", 4, 50.0)
    story.join("w1-2", 50.4)
    story.join("w4-2", 50.5)
    story.mark("healed", 51.0)
    return blind(story.told(80.0), *BLIND)


def long_outage(*, exact: bool) -> list[Event]:
    """Etcd is frozen for longer than a lease: every process ends by itself, and others take their places."""
    story = over_etcd(exact=exact)
    Ask(story, "r1", 1.0, 50).whole("w1", 1.0)
    hit(story, "freeze-etcd", "etcd", BLIND[0])
    for slot in (1, 2, 3):
        story.exit(f"w{slot}", 11.0 + slot / 10, unlisted_s=2.0)
    Ask(story, "r2", 12.5, 50).refuse(12.51, 503)
    story.exit(FRONTEND, 13.5, unlisted_s=2.0)
    hit(story, "thaw-etcd", "etcd", 14.0)
    story.mark("steps-done", 15.0)
    story.mark("heal", 15.1)
    story.start("frontend-1-2", 1, 30.0, role="frontend")
    for slot in (1, 2, 3):
        story.start(f"w{slot}-2", slot, 30.0)
        story.join(f"w{slot}-2", 30.4 + slot / 10, "frontend-1-2")
    story.mark("healed", 31.0)
    Ask(story, "r3", 32.0, 50, frontend="frontend-1-2").whole("w1-2", 32.0)
    return story.told(70.0)


STORIES = {
    f"{tell.__name__}-{'counting' if exact else 'mocker'}": tell(exact=exact)
    for tell in (short_outage, long_outage)
    for exact in (True, False)
}
