"""The target `simulated`: a cluster in one process and in virtual time, deterministic by its seed, with plantable defects.

What is below here never imports `ftmodel.invariants`, nor is it imported by it: both know events and dialects alone.
"""

from ftmodel.targets.simulated.hooks import Defect, Planted
from ftmodel.targets.simulated.target import SimulatedTarget, refuses, release_of

__all__ = ["Defect", "Planted", "SimulatedTarget", "refuses", "release_of"]
