"""What a test suite of one's own imports; needs pytest 9 or later (`pip install 'ftmodel[pytest]'`).

    from ftmodel.testing import FaultTolerance

    class TestMine(FaultTolerance):
        topology = "counting"

The fixture `cluster` and the options come with the installed plugin (`ftmodel.pytest_plugin`).
"""

from __future__ import annotations

import dataclasses
import logging
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from ftmodel import known, planfile, runner, services, store
from ftmodel import topology as topologies
from ftmodel.errors import FtmodelError, HarnessError, UsageError
from ftmodel.evidence import Evidence
from ftmodel.failures import Texts
from ftmodel.history import History
from ftmodel.invariants import INVARIANTS, Invariant, Judgement, judge
from ftmodel.pytest_plugin import CHOSEN, Chosen
from ftmodel.runner import Outcome, Rules
from ftmodel.steps import FRONTENDS, SLOTS, Plan, Step, words
from ftmodel.suite import Suite
from ftmodel.topology import Topology
from ftmodel.verdict import Verdict, combine

__all__ = ["INVARIANTS", "Cluster", "Evidence", "FaultTolerance", "Invariant"]

MARKER_OPTIONS: Final = (
    "topology", "workers", "prefill_workers", "frontends", "migration_limit", "patience", "invariants", "known_issues",
)  # fmt: skip
DEFAULT_TOPOLOGY: Final = "counting"
LOOK_EVERY_S: Final = 0.1
_LOG: Final = logging.getLogger("ftmodel")


class FaultTolerance:
    """The random machine as a test: derive a class `Test...` from this and name a topology.

    `test_holds` plays as many examples as the profile says, and fails once for each signature that was found and is no
    known issue.
    """

    topology: ClassVar[str | Sequence[str]] = DEFAULT_TOPOLOGY
    """A preset, the path of a TOML file as seen from the test file, or several of these, taken by turns."""
    machine: ClassVar[type[Any] | None] = None
    """A subclass of `ftmodel.strategies.ClusterMachine`, with kinds of steps of one's own."""
    invariants: ClassVar[Sequence[type[Invariant]]] = INVARIANTS
    """What is judged."""
    known_issues: ClassVar[str | None] = None
    """A file of known issues, as seen from the test file. `--ftmodel-known-issues` is stronger."""

    def test_holds(self, ftmodel_campaign: Campaign, request: pytest.FixtureRequest) -> None:
        """Every invariant holds, whatever fails."""
        with readable():
            if pytest.version_tuple < (9,):
                raise UsageError(f"pytest {pytest.__version__}: expected 9 or later; try: pip install 'pytest>=9'")
            verdict = ftmodel_campaign.play(type(self))
        texts, subtests = ftmodel_campaign.texts, request.getfixturevalue("subtests")
        for found in texts.broken(verdict):
            with subtests.test(found.signature):
                pytest.fail(texts.violation(found), pytrace=False)
        if verdict.doubts:
            with subtests.test("unknown"):
                pytest.fail(texts.doubts(verdict), pytrace=False)


class Cluster:
    """A fresh cluster of real processes for a scripted test: what the fixture `cluster` gives.

    Steps are those of `ftmodel.steps`; each needs a name of its own. One whose moment lies ahead is armed, and fires
    while the test goes on.
    """

    def __init__(self, suite: Suite, top: Topology, head: Plan, rules: Rules, name: str, texts: Texts) -> None:
        """Start it. Raises UsageError or HarnessError."""
        session = suite.session(needing=top)
        proof = suite.proven(top, rules).proof
        self.topology = top
        self.outcome: Outcome | None = None
        """What became of it, once it was judged."""
        self._name = suite.named(name)
        self.folder = session.run.example(self._name)
        """Where plan, history and logs are kept."""
        self._suite = suite
        self._head = head
        self._rules = rules
        self.texts = texts
        self._steps: list[Step] = []
        self._began_s = time.monotonic()
        self._closed = False
        self._target = session.target(top, head, proof, self.folder / "logs")
        try:
            self._target.start()
        except BaseException:
            self._target.close()
            raise

    @property
    def url(self) -> str:
        """Where frontend 1 answers, e.g. http://127.0.0.1:4711."""
        return self._target.url()

    @property
    def history(self) -> History:
        """What has happened so far."""
        return self._target.history

    @property
    def evidence(self) -> Evidence:
        """The same, to be asked: which lines were told of a request, what its status is, what a step hit."""
        return Evidence(self.history)

    @property
    def plan(self) -> Plan:
        """The steps so far, as a plan that can be run again."""
        return planfile.with_steps(self._head, self._steps)

    def do(self, *steps: Step) -> None:
        """Do these steps, in their order; one whose moment lies ahead is armed. Raises UsageError or HarnessError."""
        for step in steps:
            if self._closed:
                raise UsageError(f"step {step.name}: the cluster is closed, expected steps before judge() and check()")
            if step.name in {other.name for other in self._steps}:
                raise UsageError(f"step {step.name}: there is one of this name already, expected a name of its own")
            self._steps.append(step)
            try:
                self._target.apply(step)
            except HarnessError as error:
                self._target.fail(str(error))
                raise

    def wait(self, what: str, shown: Callable[[Evidence], object], *, within_s: float) -> None:
        """Wait until the history shows this, and fail the test if it does not within the bound.

        `what` names it, e.g. "the end of r1". The logs are read all the while.
        """
        end_s = time.monotonic() + within_s
        while True:
            last = time.monotonic() >= end_s  # asked before the look: what lay in time is seen
            if shown(self.evidence):
                return
            if last:
                pytest.fail(f"{what}: not seen within {within_s:g} s; next ls {self.folder / 'logs'}", pytrace=False)
            time.sleep(LOOK_EVERY_S)

    def judge(self) -> Judgement:
        """Bring the cluster to rest, close it and judge what happened; raises for nothing that was found.

        Where the tester itself failed nothing is judged, and the doubts say so.
        """
        if self.outcome is None:
            try:
                if not self._closed:
                    self._target.finish()
            except HarnessError as error:
                self._target.fail(str(error))
            finally:
                self.close()
            events = list(self.history)
            seconds = time.monotonic() - self._began_s
            self.outcome = runner.judged(self._name, self.folder, self.plan, events, seconds, rules=self._rules)
            self._suite.keep([self.outcome])
        if self.outcome.judgement is not None:
            return self.outcome.judgement
        seen = judge(self.history, self._rules.invariants)
        return dataclasses.replace(seen, findings=(), doubts=(self.outcome.failure,))

    def check(self) -> None:
        """Judge, and fail the test if anything was violated that is no known issue, or if the tester failed."""
        verdict = self.verdict()
        broken = self.texts.broken(verdict)
        if broken:
            pytest.fail("\n".join(self.texts.violation(found) for found in broken), pytrace=False)
        if verdict.doubts:
            pytest.fail(self.texts.doubts(verdict), pytrace=False)

    def verdict(self) -> Verdict:
        """What `judge` found, as the verdict of a run of one example."""
        self.judge()
        assert self.outcome is not None
        setting = self.outcome.setting
        return combine(
            [self.outcome],
            seed=None,
            system={"name": setting.system, "version": setting.version} if setting else {"name": "", "version": ""},
            topologies=[self.topology.name],
            store=self.folder,
        )

    def close(self) -> None:
        """End every process of the cluster and write down what happened. May be called again."""
        if not self._closed:
            self._closed = True
            try:
                self._target.close()
            finally:
                store.write_example(self.folder, self.plan, self.topology, list(self.history))


@contextmanager
def readable() -> Iterator[None]:
    """What ftmodel raises on purpose fails the test in words, without a traceback."""
    try:
        yield
    except UsageError as wrong:
        raise pytest.fail.Exception(f"wrong use: {wrong}", pytrace=False) from None
    except FtmodelError as failed:
        told = f"unknown: the tester itself failed, nothing was judged: {failed}"
        raise pytest.fail.Exception(told, pytrace=False) from None


# --- from a test to what it asks for ----------------------------------------------------------------------------


class Campaign:
    """What one class of tests plays, and how its failures read. The plugin's fixture makes it."""

    def __init__(self, suite: Suite, request: pytest.FixtureRequest, generate: Callable[..., None]) -> None:
        self._suite = suite
        self._request = request
        self._generate = generate
        self._chosen = request.config.stash[CHOSEN]
        self.texts = Texts(rules=Rules(), origin="", node="", chosen=self._chosen)

    def play(self, cls: type[FaultTolerance]) -> Verdict:
        """Play the examples that this class asks for. Raises UsageError or HarnessError."""
        chosen, item = self._chosen, self._request.node
        node = item.nodeid.rpartition("::")[0]
        rules = rules_of(cls.invariants, cls.known_issues, item.path.parent, chosen)
        again = f"pytest {shlex.quote(node)}{chosen.arguments(drawing=True)}"
        origin = f"from {chosen.told()}; the same plans again: {again}"
        if chosen.replay is not None:
            origin = f"from {chosen.replay}, run again"
        self.texts = Texts(rules=rules, origin=origin, node=node, chosen=chosen)
        name = f"{item.path.stem}-{cls.__name__}"
        if chosen.replay is not None:
            verdict = self._suite.replays(name, chosen.replay, rules, times=chosen.examples or 10)
        else:
            tops = [found(name, item.path.parent) for name in named(cls.topology)]
            verdict = self._suite.campaign(name, tops, rules, self._draw(cls, tops), count=chosen.count())
        item.user_properties.extend(self.texts.properties(verdict))
        return verdict

    def _draw(self, cls: type[FaultTolerance], tops: Sequence[Topology]) -> Callable[..., None]:
        machine = {} if cls.machine is None else {"machine": cls.machine}
        chosen = self._chosen

        def draw(opener: object, timeouts_ms: Sequence[int]) -> None:
            self._generate(
                opener, examples=chosen.count(), steps=chosen.profile.steps, seed=chosen.seed, timeouts_ms=timeouts_ms,
                services=services.names_of(tops), apart=any(top.prefill_workers for top in tops),
                **machine,
            )  # fmt: skip

        return draw


def named(names: str | Sequence[str]) -> list[str]:
    """Names of topologies, given as one or as several."""
    return [names] if isinstance(names, str) else list(names)


def found(name: str, folder: Path) -> Topology:
    """The topology of a preset's name, or of a file's path as seen from this folder. Raises TopologyError."""
    return topologies.find(str(folder / name) if name.endswith(".toml") else name)


def rules_of(invariants: Sequence[type[Invariant]], known_issues: str | None, folder: Path, chosen: Chosen) -> Rules:
    """By what a test's examples are judged. Raises UsageError."""
    twice = [name for name, count in Counter(cls.id for cls in invariants).items() if count > 1]
    if twice:
        raise UsageError(f"invariants: id {twice[0]} is given twice, expected an id of its own for each")
    path = chosen.known_issues or (folder / known_issues if known_issues is not None else None)
    if path is None and (chosen.root / known.DEFAULT).is_file():
        path = chosen.root / known.DEFAULT
    return Rules(invariants=tuple(invariants), issues=known.load(path, invariants) if path is not None else ())


def cluster_of(suite: Suite, request: pytest.FixtureRequest) -> Cluster:
    """The cluster that a test's marker asks for, started. Raises UsageError or HarnessError."""
    item, chosen = request.node, request.config.stash[CHOSEN]
    options = marked(item)
    top = found(str(options["topology"]), item.path.parent)
    rules = rules_of(options["invariants"], options["known_issues"], item.path.parent, chosen)
    texts = Texts(rules=rules, origin="", node=item.nodeid, chosen=chosen, scripted=True)
    return Cluster(suite, top, head_of(top, options), rules, f"{item.path.stem}-{item.name}", texts)


def marked(item: pytest.Item) -> dict[str, Any]:
    """The options that a test's markers give, the nearest one first. Raises UsageError."""
    options: dict[str, Any] = {"topology": DEFAULT_TOPOLOGY, "invariants": INVARIANTS, "known_issues": None}
    for mark in reversed(list(item.iter_markers("ftmodel"))):
        unknown = [name for name in mark.kwargs if name not in MARKER_OPTIONS]
        if mark.args or unknown:
            raise UsageError(
                f"{item.nodeid}: marker ftmodel: got {', '.join([*map(repr, mark.args), *unknown])}, expected some of"
                f" {', '.join(f'{name}=' for name in MARKER_OPTIONS)}"
            )
        options |= mark.kwargs
    return options


def head_of(top: Topology, options: dict[str, Any]) -> Plan:
    """A plan without steps, with the values that were asked for. Raises UsageError."""
    patience = options.get("patience", "short")
    if patience not in ("short", "long"):
        raise UsageError(f"marker ftmodel: patience: got {patience!r}, expected short or long")
    return Plan(
        topology=top.name,
        workers=_asked(options, "workers", range(1, SLOTS + 1), top.workers, 2),
        prefill_workers=_asked(
            options,
            "prefill_workers",
            range(1, SLOTS + 1) if top.prefill_workers else range(1),
            top.prefill_workers or (0,),
            1,
        ),
        frontends=_asked(options, "frontends", range(1, FRONTENDS + 1), top.frontends, 1),
        migration_limit=_asked(options, "migration_limit", range(1 << 16), top.migration_limits, 3),
        patience=patience,
    )


def _asked(options: dict[str, Any], name: str, allowed: range, listed: Sequence[int], usual: int) -> int:
    value = options.get(name, usual if usual in listed else listed[0])
    if not isinstance(value, int) or value not in allowed:
        raise UsageError(f"marker ftmodel: {name}: got {value!r}, expected {allowed[0]} to {allowed[-1]}")
    return value


def suite_of(session: pytest.Session) -> Suite:
    """The suite of all tests that were collected."""
    tops: dict[str, Topology] = {}
    for item in session.items:
        if item.get_closest_marker("skip"):
            continue  # it may need what is not here
        for name in _topologies_of(item):
            try:
                top = found(name, item.path.parent)
            except UsageError:
                continue  # the test itself says so
            tops.setdefault(topologies.dump(top), top)
    chosen = session.config.stash[CHOSEN]
    return Suite(list(tops.values()), _Logged(), chosen.seed, python=chosen.python, store=chosen.store)


def _topologies_of(item: pytest.Item) -> list[str]:
    cls = getattr(item, "cls", None)
    if isinstance(cls, type) and issubclass(cls, FaultTolerance):
        return named(cls.topology)
    if "cluster" in getattr(item, "fixturenames", ()):
        try:
            return [str(marked(item)["topology"])]
        except UsageError:
            return []
    return []


class _Logged:
    """Tells in the log how a campaign goes on: `pytest --log-cli-level=INFO` shows it, DEBUG each step."""

    def began(self, what: str) -> None:
        _LOG.info("%s ...", what)

    def stepped(self, step: Step) -> None:
        _LOG.debug("%s: %s", step.name, words(step))

    def ended(self, outcome: Outcome) -> None:
        said = " ".join(f.signature for f in outcome.judgement.findings) if outcome.judgement else outcome.failure
        _LOG.info("example %s %.1f s: %s", outcome.name, outcome.seconds, said or outcome.value)
