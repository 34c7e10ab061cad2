"""Known issues: violations of which somebody has said why they are there. They are counted and shown, and fail nothing.

[[issue]]
invariant = "L2"
signature = "L2/status-500"
versions = "<1.5"
reason = "the frontend goes on routing to a worker that has just died"
link = "docs/findings.md#l2status-500"
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import Field, TypeAdapter, ValidationError

from ftmodel.errors import UsageError
from ftmodel.invariants import INVARIANTS, Invariant

DEFAULT: Final = Path("known_issues.toml")
"""Read where it lies in the working folder and no other file is named."""
EXAMPLE: Final = '[[issue]] with invariant = "L2", signature = "L2/status-500", versions = "<1.5", reason, link'
_Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One known issue: a signature, in some versions of the tested system."""

    invariant: _Text
    signature: _Text
    versions: _Text
    """A version specifier of the tested system, e.g. "<1.5" or ">=1.4,<1.6"."""
    reason: _Text
    link: _Text
    topologies: tuple[_Text, ...] = ()
    """Names of the topologies in which it is known; empty: in all."""

    def covers(self, signature: str, version: str, topology: str) -> bool:
        """True for this signature, found in a version and a topology that the issue names."""
        if self.topologies and topology not in self.topologies:
            return False
        try:
            found = Version(version)
        except InvalidVersion:
            return False
        return signature == self.signature and SpecifierSet(self.versions).contains(found, prereleases=True)


_ADAPTER: Final[TypeAdapter[Issue]] = TypeAdapter(Issue)


def of_findings(signatures: Sequence[str], version: str, topology: str, issues: Sequence[Issue]) -> dict[str, Issue]:
    """Of these signatures, found in this version and topology, those that are known: the first issue that covers each."""
    return {
        signature: issue
        for signature in dict.fromkeys(signatures)
        for issue in reversed(issues)
        if issue.covers(signature, version, topology)
    }


def find(path: Path | None) -> tuple[Issue, ...]:
    """The issues of this file, or of the default one if there is one. Raises UsageError."""
    if path is not None:
        return load(path)
    return load(DEFAULT) if DEFAULT.is_file() else ()


def load(path: Path, invariants: Sequence[type[Invariant]] = INVARIANTS) -> tuple[Issue, ...]:
    """Read a file of known issues. Raises UsageError naming file, table, key, value and what is expected.

    A signature must be one that its invariant can have, if that is among `invariants`; of others nothing is known here.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}: expected a TOML file of known issues: {EXAMPLE}") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}: expected a TOML file of known issues: {EXAMPLE}") from None
    for key in raw:
        if key != "issue":
            raise UsageError(f"{path}: key {key}: unknown, expected {EXAMPLE}")
    tables = raw.get("issue", [])
    if not isinstance(tables, list):
        raise UsageError(f"{path}: key issue: got {type(tables).__name__}, expected {EXAMPLE}")
    slugs = {cls.id: cls.slugs for cls in invariants}
    return tuple(_issue(f"{path}: [[issue]] {n}", row, slugs) for n, row in enumerate(tables, start=1))


def _issue(where: str, row: Any, slugs: dict[str, frozenset[str]]) -> Issue:
    keys = list(Issue.__dataclass_fields__)
    if not isinstance(row, dict):
        raise UsageError(f"{where}: got {row!r}, expected {EXAMPLE}")
    for key in row:
        if key not in keys:
            raise UsageError(f"{where}: key {key}: unknown, expected {', '.join(keys)}")
    required = [key for key in keys if key != "topologies"]
    for key in required:
        if key not in row:
            raise UsageError(f"{where}: key {key}: missing, expected all of {', '.join(required)}")
    try:
        issue = _ADAPTER.validate_python(row)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where}: key {key}: got {first['input']!r}, expected a text that says it") from None
    try:
        SpecifierSet(issue.versions)
    except InvalidSpecifier:
        raise UsageError(
            f'{where}: key versions: got {issue.versions!r}, expected a version specifier, e.g. "<1.5" or ">=1.4,<1.6"'
        ) from None
    _check_signature(where, issue, slugs)
    return issue


def _check_signature(where: str, issue: Issue, slugs: dict[str, frozenset[str]]) -> None:
    owner, _, slug = issue.signature.partition("/")
    if owner != issue.invariant or not slug:
        raise UsageError(
            f"{where}: key signature: got {issue.signature!r}, expected one of invariant {issue.invariant},"
            f" e.g. {issue.invariant}/..."
        )
    if owner in slugs and slug not in slugs[owner]:
        able = ", ".join(f"{owner}/{name}" for name in sorted(slugs[owner])) or "none: it has no signature"
        raise UsageError(
            f"{where}: key signature: got {issue.signature!r}, expected {able}; try: ftmodel list invariants"
        )
