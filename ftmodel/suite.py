"""What the tests of one pytest session share: a session on the cluster under test, the proofs, and the store."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ftmodel import campaign, runner, store, topology
from ftmodel.campaign import Draw
from ftmodel.errors import UsageError
from ftmodel.lanes import Lanes
from ftmodel.runner import Examples, Outcome, Rules, Watcher
from ftmodel.session import Proof, Session
from ftmodel.steps import Step
from ftmodel.store import Run
from ftmodel.topology import Topology
from ftmodel.verdict import Verdict, combine, example_row, row

_OTHER: Final = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A topology's proof, and where the two runs lie that gave it."""

    proof: Proof
    folders: tuple[Path, ...]


@dataclass(slots=True)
class Open:
    """A session that is open, and what is to be closed with it."""

    session: Session
    stack: ExitStack


@dataclass(slots=True)
class Suite:
    """A context: on leaving it nothing is left of any cluster, and `left_over` names what outlived one.

    The session is opened when the first test needs it, and again if the last one broke it.
    """

    topologies: Sequence[Topology]
    """Of all tests that may come: one warden serves them."""
    watcher: Watcher
    seed: int
    python: Path | None = None
    store: Path = Path(".ftmodel-runs")
    left_over: list[str] = field(default_factory=list)
    _open: Open | None = None
    _proven: dict[str, Proven] = field(default_factory=dict)
    _outcomes: dict[Path, Outcome] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def session(self, *, needing: Topology) -> Session:
        """The open session. Raises UsageError or HarnessError."""
        if self._open is not None and self._open.session.failure:
            self._close()
        if self._open is None:
            tops = [top for top in self.topologies if top.system == needing.system]
            session = Session(tops or [needing], Run.create(self.store, "pytest"), python=self.python)
            stack = ExitStack()
            stack.enter_context(session)
            self._open = Open(session, stack)
            campaign.write_env(session.run, session, seed=self.seed, profile="pytest")
        return self._open.session

    def proven(self, top: Topology, rules: Rules) -> Proven:
        """What control and calibration prove of this topology: run once. Raises HarnessError."""
        key = topology.dump(top)
        if key not in self._proven:
            session = self.session(needing=top)
            self._one_of_its_name(top)
            examples = Examples(self.watcher, rules)
            self.watcher.began(f"proving {top.name}")
            proof = runner.prove(session, top, examples)
            self._proven[key] = Proven(proof=proof, folders=tuple(outcome.folder for outcome in examples.outcomes))
            self.keep(examples.outcomes)
        return self._proven[key]

    def _one_of_its_name(self, top: Topology) -> None:
        names = [name for text in self._proven for name in re.findall(r'^name = "(.*)"$', text, re.MULTILINE)]
        if top.name in names:
            raise UsageError(f"topology {top.name}: two of this name; expected file names that differ")

    def campaign(self, name: str, tops: Sequence[Topology], rules: Rules, draw: Draw, *, count: int) -> Verdict:
        """Play drawn examples. Raises UsageError or HarnessError."""
        prefix = f"{self.named(name)}-"
        return self._campaign(
            tops,
            rules,
            lambda session, proofs, examples: campaign.play_drawn(
                session, proofs, examples, draw, count=count, prefix=prefix
            ),
        )

    def replays(self, name: str, path: Path, rules: Rules, *, times: int) -> Verdict:
        """Play a stored plan again. Raises UsageError or HarnessError."""
        plan = campaign.load_plan(path)
        prefix = f"{self.named(name)}-"

        def play(session: Session, proofs: Sequence[tuple[Topology, Proof]], examples: Examples) -> None:
            [(top, proof)] = proofs
            with Lanes(session, examples) as lanes:
                for number in range(1, times + 1):
                    lanes.start(f"{prefix}{number:03d}", top, plan, proof)

        return self._campaign([campaign.topology_of(path, plan)], rules, play)

    def _campaign(
        self,
        tops: Sequence[Topology],
        rules: Rules,
        play: Callable[[Session, Sequence[tuple[Topology, Proof]], Examples], None],
    ) -> Verdict:
        began_s = time.monotonic()
        session = self.session(needing=tops[0])
        proven = [self.proven(top, rules) for top in tops]
        examples = Examples(self.watcher, rules)
        try:
            play(session, [(top, one.proof) for top, one in zip(tops, proven, strict=True)], examples)
        except BaseException:
            self._close()  # what was under way was interrupted, and the session with it
            raise
        self.keep(examples.outcomes)
        again = runner.recheck([folder for one in proven for folder in one.folders], _Silent(), rules)
        return combine(
            [*again.outcomes, *examples.outcomes],
            seed=self.seed,
            system={"name": session.system.name, "version": session.version},
            topologies=[top.name for top in tops],
            store=session.run.folder,
            seconds=time.monotonic() - began_s,
        )

    def named(self, name: str) -> str:
        """A name for folders, of its own."""
        plain = _OTHER.sub("-", name).strip("-") or "test"
        number = 1
        free = plain
        while free in self._names:
            number += 1
            free = f"{plain}-{number}"
        self._names.add(free)
        return free

    def keep(self, outcomes: Sequence[Outcome]) -> None:
        """Write down what became of these; the run's verdict counts them."""
        for outcome in outcomes:
            self._outcomes[outcome.folder] = outcome
            store.write_json(outcome.folder / "verdict.json", example_row(outcome))

    def _close(self) -> None:
        if self._open is None:
            return
        session = self._open.session
        try:
            self._open.stack.close()
        finally:
            self._open = None
            self.left_over += session.left_over
        mine = [outcome for folder, outcome in self._outcomes.items() if folder.is_relative_to(session.run.folder)]
        verdict = combine(
            mine,
            seed=self.seed,
            system={"name": session.system.name, "version": session.version},
            topologies=[top.name for top in session.topologies],
            store=session.run.folder,
            doubts=[f"left behind: {left}" for left in session.left_over],
        )
        store.write_json(session.run.folder / "verdict.json", row(verdict))


class _Silent:
    """Watches nothing."""

    def began(self, what: str) -> None: ...

    def stepped(self, step: Step) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...
