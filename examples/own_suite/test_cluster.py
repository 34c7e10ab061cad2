"""The cluster of this project, under random faults and in one script."""

import pytest
from invariants import FirstToken

from ftmodel.steps import HolderOf, KillWorker, Submit, Token
from ftmodel.testing import INVARIANTS, Cluster, FaultTolerance
from strategies import CancelsTwice


class TestCluster(FaultTolerance):
    topology = "small.toml"
    machine = CancelsTwice
    invariants = (*INVARIANTS, FirstToken)


@pytest.mark.ftmodel(topology="small.toml", workers=2, migration_limit=3)
def test_a_stream_outlives_its_worker(cluster: Cluster) -> None:
    cluster.do(Submit(name="r1", max_tokens=100), KillWorker(name="s2", worker=HolderOf("r1"), at=Token("r1", 20)))
    cluster.check()
