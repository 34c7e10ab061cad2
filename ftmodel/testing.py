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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import pytest

from ftmodel import asked, planfile, runner, services, store
from ftmodel import topology as topologies
from ftmodel.errors import FtmodelError, HarnessError, UsageError
from ftmodel.evidence import Evidence
from ftmodel.failures import Texts
from ftmodel.history import History
from ftmodel.invariants import INVARIANTS, Invariant, Judgement, judge
from ftmodel.pytest_plugin import CHOSEN
from ftmodel.runner import Outcome, Rules
from ftmodel.steps import Plan, Step, words
from ftmodel.suite import Suite
from ftmodel.targets.real.clock import THREAD
from ftmodel.targets.real.target import RealTarget
from ftmodel.topology import Topology
from ftmodel.verdict import Verdict, combine

__all__ = ["INVARIANTS", "Cluster", "Evidence", "FaultTolerance", "Invariant"]

LOOK_EVERY_S: Final = 0.1
_LOG: Final = logging.getLogger("ftmodel")


class FaultTolerance:
    """The random machine as a test: derive a class `Test...` from this and name a topology.

    `test_holds` plays as many examples as the profile says, and fails once for each signature that was found and is no
    known issue.
    """

    topology: ClassVar[str | Sequence[str]] = asked.DEFAULT_TOPOLOGY
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
        """Where frontend 1 answers, e.g. http://127.0.0.1:4711. Raises UsageError: a simulated one answers nowhere."""
        if not isinstance(self._target, RealTarget):
            raise UsageError(f"topology {self.topology.name}: has no processes, expected a real target for a URL")
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
        rules = asked.rules_of(cls.invariants, cls.known_issues, item.path.parent, chosen)
        again = f"pytest {shlex.quote(node)}{chosen.arguments(drawing=True)}"
        origin = f"from {chosen.told()}; the same plans again: {again}"
        if chosen.replay is not None:
            origin = f"from {chosen.replay}, run again"
        self.texts = Texts(rules=rules, origin=origin, node=node, chosen=chosen)
        name = f"{item.path.stem}-{cls.__name__}"
        if chosen.replay is not None:
            verdict = self._suite.replays(name, chosen.replay, rules, times=chosen.examples or 10)
        else:
            tops = [asked.found(name, item.path.parent) for name in asked.named(cls.topology)]
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


def cluster_of(suite: Suite, request: pytest.FixtureRequest) -> Cluster:
    """The cluster that a test's marker asks for, started. Raises UsageError or HarnessError."""
    item, chosen = request.node, request.config.stash[CHOSEN]
    options = asked.marked(item)
    top = asked.found(str(options["topology"]), item.path.parent)
    rules = asked.rules_of(options["invariants"], options["known_issues"], item.path.parent, chosen)
    texts = Texts(rules=rules, origin="", node=item.nodeid, chosen=chosen, scripted=True)
    return Cluster(suite, top, asked.head_of(top, options), rules, f"{item.path.stem}-{item.name}", texts)


def suite_of(session: pytest.Session) -> Suite:
    """The suite of all tests that were collected."""
    tops: dict[str, Topology] = {}
    for item in session.items:
        if item.get_closest_marker("skip"):
            continue  # it may need what is not here
        for name in _topologies_of(item):
            try:
                top = asked.found(name, item.path.parent)
            except UsageError:
                continue  # the test itself says so
            tops.setdefault(topologies.dump(top), top)
    chosen = session.config.stash[CHOSEN]
    logging.getLogger("httpx").addFilter(_is_of_a_test)
    return Suite(list(tops.values()), _Logged(), chosen.seed, python=chosen.python, store=chosen.store)


def _is_of_a_test(record: logging.LogRecord) -> bool:
    """False for what the tester asks of its clusters: dozens of lines a second, in which what a test logs would drown."""
    return record.threadName != THREAD


def _topologies_of(item: pytest.Item) -> list[str]:
    cls = getattr(item, "cls", None)
    if isinstance(cls, type) and issubclass(cls, FaultTolerance):
        return asked.named(cls.topology)
    if "cluster" in getattr(item, "fixturenames", ()):
        try:
            return [str(asked.marked(item)["topology"])]
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
