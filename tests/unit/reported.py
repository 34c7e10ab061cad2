"""Examples in a store, made of recorded histories: one that holds, and the same with something taken away."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from ftmodel import history, store, topology
from ftmodel.history import Event, Received
from ftmodel.runner import judged
from ftmodel.steps import Cancel, HolderOf, KillWorker, Plan, Submit, Token
from ftmodel.store import Run
from ftmodel.verdict import example_row

RECORDED = Path(__file__).parent / "recorded"
STREAM = "r11"
"""A streamed request that is answered in full."""
MOVED = "r21"
"""A streamed request that is moved twice."""
PLAN = Plan(
    topology="counting",
    workers=2,
    steps=(
        Submit(name="r1"),
        Submit(name=STREAM),
        KillWorker(name="s3", worker=HolderOf(STREAM), at=Token(STREAM, 3)),
        Cancel(name="s4", request="r1"),
    ),
)
Change = Callable[[Sequence[Event]], list[Event]]


def recorded() -> list[Event]:
    return list(history.read(RECORDED / "counting-1.6.1-kills.jsonl"))


def without_done(events: Sequence[Event]) -> list[Event]:
    """The stream ends without [DONE]: P1/no-done."""
    changed = []
    for event in events:
        if isinstance(event, Received) and event.request == STREAM:
            items = tuple(item for item in event.items if item.what != "done")
            changed.append(dataclasses.replace(event, items=items))
        else:
            changed.append(event)
    return changed


def saying(words: str) -> Change:
    """As without_done, and the last event of the stream holds these words."""

    def change(events: Sequence[Event]) -> list[Event]:
        changed = without_done(events)
        at = max(i for i, e in enumerate(changed) if isinstance(e, Received) and e.request == STREAM)
        last = changed[at]
        assert isinstance(last, Received)
        changed[at] = dataclasses.replace(last, items=(*last.items, history.Item("error", words)))
        return changed

    return change


def example(folder: Path, events: Sequence[Event], plan: Plan = PLAN) -> Path:
    """Write an example's folder as a run does, with its verdict."""
    (folder / "logs").mkdir(parents=True)
    store.write_example(folder, plan, topology.find("counting"), list(events))
    store.write_json(folder / "verdict.json", example_row(judged(folder.name, folder, plan, list(events))))
    return folder


def run(folder: Path, **examples: Sequence[Event]) -> Path:
    """A run with these examples, one for each name."""
    made = Run.create(folder, "run")
    made.write_env(
        system="dynamo", versions={"python": "3.11.7", "ai-dynamo": "1.6.1", "vllm": None}, topologies=["counting"]
    )
    for name, events in examples.items():
        example(made.folder / "examples" / name, events)
    store.write_json(
        made.folder / "verdict.json", {"verdict": "violated", "system": {"name": "dynamo", "version": "1.6.1"}}
    )
    return made.folder
