"""The commands. Exit codes: 0 holds, 1 violated, 2 unknown (the harness failed), 3 wrong use."""

from __future__ import annotations

import json
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape

from ftmodel import agreement, axes, campaign, doctor, known, profiles, services, shrinking, topology
from ftmodel.campaign import Options
from ftmodel.cli import listing, proving, reporting, show, soaking
from ftmodel.cli import shrinking as cli_shrinking
from ftmodel.cli.drawing import strategies as _strategies
from ftmodel.errors import FtmodelError, UsageError
from ftmodel.invariants.agreement import FRESH_LEAST
from ftmodel.lanes import Collected, Drawn
from ftmodel.runner import Rules
from ftmodel.steps import Plan
from ftmodel.topology import Topology
from ftmodel.verdict import EXIT_CODES, WRONG_USE, Verdict, row

DEFAULT_TOPOLOGIES: Final = "aggregated,counting"
DEFAULT_BASE: Final = "counting"
INTERRUPTED: Final = 130
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600}

app = typer.Typer(
    name="ftmodel",
    help="Find fault-tolerance bugs in distributed LLM serving.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SutPython = Annotated[Path | None, typer.Option("--sut-python", help="The interpreter of the cluster under test.")]
ColdStart = Annotated[bool, typer.Option("--cold-start", help="Start each process anew instead of forking it.")]
Store = Annotated[Path, typer.Option("--store", help="Where runs are kept.")]
KnownIssues = Annotated[
    Path | None,
    typer.Option("--known-issues", help=f"What is known and fails nothing; {known.DEFAULT}, if there is one."),
]
Defects = Annotated[
    Path | None, typer.Option("--defects", help="A Python file with DEFECTS for simulated clusters, instead of ours.")
]
Planting = Annotated[
    str | None,
    typer.Option("--defect", help="Plant these in simulated clusters: ID, or ID:P for the chance P; by commas."),
]
SimSeed = Annotated[int, typer.Option("--sim-seed", min=0, help="Of simulated clusters: which of two comes first.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, as the last line of stdout.")]


@app.command()
def run(
    topologies: Annotated[
        str, typer.Option("--topology", help="Presets or TOML files, taken by turns, separated by commas.")
    ] = DEFAULT_TOPOLOGIES,
    profile: Annotated[str, typer.Option(help="quick, ci, thorough or soak.")] = "quick",
    examples: Annotated[int | None, typer.Option(min=1, help="Examples, instead of the profile's.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps an example, instead of the profile's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed draws the same plans.")] = None,
    for_: Annotated[str | None, typer.Option("--for", help="Go on until the time is over: 90s, 10m, 8h.")] = None,
    sut_python: SutPython = None,
    cold_start: ColdStart = False,
    store: Store = Path("runs"),
    known_issues: KnownIssues = None,
    defects: Defects = None,
    defect: Planting = None,
    sim_seed: SimSeed = 0,
    as_json: Json = False,
) -> None:
    """Let the random machine loose on a real cluster, and give a verdict."""
    chosen = profiles.find(profile)
    seconds = _seconds(for_) if for_ is not None else None
    if chosen.examples == 0 and seconds is None and examples is None:
        raise UsageError(
            f"profile {profile}: goes on until the time is over, expected --for; try: ftmodel run --profile soak --for 10m"
        )
    count = examples if examples is not None else (None if seconds is not None else chosen.examples)
    drawn_seed = seed if seed is not None else secrets.randbelow(2**32)
    tops = [topology.find(name.strip()) for name in topologies.split(",")]

    def draw(opener: Drawn, timeouts_ms: Sequence[int]) -> None:
        _strategies().generate(
            opener, examples=count or 10**6, steps=steps or chosen.steps, seed=drawn_seed, timeouts_ms=timeouts_ms,
            services=services.names_of(tops), apart=any(top.prefill_workers for top in tops),
        )  # fmt: skip

    options = Options(
        python=sut_python, cold_start=cold_start, store=store, rules=_rules(known_issues),
        planted=proving.planted(defects, defect), sim_seed=sim_seed,
    )  # fmt: skip
    console = _console(as_json)
    with show.Shown(console, count) as shown:
        verdict = campaign.run(
            tops, options, shown, draw, count=count, seconds=seconds, seed=drawn_seed, profile=profile
        )
    _conclude(console, verdict, as_json, planted=proving.as_typed(defects, defect))


@app.command()
def soak(
    for_: Annotated[str | None, typer.Option("--for", help="How long: 90s, 10m, 8h.")] = None,
    lanes: Annotated[int | None, typer.Option(min=1, help=f"Processes that play rounds; {soaking.LANES}.")] = None,
    topologies: Annotated[
        str | None, typer.Option("--topology", help="Presets or TOML files, taken by turns, separated by commas.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps an example, instead of the profile's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="From it each round's seed is drawn.")] = None,
    sut_python: SutPython = None,
    cold_start: ColdStart = False,
    store: Store = Path("runs"),
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the newest soak of this store; --for is further time.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="An earlier soak, or its store: what it found is not new.")
    ] = None,
    only: Annotated[
        int | None, typer.Option("--round", min=1, help="Of --resume: play this round again, alone.")
    ] = None,
    on: Annotated[str, typer.Option(help="Where lanes run: local, or on an existing Ray cluster: ray.")] = "local",
    lane_cpus: Annotated[
        float | None, typer.Option(min=0.1, help=f"On Ray: CPUs that each lane asks for; {soaking.LANE_CPUS:g}.")
    ] = None,
    lane_gpus: Annotated[float | None, typer.Option(min=0.0, help="On Ray: GPUs that each lane asks for; 0.")] = None,
    store_limit: Annotated[str, typer.Option(help="What the soak may take on the disk: 500M, 2G.")] = soaking.LIMIT,
    known_issues: KnownIssues = None,
    defects: Defects = None,
    defect: Planting = None,
    sim_seed: Annotated[int | None, typer.Option(min=0, help="The seed of simulated clusters.")] = None,
    as_json: Json = False,
) -> None:
    """Let lanes of the random machine run for hours, and give one verdict over all of it."""
    asked = soaking.Asked(
        seconds=_seconds(for_) if for_ is not None else None, lanes=lanes, topologies=topologies, steps=steps, seed=seed,
        python=sut_python, cold_start=cold_start, store=store, resume=resume, against=against, only=only,
        on=on, lane_cpus=lane_cpus, lane_gpus=lane_gpus, limit_bytes=soaking.bytes_of(store_limit), issues=known.find(known_issues), defects=defects, defect=defect,
        sim_seed=sim_seed,
    )  # fmt: skip
    total = soaking.run(_console(as_json), asked)
    if as_json:
        _print_json(total)
    raise Done(EXIT_CODES[total["verdict"]])


@app.command()
def replay(
    example: Annotated[Path, typer.Argument(help="A plan file, or the folder of an example.")],
    times: Annotated[int, typer.Option(min=1, help="How often.")] = 1,
    prefixes: Annotated[
        bool,
        typer.Option("--prefixes", help="Its first step alone too, its first two, and so on: where does it begin?"),
    ] = False,
    topologies: Annotated[str | None, typer.Option("--topology", help="On this one instead of the plan's.")] = None,
    sut_python: SutPython = None,
    cold_start: ColdStart = False,
    store: Store = Path("runs"),
    known_issues: KnownIssues = None,
    defects: Defects = None,
    defect: Planting = None,
    sim_seed: SimSeed = 0,
    as_json: Json = False,
) -> None:
    """Run a stored plan again, each time on a fresh cluster, and say how often each violation was seen."""
    options = Options(
        python=sut_python, cold_start=cold_start, store=store, rules=_rules(known_issues),
        planted=proving.planted(defects, defect), sim_seed=sim_seed,
    )  # fmt: skip
    console = _console(as_json)
    on = topology.find(topologies) if topologies is not None else None
    runs = times * len(campaign.load_plan(example).steps) if prefixes else times
    with show.Shown(console, runs) as shown:
        verdict = campaign.replay(example, options, shown, times=times, on=on, prefixes=prefixes)
    _conclude(console, verdict, as_json, planted=proving.as_typed(defects, defect))


@app.command()
def shrink(
    example: Annotated[Path, typer.Argument(help="The folder of an example in which something is violated.")],
    signature: Annotated[
        str | None, typer.Option("--signature", help="For which violation; the first that is not known.")
    ] = None,
    budget: Annotated[str, typer.Option("--budget", help="Time for all of it: 90s, 10m, 1h.")] = "10m",
    sut_python: SutPython = None,
    cold_start: ColdStart = False,
    known_issues: KnownIssues = None,
    defects: Defects = None,
    defect: Planting = None,
    sim_seed: SimSeed = 0,
    as_json: Json = False,
) -> None:
    """Make a failing example as small as it can be, measure how often that fails, and report it. Called again, it goes on."""
    options = Options(
        python=sut_python, cold_start=cold_start, rules=_rules(known_issues),
        planted=proving.planted(defects, defect), sim_seed=sim_seed,
    )  # fmt: skip
    console = _console(as_json)
    budget_s = _seconds(budget, "--budget")
    with cli_shrinking.Shown(console, budget_s) as shown:
        found = shrinking.run(example, options, shown, signature=signature, budget_s=budget_s - shown.reserved_s)
    cli_shrinking.result(console, found, replay=proving.as_typed(defects, defect))
    row = cli_shrinking.reported(console, found, options, until_s=shown.until_s)
    if as_json:
        _print_json(row)
    raise Done(0 if found.shrunk.reproduced else EXIT_CODES["unknown"])


@app.command()
def compare(
    example: Annotated[Path, typer.Argument(help="A plan file, or the folder of an example.")],
    times: Annotated[int, typer.Option(min=1, help="How often each.")] = 3,
    sut_python: SutPython = None,
    cold_start: ColdStart = False,
    known_issues: KnownIssues = None,
    store: Store = Path("runs"),
    as_json: Json = False,
) -> None:
    """Run a stored plan as drawn, without its faults, and with one more worker: X1 and X2 compare them."""
    options = Options(python=sut_python, cold_start=cold_start, store=store, rules=_rules(known_issues))
    console = _console(as_json)
    with show.Shown(console, 3 * times) as shown:
        verdict = campaign.compare(example, options, shown, times=times)
    _conclude(console, verdict, as_json)


@app.command()
def agree(
    plans: Annotated[
        list[Path] | None, typer.Argument(help="Plan files, or folders of examples; drawn where none is given.")
    ] = None,
    topologies: Annotated[
        str | None,
        typer.Option(
            "--topology",
            help=f"One, to be changed along each axis ({DEFAULT_BASE}, or the first plan's); or several, of which the"
            " first is compared with each.",
        ),
    ] = None,
    axis: Annotated[
        str | None, typer.Option("--axis", help=f"Along these alone: {', '.join(axis.name for axis in axes.AXES)}.")
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="Plans to draw.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a plan that is drawn.")] = 20,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed draws the same plans.")] = None,
    times: Annotated[
        int, typer.Option(min=FRESH_LEAST, help="Fresh runs of each side, where two runs differ.")
    ] = agreement.TIMES,
    sut_python: SutPython = None,
    cold_start: ColdStart = False,
    store: Store = Path("runs"),
    known_issues: KnownIssues = None,
    as_json: Json = False,
) -> None:
    """Run plans on several topologies, and compare what must agree (X3)."""
    read = [campaign.load_plan(path) for path in plans or ()]
    tops = _sides(topologies, axis, campaign.topology_of(plans[0], read[0]) if plans else topology.find(DEFAULT_BASE))
    drawn_seed = None if read else seed if seed is not None else secrets.randbelow(2**32)

    def given(timeouts_ms: Sequence[int]) -> Sequence[Plan]:
        if read:
            return read
        kept = Collected(axes.common(tops), examples)
        _strategies().generate(kept, examples=examples, steps=steps, seed=drawn_seed, timeouts_ms=timeouts_ms)
        return kept.plans

    options = Options(python=sut_python, cold_start=cold_start, store=store, rules=_rules(known_issues))
    console = _console(as_json)
    with show.Shown(console, None) as shown:  # how many are run afresh is not known before
        verdict = campaign.agree(given, tops, options, shown, times=times, seed=drawn_seed)
    _conclude(console, verdict, as_json)


@app.command()
def recheck(
    path: Annotated[Path, typer.Argument(help="The folder of an example, a run, or a store.")],
    known_issues: KnownIssues = None,
    as_json: Json = False,
) -> None:
    """Judge stored histories again, without a cluster."""
    console = _console(as_json)
    with show.Shown(console, None) as shown:
        verdict = campaign.recheck(path, shown, _rules(known_issues))
    _conclude(console, verdict, as_json)


@app.command()
def report(
    path: Annotated[Path, typer.Argument(help="The folder of an example; or of a run or a store, for an index.")],
    signature: Annotated[
        str | None, typer.Option("--signature", help="The finding to report; else the first that is not known.")
    ] = None,
    times: Annotated[int, typer.Option(min=0, help="How often repro.py is run; 0: none is made.")] = (reporting.TIMES),
    sut_python: SutPython = None,
    known_issues: KnownIssues = None,
    as_json: Json = False,
) -> None:
    """Make an example's page, its bug report and a script that shows it; or the index of a store."""
    console, rules = _console(as_json), _rules(known_issues)
    if reporting.is_example(path):
        told = reporting.example(console, path, rules, signature=signature, python=sut_python, times=times)
    else:
        told = reporting.store(console, path, rules)
    if as_json:
        _print_json(told)


@app.command()
def prove(
    defects: Defects = None,
    defect: Annotated[
        str | None, typer.Option("--defect", help="Only these: ID, or ID:P for the chance P; by commas.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Searches for each defect.")] = 1,
    examples: Annotated[int, typer.Option(min=1, help="Examples of one search at most.")] = 2000,
    clean: Annotated[int, typer.Option(min=0, help="Examples without a defect, in which nothing may be found.")] = 200,
    profile: Annotated[str, typer.Option(help="Whose number of steps examples have.")] = "quick",
    topology_name: Annotated[str, typer.Option("--topology", help="A simulated topology.")] = proving.TOPOLOGY,
    document: Annotated[
        Path | None, typer.Option(help="Write the table into this file, between its marks (docs/quality.md).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Plant defects in simulated clusters, and show that each is found and nothing else."""
    planted = proving.chosen(defects, defect, topology_name)
    proof = proving.run(
        _console(as_json), _strategies(), planted, name=topology_name, profile=profile, seeds=seeds, examples=examples,
        clean=clean,
    )  # fmt: skip
    if document is not None:
        proving.write(document, proof, planted, topology_name)
    if as_json:
        _print_json(proof)
    raise Done(0 if proving.is_proven(proof) else EXIT_CODES["violated"])


@app.command("doctor")
def doctor_(sut_python: SutPython = None, as_json: Json = False) -> None:
    """Say what this machine can run, and what to install for the rest; time a fork against a cold start."""
    console = _console(as_json)
    checks = []
    for check in doctor.examine(sut_python):
        checks.append(check)
        mark = "[green]ok[/]    " if check.ok else "[red]lacks[/] " if check.blocks else "[yellow]absent[/]"
        console.print(f"{mark} {escape(check.name):<16} {escape(check.found)}", highlight=False, soft_wrap=True)
        if not check.ok:
            console.print(f"       try: [cyan]{escape(check.remedy)}[/]", highlight=False, soft_wrap=True)
    enough = not any(check.blocks for check in checks)
    if as_json:
        _print_json({"checks": [check.row() for check in checks], "ok": enough})
    raise Done(0 if enough else EXIT_CODES["unknown"])


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="invariants, steps, topologies, profiles, situations or defects.")],
    as_json: Json = False,
) -> None:
    """List what there is."""
    rows = listing.rows(what)
    if as_json:
        _print_json({what: rows})
    else:
        _console(as_json).print(listing.table(rows))


class Done(Exception):  # noqa: N818 - no error: how a command hands its exit code to `main`
    """A command has ended with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main() -> None:
    """Run a command; turn what ftmodel raises into one clear message and an exit code."""
    try:
        app()
    except Done as done:
        sys.exit(done.code)
    except SystemExit as left:  # typer's own: 0 after --help, else what was typed is wrong, or Ctrl-C was
        if left.code in (1, INTERRUPTED):
            _say("interrupted: nothing is left running")
            sys.exit(INTERRUPTED)
        sys.exit(WRONG_USE if left.code else 0)
    except KeyboardInterrupt:
        _say("interrupted: nothing is left running")
        sys.exit(INTERRUPTED)
    except UsageError as wrong:
        _say(str(wrong))
        sys.exit(WRONG_USE)
    except FtmodelError as failed:
        _say(f"unknown: {failed}")
        sys.exit(EXIT_CODES["unknown"])


def _sides(topologies: str | None, axis: str | None, base: Topology) -> list[Topology]:
    """What is compared: the first with each of the others. Raises UsageError."""
    named = [topology.find(name.strip()) for name in topologies.split(",")] if topologies is not None else [base]
    if len(named) == 1:
        return [*named, *(one.from_(named[0]) for one in (axes.find(axis) if axis is not None else axes.AXES))]
    if axis is not None:
        raise UsageError(f"--axis {axis}: --topology names {len(named)}, expected one to be changed along an axis")
    if len({top.name for top in named}) < len(named):
        raise UsageError(
            f"--topology {topologies}: expected topologies of different names; try: ftmodel list topologies"
        )
    return named


def _rules(known_issues: Path | None) -> Rules:
    return Rules(issues=known.find(known_issues))


def _conclude(console: Console, verdict: Verdict, as_json: bool, *, planted: str = "") -> None:
    """Say what came of it; `planted` are the arguments by which defects were."""
    for number, found in enumerate((found for found in verdict.violations if not found.known), start=1):
        show.violation(console, found, number, planted)
    show.summary(console, verdict)
    if as_json:
        _print_json(row(verdict))
    raise Done(verdict.exit_code)


def _console(as_json: bool) -> Console:
    """Where people read: stdout, or stderr if stdout is for the machine."""
    return Console(stderr=as_json)


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def _say(message: str) -> None:
    sys.stderr.write(f"ftmodel: {message}\n")


def _seconds(text: str, option: str = "--for") -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if found is None:
        raise UsageError(f"{option} {text!r}: expected a number and s, m or h; try: {option} 10m")
    return float(found[1]) * _UNITS_S[found[2]]
