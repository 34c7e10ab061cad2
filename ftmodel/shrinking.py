"""The command `shrink`: makes a stored example smaller, over fresh clusters, and keeps what it came to beside the example.

What lies in an example's folder then, beside what the run has left there:

    shrunk/               the smallest plan that still fails: the same files as of an example (plan.json, topology.toml,
                          history.jsonl, verdict.json, logs/), the env.json of its run, and shrink.json: the object that
                          `--json` prints, with at least example, signature, from_steps, to_steps, executions and
                          rate {failed, of, low, high}
    passing/              the nearest execution that did not show the signature: the same files as of an example
    aside/<signature>/    the first execution that showed another signature, which the example itself does not: likewise
    shrinking/            what a further call goes on from: <topology>.jsonl, a line for each execution that has ended;
                          and those executions that may yet be needed, below examples/

A slash in a signature is a dash in the name of a folder. A call with another signature, or on another release, begins
anew, and removes shrunk/ and passing/. Killed at any moment, it loses the executions under way: the next call goes on from the others.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Final, Protocol

from ftmodel import campaign, engines, history, planfile, runner, shrink, store, systems
from ftmodel.campaign import Options
from ftmodel.errors import HarnessError, UsageError
from ftmodel.invariants import Finding
from ftmodel.lanes import Lanes, mended
from ftmodel.rates import Rate
from ftmodel.runner import Examples, Outcome, Rules
from ftmodel.session import Proof, Session
from ftmodel.shrink import Memory, Seen, Shrunk
from ftmodel.steps import Plan
from ftmodel.store import Run
from ftmodel.targets.simulated import refuses
from ftmodel.topology import Topology
from ftmodel.verdict import example_row

FORMAT: Final = 1
Clock = Callable[[], float]
LIKELY: Final = 0.2
"""On a cheaper target a plan is made smaller if it fails there at least as often."""
HEAD: Final = ("workers", "prefill_workers", "frontends", "patience")


class Watcher(runner.Watcher, shrink.Watcher, Protocol):
    """Is told how proofs and the search go on."""

    def played(self, outcome: Outcome) -> None:
        """A plan was executed, and judged if that could be; its folder is still there. Called from several threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of an example."""

    example: Path
    shrunk: Shrunk
    topology: Topology
    """Where it was made smaller."""
    others: dict[str, int]
    """Other signatures that were seen, and in how many executions."""
    aside: dict[str, Path]
    """Where those are kept that the example itself does not show."""

    @property
    def folder(self) -> Path:
        """Of the smallest plan's run."""
        return self.example / "shrunk"

    def row(self) -> dict[str, Any]:
        """As `--json` prints it."""
        shrunk = self.shrunk
        return {
            "example": str(self.example),
            "signature": shrunk.signature,
            "from_steps": shrunk.from_steps,
            "to_steps": len(shrunk.plan.steps),
            "executions": shrunk.executions,
            "unknown": shrunk.unknown,
            "first": shrunk.first.row(),
            "rate": shrunk.rate.row(),
            "reproduced": shrunk.reproduced,
            "done": shrunk.done,
            "target": self.topology.target,
            "topology": self.topology.name,
            "shrunk": str(self.folder) if shrunk.reproduced else "",
            "others": {
                signature: {"count": count, "example": str(self.aside.get(signature, ""))}
                for signature, count in sorted(self.others.items())
            },
        }


def run(example: Path, options: Options, watcher: Watcher, *, signature: str | None = None, budget_s: float) -> Result:
    """Make an example smaller, on the cheapest target on which it fails. Raises UsageError or HarnessError.

    `signature`: for which violation; None: the first that is not known, or else the first.
    """
    if not (example / "history.jsonl").is_file():
        raise UsageError(f"{example}: no history.jsonl in it, expected an example, e.g. runs/*/examples/001")
    plan = campaign.load_plan(example)
    own = campaign.topology_of(example, plan)
    findings, wanted = _wanted(example, plan, options.rules, signature)
    until_s = time.monotonic() + budget_s
    work = _work(example)
    for rung in [own] if options.planted else rungs(own):
        with options.session([rung], work) as session:
            keeper = Keeper(example, wanted, watcher, rung, session.version, findings)
            campaign.write_env(work, session, seed=None, profile="shrink", of=str(example))
            examples = Examples(watcher, options.rules)
            watcher.began(f"proving {rung.name}")
            proof = runner.prove(session, rung, examples)
            with Lanes(session, examples) as lanes:
                here = Here(session, lanes, rung, proof, keeper)
                moved = planfile.with_steps(mended(plan, rung), plan.steps)
                if rung is own or here.fails(moved):
                    return here.shrink(moved, until_s - time.monotonic())
    raise AssertionError("the last rung is the example's own topology")


def within(
    session: Session,
    lanes: Lanes,
    proof: Proof,
    example: Path,
    rules: Rules,
    watcher: Watcher,
    *,
    signature: str,
    budget_s: float,
    clock: Clock = time.monotonic,
) -> Result:
    """Make an example smaller in lanes that are open, on its own topology. Raises UsageError or HarnessError."""
    plan = campaign.load_plan(example)
    own = campaign.topology_of(example, plan)
    findings, wanted = _wanted(example, plan, rules, signature)
    keeper = Keeper(example, wanted, watcher, own, session.version, findings)
    campaign.write_env(_work(example), session, seed=None, profile="shrink", of=str(example))
    return Here(session, lanes, own, proof, keeper, clock).shrink(plan, budget_s)


def _work(example: Path) -> Run:
    work = Run(example / "shrinking")
    work.folder.mkdir(exist_ok=True)
    return work


def _wanted(example: Path, plan: Plan, rules: Rules, signature: str | None) -> tuple[tuple[Finding, ...], str]:
    """What the example shows, and for which signature it is made smaller. Raises UsageError."""
    events = list(history.read(example / "history.jsonl"))
    outcome = runner.judged(example.name, example, plan, events, rules=rules)
    findings = outcome.judgement.findings if outcome.judgement is not None else ()
    found = list(dict.fromkeys(finding.signature for finding in findings))
    if not found:
        raise UsageError(f"{example}: nothing is violated in it; try: ftmodel recheck {example}")
    if signature is None:
        return findings, next((one for one in found if one not in outcome.known), found[0])
    if signature not in found:
        raise UsageError(f"--signature {signature}: {example} does not show it, expected one of {', '.join(found)}")
    return findings, signature


def rungs(own: Topology) -> list[Topology]:
    """Where an example may fail too, the cheapest first, its own topology last.

    Simulated; then without a real engine; then without services.
    """
    engine: dict[str, Any] = {
        "engine": "counting",
        "options": {},
        "model": Topology.__dataclass_fields__["model"].default,
    }
    services: dict[str, Any] = {"discovery": "file", "request_plane": "tcp", "event_plane": "zmq"}
    simulated = {"target": "simulated", "router_mode": "round-robin", **engine, **services}
    lighter = [
        ("simulated", simulated),
        ("counting", engine if engines.of(own).alone else {}),
        ("file", services if own.discovery != "file" or own.request_plane != "tcp" else {}),
    ]
    found = [dataclasses.replace(own, name=f"{own.name}-{name}", **changed) for name, changed in lighter if changed]
    return [*(one for one in found if own.target == "real" and not _refused(one)), own]


def _refused(top: Topology) -> str:
    if top.target == "simulated":
        return "prefill_workers" if top.prefill_workers else refuses(top)
    return systems.find(top.system).refuses(top)


class Here:
    """One target on which the example is tried, and made smaller if it fails there."""

    def __init__(
        self,
        session: Session,
        lanes: Lanes,
        topology: Topology,
        proof: Proof,
        keeper: Keeper,
        clock: Clock = time.monotonic,
    ) -> None:
        self._session = session
        self._lanes = lanes
        self._topology = topology
        self._proof = proof
        self._keeper = keeper
        self._clock = clock

    def fails(self, plan: Plan) -> bool:
        """True if the plan fails here often enough to be made smaller here."""
        self._keeper.watcher.began(f"the plan on {self._topology.name}")
        self._keeper.best = plan
        rate: Rate = self._searching(lambda **given: shrink.replay(plan, self._keeper.signature, **given))
        return rate.share >= LIKELY

    def shrink(self, plan: Plan, budget_s: float) -> Result:
        """Make it smaller."""
        self._keeper.best = plan
        shrunk: Shrunk = self._searching(
            lambda **given: shrink.shrink(
                plan, self._keeper.signature, budget_s=budget_s, subjects=self._keeper.subjects,
                admits=self._admits, clock=self._clock, **given,
            )
        )  # fmt: skip
        return self._keeper.result(shrunk, self._topology)

    def _searching(self, search: Callable[..., Any]) -> Any:
        """Do it with as many lanes as there are; what interrupts it ends what is under way too."""
        width = 1 if self._topology.target == "simulated" else self._lanes.width
        workers = ThreadPoolExecutor(max_workers=width, thread_name_prefix="shrink")
        try:
            return search(
                execute=self._execute, watcher=self._keeper, memory=self._keeper.memory, lanes=width,
                executor=None if width == 1 else workers,
            )  # fmt: skip
        except HarnessError:
            raise
        except BaseException:
            self._session.interrupt()
            raise
        finally:
            workers.shutdown(wait=True, cancel_futures=True)

    def _execute(self, plan: Plan) -> Seen | None:
        keeper = self._keeper
        outcome = self._lanes.play(keeper.name(), self._topology, plan, self._proof, run=keeper.work)
        keeper.watcher.played(outcome)
        return keeper.seen(outcome)

    def _admits(self, plan: Plan) -> bool:
        top = self._topology
        return (
            plan.workers in top.workers
            and plan.prefill_workers in (top.prefill_workers or (0,))
            and plan.frontends in top.frontends
        )


class Keeper:
    """What lies beside the example: the journal of executions, and of those that have ended the folders worth keeping."""

    def __init__(
        self,
        example: Path,
        signature: str,
        watcher: Watcher,
        topology: Topology,
        version: str,
        findings: Sequence[Finding],
    ) -> None:
        self.signature = signature
        self.subjects = tuple(one.subject for one in findings if one.signature == signature)
        self.watcher = watcher
        self.memory: Memory = {}
        self.best: Plan | None = None
        self._example = example
        self._own = {one.signature for one in findings}
        self.work = _work(example)
        self._work = self.work.folder
        self._journal = self._work / f"{topology.name}.jsonl"
        self._head = {"format": FORMAT, "signature": signature, "version": version, "ftmodel": version_of("ftmodel")}
        self._counting = threading.Lock()
        self._failing: dict[str, tuple[int, Path]] = {}
        """By the plan's key: its steps, and the folder of an execution that failed."""
        self._passing_by = -1
        """How far the plan of passing/ is from the best; -1: there is none."""
        self._others: Counter[str] = Counter()
        self._count = self._recall()

    # -- the journal

    def _recall(self) -> int:
        """Read what earlier calls have executed, and begin the journal anew if it is of something else."""
        rows = _rows(self._journal)
        if rows[:1] != [self._head]:
            rows = [self._head]
            for journal in self._work.glob("*.jsonl"):
                if _rows(journal)[0]["signature"] != self.signature:
                    journal.unlink()
            _replace(self._journal, "".join(json.dumps(row) + "\n" for row in rows))
            for name in ("shrunk", "passing"):
                shutil.rmtree(self._example / name, ignore_errors=True)
        wanted = set()
        for row in rows[1:]:
            seen = row["signatures"]
            self.memory.setdefault(row["plan"], []).append(None if seen is None else frozenset(seen))
            self._others.update(set(seen or ()) - {self.signature})
            folder = self._work / "examples" / row["where"]
            if self.signature in (seen or ()) and (folder / "verdict.json").is_file():
                self._failing.setdefault(row["plan"], (row["steps"], folder))
                wanted.add(folder)
        for folder in (self._work / "examples").glob("*"):
            if folder not in wanted:
                shutil.rmtree(folder)
        return len(rows)

    def name(self) -> str:
        """Of the next execution; the seed of a simulated cluster follows from it."""
        with self._counting:
            self._count += 1
            return f"e{self._count:05d}"

    def seen(self, outcome: Outcome) -> Seen | None:
        """What an execution showed; None if the harness failed."""
        if outcome.judgement is None or (outcome.judgement.doubts and not outcome.judgement.findings):
            return None
        store.write_json(outcome.folder / "verdict.json", example_row(outcome))
        signatures = frozenset(finding.signature for finding in outcome.judgement.findings)
        return Seen(signatures=signatures, where=outcome.folder.name)

    # -- what the search tells

    def began(self, stage: str) -> None:
        """A stage begins."""
        self.watcher.began(stage)

    def executed(self, stage: str, plan: Plan, seen: Seen | None) -> None:
        """Write it into the journal, and keep its folder if that is worth it."""
        row = {
            "plan": shrink.key(stage, plan),
            "steps": len(plan.steps),
            "signatures": None if seen is None else sorted(seen.signatures),
            "where": "" if seen is None else seen.where,
        }
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if seen is not None:
            self._keep(plan, seen, self._work / "examples" / seen.where)
        self.watcher.executed(stage, plan, seen)

    def _keep(self, plan: Plan, seen: Seen, folder: Path) -> None:
        others = seen.signatures - {self.signature}
        self._others.update(others)
        for other in others - self._own:
            if not self._aside(other).exists():
                shutil.copytree(folder, self._aside(other))
        key = shrink.key(shrink.SEARCH, plan)
        if self.signature in seen.signatures:
            if key not in self._failing:
                self._failing[key] = (len(plan.steps), folder)
                return
        elif self._is_nearer(plan):
            _move(folder, self._example / "passing")
            return
        shutil.rmtree(folder)

    def _aside(self, signature: str) -> Path:
        return self._example / "aside" / _as_name(signature)

    def _is_nearer(self, plan: Plan) -> bool:
        """True if no passing execution is kept whose plan is nearer to the best one; then this one's is."""
        assert self.best is not None
        by = _distance(plan, self.best)
        if 0 <= self._passing_by < by:
            return False
        self._passing_by = by
        return True

    def smallest(self, plan: Plan, rate: Rate) -> None:
        """Keep a failing execution of it as the result so far."""
        self.best = plan
        self._passing_by = -1
        self._put(plan)
        for key, (steps, folder) in list(self._failing.items()):
            if steps > len(plan.steps):
                shutil.rmtree(folder, ignore_errors=True)
                del self._failing[key]
        self.watcher.smallest(plan, rate)

    def _put(self, plan: Plan) -> None:
        _, folder = self._failing.get(shrink.key(shrink.SEARCH, plan), (0, self._work))
        if folder != self._work and folder.is_dir():
            shutil.copyfile(self._work / "env.json", folder / "env.json")
            _move(folder, self._example / "shrunk")

    def result(self, shrunk: Shrunk, topology: Topology) -> Result:
        """Write down what it came to."""
        aside = {one: self._aside(one) for one in self._others if self._aside(one).is_dir()}
        result = Result(example=self._example, shrunk=shrunk, topology=topology, others=dict(self._others), aside=aside)
        if shrunk.reproduced:
            self._put(shrunk.plan)
            kept = result.folder / "plan.json"
            if kept.is_file() and planfile.load(kept) == shrunk.plan:
                store.write_json(result.folder / "shrink.json", result.row())
        for folder in (self._work / "examples").glob("*"):
            shutil.rmtree(folder)
        return result


def _as_name(signature: str) -> str:
    return signature.replace("/", "-")


def _rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal; the last one is left out, if a crash has cut it."""
    if not path.is_file():
        return []
    *whole, _cut = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in whole]


def _replace(path: Path, text: str) -> None:
    """Write a file at once or not at all."""
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def _move(folder: Path, to: Path) -> None:
    """Put a folder in the place of another."""
    old = to.with_name(f"{to.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if to.exists():
        to.rename(old)
    folder.rename(to)
    shutil.rmtree(old, ignore_errors=True)


def _distance(one: Plan, other: Plan) -> int:
    """How many steps and values of the head the two differ in."""
    heads: int = sum(getattr(one, name) != getattr(other, name) for name in HEAD)
    return len(set(one.steps) ^ set(other.steps)) + heads
