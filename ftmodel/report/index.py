"""The index of a store: every run below a folder, its verdict, and how often each signature was found."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ftmodel import store
from ftmodel.errors import StoreError
from ftmodel.known import Issue, of_findings
from ftmodel.report.markdown import REPORT
from ftmodel.report.page import PAGE, filled
from ftmodel.runner import Rules

INDEX: Final = "index.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One example of a run: what is found in its folder."""

    folder: Path
    verdict: str
    topology: str
    signatures: tuple[str, ...]
    known: frozenset[str]
    """Of its signatures: those that were known when it was judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One run: its verdict.json and env.json, as they were written, and its examples."""

    folder: Path
    verdict: str
    facts: dict[str, Any]
    env: dict[str, Any]
    examples: tuple[Row, ...]
    known: dict[str, Issue]
    """Of its signatures: the known issue that covers each, by the file that is asked now."""

    def is_known(self, signature: str) -> bool:
        """It was known when the run was judged, or is now."""
        return signature in self.known or any(signature in row.known for row in self.examples)


def runs(folder: Path, rules: Rules) -> list[Listed]:
    """Every run below a folder, or that itself, newest first. Raises StoreError if there is none."""
    files = (folder / "env.json", *folder.glob("**/env.json"))
    places = {path.parent for path in files if path.is_file() and not store.is_beside_another(path.parent, folder)}
    found = [_listed(place, rules) for place in sorted(places, key=lambda place: place.name, reverse=True)]
    if not found:
        raise StoreError(
            f"{folder}: no run in it, expected folders as ftmodel run writes them; try: ftmodel report runs"
        )
    return found


def counts(found: Sequence[Listed]) -> dict[str, int]:
    """In how many examples each signature was found, over all runs."""
    return dict(Counter(signature for run in found for row in run.examples for signature in row.signatures))


def render(folder: Path, found: Sequence[Listed]) -> str:
    """The index as the text of an HTML file."""
    return filled(
        "index.html",
        title=f"Runs in {folder.absolute().name}",
        signatures=_signatures(folder, found),
        runs=[_shown(folder, run) for run in found],
        examples=sum(len(run.examples) for run in found),
    )


def _listed(place: Path, rules: Rules) -> Listed:
    store.check_format(place)
    env = store.read_json(place / "env.json")
    verdict = store.read_json(place / "verdict.json") if (place / "verdict.json").is_file() else {}
    rows = tuple(_row(path.parent) for path in sorted(place.glob("examples/*/verdict.json")))
    version = str((verdict.get("system") or {}).get("version", ""))
    covering = [of_findings(row.signatures, version, row.topology, rules.issues) for row in rows]
    new = {
        signature for row, by in zip(rows, covering, strict=True) for signature in row.signatures if signature not in by
    }
    return Listed(
        folder=place,
        verdict=str(verdict.get("verdict", "unfinished")),
        facts=verdict,
        env=env,
        examples=rows,
        known={signature: issue for by in covering for signature, issue in by.items() if signature not in new},
    )


def _row(folder: Path) -> Row:
    told = store.read_json(folder / "verdict.json")
    findings = told.get("findings", [])
    return Row(
        folder=folder,
        verdict=str(told.get("verdict", "unknown")),
        topology=str(told.get("topology", "")),
        signatures=tuple(dict.fromkeys(finding["signature"] for finding in findings)),
        known=frozenset(finding["signature"] for finding in findings if finding.get("known")),
    )


def _signatures(folder: Path, found: Sequence[Listed]) -> list[dict[str, Any]]:
    """Most often found first; what is known, last: it is counted on the known finding, not reported anew."""
    rows = []
    for signature, count in counts(found).items():
        having = [(run, row) for run in found for row in run.examples if signature in row.signatures]
        known = all(run.is_known(signature) for run, _ in having)
        issue = next((run.known[signature] for run, _ in having if signature in run.known), None)
        reported = [row.folder for _, row in having if (row.folder / REPORT).is_file()]
        best = (reported or [row.folder for _, row in having])[0]
        rows.append({
            "signature": signature, "count": count, "runs": len({run.folder for run, _ in having}), "known": known,
            "versions": ", ".join(sorted({str((run.facts.get("system") or {}).get("version", "")) for run, _ in having})),
            "reason": issue.reason if issue else "", "link": issue.link if issue else "",
            "example": _relative(folder, best), "page": _page(folder, best),
        })  # fmt: skip
    return sorted(rows, key=lambda row: (row["known"], -row["count"], row["signature"]))


def _shown(folder: Path, run: Listed) -> dict[str, Any]:
    system = run.facts.get("system") or {}
    return {
        "name": run.folder.name,
        "path": _relative(folder, run.folder),
        "verdict": run.verdict,
        "system": f"{system.get('name', run.env.get('system', ''))} {system.get('version', '')}".strip(),
        "topologies": ", ".join(run.env.get("topologies", [])),
        "seed": run.facts.get("seed"),
        "seconds": run.facts.get("seconds"),
        "examples": [
            {
                "name": row.folder.name, "verdict": row.verdict, "topology": row.topology,
                "page": _page(folder, row.folder), "path": _relative(folder, row.folder),
                "signatures": [(s, run.is_known(s)) for s in row.signatures],
            }
            for row in run.examples
        ],
    }  # fmt: skip


def _relative(folder: Path, path: Path) -> str:
    return os.path.relpath(path, folder)


def _page(folder: Path, example: Path) -> str:
    """The link to an example's page, if it was made."""
    return f"{_relative(folder, example)}/{PAGE}" if (example / PAGE).is_file() else ""
