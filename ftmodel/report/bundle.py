"""Takes what a script needs out of our modules: each definition as it stands, and those that it names, in their order.

So a script is one file of the standard library, and what it does is what our own clients and readers do. A definition is
a function, a class or an assignment at the top of a module, with what is written below an assignment to explain it.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_OWN: Final = __name__.partition(".")[0]
_BUILTIN: Final = frozenset(dir(builtins)) | {"__file__", "__name__", "__doc__"}


@dataclass(slots=True)
class _Module:
    """What a module defines and imports, by the names that it has there."""

    name: str
    definitions: dict[str, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    own: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of a name that comes from another of our modules: that and its name there."""
    foreign: dict[str, str] = field(default_factory=dict)
    """Of a name that the standard library brings: the statement that imports it."""


def bundle(roots: Iterable[tuple[str, str]]) -> tuple[list[str], str]:
    """(module, name) of what is wanted -> the import statements that it needs, and the text of all definitions.

    Raises ValueError if two definitions have one name, or if something is named that is nowhere defined.
    """
    modules: dict[str, _Module] = {}
    wanted: dict[str, set[str]] = {}
    imports: set[str] = set()
    left = list(roots)
    while left:
        module_name, name = left.pop()
        module = modules.setdefault(module_name, _read(module_name))
        if name in wanted.setdefault(module_name, set()):
            continue
        if name not in module.definitions:
            raise ValueError(f"{module_name}: {name} is not defined there, expected one of {', '.join(module.order)}")
        wanted[module_name].add(name)
        for used in _names(module.definitions[name]):
            if used in module.definitions:
                left.append((module_name, used))
            elif used in module.own:
                left.append(module.own[used])
            elif used in module.foreign:
                imports.add(module.foreign[used])
    _check_distinct(wanted)
    parts = []
    for module_name in _ordered(modules, wanted):
        module = modules[module_name]
        parts += [module.definitions[name] for name in module.order if name in wanted[module_name]]
    return sorted(imports, key=lambda line: (line.startswith("from"), line)), "\n\n\n".join(dict.fromkeys(parts)) + "\n"


def source(module: str) -> str:
    """The text of a module's file."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"module {module!r}: not found")
    return Path(spec.origin).read_text(encoding="utf-8")


def _read(name: str) -> _Module:
    text = source(name)
    module, lines = _Module(name), text.splitlines()
    body = ast.parse(text).body
    for number, node in enumerate(body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            _note_import(module, node)
            continue
        names = list(_defined(node))
        if not names:
            continue
        explained = (
            number + 1 < len(body)
            and _is_text(body[number + 1])
            and not isinstance(node, ast.FunctionDef | ast.ClassDef)
        )
        last = body[number + 1] if explained else node
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        part = "\n".join(lines[first - 1 : last.end_lineno])
        for defined in names:
            module.definitions[defined] = part
            module.order.append(defined)
    return module


def _note_import(module: _Module, node: ast.Import | ast.ImportFrom) -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            module.foreign[alias.asname or alias.name.partition(".")[0]] = f"import {ast.unparse(alias)}"
    elif node.module != "__future__":
        for alias in node.names:
            if (node.module or "").partition(".")[0] == _OWN:
                module.own[alias.asname or alias.name] = str(node.module), alias.name
            else:
                module.foreign[alias.asname or alias.name] = f"from {node.module} import {ast.unparse(alias)}"


def _defined(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Assign():
            for target in node.targets:
                yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case _:
            pass


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _names(text: str) -> set[str]:
    found = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    return found - _BUILTIN


def _check_distinct(wanted: dict[str, set[str]]) -> None:
    owner: dict[str, str] = {}
    for module, names in wanted.items():
        for name in names:
            if name in owner:
                raise ValueError(f"{name}: defined in {owner[name]} and in {module}, expected names of their own")
            owner[name] = module


def _ordered(modules: dict[str, _Module], wanted: dict[str, set[str]]) -> list[str]:
    """Those that are imported before those that import them."""
    found: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in found or name in above or name not in wanted:
            return
        for below, _ in modules[name].own.values():
            visit(below, (*above, name))
        found.append(name)

    for name in sorted(wanted):
        visit(name, ())
    return found
