"""The machine on a simulated cluster, where Hypothesis sees what is violated.

There an example is the same whenever it is run, so it may raise at its end what it found violated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis import strategies as st
from hypothesis.stateful import get_state_machine_test, initialize

from ftmodel.outline import Outline
from ftmodel.steps import Plan

from .machine import BATCH, ClusterMachine, Example, Unplayed

SeededOpener = Callable[[Plan, int], Example]
"""The head of a plan as drawn, and the seed of the simulated cluster -> the example, which raises what it finds."""


class SimulatedMachine(ClusterMachine):
    """Draws one plan and the cluster's seed. What the example raises at its end is Hypothesis's to shrink."""

    seeded: SeededOpener

    @initialize(
        head=st.runner().flatmap(lambda machine: machine.head_drawn()), sim_seed=st.integers(min_value=0, max_value=999)
    )
    def begin(self, head: Plan, sim_seed: int) -> None:
        """Draw the mix, the patience, the topology's free values, and the order of simultaneous events."""
        self.mix = head.mix
        self.outline = Outline(
            workers=head.workers, prefills=head.prefill_workers, frontends=head.frontends, patience=head.patience,
        )  # fmt: skip
        self.example = type(self).seeded(head, sim_seed)

    def teardown(self) -> None:
        """End the example. Raises what it finds violated."""
        if self.example is not None:
            self.example.end()


def search(
    opener: SeededOpener,
    *,
    examples: int,
    steps: int,
    seed: int,
    timeouts_ms: Sequence[int] = (),
    apart: bool = False,
    machine: type[SimulatedMachine] = SimulatedMachine,
) -> int:
    """Play drawn examples of up to `steps` steps, `examples` of them, until one raises.

    Returns how many were played. Raises what the example raises. It is not shrunk here: what it draws hangs on what was
    drawn before, so whole steps are left out better from its plan (`shrink`).
    """
    played = batch = drawn = 0
    found = False

    def counting(head: Plan, sim_seed: int) -> Example:
        nonlocal played, drawn
        drawn += 1
        plainest = drawn == 2 or (batch > 0 and drawn == 1)  # the same in each batch
        if plainest and not found:  # Hypothesis plays again what raised, and wants it to raise again
            return Unplayed()
        played += 1
        return opener(head, sim_seed)

    class Machine(machine):  # type: ignore[misc, valid-type]
        def teardown(self) -> None:
            nonlocal found
            try:
                super().teardown()
            except Exception:
                found = True
                raise

    Machine.seeded = staticmethod(counting)
    Machine.timeouts_ms = timeouts_ms
    Machine.apart = apart
    Machine.longest = steps
    settings = hypothesis.settings(
        max_examples=BATCH,
        stateful_step_count=steps + 1,
        phases=(Phase.generate,),
        database=None,
        derandomize=False,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    while played < examples:
        drawn = 0
        test = get_state_machine_test(Machine, settings=settings)
        hypothesis.seed(seed + (batch << 64))(test)()
        batch += 1
    return played
