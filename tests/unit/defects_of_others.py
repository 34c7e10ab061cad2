"""A defect as somebody else would write it; docs/quality.md quotes it."""

from __future__ import annotations

from ftmodel.targets.simulated import Defect
from ftmodel.targets.simulated.hooks import Act, Free
from ftmodel.targets.simulated.worker import Job


def _keeps_every_third(at: Free, normal: Act, job: Job) -> None:
    """The blocks of every third request that ends on a worker stay taken."""
    count = at.cluster.notes[at.worker.title] = at.cluster.notes.get(at.worker.title, 0) + 1
    blocks = job.blocks if count % 3 == 0 else 0
    normal(job)
    at.worker.blocks_used += blocks


DEFECTS = (
    Defect(
        id="keeps-every-third",
        hook="free",
        act=_keeps_every_third,
        least_steps=1,
        sentence="The KV blocks of every third request on a worker stay taken.",
    ),
)
