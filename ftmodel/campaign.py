"""One command's worth of examples: a session, control and calibration, the examples, and the verdict over all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ftmodel import planfile, runner, store, topology, variants
from ftmodel.errors import PlanError
from ftmodel.lanes import Drawn, Lanes
from ftmodel.runner import RULES, Examples, Rules, Watcher
from ftmodel.session import AS_DRAWN, Compared, Proof, Session
from ftmodel.steps import Plan
from ftmodel.store import Run
from ftmodel.topology import Topology
from ftmodel.verdict import Verdict, combine, example_row, row

Draw = Callable[[Drawn, Sequence[int]], None]
"""Draws plans and hands them to the opener, given the system's timeouts in ms (`ftmodel.strategies.generate`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `run` and `replay` share."""

    python: Path | None = None
    cold_start: bool = False
    store: Path = Path("runs")
    rules: Rules = RULES


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
    examples = Examples(watcher, options.rules)
    with Session(topologies, kept, python=options.python, cold_start=options.cold_start) as session:
        write_env(kept, session, seed=seed, profile=profile)
        watcher.began(f"proving {', '.join(top.name for top in topologies)}")
        proofs = prove(session, topologies, examples)
        watcher.began("examples")
        until_s = time.monotonic() + seconds if seconds is not None else None
        play_drawn(session, proofs, examples, draw, count=count, until_s=until_s)
    return _conclude(kept, session, examples, seed=seed, seconds=time.monotonic() - began_s)


def prove(session: Session, topologies: Sequence[Topology], examples: Examples) -> list[tuple[Topology, Proof]]:
    """Control and calibration of each topology, side by side. Raises HarnessError if they cannot be run."""
    with ThreadPoolExecutor(max_workers=len(topologies), thread_name_prefix="proof") as pool:
        try:
            return list(
                zip(topologies, pool.map(lambda top: runner.prove(session, top, examples), topologies), strict=True)
            )
        except BaseException:
            session.interrupt()
            raise


def play_drawn(
    session: Session,
    proofs: Sequence[tuple[Topology, Proof]],
    examples: Examples,
    draw: Draw,
    *,
    count: int | None,
    until_s: float | None = None,
    prefix: str = "",
) -> None:
    """Play what is drawn, by turns over the topologies, until each example has come to its end. Raises HarnessError."""
    timeouts_ms = sorted({ms for top, _ in proofs for ms in session.promises(top).timeouts_ms()})
    with Lanes(session, examples, until_s=until_s) as lanes:
        draw(Drawn(lanes, proofs, count=count, prefix=prefix), timeouts_ms)
        lanes.begin()
        examples.watcher.began("the last ones")


def replay(path: Path, options: Options, watcher: Watcher, *, times: int, on: Topology | None = None) -> Verdict:
    """Run a stored plan again, `times` times. Raises UsageError or HarnessError."""
    began_s = time.monotonic()
    plan = load_plan(path)
    top = on or topology_of(path, plan)
    kept = Run.create(options.store, "replay")
    examples = Examples(watcher, options.rules)
    with Session([top], kept, python=options.python, cold_start=options.cold_start) as session:
        write_env(kept, session, seed=None, profile="replay", of=str(path))
        watcher.began(f"proving {top.name}")
        proof = runner.prove(session, top, examples)
        watcher.began("replays")
        _play_all(session, examples, top, plan, proof, times, AS_DRAWN)
    return _conclude(kept, session, examples, seed=None, seconds=time.monotonic() - began_s)


def compare(path: Path, options: Options, watcher: Watcher, *, times: int) -> Verdict:
    """Run a stored plan as drawn, then without its faults, then with one more worker, each `times` times.

    The last is left out where the topology or the plan has no room for it. Raises UsageError or HarnessError.
    """
    began_s = time.monotonic()
    plan = load_plan(path)
    top = topology_of(path, plan)
    kept = Run.create(options.store, "compare")
    examples = Examples(watcher, options.rules)
    with Session([top], kept, python=options.python, cold_start=options.cold_start) as session:
        write_env(kept, session, seed=None, profile="compare", of=str(path))
        watcher.began(f"proving {top.name}")
        proof = runner.prove(session, top, examples)
        scripted = len(examples.outcomes)
        watcher.began("as drawn")
        _play_all(session, examples, top, plan, proof, times, AS_DRAWN)
        drawn = [outcome.judgement for outcome in examples.outcomes[scripted:]]
        each = [set(judgement.completed) if judgement else set() for judgement in drawn]
        completed = tuple(sorted(set.intersection(*each)))
        watcher.began("without its faults")
        compared = Compared(variant="without-faults", completed=completed)
        _play_all(session, examples, top, variants.without_faults(plan), proof, times, compared)
        larger = variants.one_more_worker(plan)
        if larger is not None and larger.workers in top.workers:
            watcher.began("with one more worker")
            compared = Compared(variant="one-more-worker", completed=completed)
            _play_all(session, examples, top, larger, proof, times, compared)
    return _conclude(kept, session, examples, seed=None, seconds=time.monotonic() - began_s)


def _play_all(
    session: Session, examples: Examples, top: Topology, plan: Plan, proof: Proof, times: int, compared: Compared
) -> None:
    with Lanes(session, examples) as lanes:
        for number in range(1, times + 1):
            lanes.start(f"{compared.variant}-{number:03d}", top, plan, proof, compared=compared)


def load_plan(path: Path) -> Plan:
    """The plan of a plan file, or of an example's folder. Raises PlanError."""
    if path.is_dir() and not (path / "plan.json").is_file():
        raise PlanError(f"{path}: no plan.json in it, expected a plan file or an example, e.g. runs/*/examples/001")
    if path.is_dir():
        store.check_format(path)
    return planfile.load(path / "plan.json" if path.is_dir() else path)


def topology_of(path: Path, plan: Plan) -> Topology:
    """The topology that lies beside the plan, or else the one that it names."""
    beside = (path if path.is_dir() else path.parent) / "topology.toml"
    return topology.find(str(beside) if beside.is_file() else plan.topology)


def recheck(path: Path, watcher: Watcher, rules: Rules = RULES) -> Verdict:
    """Judge what lies below a store, a run or an example again; writes nothing. Raises StoreError."""
    folders = store.examples(path)
    examples = runner.recheck(folders, watcher, rules)
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


def write_env(kept: Run, session: Session, **facts: object) -> None:
    """Write down what was run: the system and its versions, the interpreter, the topologies, and these facts."""
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
