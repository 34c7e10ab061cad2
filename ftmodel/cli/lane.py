"""`python -m ftmodel.cli.lane`: one lane of a soak, which is told on stdin what to play."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ftmodel import services
from ftmodel.cli.drawing import strategies
from ftmodel.soak import lane
from ftmodel.soak.lane import Opener
from ftmodel.soak.rounds import Round
from ftmodel.topology import Topology


def draw(opener: Opener, this: Round, top: Topology, timeouts_ms: Sequence[int]) -> None:
    """Draw the plans of a round by its seed and its mix."""
    strategies().generate(
        opener, examples=this.examples + 1, steps=this.steps, seed=this.seed, timeouts_ms=timeouts_ms,
        services=services.names_of([top]), apart=bool(top.prefill_workers), mix=this.mix,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(lane.serve(draw))
