"""The pytest plugin: options, the fixture `cluster`, the marker `ftmodel`, and what a session says of it at its end.

It is loaded by every pytest where ftmodel is installed, so it imports next to nothing until a test needs it.
"""

from __future__ import annotations

import importlib
import os
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from ftmodel import profiles
from ftmodel.errors import UsageError
from ftmodel.profiles import PROFILES, Profile

if TYPE_CHECKING:
    from ftmodel.suite import Suite
    from ftmodel.targets.real.standing import Addresses
    from ftmodel.testing import Campaign, Cluster

STRATEGIES: Final = "ftmodel.strategies"
CLUSTERS: Final = frozenset({"cluster", "ftmodel_campaign"})
FIXTURES: Final = CLUSTERS | {"runtime_services"}
MARKER: Final = (
    "ftmodel(topology=..., workers=..., prefill_workers=..., frontends=..., migration_limit=..., patience=..., invariants=...,"
    " known_issues=...)"
)
MARKERS: Final = {
    "e2e": "a whole cluster, from a client to the engines",
    "real": "starts processes of the system under test",
    "services": "needs an etcd and a NATS server",
    "vllm": "starts real vLLM workers",
    "gpu_1": "needs a GPU, or a vLLM that was built for a CPU",
    "gpu_2": "needs two GPUs, or a vLLM that was built for a CPU",
    "slow": "takes more than a minute",
}
"""Those of tests on clusters. What one of them needs and this machine lacks skips a test that uses a fixture of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What the command line chose."""

    profile: Profile
    seed: int
    store: Path
    root: Path
    python: Path | None = None
    known_issues: Path | None = None
    examples: int | None = None
    replay: Path | None = None

    def count(self) -> int:
        """How many examples a class plays. Raises UsageError for a profile that has no end."""
        count = self.examples or self.profile.examples
        if not count:
            raise UsageError(
                f"profile {self.profile.name}: goes on until the time is over, expected one of"
                f" {', '.join(p.name for p in PROFILES if p.examples)} or --ftmodel-examples N"
            )
        return count

    def told(self) -> str:
        """The seed, and how much is drawn with it."""
        count = self.examples or self.profile.examples
        return f"seed {self.seed}, profile {self.profile.name} ({count} examples of {self.profile.steps} steps)"

    def arguments(self, *, drawing: bool = False) -> str:
        """The options that a further pytest needs; those for drawing too."""
        options: list[tuple[str, object]] = []
        if drawing:
            options += [("--ftmodel-seed", self.seed), ("--ftmodel-profile", self.profile.name)]
            options += [("--ftmodel-examples", self.examples)] if self.examples else []
        options += [("--ftmodel-sut-python", self.python)] if self.python else []
        options += [("--ftmodel-known-issues", self.known_issues)] if self.known_issues else []
        return "".join(f" {name}={shlex.quote(str(value))}" for name, value in options)


CHOSEN: Final = pytest.StashKey[Chosen]()
SHOWN: Final = ("ftmodel_verdict", "ftmodel_version", "ftmodel_seed", "ftmodel_examples")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("ftmodel", "fault tolerance of a distributed LLM serving cluster")
    names = ", ".join(profile.name for profile in PROFILES if profile.examples)
    group.addoption(
        "--ftmodel-profile", metavar="NAME", help=f"{names}; else HYPOTHESIS_PROFILE, if it is one of these; else quick"
    )
    group.addoption("--ftmodel-seed", metavar="N", type=int, help="the same seed draws the same plans")
    group.addoption("--ftmodel-examples", metavar="N", type=int, help="examples, instead of the profile's")
    group.addoption(
        "--ftmodel-sut-python",
        metavar="PATH",
        type=Path,
        help="the interpreter of the cluster under test; else FTMODEL_SUT_PYTHON; else the one that runs pytest",
    )
    group.addoption("--ftmodel-store", metavar="DIR", type=Path, help="where runs are kept (.ftmodel-runs)")
    group.addoption(
        "--ftmodel-known-issues", metavar="FILE", type=Path, help="what is known and fails nothing (known_issues.toml)"
    )
    group.addoption(
        "--ftmodel-replay", metavar="EXAMPLE", type=Path, help="run this stored example instead of drawing, 10 times"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose profile and seed, and declare the markers."""
    for marker, what in {MARKER: "the cluster that the fixture `cluster` gives", **MARKERS}.items():
        config.addinivalue_line("markers", f"{marker}: {what}")
    config.stash[CHOSEN] = _chosen(config)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Summary(), "ftmodel-summary")


def _chosen(config: pytest.Config) -> Chosen:
    option = config.getoption
    given = getattr(config, "workerinput", {}).get("ftmodel_seed")  # of xdist: one seed for all its workers
    seed = next((value for value in (option("ftmodel_seed"), given) if value is not None), None)
    here = config.invocation_params.dir
    # pytest takes a path that follows an option of ours for an argument of its own, and looks for its root there.
    root = config.rootpath if here.is_relative_to(config.rootpath) else here

    def path(name: str) -> Path | None:
        return here / option(name) if option(name) else None

    return Chosen(
        profile=_profile(option("ftmodel_profile")),
        seed=secrets.randbelow(2**32) if seed is None else seed,
        store=path("ftmodel_store") or root / ".ftmodel-runs",
        root=root,
        python=path("ftmodel_sut_python") or _named(os.environ.get("FTMODEL_SUT_PYTHON")),
        known_issues=path("ftmodel_known_issues"),
        examples=option("ftmodel_examples"),
        replay=path("ftmodel_replay"),
    )


def _named(path: str | None) -> Path | None:
    return Path(path) if path else None


def _profile(name: str | None) -> Profile:
    if name is None:
        named = os.environ.get("HYPOTHESIS_PROFILE")
        name = named if named in {profile.name for profile in PROFILES} else "quick"
    try:
        return profiles.find(name)
    except UsageError as wrong:
        raise pytest.UsageError(f"--ftmodel-profile: {wrong}") from None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give each worker of pytest-xdist the seed of the whole."""
    node.workerinput["ftmodel_seed"] = node.config.stash[CHOSEN].seed


@pytest.hookimpl(trylast=True)  # after -m and -k have chosen: nothing is asked for tests that are not run
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the doctor's reason and the command that repairs it."""
    if config.option.collectonly:
        return
    for item in items:
        asked = {mark.name for mark in item.iter_markers()} & MARKERS.keys()
        if asked and FIXTURES & set(getattr(item, "fixturenames", ())):
            from ftmodel import needs

            if why := needs.lacking(asked, config.stash[CHOSEN].python):
                item.add_marker(pytest.mark.skip(reason=why))


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> str | list[str]:
    """The seed, if anything is to be drawn or run."""
    if any(CLUSTERS & set(getattr(item, "fixturenames", ())) for item in items):
        return f"ftmodel: {config.stash[CHOSEN].told()}, store {config.stash[CHOSEN].store}"
    return []


@pytest.fixture(scope="session")
def ftmodel_suite(request: pytest.FixtureRequest) -> Iterator[Suite]:
    """What all tests on clusters share: the session, the proofs, the store."""
    from ftmodel import testing

    with testing.suite_of(request.session) as suite:
        yield suite
    if suite.left_over:
        pytest.fail(f"unknown: left behind: {'; '.join(suite.left_over)}", pytrace=False)


@pytest.fixture
def ftmodel_campaign(ftmodel_suite: Suite, request: pytest.FixtureRequest) -> Campaign:
    """What a class that derives from `FaultTolerance` plays."""
    from ftmodel import testing

    request.node.user_properties.append(("ftmodel_seed", str(request.config.stash[CHOSEN].seed)))
    return testing.Campaign(ftmodel_suite, request, importlib.import_module(STRATEGIES).generate)


@pytest.fixture
def cluster(ftmodel_suite: Suite, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A fresh cluster of real processes, as the marker `ftmodel` asks for it: `do`, `judge`, `check`, `url`."""
    from ftmodel import testing

    with testing.readable():
        made = testing.cluster_of(ftmodel_suite, request)
    try:
        yield made
    finally:
        made.close()
        request.node.user_properties.append(("ftmodel_folder", str(made.folder)))
        if made.outcome is not None:
            request.node.user_properties.extend(made.texts.properties(made.verdict()))


@pytest.fixture
def runtime_services(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """An etcd and a NATS server of this test's own: their addresses, `etcd` and `nats`."""
    from ftmodel import testing
    from ftmodel.targets.real.standing import standing

    python = request.config.stash[CHOSEN].python or Path(sys.executable)
    with ExitStack() as stack:
        with testing.readable():
            addresses = stack.enter_context(standing(python, tmp_path_factory.mktemp("services")))
        yield addresses


class Summary:
    """Says at the end of each test what it ran, and which known issues it met."""

    def __init__(self) -> None:
        self._told: dict[str, list[tuple[str, str]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test that has ended noted of itself."""
        mine = [(name, str(value)) for name, value in report.user_properties if name.startswith("ftmodel_")]
        if report.when == "teardown" and mine:
            self._told[report.nodeid] = mine

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """A line a test, and the known issues below it."""
        if self._told:
            terminalreporter.ensure_newline()
            terminalreporter.section("ftmodel")
        for node, properties in self._told.items():
            facts = [f"{name.removeprefix('ftmodel_')} {value}" for name, value in properties if name in SHOWN]
            terminalreporter.write_line(f"{node}: {', '.join(facts)}")
            for name, value in properties:
                if name == "ftmodel_known":
                    terminalreporter.write_line(f"    known {value}")
