"""Where defects come from: the package of our own, if it is there, and files of others."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

from ftmodel.errors import UsageError
from ftmodel.targets.simulated.hooks import Defect, Hook, Planted

OURS: Final = "ftmodel.targets.simulated.defects"


def ours() -> tuple[Defect, ...]:
    """The defects that come with ftmodel."""
    if importlib.util.find_spec(OURS) is None:
        return ()
    defects: tuple[Defect, ...] = importlib.import_module(OURS).DEFECTS
    return defects


def load(path: Path) -> tuple[Defect, ...]:
    """The defects of a Python file: its variable DEFECTS. Raises UsageError."""
    spec = importlib.util.spec_from_file_location(f"defects_of_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"--defects {path}: expected a Python file with DEFECTS = (Defect(...), ...)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a stranger's file raises
        raise UsageError(f"--defects {path}: cannot be imported: {error!r}") from error
    found = getattr(module, "DEFECTS", None)
    if not isinstance(found, Sequence) or not found or not all(isinstance(one, Defect) for one in found):
        raise UsageError(f"--defects {path}: DEFECTS is {found!r}, expected a tuple of Defect(...)")
    for defect in found:
        if defect.hook not in get_args(Hook):
            known = ", ".join(get_args(Hook))
            raise UsageError(f"--defects {path}: defect {defect.id}: hook {defect.hook!r}, expected one of {known}")
    return tuple(found)


def planted(text: str, defects: Sequence[Defect]) -> tuple[Planted, ...]:
    """What ID[:P],ID[:P],... names: a defect, and how likely it misbehaves each time. Raises UsageError."""
    return tuple(_planted(part.strip(), {defect.id: defect for defect in defects}) for part in text.split(","))


def _planted(part: str, defects: dict[str, Defect]) -> Planted:
    name, _, chance = part.partition(":")
    if name not in defects:
        raise UsageError(f"--defect {name}: unknown, expected one of {', '.join(defects)}; try: ftmodel list defects")
    try:
        likely = float(chance) if chance else 1.0
    except ValueError:
        likely = -1.0
    if not 0.0 < likely <= 1.0:
        raise UsageError(
            f"--defect {part}: chance {chance!r}, expected above 0 and at most 1; try: --defect {name}:0.5"
        )
    return Planted(defects[name], likely)
