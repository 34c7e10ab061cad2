"""The command `prove`: plant defects in simulated clusters, show that each is found, and that none is where there is none."""

from __future__ import annotations

import shlex
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from ftmodel import profiles, topology
from ftmodel.errors import UsageError
from ftmodel.prove import LEAST_MARGIN, Drawing, Grounds, Row, false_alarms, prove
from ftmodel.targets.simulated import Defect, Planted, catalogue

TOPOLOGY: Final = "simulated"
COLUMNS: Final = ("defect", "what is wrong", "found", "by", "examples", "steps", "least", "shrunk")


def chosen(file: Path | None, names: str | None, topology_name: str = TOPOLOGY) -> tuple[Planted, ...]:
    """What `prove` plants: those that are named, or all of the file, or ours for this topology. Raises UsageError."""
    defects = _defects(file)
    if names is not None:
        return catalogue.planted(names, defects)
    return tuple(Planted(one) for one in defects if file is not None or one.topology == topology_name)


def planted(file: Path | None, names: str | None) -> tuple[Planted, ...]:
    """What `run` and `replay` plant: those that are named, at once. Raises UsageError."""
    if names is not None:
        return catalogue.planted(names, _defects(file))
    if file is not None:
        known = ", ".join(defect.id for defect in _defects(file))
        raise UsageError(f"--defects {file}: nothing is planted, expected --defect with some of {known}")
    return ()


def as_typed(file: Path | None, names: str | None) -> str:
    """The arguments that plant the same again."""
    options = {"--defects": str(file) if file is not None else None, "--defect": names}
    return "".join(f" {name} {shlex.quote(value)}" for name, value in options.items() if value is not None)


def _defects(file: Path | None) -> tuple[Defect, ...]:
    defects = catalogue.load(file) if file is not None else catalogue.ours()
    if not defects:
        raise UsageError("no defects are installed, expected --defects FILE")
    return defects


def run(
    console: Console,
    drawing: Drawing,
    defects: tuple[Planted, ...],
    *,
    name: str,
    profile: str,
    seeds: int,
    examples: int,
    clean: int,
) -> dict[str, Any]:
    """Prove, tell each row as it is known, and return what `--json` prints."""
    steps = profiles.find(profile).steps
    grounds = Grounds(topology.find(name))
    rows: list[Row] = []
    for one, group in groupby(defects, key=lambda one: one.defect.topology):
        # Those of a cluster of another shape are shown on one such, whichever is named for the others.
        there = grounds if one in (TOPOLOGY, name) else Grounds(topology.find(one), grounds.invariants)
        for row in prove(there, drawing, tuple(group), seeds=range(seeds), examples=examples, steps=steps):
            rows.append(row)
            console.print(_line(row), highlight=False, markup=False, soft_wrap=True)
    alarms = false_alarms(grounds, drawing, examples=clean, steps=steps)
    for alarm in alarms:
        console.print(f"false alarm: {alarm}", style="red", highlight=False, markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, overflow="fold", no_wrap=column == "defect")
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    return {
        "defects": {row.defect.id: as_json(row) for row in rows},
        "clean_examples": clean,
        "false_alarms": len(alarms),
        "invariants": {id_: [row.defect.id for row in rows if id_ in row.caught_by] for id_ in grounds.applying},
    }


def as_json(row: Row) -> dict[str, Any]:
    """One row of the proof."""
    return {
        "found": row.found,
        "of": len(row.finds),
        "examples": row.examples,
        "steps": row.steps,
        "least": row.defect.least_steps,
        "shrunk": row.shrunk,
        "signatures": list(row.signatures),
    }


def is_proven(proof: dict[str, Any]) -> bool:
    """True if every defect was found with every seed, and nothing where there is none."""
    return not proof["false_alarms"] and all(row["found"] == row["of"] for row in proof["defects"].values())


def markdown(proof: dict[str, Any], defects: tuple[Planted, ...]) -> str:
    """The table of docs/quality.md."""
    by_id = {one.defect.id: one.defect for one in defects}
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for id_, row in proof["defects"].items():
        hard = ", hard" if by_id[id_].hard else ""
        cells = (
            f"`{id_}`{hard}", by_id[id_].sentence, f"{row['found']} of {row['of']}", ", ".join(row["signatures"]),
            f"{row['examples']:g}", str(row["steps"]), str(row["least"]), f"{row['shrunk']} of {row['of']}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


BEGIN: Final = "<!-- ftmodel prove: begin -->"
END: Final = "<!-- ftmodel prove: end -->"


def marks(topology_name: str) -> tuple[str, str]:
    """The lines between which a document has the table of a topology."""
    if topology_name == TOPOLOGY:
        return BEGIN, END
    command = f"ftmodel prove --topology {topology_name}"
    return BEGIN.replace("ftmodel prove", command), END.replace("ftmodel prove", command)


def write(path: Path, proof: dict[str, Any], defects: tuple[Planted, ...], topology_name: str = TOPOLOGY) -> None:
    """Put the table into a document, between its topology's two marks. Raises UsageError if it has none such."""
    begin, end = marks(topology_name)
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, began, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not began or not ended:
        raise UsageError(f"--document {path}: expected a file with the lines {begin} and {end}")
    path.write_text(
        f"{before}{begin}\n{summary(proof, defects)}\n{markdown(proof, defects)}{end}{after}", encoding="utf-8"
    )


def summary(proof: dict[str, Any], defects: tuple[Planted, ...]) -> str:
    """What stands above the table."""
    rows = proof["defects"]
    hard = {one.defect.id for one in defects if one.defect.hard}
    missed = [id_ for id_, row in rows.items() if row["found"] < row["of"]]
    large = [id_ for id_, row in rows.items() if row["shrunk"] < LEAST_SHRUNK * row["of"]]
    easy = [id_ for id_ in hard if id_ in rows and rows[id_]["examples"] <= HARD_EXAMPLES]
    blind = [id_ for id_, caught in proof["invariants"].items() if not caught]
    lines = [
        f"- {len(rows)} defects; not found with every seed: {_all(missed)}.",
        f"- Not shrunk to the least steps that are known, or one more, with four of five seeds: {_all(large)}.",
        f"- {len(hard)} of them are hard; found within a median of {HARD_EXAMPLES} examples all the same: {_all(easy)}.",
        f"- {len(proof['invariants'])} invariants apply; no defect violated: {_all(blind)}.",
        f"- In {proof['clean_examples']} examples without a defect: {proof['false_alarms']} false alarms.",
    ]
    return "\n".join(lines) + "\n"


HARD_EXAMPLES: Final = 50
LEAST_SHRUNK: Final = 0.8


def _all(ids: list[str]) -> str:
    return ", ".join(f"`{id_}`" for id_ in sorted(ids)) or "none"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.defect.id, row.defect.sentence, f"{row.found} of {len(row.finds)}", ", ".join(row.signatures),
        f"{row.examples:g}", str(row.steps), str(row.defect.least_steps), f"{row.shrunk} of {len(row.finds)}",
    )  # fmt: skip


def _line(row: Row) -> str:
    found = f"found {row.found} of {len(row.finds)}"
    if not row.found:
        return f"{row.defect.id}: {found} within {row.examples:g} examples"
    size = f"{row.steps} steps" + (
        f", {row.defect.least_steps} are known to do" if row.steps > row.defect.least_steps + LEAST_MARGIN else ""
    )
    return f"{row.defect.id}: {found} by {', '.join(row.signatures)} within {row.examples:g} examples, {size}"
