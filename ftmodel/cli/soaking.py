"""The command `soak`: what it is to do, how a person sees it go on, and what it came to."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from ftmodel import lanes, profiles, topology
from ftmodel.cli import proving, soaklive
from ftmodel.errors import UsageError
from ftmodel.known import Issue
from ftmodel.report import making
from ftmodel.report import page as report_page
from ftmodel.report.files import written
from ftmodel.runner import Rules
from ftmodel.soak import journal as journals
from ftmodel.soak import junit, page, result
from ftmodel.soak.bugs import Bug
from ftmodel.soak.driver import Driver
from ftmodel.soak.journal import Journal
from ftmodel.soak.keeping import Keeping
from ftmodel.soak.lane import Setup
from ftmodel.soak.places import Local, Place
from ftmodel.soak.wish import Wish
from ftmodel.store import Run, write_json

LANES: Final = 2
LANE_CPUS: Final = 1.0
LIMIT: Final = "2G"
TOPOLOGIES: Final = "aggregated,counting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was typed; None where nothing was: then it is as the soak that goes on had it, or the default."""

    seconds: float | None
    lanes: int | None = None
    topologies: str | None = None
    steps: int | None = None
    seed: int | None = None
    python: Path | None = None
    cold_start: bool = False
    store: Path = Path("runs")
    resume: Path | None = None
    against: Path | None = None
    only: int | None = None
    on: str = "local"
    lane_cpus: float | None = None
    lane_gpus: float | None = None
    limit_bytes: int
    issues: tuple[Issue, ...] = ()
    defects: Path | None = None
    defect: str | None = None
    sim_seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a soak is, whichever command goes on with it; kept in its journal."""

    topologies: tuple[str, ...]
    """Names."""
    texts: tuple[str, ...]
    """Each the text of a TOML file."""
    lanes: int
    steps: int
    seed: int
    python: str | None
    cold_start: bool
    defects: str | None
    defect: str | None
    sim_seed: int
    target: str


def run(console: Console, asked: Asked) -> dict[str, Any]:
    """Soak; returns what `--json` prints. Raises UsageError or HarnessError; nothing is left running in any case."""
    if asked.seconds is None and asked.only is None:
        raise UsageError("soak: expected how long; try: ftmodel soak --for 8h")
    if asked.only is not None and asked.resume is None:
        raise UsageError(f"--round {asked.only}: expected the soak whose round it is; try: --resume STORE")
    place = _place(asked)
    earlier = _bugs(asked.against) if asked.against is not None else None
    with _journal(asked) as journal:
        facts = _facts(asked, journal)
        folder = journal.path.parent
        setup = Setup(
            name="", folder=str(folder), topologies=facts.texts, python=facts.python, cold_start=facts.cold_start,
            width=_width(facts, asked), defects=facts.defects, defect=facts.defect, sim_seed=facts.sim_seed,
        )  # fmt: skip
        proving.planted(Path(facts.defects) if facts.defects else None, facts.defect)  # told before a lane is begun
        only = journal.round(asked.only) if asked.only is not None else None
        wish = Wish(
            topologies=tuple(topology.parse(text) for text in facts.texts), lanes=1 if only else facts.lanes,
            seconds=asked.seconds or 0.0, seed=facts.seed, steps=facts.steps, setup=setup, issues=asked.issues,
            only=only,
        )  # fmt: skip
        keeping = Keeping(folder=folder, limit_bytes=asked.limit_bytes)
        with soaklive.shown(console) as audience:
            audience.said(
                f"soak in {folder}: {', '.join(facts.topologies)}, {wish.lanes} lanes of {setup.width} examples,"
                f" seed {facts.seed}"
            )
            driver = Driver(journal, wish, place, audience, keeping)
            with _signals(driver, audience):
                driver.run()
        if driver.versions:
            kept = json.loads(journal.meta("facts") or "{}")
            journal.set_meta(facts=json.dumps({**kept, **driver.versions}))
        total = result.of(journal, doubts=driver.doubts, earlier=earlier)
        write_json(folder / "verdict.json", total)
        files = _written(journal, total, asked)
    soaklive.summary(console, total, files)
    return total


def _written(journal: Journal, total: dict[str, Any], asked: Asked) -> list[Path]:
    """The report of each finding that is not known and has none, the soak's own page, and the XML. Raises StoreError."""
    folder = journal.path.parent
    for bug in journal.bugs():
        example = folder / bug.folder
        if not bug.known and (example / "history.jsonl").is_file() and not (example / report_page.PAGE).is_file():
            making.make(example, Rules(issues=asked.issues), signature=bug.signature)
    return [
        written(folder / page.INDEX, page.render(journal, total)),
        written(folder / junit.FILE, junit.render(total)),
    ]


def bytes_of(text: str) -> int:
    """What 500M or 2G says. Raises UsageError."""
    found = re.fullmatch(r"(\d+)([MG])", text)
    if found is None:
        raise UsageError(f"--store-limit {text!r}: expected a number and M or G; try: --store-limit {LIMIT}")
    return int(found[1]) << (20 if found[2] == "M" else 30)


def _place(asked: Asked) -> Place:
    """Where lanes run. Raises UsageError."""
    if asked.on == "ray":
        from ftmodel.soak.rays import Ray  # noqa: PLC0415 - Ray takes seconds to import

        return Ray(cpus=_first(asked.lane_cpus, LANE_CPUS), gpus=_first(asked.lane_gpus, 0.0))
    if asked.on != "local":
        raise UsageError(f"--on {asked.on!r}: expected local or ray; try: --on local")
    if asked.lane_cpus is not None or asked.lane_gpus is not None:
        raise UsageError("--lane-cpus, --lane-gpus: expected lanes on a Ray cluster; try: --on ray")
    return Local()


def _bugs(store: Path) -> list[Bug]:
    with journals.open_newest(store) as journal:
        return journal.bugs()


def _journal(asked: Asked) -> Journal:
    """That of the soak that goes on, or a new one. Raises StoreError."""
    if asked.resume is not None:
        return journals.open_newest(asked.resume)
    before = journals.newest(asked.store) if asked.store.is_dir() else None
    made = Run.create(asked.store, "soak")
    made.write_env(profile="soak")
    journal = Journal(made.folder / journals.NAME)
    if before is not None:
        with Journal(before / journals.NAME) as old:
            for plan, why in old.corpus():
                journal.keep(plan, why, 0)
    return journal


def _facts(asked: Asked, journal: Journal) -> Facts:
    """What the soak is: as it began, but for what was typed now."""
    kept = json.loads(journal.meta("facts") or "{}")
    names = asked.topologies or (TOPOLOGIES if not kept else None)
    tops = (
        [topology.find(name.strip()) for name in names.split(",")]
        if names is not None
        else [topology.parse(text) for text in kept["texts"]]
    )
    facts = Facts(
        topologies=tuple(top.name for top in tops),
        texts=tuple(topology.dump(top) for top in tops),
        lanes=asked.lanes or kept.get("lanes", LANES),
        steps=asked.steps or kept.get("steps", profiles.find("soak").steps),
        seed=_first(asked.seed, kept.get("seed"), secrets.randbelow(2**32)),
        python=str(asked.python.absolute()) if asked.python is not None else kept.get("python"),
        cold_start=asked.cold_start or kept.get("cold_start", False),
        defects=str(asked.defects.absolute()) if asked.defects is not None else kept.get("defects"),
        defect=_first(asked.defect, kept.get("defect"), None),
        sim_seed=_first(asked.sim_seed, kept.get("sim_seed"), 0),
        target="simulated" if all(top.target == "simulated" for top in tops) else "real",
    )
    journal.set_meta(facts=json.dumps({**kept, **asdict(facts)}))
    return facts


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _width(facts: Facts, asked: Asked) -> int:
    """Examples of a lane at once: together as many as this machine bears, or as a lane's CPUs do.

    In virtual time none waits for another.
    """
    if facts.target == "simulated":
        return 1
    cpus = _first(asked.lane_cpus, LANE_CPUS) if asked.on == "ray" else (os.cpu_count() or 1) / facts.lanes
    return max(1, int(lanes.LANES_PER_CORE * cpus))


@contextmanager
def _signals(driver: Driver, audience: soaklive.Audience) -> Iterator[None]:
    """Ctrl-C once: no further rounds; twice: at once. SIGUSR1: a summary."""

    def interrupted(*_: object) -> None:
        if driver.stopping:
            raise KeyboardInterrupt
        driver.stop("interrupted")

    def asked(*_: object) -> None:
        audience.wants_summary = True

    before = {number: signal.signal(number, handler) for number, handler in (
        (signal.SIGINT, interrupted), (signal.SIGUSR1, asked),
    )}  # fmt: skip
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
