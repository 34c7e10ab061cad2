"""What engines can run on here."""

from __future__ import annotations

from pathlib import Path


def gpus(folder: Path = Path("/dev")) -> int:
    """How many GPUs of the kind that CUDA uses the kernel shows."""
    return sum(path.name[6:].isdigit() for path in folder.glob("nvidia*"))


def has_gpu(folder: Path = Path("/dev")) -> bool:
    """True if there is one at least."""
    return gpus(folder) > 0
