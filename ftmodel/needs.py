"""What the markers of a test ask of the machine, and why it cannot run here, in the doctor's words."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from ftmodel import doctor
from ftmodel.doctor import Part
from ftmodel.targets.real import devices

PARTS: Final[dict[str, Part]] = {"real": "system", "services": "services", "vllm": "vllm"}
"""Markers, and what the doctor looks at for each."""
GPUS: Final = {"gpu_1": 1, "gpu_2": 2}
"""Markers, and how many GPUs each asks for. An engine that was built for a CPU asks for none."""


def lacking(markers: Iterable[str], python: Path | None) -> str:
    """Why a test with these markers cannot run on this machine with this interpreter; empty if it can."""
    named = set(markers)
    return next((why for name in (*PARTS, *GPUS) if name in named and (why := _lack(name, python))), "")


@cache
def _lack(marker: str, python: Path | None) -> str:
    if marker in PARTS:
        lacks = [check for check in doctor.look(PARTS[marker], python) if not check.ok]
        return "; ".join(f"{check.name}: {check.found}; try: {check.remedy}" for check in lacks)
    wanted, found = GPUS[marker], devices.gpus()
    if found >= wanted or doctor.is_for_cpu((python or Path(sys.executable)).absolute()):
        return ""
    [check] = doctor.look("gpu", python)
    return f"gpu: {found} here, {wanted} wanted ({check.found}); try: docs/vllm-cpu-env.sh sut, which needs none"
