"""A lane: a process that plays rounds on clusters of its own and tells, in JSON lines, what became of each example.

It reads one line of `Setup`, then orders: a round a line, and the end of its work as `null`. When its orders end before
that, the soak is gone: the lane ends at once, and the wardens of its clusters clear up after it, as after any death of
the tester. Where a lane runs is no business of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from pydantic import TypeAdapter

from ftmodel import campaign, runner, shrinking, topology
from ftmodel.errors import FtmodelError, HarnessError, StoreError, UsageError
from ftmodel.lanes import Collected, Drawing, Lanes
from ftmodel.report import making
from ftmodel.runner import RULES, SCRIPTED
from ftmodel.session import Proof, Session
from ftmodel.soak import rounds
from ftmodel.soak.rounds import Round
from ftmodel.soak.telling import Shrinks, Tell, Told, round_of
from ftmodel.steps import Plan
from ftmodel.store import Run
from ftmodel.targets.simulated import Planted, catalogue
from ftmodel.topology import Topology

HURRY_S: Final = 1e6
"""Longer than any time for making an example smaller."""
CLOSE: Final = {"is": "close"}
"""An order that is obeyed at once: begin nothing more, but for what confirms; what was under way comes to its end."""
Opener = Callable[[Plan], Drawing | None]
Draw = Callable[[Opener, Round, Topology, Sequence[int]], None]
"""Draws a round's plans, given the system's timeouts in ms (`ftmodel.strategies.generate`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a lane needs to know before its first round. Texts and numbers alone: it may go to another machine."""

    name: str
    folder: str
    """The soak's: what the lane keeps lies below it."""
    topologies: tuple[str, ...]
    """Each the text of a TOML file."""
    python: str | None = None
    cold_start: bool = False
    width: int = 1
    """Examples at once."""
    defects: str | None = None
    """A file of defects, to be planted in simulated clusters instead of ours."""
    defect: str | None = None
    """Those of them that are planted: ID[:P], separated by commas."""
    sim_seed: int = 0


_SETUP: Final[TypeAdapter[Setup]] = TypeAdapter(Setup)


def planted(defects: str | None, defect: str | None) -> tuple[Planted, ...]:
    """The defects that are named, of the file or of ours. Raises UsageError."""
    if defect is None:
        return ()
    return catalogue.planted(defect, catalogue.load(Path(defects)) if defects is not None else catalogue.ours())


class Folder(Run):
    """Where a lane keeps things: examples among those of the other lanes, the rest in a folder of its own."""

    def __init__(self, soak: Path, lane: str) -> None:
        super().__init__(soak / "lanes" / lane)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._soak = Run(soak)
        self._lane = lane

    def example(self, name: str) -> Path:
        """Make the folder of an example. Each lane has a control and a calibration of its own."""
        return self._soak.example(f"{name}-lane-{self._lane}" if name.startswith(SCRIPTED) else name)


class Lane:
    """Plays the rounds that it is told to, one after the other; the examples of one run beside those of the next."""

    def __init__(self, setup: Setup, folder: Path, draw: Draw, tell: Tell) -> None:
        self._setup = setup
        self._soak = folder
        self._run = Folder(folder, setup.name)
        self._draw = draw
        self._tell = tell
        self._examples = Told(tell)
        self._tops = {top.name: top for top in (topology.parse(text) for text in setup.topologies)}
        self._proofs: dict[str, Proof] = {}
        self._lanes: Lanes | None = None
        self._optional: set[int] = set()
        """Rounds that are under way, but for those that confirm or shrink."""
        self._hurries = False
        """Nothing more is begun, but for what confirms."""

    def close(self, waiting: Sequence[Round]) -> None:
        """Begin nothing more, of what is under way, and none of these rounds; from any thread. What confirms goes on."""
        self._hurries = True
        for this in waiting:
            self._tell({"is": "round-over", "round": this.number, "dropped": True})
        if self._lanes is not None:
            for name in self._lanes.drop(lambda name: round_of(name) in self._optional):
                self._examples.ended(round_of(name))

    def play(self, orders: Iterator[dict[str, Any] | None]) -> None:
        """Play until `null`. Raises UsageError or HarnessError; nothing of a cluster is left in any case."""
        setup = self._setup
        with Session(
            list(self._tops.values()), self._run, python=Path(setup.python) if setup.python else None,
            cold_start=setup.cold_start, planted=planted(setup.defects, setup.defect), sim_seed=setup.sim_seed,
        ) as session:  # fmt: skip
            self._tell({
                "is": "ready", "pid": os.getpid(), "system": session.system.name, "version": session.version,
                "versions": session.versions, "scratch": str(getattr(session, "scratch", "")),
                "env": campaign.facts_of(session),
            })  # fmt: skip
            with Lanes(session, self._examples, width=setup.width) as lanes:
                self._lanes = lanes
                for order in orders:
                    if order is None:
                        break
                    self._round(session, lanes, rounds.of_json(order))
                    self._tell({"is": "wants"})
                self._tell({"is": "began", "what": "the last ones"})
        self._tell({"is": "over", "left_over": session.left_over})

    def _round(self, session: Session, lanes: Lanes, this: Round) -> None:
        top = self._tops[this.topology]
        optional = this.source not in ("confirm", "shrink")
        if optional:
            self._optional.add(this.number)
        proof = self._proven(session, top)
        self._examples.begun(this.number)
        if this.source == "shrink":
            self._shrink(session, lanes, this, proof)
        else:
            plans = self._plans(session, top, this)
            self._examples.watcher.began(f"playing round {this.number}")
            for index, plan in enumerate(plans, start=1):
                if not (optional and self._hurries):
                    self._examples.begun(this.number)
                    lanes.start(this.named(index), top, plan, proof)
            lanes.begin()
        self._optional.discard(this.number)
        self._examples.ended(this.number)

    def _shrink(self, session: Session, lanes: Lanes, this: Round, proof: Proof) -> None:
        """Make a finding's example smaller, and its report."""
        began_s = time.monotonic()
        example = self._soak / this.folder
        row: dict[str, Any] = {"is": "shrunk", "round": this.number, "signature": this.signature, "folder": this.folder}
        try:
            result = shrinking.within(
                session, lanes, proof, example, self._examples.rules, Shrinks(this, self._examples, self._tell),
                signature=this.signature, budget_s=this.budget_s, clock=self._clock,
            ).row()  # fmt: skip
            row |= {key: result[key] for key in ("to_steps", "rate", "reproduced", "done")}
            self._examples.watcher.began(f"writing the report of {this.signature}")
            scripts = 0 if self._hurries else this.scripts
            making.make(example, RULES, signature=this.signature, python=session.python, times=scripts)
        except (HarnessError, UsageError) as error:
            if session.failure:
                raise
            row["why"] = str(error)
        self._tell({**row, "seconds": round(time.monotonic() - began_s, 1)})

    def _clock(self) -> float:
        """Time for making an example smaller; it is over when there is none for more than what is under way."""
        return time.monotonic() + (HURRY_S if self._hurries else 0.0)

    def _proven(self, session: Session, top: Topology) -> Proof:
        """What control and calibration prove of the topology here, run when it is first played."""
        if top.name not in self._proofs:
            self._examples.watcher.began(f"proving {top.name}")
            self._proofs[top.name] = runner.prove(session, top, self._examples)
        return self._proofs[top.name]

    def _plans(self, session: Session, top: Topology, this: Round) -> Sequence[Plan]:
        if this.plans:
            return this.plans
        self._examples.watcher.began(f"drawing round {this.number}")
        kept = Collected(top, this.examples + 1)
        self._draw(kept, this, top, session.promises(top).timeouts_ms())
        plans = kept.plans[1:]  # the first one has the plainest steps, whatever the seed
        if not this.patient:
            plans = [dataclasses.replace(plan, patience="short") for plan in plans]
        return [rounds.joined(plans)] if this.source == "lasting" else plans


def serve(draw: Draw) -> int:
    """Be a lane: orders come on stdin, what is told goes to stdout. Returns the exit code."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anybody else prints is not for the soak
    telling = threading.Lock()

    def tell(row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=True)
        with telling:
            try:
                told.write(line + "\n")
                told.flush()
            except BrokenPipeError:
                leave()

    lines = sys.stdin
    setup: Setup = _SETUP.validate_json(lines.readline())
    orders: queue.Queue[dict[str, Any] | None] = queue.Queue()
    lane = Lane(setup, Path(setup.folder), draw, tell)
    threading.Thread(target=_read, args=(lines, orders, lane), daemon=True, name="orders").start()
    try:
        lane.play(iter(orders.get, object()))
    except FtmodelError as error:
        kind = "store" if isinstance(error, StoreError) else "lane"
        tell({"is": "failed", "what": kind, "message": str(error)})
        return 1
    return 0


def leave() -> None:
    """The soak is gone: end at once. The warden sees it, and clears up."""
    os._exit(1)


def _read(lines: IO[str], orders: queue.Queue[dict[str, Any] | None], lane: Lane) -> None:
    for line in lines:
        order = json.loads(line)
        if order == CLOSE:
            lane.close(_taken_back(orders))
        else:
            orders.put(order)
    leave()


def _taken_back(orders: queue.Queue[dict[str, Any] | None]) -> list[Round]:
    """The rounds that were not begun, but for those that confirm or shrink: these stay."""
    waiting: list[dict[str, Any] | None] = []
    with contextlib.suppress(queue.Empty):
        while True:
            waiting.append(orders.get_nowait())
    back = [order for order in waiting if order is not None and order["source"] not in ("confirm", "shrink")]
    for order in waiting:
        if order not in back:
            orders.put(order)
    return [rounds.of_json(order) for order in back]


def line_of(setup: Setup) -> str:
    """The first line for a lane."""
    return json.dumps(dataclasses.asdict(setup))
