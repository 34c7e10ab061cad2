"""What engines can run on here."""

from __future__ import annotations

from pathlib import Path


def has_gpu(folder: Path = Path("/dev")) -> bool:
    """True if the kernel shows a GPU of the kind that CUDA uses."""
    return any(path.name[6:].isdigit() for path in folder.glob("nvidia*"))
