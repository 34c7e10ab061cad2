"""What is drawn: a Hypothesis state machine whose one rule draws the next step of a plan, from the outline alone.

In a project of one's own, `from ftmodel.strategies import ClusterMachine` (installed, this package is
`ftmodel.strategies`).
"""

from .machine import ClusterMachine, Example, Opener, generate
from .simulated import SimulatedMachine, search

__all__ = ["ClusterMachine", "Example", "Opener", "SimulatedMachine", "generate", "search"]
