"""The state machine: it draws a plan step by step and hands each step to an example; it never looks back.

On a real target nothing that the cluster does reaches Hypothesis: the machine never raises, and goes on drawing after a
violation and after a failure of the harness (see the measurements on flaky systems in the docs). So the same seed gives
the same plans, whatever the cluster's timing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis import strategies as st
from hypothesis.internal.conjecture import data as conjecture
from hypothesis.stateful import RuleBasedStateMachine, get_state_machine_test, initialize, rule
from hypothesis.strategies import SearchStrategy

from ftmodel.outline import Outline
from ftmodel.steps import Mix, Patience, Plan, ServiceName, Step

from .rules import Kind, mixes, next_steps

PATIENCES: tuple[Patience, ...] = ("short",) + (*("short",) * 5, "long", "short", "short") * 2
"""About one example in eight is patient."""


class Example(Protocol):
    """One example under way: it is given the steps as they are drawn, and the plan at its end."""

    def apply(self, step: Step) -> None:
        """Do a step, or arm it. Does not raise for anything that the cluster does."""

    def end(self) -> None:
        """No more steps."""

    def abandon(self) -> None:
        """The run is being ended: leave nothing behind, judge nothing."""


Opener = Callable[[Plan], Example | None]
"""The head of a plan as drawn, without a topology and steps -> the example to run, or None if enough have run."""


class EnoughError(BaseException):
    """Ends the drawing. No `Exception`, so that Hypothesis takes it for what it is, and not for a failing example."""


class ClusterMachine(RuleBasedStateMachine):
    """Draws one plan. What it needs is given by subclassing (`generate` does so); kinds of one's own are, too."""

    opener: Opener
    timeouts_ms: Sequence[int] = ()
    """The systems' own timeouts, around which skews are drawn."""
    services: Sequence[ServiceName] = ()
    """What the clusters of some topology of the run stand on. Not whose turn it is: draws must not depend on that."""
    apart: bool = False
    """Some topology of the run has prefill workers."""
    mixed: Mix | None = None
    """The weights of every plan, where they were drawn before; None: each plan draws its own."""
    longest: int = 30
    """Steps of a plan at most."""
    own: Sequence[tuple[Kind, int]] = ()
    """Kinds of steps of one's own, each with its weight (a submit has 5); each is like a function of `strategies.rules`."""

    def __init__(self) -> None:
        super().__init__()
        self.example: Example | None = None
        self.outline = Outline(workers=1, patience="short")
        self.mix = Mix()

    @initialize(head=st.runner().flatmap(lambda machine: machine.head_drawn()))
    def begin(self, head: Plan) -> None:
        """Draw the mix, the patience and the topology's free values; all of them are kept in the plan."""
        self.mix = head.mix
        self.outline = Outline(
            workers=head.workers, prefills=head.prefill_workers, frontends=head.frontends, patience=head.patience,
            services=dict.fromkeys(self.services, "up"),
        )  # fmt: skip
        try:
            self.example = self.opener(head)
        except Exception as error:
            raise EnoughError from error
        if self.example is None:
            raise EnoughError

    @rule(steps=st.runner().flatmap(lambda machine: machine.steps_drawn()))
    def step(self, steps: tuple[Step, ...]) -> None:
        """The one rule: what comes next in the plan, one step or a few that belong together."""
        assert self.example is not None
        try:
            for step in steps:
                self.outline.add(step)
                self.example.apply(step)
        except BaseException as error:
            self.example.abandon()
            self.example = None
            if isinstance(error, Exception):
                raise EnoughError from error
            raise

    def teardown(self) -> None:
        """End the example: on a real target its judgement goes on in the background."""
        if self.example is None:
            return
        if isinstance(sys.exception(), KeyboardInterrupt):  # between two steps; within one, `step` has seen it
            self.example.abandon()
            return
        try:
            self.example.end()
        except Exception as error:
            raise EnoughError from error

    def head_drawn(self) -> SearchStrategy[Plan]:
        """The plan's head, plainest first; the larger limits and more workers more often.

        What a topology does not admit is mended by the opener, never here: draws must not depend on whose turn it is.
        """
        return st.builds(
            Plan,
            topology=st.just(""),
            workers=st.sampled_from((2, *(3, 4, 2, 4, 3) * 3, 1)),
            **({"prefill_workers": st.sampled_from((1, 2, 2))} if self.apart else {}),
            frontends=st.sampled_from((1, 1, 2)),
            migration_limit=st.sampled_from((3, *(10, 3, 10, 10) * 3, 1, 0)),
            patience=st.sampled_from(PATIENCES),
            mix=mixes(outages=bool(self.services), apart=self.apart) if self.mixed is None else st.just(self.mixed),
        )

    def steps_drawn(self) -> SearchStrategy[tuple[Step, ...]]:
        """What comes next, from the outline alone; nothing once the plan is long enough."""
        room = self.longest - self.outline.count
        return next_steps(self.outline, self.mix, self.timeouts_ms, room, self.own) if room > 0 else st.just(())


BATCH = 10
"""Examples of one Hypothesis run. After ten valid ones Hypothesis begins to mutate what it has drawn: good for finding
again what failed, but five of six examples are then nearly copies of the sixth."""


class Unplayed:
    """An example that is drawn and not run."""

    def apply(self, step: Step) -> None:
        """Leave it out."""

    def end(self) -> None:
        """Nothing was begun."""

    def abandon(self) -> None:
        """Likewise."""


def generate(
    opener: Opener,
    *,
    examples: int,
    steps: int,
    seed: int,
    timeouts_ms: Sequence[int] = (),
    services: Sequence[ServiceName] = (),
    apart: bool = False,
    mix: Mix | None = None,
    machine: type[ClusterMachine] = ClusterMachine,
) -> None:
    """Draw plans of up to `steps` steps and hand them to what `opener` returns, until it has had enough.

    Hypothesis only generates here: no database, no shrinking, no deadline. It may draw a few plans more than `examples`;
    the opener says by None that no more are to be run. What the opener or an example raises ends the drawing and is
    raised here; what the cluster does is never raised by them. With a `mix` all of them are drawn by these weights.
    """
    opened = 0

    def counting(head: Plan) -> Example | None:
        nonlocal opened
        opened += 1
        return opener(head)

    def made() -> ClusterMachine:
        """No class of its own for each call: Hypothesis keeps every class of machines for ever, and all that it holds."""
        one = machine()
        one.services, one.apart, one.mixed, one.timeouts_ms, one.longest = services, apart, mix, timeouts_ms, steps
        return one

    batch = 0
    try:
        while opened < examples:
            _draw_batch(counting, batch, steps=steps, seed=seed, made=made)
            batch += 1
    except EnoughError as enough:
        if enough.__cause__ is not None:
            raise enough.__cause__ from None
    finally:
        _forget()


def _forget() -> None:
    """Empty what Hypothesis notes of every strategy that it ever drew from: only its shrinking asks for it.

    A soak draws for days, and its strategies hold names and moments, so hardly any is like an earlier one.
    """
    vars(conjecture).get("STRUCTURAL_COVERAGE_CACHE", {}).clear()


def _draw_batch(
    opener: Opener,
    batch: int,
    *,
    steps: int,
    seed: int,
    made: Callable[[], ClusterMachine],
) -> None:
    """Let Hypothesis draw up to BATCH plans. The first two of each have the plainest steps: run once, in the first."""
    drawn = 0

    def skipping(head: Plan) -> Example | None:
        nonlocal drawn
        drawn += 1
        known = drawn == 2 or (batch > 0 and drawn == 1)
        return Unplayed() if known else opener(head)

    def opening() -> ClusterMachine:
        one = made()
        one.opener = skipping
        return one

    settings = hypothesis.settings(
        max_examples=BATCH,
        stateful_step_count=steps + 1,  # the drawing of the setting counts as one
        phases=(Phase.generate,),
        database=None,
        derandomize=False,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    test = get_state_machine_test(opening, settings=settings)  # type: ignore[arg-type]  # any callable that makes one
    hypothesis.seed(seed + (batch << 64))(test)()
