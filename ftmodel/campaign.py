"""One command's worth of examples: a session, control and calibration, the examples, and the verdict over all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftmodel import planfile, runner, store, topology
from ftmodel.errors import PlanError
from ftmodel.runner import Examples, Watcher
from ftmodel.session import Session
from ftmodel.steps import Plan
from ftmodel.store import Run
from ftmodel.topology import Topology
from ftmodel.verdict import Verdict, combine, example_row, row

Draw = Callable[[runner.Drawn, Sequence[int]], None]
"""Draws plans and hands them to the opener, given the system's timeouts in ms (`ftmodel.strategies.generate`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `run` and `replay` share."""

    python: Path | None = None
    cold_start: bool = False
    store: Path = Path("runs")


def run(
    topologies: Sequence[Topology],
    options: Options,
    watcher: Watcher,
    draw: Draw,
    *,
    count: int | None,
    seconds: float | None,
    seed: int,
    profile: str,
) -> Verdict:
    """Run drawn examples. Raises UsageError or HarnessError; nothing is left running in any case."""
    began_s = time.monotonic()
    kept = Run.create(options.store, "run")
    examples = Examples(watcher)
    with Session(topologies, kept, python=options.python, cold_start=options.cold_start) as session:
        _write_env(kept, session, seed=seed, profile=profile)
        proofs = []
        for top in topologies:
            watcher.began(f"proving {top.name}")
            proofs.append((top, runner.prove(session, top, examples)))
        watcher.began("examples")
        until_s = time.monotonic() + seconds if seconds is not None else None
        drawn = runner.Drawn(session, proofs, examples, count=count, until_s=until_s)
        timeouts_ms = sorted({ms for top in topologies for ms in session.promises(top).timeouts_ms()})
        try:
            draw(drawn, timeouts_ms)
        finally:
            watcher.began("patient ones")
            drawn.finish()
    return _conclude(kept, session, examples, seed=seed, seconds=time.monotonic() - began_s)


def replay(path: Path, options: Options, watcher: Watcher, *, times: int, on: Topology | None = None) -> Verdict:
    """Run a stored plan again, `times` times. Raises UsageError or HarnessError."""
    began_s = time.monotonic()
    plan = load_plan(path)
    top = on or _topology_of(path, plan)
    kept = Run.create(options.store, "replay")
    examples = Examples(watcher)
    with Session([top], kept, python=options.python, cold_start=options.cold_start) as session:
        _write_env(kept, session, seed=None, profile="replay", of=str(path))
        watcher.began(f"proving {top.name}")
        proof = runner.prove(session, top, examples)
        for number in range(1, times + 1):
            watcher.began(f"replay {number} of {times}")
            outcome, _ = runner.play(session, top, plan, proof, f"{number:03d}")
            examples.add(outcome)
    return _conclude(kept, session, examples, seed=None, seconds=time.monotonic() - began_s)


def load_plan(path: Path) -> Plan:
    """The plan of a plan file, or of an example's folder. Raises PlanError."""
    if path.is_dir() and not (path / "plan.json").is_file():
        raise PlanError(f"{path}: no plan.json in it, expected a plan file or an example, e.g. runs/*/examples/001")
    if path.is_dir():
        store.check_format(path)
    return planfile.load(path / "plan.json" if path.is_dir() else path)


def _topology_of(path: Path, plan: Plan) -> Topology:
    """The topology that lies beside the plan, or else the one that it names."""
    beside = (path if path.is_dir() else path.parent) / "topology.toml"
    return topology.find(str(beside) if beside.is_file() else plan.topology)


def recheck(path: Path, watcher: Watcher) -> Verdict:
    """Judge what lies below a store, a run or an example again; writes nothing. Raises StoreError."""
    folders = store.examples(path)
    examples = runner.recheck(folders, watcher)
    settings = [o.setting for o in examples.outcomes if o.setting is not None]
    return combine(
        examples.outcomes,
        seed=None,
        system={"name": settings[0].system, "version": settings[0].version}
        if settings
        else {"name": "", "version": ""},
        topologies=list(dict.fromkeys(o.plan.topology for o in examples.outcomes)),
        store=path,
    )


def _write_env(kept: Run, session: Session, **facts: object) -> None:
    kept.write_env(
        system=session.system.name,
        versions=session.versions,
        sut_python=str(session.python),
        cold_start=session.cold_start,
        topologies=[top.name for top in session.topologies],
        **facts,
    )


def _conclude(kept: Run, session: Session, examples: Examples, *, seed: int | None, seconds: float) -> Verdict:
    verdict = combine(
        examples.outcomes,
        seed=seed,
        system={"name": session.system.name, "version": session.version},
        topologies=[top.name for top in session.topologies],
        store=kept.folder,
        doubts=[f"left behind: {left}" for left in session.left_over],
        seconds=seconds,
    )
    for outcome in verdict.outcomes:
        store.write_json(outcome.folder / "verdict.json", example_row(outcome))
    store.write_json(kept.folder / "verdict.json", row(verdict))
    return verdict
