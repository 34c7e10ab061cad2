"""What a soak has come to: its verdict over the whole journal, as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftmodel.runner import Value
from ftmodel.soak.bugs import Bug
from ftmodel.soak.journal import Journal


def of(journal: Journal, *, doubts: Sequence[str] = (), earlier: Sequence[Bug] | None = None) -> dict[str, Any]:
    """The verdict, with the keys that the one of `run` has.

    `doubts` are the harness's of this stint; `earlier` the bugs of another soak, which are not new.
    """
    bugs = journal.bugs()
    before = {bug.signature for bug in earlier or ()}
    totals = journal.totals()
    unknown = [*doubts, *(f"{name}: {doubt}" for name, doubt in journal.doubts())]
    if any(not bug.known and bug.signature not in before for bug in bugs):
        value: Value = "violated"
    else:
        value = "unknown" if unknown or not totals.examples else "holds"
    facts = json.loads(journal.meta("facts") or "{}")
    stints = journal.stints()
    return {
        "verdict": value,
        "seed": facts.get("seed"),
        "target": facts.get("target", "real"),
        "system": {"name": facts.get("system", ""), "version": facts.get("version", "")},
        "topologies": facts.get("topologies", []),
        "seconds": round(sum((ended or began) - began for began, ended, _ in stints), 1),
        "stints": len(stints),
        "rounds": journal.rounds(),
        **totals.as_json(),
        "violations": [_violation(journal.path.parent, bug) for bug in bugs],
        **({"against": compared(bugs, earlier)} if earlier is not None else {}),
        "doubts": unknown,
        "store": str(journal.path.parent),
    }


def _violation(folder: Path, bug: Bug) -> dict[str, Any]:
    return {
        "signature": bug.signature,
        "invariant": bug.signature.partition("/")[0],
        "known": bug.known,
        "count": bug.count,
        "example": str(folder / bug.folder),
        "message": bug.message,
        "state": bug.state,
        "replays": bug.replays,
        "seen_again": bug.seen,
        "steps": bug.steps,
        "shrunk": {"how": bug.shrunk, "to_steps": bug.to_steps, "rate": bug.rate, "why": bug.why},
    }


def compared(bugs: Sequence[Bug], earlier: Sequence[Bug]) -> dict[str, list[str]]:
    """Signatures that are new, gone, and still there."""
    now, before = ({bug.signature for bug in some} for some in (bugs, earlier))
    return {"new": sorted(now - before), "gone": sorted(before - now), "still_there": sorted(now & before)}
