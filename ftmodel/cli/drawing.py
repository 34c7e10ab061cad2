"""Where what draws is found."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any


def strategies() -> Any:
    """What draws, imported by name and late: a stored plan is replayed without it, and without Hypothesis.

    Installed, it is `ftmodel.strategies`. In a checkout whose `ftmodel` folder shadows the installed one (as `python -m`
    makes it), it lies beside that folder.
    """
    name = "ftmodel.strategies"
    beside = Path(__file__).parents[2] / "strategies"
    if importlib.util.find_spec(name) is None and beside.is_dir():
        spec = importlib.util.spec_from_file_location(
            name, beside / "__init__.py", submodule_search_locations=[str(beside)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return importlib.import_module(name)
