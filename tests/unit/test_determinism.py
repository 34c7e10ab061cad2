"""The same seed gives the same plans and the same histories, byte for byte, whatever PYTHONHASHSEED is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pathlib import Path
from ftmodel import history, planfile, strategies, topology
from ftmodel.prove import Example, Grounds

where, grounds = Path(sys.argv[1]), Grounds(topology.find("simulated"))

class Kept(Example):
    def end(self):
        super().end()
        number = len(list(where.iterdir()))
        history.write(self._target.history, where / f"{number:02}.jsonl")

strategies.search(
    lambda head, seed: Kept(grounds, head, seed, ()), examples=25, steps=30, seed=7,
    timeouts_ms=grounds.promises.timeouts_ms(),
)
"""
LEAST = 25


def histories(where: Path, hash_seed: str) -> dict[str, bytes]:
    """What a process of its own makes of one seed."""
    where.mkdir()
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run([sys.executable, "-c", SCRIPT, str(where)], env=env, check=True, timeout=120, cwd=where.parent)
    return {path.name: path.read_bytes() for path in sorted(where.iterdir())}


def test_two_processes_tell_the_same_byte_for_byte(tmp_path: Path) -> None:
    one, other = histories(tmp_path / "one", "1"), histories(tmp_path / "other", "2")
    assert len(one) >= LEAST
    assert one == other
    assert len(set(one.values())) > LEAST // 2, "the examples are alike: nothing was compared"
