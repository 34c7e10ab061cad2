"""The package of defects can be deleted: everything else imports, and passes its tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEFECTS = "ftmodel/targets/simulated/defects"
PARTS = ("ftmodel", "strategies", "tests", "pyproject.toml")
IMPORT_ALL = """
import importlib, pkgutil, ftmodel
assert ftmodel.__file__.startswith({root!r}), ftmodel.__file__
for module in pkgutil.walk_packages(ftmodel.__path__, "ftmodel."):
    if module.name not in {alone!r}:
        importlib.import_module(module.name)
from ftmodel.targets.simulated import catalogue
print(len(catalogue.ours()))
"""
ALONE = ("ftmodel.__main__", "ftmodel.soak.rays")
"""The first runs the command line; the second needs Ray."""
TESTS = ("test_prove.py", "test_reductions.py", "test_shrinking.py")


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources without the package of defects."""
    root = tmp_path_factory.mktemp("without")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, root / part, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
        else:
            shutil.copy(source, root / part)
    shutil.rmtree(root / DEFECTS)
    if not (root / "ftmodel" / "strategies").exists():  # where they are found once installed
        (root / "ftmodel" / "strategies").symlink_to("../strategies")
    return root


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=root, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def test_everything_else_imports(without: Path) -> None:
    done = run(without, "-c", IMPORT_ALL.format(root=str(without), alone=ALONE))
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


def test_everything_else_passes(without: Path) -> None:
    tests = [f"tests/unit/{name}" for name in TESTS]
    done = run(without, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert " skipped" in done.stdout


def test_the_command_that_plants_them_says_that_there_are_none(without: Path) -> None:
    done = run(without, "-m", "ftmodel", "prove")
    assert done.returncode == 3
    assert "expected --defects FILE" in done.stderr
