"""One command's worth of examples: a session, control and calibration, the examples, and the verdict over all."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ftmodel import agreement, planfile, runner, store, topology, variants
from ftmodel.agreement import Runs, settled
from ftmodel.errors import PlanError
from ftmodel.lanes import Drawn, Lanes
from ftmodel.rates import Rate, of_signatures
from ftmodel.runner import RULES, Examples, Outcome, Rules, Watcher
from ftmodel.session import AS_DRAWN, Compared, Proof, Session
from ftmodel.steps import Plan
from ftmodel.store import Run
from ftmodel.targets.simulated import Planted
from ftmodel.topology import Topology
from ftmodel.verdict import Verdict, combine, example_row, row

AGREE: Final = "agree"
Plans = Callable[[Sequence[int]], Sequence[Plan]]
"""The plans to run, given the system's timeouts in ms: read, or drawn around these."""
Draw = Callable[[Drawn, Sequence[int]], None]
"""Draws plans and hands them to the opener, given the system's timeouts in ms (`ftmodel.strategies.generate`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `run` and `replay` share."""

    python: Path | None = None
    cold_start: bool = False
    store: Path = Path("runs")
    rules: Rules = RULES
    planted: tuple[Planted, ...] = ()
    """Defects of simulated clusters."""
    sim_seed: int = 0
    """The order of simultaneous events in them."""

    def session(self, topologies: Sequence[Topology], kept: Run) -> Session:
        """Not opened yet."""
        return Session(
            topologies, kept, python=self.python, cold_start=self.cold_start, planted=self.planted,
            sim_seed=self.sim_seed,
        )  # fmt: skip


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
    with options.session(topologies, kept) as session:
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
    timeouts_ms = _timeouts_ms(session, [top for top, _ in proofs])
    with Lanes(session, examples, until_s=until_s) as lanes:
        draw(Drawn(lanes, proofs, count=count, prefix=prefix), timeouts_ms)
        lanes.begin()
        examples.watcher.began("the last ones")


def _timeouts_ms(session: Session, topologies: Sequence[Topology]) -> list[int]:
    return sorted({ms for top in topologies for ms in session.promises(top).timeouts_ms()})


def replay(
    path: Path, options: Options, watcher: Watcher, *, times: int, on: Topology | None = None, prefixes: bool = False
) -> Verdict:
    """Run a stored plan again, `times` times; with `prefixes` its first step alone too, its first two, and so on.

    The verdict tells how often each signature was seen. Raises UsageError or HarnessError.
    """
    began_s = time.monotonic()
    plan = load_plan(path)
    top = on or topology_of(path, plan)
    kept = Run.create(options.store, "replay")
    examples = Examples(watcher, options.rules)
    whole = len(plan.steps)
    rates: dict[int, dict[str, Rate]] = {}
    with options.session([top], kept) as session:
        write_env(kept, session, seed=None, profile="replay", of=str(path))
        watcher.began(f"proving {top.name}")
        proof = runner.prove(session, top, examples)
        for count in range(1, whole + 1) if prefixes else [whole]:
            watcher.began("replays" if count == whole else f"the first {count} of {whole} steps")
            before = len(examples.outcomes)
            shorter = planfile.with_steps(plan, plan.steps[:count])
            prefix = "" if count == whole else f"first-{count:02d}-"
            _play_all(session, examples, top, shorter, proof, times, AS_DRAWN, prefix=prefix)
            rates[count] = of_signatures(_signatures(examples.outcomes[before:]))
    return _conclude(kept, session, examples, seed=None, seconds=time.monotonic() - began_s, rates=rates)


def _signatures(outcomes: Sequence[Outcome]) -> list[set[str]]:
    """Of each outcome that was judged, what it showed."""
    judged = (outcome.judgement for outcome in outcomes if outcome.judgement is not None)
    return [{finding.signature for finding in judgement.findings} for judgement in judged]


def compare(path: Path, options: Options, watcher: Watcher, *, times: int) -> Verdict:
    """Run a stored plan as drawn, then without its faults, then with one more worker, each `times` times.

    The last is left out where the topology or the plan has no room for it. Raises UsageError or HarnessError.
    """
    began_s = time.monotonic()
    plan = load_plan(path)
    top = topology_of(path, plan)
    kept = Run.create(options.store, "compare")
    examples = Examples(watcher, options.rules)
    with options.session([top], kept) as session:
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


def agree(
    plans: Plans,
    topologies: Sequence[Topology],
    options: Options,
    watcher: Watcher,
    *,
    times: int,
    seed: int | None = None,
) -> Verdict:
    """Run each plan on each of these topologies: X3 compares the first with each of the others.

    Where two runs differ, the plan is run `times` times more on both. What is done to services is left out of the plans.
    Raises UsageError or HarnessError.
    """
    began_s = time.monotonic()
    kept = Run.create(options.store, AGREE)
    examples = Examples(watcher, options.rules)
    runs = Runs(topologies[0], topologies[1:])
    with options.session(topologies, kept) as session:
        write_env(kept, session, seed=seed, profile=AGREE)
        drawn = plans(_timeouts_ms(session, topologies))
        named = {f"{n:03d}": variants.without_outages(plan) for n, plan in enumerate(drawn, start=1)}
        watcher.began(f"proving {', '.join(top.name for top in topologies)}")
        proofs = {top.name: proof for top, proof in prove(session, topologies, examples)}
        watcher.began("on each topology")
        _play_each(session, examples, [(plan, top, 0) for plan in named for top in topologies], named, proofs)
        runs.add(examples.outcomes)
        watcher.began("afresh, where two differ")
        again = [(plan, top, n) for plan, tops in runs.doubtful() for top in tops for n in range(1, times + 1)]
        _play_each(session, examples, again, named, proofs)
    runs.add(examples.outcomes)
    examples.outcomes = settled(runs, examples.outcomes, options.rules)
    return _conclude(kept, session, examples, seed=seed, seconds=time.monotonic() - began_s)


def _play_each(
    session: Session,
    examples: Examples,
    wanted: Sequence[tuple[str, Topology, int]],
    plans: Mapping[str, Plan],
    proofs: Mapping[str, Proof],
) -> None:
    with Lanes(session, examples) as lanes:
        for name, top, again in wanted:
            plan = dataclasses.replace(plans[name], topology=top.name)
            lanes.start(agreement.named(name, top, again), top, plan, proofs[top.name])


def _play_all(
    session: Session,
    examples: Examples,
    top: Topology,
    plan: Plan,
    proof: Proof,
    times: int,
    compared: Compared,
    *,
    prefix: str = "",
) -> None:
    with Lanes(session, examples) as lanes:
        for number in range(1, times + 1):
            lanes.start(f"{prefix}{compared.variant}-{number:03d}", top, plan, proof, compared=compared)


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
    for run in dict.fromkeys(folder.parents[1] for folder in folders):
        examples.outcomes = _agreed(run, examples.outcomes, rules)
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


def _agreed(run: Path, outcomes: list[Outcome], rules: Rules) -> list[Outcome]:
    """The outcomes, with what X3 says of those of this run, if its command was to compare topologies."""
    if not (run / "env.json").is_file() or store.read_json(run / "env.json").get("profile") != AGREE:
        return outcomes
    own = [outcome for outcome in outcomes if outcome.folder.parents[1] == run]
    tops = {top.name: top for outcome in own for top in [topology_of(outcome.folder, outcome.plan)]}
    ordered = [tops[name] for name in store.read_json(run / "env.json")["topologies"] if name in tops]
    runs = Runs(ordered[0], ordered[1:])
    runs.add(own)
    told = {outcome.folder: outcome for outcome in settled(runs, own, rules)}
    return [told.get(outcome.folder, outcome) for outcome in outcomes]


def write_env(kept: Run, session: Session, **facts: object) -> None:
    """Write down what was run: the system and its versions, the interpreter, the topologies, and these facts."""
    kept.write_env(**facts_of(session), **facts)


def facts_of(session: Session) -> dict[str, object]:
    """What is run: the system and its versions, the interpreter, the topologies."""
    return {
        "system": session.system.name,
        "versions": session.versions,
        "sut_python": str(session.python),
        "cold_start": session.cold_start,
        "topologies": [top.name for top in session.topologies],
        **_of_simulated(session),
    }


def _of_simulated(session: Session) -> dict[str, object]:
    """What is to be known of a run's simulated clusters besides."""
    if all(top.target == "real" for top in session.topologies):
        return {}
    return {"sim_seed": session.sim_seed, "defects": {one.defect.id: one.chance for one in session.planted}}


def _conclude(
    kept: Run,
    session: Session,
    examples: Examples,
    *,
    seed: int | None,
    seconds: float,
    rates: Mapping[int, Mapping[str, Rate]] | None = None,
) -> Verdict:
    verdict = combine(
        examples.outcomes,
        seed=seed,
        system={"name": session.system.name, "version": session.version},
        topologies=[top.name for top in session.topologies],
        store=kept.folder,
        doubts=[f"left behind: {left}" for left in session.left_over],
        seconds=seconds,
        rates=rates,
    )
    for outcome in verdict.outcomes:
        store.write_json(outcome.folder / "verdict.json", example_row(outcome))
    store.write_json(kept.folder / "verdict.json", row(verdict))
    return verdict
