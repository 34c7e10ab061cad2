"""An engine that loses a token in each longer answer: what a failure looks like. It is not among the testpaths."""

from ftmodel.testing import FaultTolerance


class TestLosingEngine(FaultTolerance):
    topology = "losing.toml"
    known_issues = "nothing_known.toml"
