"""What may import what: the way of the data is the way of the imports, and the core is pure."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2] / "ftmodel"
STRATEGIES = HERE.parent / "strategies"
MAY_NAME_STRATEGIES = ("ftmodel.cli", "ftmodel.pytest_plugin")
PURE = ("ftmodel.steps", "ftmodel.outline", "ftmodel.history", "ftmodel.invariants")
IMPURE = ("asyncio", "subprocess", "hypothesis")
TWIN = "ftmodel.engines.counting.worker"
"""Says what an exact text is, to the engine and to the invariants: one file by rule, so the engine's asyncio is in it."""
ALONE = (HERE / "targets" / "real" / "warden.py", HERE / "engines" / "counting" / "worker.py")
"""Files that run in the interpreter under test, by path."""


def name_of(path: Path) -> str:
    parts = path.relative_to(HERE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(HERE.rglob("*.py"))}


def imports(path: Path, module: str = "") -> Iterator[tuple[str, bool]]:
    """The modules that a file imports, and whether inside a function; imports for type checkers alone are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST, *, inside: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base, inside
            yield from ((f"{base}.{alias.name}", inside) for alias in node.names if f"{base}.{alias.name}" in MODULES)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from walk(child, inside=inside)
        else:
            inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, inside=inside)

    return walk(tree, inside=False)


def reached(*roots: str) -> set[str]:
    """The modules of ftmodel that these import, and those that they import, and so on."""
    found: set[str] = set()
    left = [name for name in MODULES if any(name == root or name.startswith(f"{root}.") for root in roots)]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        left += [imported for imported, _ in imports(MODULES[name], name) if imported in MODULES]
    return found


def strings(path: Path) -> list[str]:
    """The texts in a file but for those that explain it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs
    ]


def is_below(name: str, *roots: str) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def test_ftmodel_never_imports_strategies() -> None:
    for name, path in MODULES.items():
        assert not [to for to, _ in imports(path, name) if is_below(to, "strategies", "ftmodel.strategies")], name


def test_strategies_are_named_by_the_command_line_and_the_plugin_alone() -> None:
    naming = {name for name, path in MODULES.items() if any("strategies" in text for text in strings(path))}
    assert all(is_below(name, *MAY_NAME_STRATEGIES) for name in naming), naming


def test_to_import_the_command_line_imports_no_hypothesis() -> None:
    assert imported_by("ftmodel.cli", "ftmodel.runner", "ftmodel.campaign").isdisjoint(
        ("hypothesis", "ftmodel.strategies")
    )


def test_strategies_import_steps_and_outline_and_nothing_that_observes() -> None:
    for path in STRATEGIES.glob("*.py"):
        ours = {to for to, _ in imports(path) if is_below(to, "ftmodel")}
        assert ours <= {"ftmodel.steps", "ftmodel.outline"}, path


@pytest.mark.parametrize("root", PURE)
def test_the_core_is_pure(root: str) -> None:
    for name in reached(root) - {TWIN}:
        assert not [to for to, _ in imports(MODULES[name], name) if is_below(to, *IMPURE)], name
    with_twin = ("asyncio", "subprocess") if TWIN in reached(root) else ()
    assert imported_by(root).isdisjoint(set(IMPURE) - set(with_twin))


def test_targets_and_invariants_never_import_each_other() -> None:
    assert not {name for name in reached("ftmodel.targets") if is_below(name, "ftmodel.invariants")}
    assert not {name for name in reached("ftmodel.invariants") if is_below(name, "ftmodel.targets")}


def test_the_simulated_and_the_real_cluster_never_import_each_other() -> None:
    assert not {name for name in reached("ftmodel.targets.simulated") if is_below(name, "ftmodel.targets.real")}
    assert not {name for name in reached("ftmodel.targets.real") if is_below(name, "ftmodel.targets.simulated")}


def test_nothing_imports_the_defects() -> None:
    package = "ftmodel.targets.simulated.defects"
    for name, path in MODULES.items():
        assert is_below(name, package) or not [to for to, _ in imports(path, name) if is_below(to, package)], name


def test_steps_and_histories_know_nothing_that_comes_after_them() -> None:
    assert reached("ftmodel.steps") == {"ftmodel.steps"}
    assert reached("ftmodel.outline") == {"ftmodel.steps", "ftmodel.outline"}
    assert reached("ftmodel.history") == {"ftmodel.history", "ftmodel.bounds", "ftmodel.errors"}


@pytest.mark.parametrize("path", ALONE, ids=lambda path: path.stem)
def test_what_runs_in_the_interpreter_under_test_needs_its_standard_library_alone(path: Path) -> None:
    for to, inside in imports(path):
        assert to.split(".")[0] in sys.stdlib_module_names or (inside and is_below(to, "dynamo")), to


@pytest.mark.parametrize("path", ALONE, ids=lambda path: path.stem)
def test_what_runs_in_the_interpreter_under_test_imports_by_name_inside_functions_alone(path: Path) -> None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            assert "import_module(" not in ast.unparse(node) or "if __name__ ==" in ast.unparse(node)


def test_every_package_of_the_checkout_is_installed() -> None:
    text = (HERE.parent / "pyproject.toml").read_text(encoding="utf-8")
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert not [name for name in packages if f'"{name}"' not in text]


def imported_by(*names: str) -> set[str]:
    """The modules that a fresh interpreter has imported besides its own, once it has imported these."""
    code = (
        "import sys; before = set(sys.modules); import importlib\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())
