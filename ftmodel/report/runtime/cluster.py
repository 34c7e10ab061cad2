"""The processes of a script's cluster: in a folder and on ports of their own, gone when it is closed."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ftmodel.engines.model import make_model
from ftmodel.history import Interval, LogLine
from ftmodel.systems import MetricRow, Pattern, concerns
from ftmodel.targets.logs import Reader

LOOPBACK = "127.0.0.1"
FIRST_PORT, LAST_PORT = 20000, 32000
"""Ports are taken from here: some releases refuse one above 32767."""
LOOK_S = 0.02
SERVE_BOUND_S = 20.0
ASK_BOUND_S = 2.0
KEPT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "TZ")
"""What the processes get of this script's environment."""


class VoidError(Exception):
    """A step cannot be done: its subject does not live, its moment never came."""


class NoTrialError(Exception):
    """The cluster could not be started: nothing can be said."""


@dataclass(frozen=True)
class Start:
    """How a process is started. {folder}, {model}, {port}, {plane}, {port1}, {etcd}, {nats} are filled in."""

    argv: tuple[str, ...]
    """Arguments of the interpreter."""
    env: Mapping[str, str]
    ports: int = 0
    """Further ports of its own: {port1} and so on."""


@dataclass(frozen=True)
class Server:
    """A service that the cluster stands on."""

    program: str
    argv: tuple[str, ...]
    """Its arguments; {folder}, {a} and {b}, its ports, are filled in."""
    asks: bytes
    answers: tuple[bytes, ...]
    install: str
    """What brings the program, where it lacks."""


@dataclass(frozen=True)
class Setup:
    """What is started, and how it is spoken to and understood."""

    distribution: str
    version: str
    """Of the tested system, on which the fault was seen."""
    starts: Mapping[str, Start]
    """By role: frontend, worker, prefill."""
    patterns: tuple[Pattern, ...]
    metrics: tuple[MetricRow, ...]
    workers: int = 2
    prefill_workers: int = 0
    frontends: int = 1
    model: str = "{model}"
    """The name by which it is asked for."""
    servers: Mapping[str, Server] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Written into the cluster's folder, by name."""
    header: str = ""
    """Under which a request tells its id."""
    models_path: str = ""
    metrics_path: str = ""
    health_path: str = ""
    live_path: str = ""
    boot_bound_s: float = 60.0
    abort_bound_s: float = 2.0
    hang_bound_s: float = 30.0
    rest_bound_s: float = 10.0
    end_bound_s: float = 30.0
    patience_s: float = 0.0
    """So long it stays as it is after the steps, before frozen and dead processes are replaced."""


@dataclass
class Life:
    """One life of a process."""

    title: str
    role: str
    slot: int
    process: subprocess.Popen[bytes]
    port: int
    plane: int
    log: Path
    reader: Reader
    lines: list[LogLine] = field(default_factory=list)
    """What its log told, as far as it is understood."""
    hit_s: float = float("inf")
    """When the first fault was made on it."""
    stopped_s: float = float("inf")
    ended_s: float = float("inf")
    frozen: bool = False
    read: int = 0

    @property
    def alive(self) -> bool:
        """True until its end is seen."""
        return self.process.poll() is None


class Cluster:
    """Services, frontends and workers, each in a session of its own. Used from several threads."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.lives: dict[str, Life] = {}
        self.folder = Path()
        self.ports: dict[str, int] = {}
        """Of the services, those that are spoken to."""
        self._taken: set[int] = set()
        self._servers: dict[str, tuple[int, int]] = {}
        self._lock = threading.RLock()
        self._closing = False
        self._zero_s = time.monotonic()
        self._wall_s = time.time()

    def now(self) -> float:
        """Seconds since the cluster began."""
        return time.monotonic() - self._zero_s

    # -- start and end

    def start(self) -> None:
        """Start services, then the rest; they are not ready yet. Raises NoTrialError."""
        self.folder = Path(tempfile.mkdtemp(prefix="repro-"))
        for name in ("kv", "home", "tmp", "armed"):
            (self.folder / name).mkdir()
        make_model(self.folder / "model")
        for name, text in self.setup.files.items():
            (self.folder / name).write_text(text, encoding="utf-8")
        for name in self.setup.servers:
            self._servers[name] = self.take_port(), self.take_port()
            self.ports[name] = self._servers[name][0]
            self.start_server(name)
        for place in range(1, self.setup.frontends + 1):
            self.spawn("frontend", place)
        for slot in range(1, self.setup.workers + 1):
            self.spawn("worker", slot)
        for slot in range(1, self.setup.prefill_workers + 1):
            self.spawn("prefill", slot)

    def close(self) -> None:
        """Kill every process, and remove the folder."""
        with self._lock:
            self._closing = True
        for life in self.lives.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(life.process.pid, signal.SIGKILL)
        for life in self.lives.values():
            life.process.wait()
        if self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)

    def take_port(self) -> int:
        """A free port that nobody else here was given."""
        with self._lock:
            for port in range(FIRST_PORT + os.getpid() * 101 % 9000, LAST_PORT):
                with socket.socket() as probe, contextlib.suppress(OSError):
                    probe.bind((LOOPBACK, port))
                    if port not in self._taken:
                        self._taken.add(port)
                        return port
        raise NoTrialError("no free port")

    def spawn(self, role: str, slot: int, plane: int = 0) -> Life:
        """Start a frontend or a worker in its place. Raises VoidError if the cluster is being closed."""
        start = self.setup.starts[role]
        port, plane = self.take_port(), plane or self.take_port()
        own = {f"port{n}": self.take_port() for n in range(1, start.ports + 1)}
        fill = {
            "folder": self.folder,
            "model": self.folder / "model",
            "port": port,
            "plane": plane,
            **own,
            **self.ports,
        }
        base = {"frontend": "frontend-", "worker": "w", "prefill": "p"}[role] + str(slot)
        argv = [sys.executable, *(_filled(part, fill) for part in start.argv)]
        return self._run(base, role, slot, argv, {k: _filled(v, fill) for k, v in start.env.items()}, port, plane)

    def start_server(self, name: str) -> Life:
        """Start a service, or start it again with its data, and wait until it serves. Raises NoTrialError."""
        server = self.setup.servers[name]
        beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        program = shutil.which(server.program, path=beside)
        if program is None:
            raise NoTrialError(f"{server.program}: not found; try: pip install {server.install}")
        fill = {"folder": self.folder, "a": self._servers[name][0], "b": self._servers[name][1]}
        argv = [program, *(_filled(part, fill) for part in server.argv)]
        life = self._run(name, "service", 0, argv, {}, self.ports[name], 0)
        self.until(lambda: self._serves(name) or not life.alive, SERVE_BOUND_S, f"{name} serves")
        return life

    def _run(
        self, base: str, role: str, slot: int, argv: list[str], env: dict[str, str], port: int, plane: int
    ) -> Life:
        with self._lock:
            if self._closing:
                raise VoidError("the cluster is being closed")
            lives = sum(life.role == role and life.slot == slot for life in self.lives.values() if _base(life) == base)
            title = base if lives == 0 else f"{base}-{lives + 1}"
            log = self.folder / f"{title}.log"
            kept = {name: os.environ[name] for name in KEPT if name in os.environ}
            home = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp")}
            with log.open("ab") as file:
                process = subprocess.Popen(
                    argv, env={**kept, **home, **env}, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                    cwd=self.folder, start_new_session=True,
                )  # fmt: skip
            rows = tuple(row for row in self.setup.patterns if role != "service" and concerns(row, role))  # type: ignore[arg-type]
            reader = Reader(title, rows, lambda wall_s: wall_s - self._wall_s)
            life = self.lives[title] = Life(title, role, slot, process, port, plane, log, reader)
            return life

    def _serves(self, name: str) -> bool:
        server, answer = self.setup.servers[name], b""
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.ports[name]), ASK_BOUND_S) as link:
            link.sendall(server.asks)
            while piece := link.recv(4096):
                answer += piece
                if all(part in answer for part in server.answers):
                    return True
        return False

    def until(self, holds: Callable[[], bool], bound_s: float, what: str) -> None:
        """Wait for a condition. Raises NoTrialError."""
        end_s = self.now() + bound_s
        while not holds():
            if self.now() > end_s:
                raise NoTrialError(f"not within {bound_s:g} s: {what}")
            time.sleep(LOOK_S)

    # -- who is there

    def at(self, role: str, slot: int) -> Life | None:
        """The latest process in this place, dead or alive; of a service, `slot` is 0 and `role` its name."""
        there = [life for life in self.lives.values() if (life.role, life.slot) == (role, slot) or _base(life) == role]
        return there[-1] if there else None

    def alive(self, *roles: str) -> list[Life]:
        """The living processes of these roles, by place."""
        found = (life for life in self.lives.values() if life.role in roles and life.alive)
        return sorted(found, key=lambda life: (life.role, life.slot))

    def url_port(self, frontend: int) -> int:
        """The port of the frontend in this place; of the last, if there are fewer."""
        life = self.at("frontend", min(frontend, self.setup.frontends))
        assert life is not None
        return life.port

    # -- logs

    def poll(self) -> None:
        """Read what every log has gained."""
        with self._lock:
            for life in self.lives.values():
                if life.ended_s == float("inf") and not life.alive:
                    life.ended_s = self.now()
                with life.log.open("rb") as file:
                    file.seek(life.read)
                    data = file.read()
                whole = data.rfind(b"\n") + 1
                life.read += whole
                at = Interval(0.0, self.now())
                for text in data[:whole].decode("utf-8", "replace").splitlines():
                    life.lines += life.reader.take(text, at)

    def said(self, meaning: str, request_id: str = "") -> Iterator[tuple[Life, LogLine]]:
        """The lines of this meaning, of all processes; of one request, if its id is given."""
        with self._lock:
            self.poll()
            found = [(life, line) for life in self.lives.values() for line in life.lines if line.meaning == meaning]
        return ((life, line) for life, line in found if not request_id or line.id == request_id)

    def holder(self, request_id: str, role: str = "worker", *, over: bool = False) -> Life | None:
        """The living worker that began this request last and did not end it; if it is `over`, that began it last."""
        held = []
        for life, begun in self.said("begun", request_id):
            ends = ("ended", "aborted", "failed", "finished")
            ended = any(line.id == request_id and line.meaning in ends for line in life.lines)
            if life.role == role and life.alive and (over or not ended):
                held.append((begun.at.after_s, life))
        return max(held, key=lambda pair: pair[0])[1] if held else None

    # -- what processes say of themselves

    def ask(self, life: Life, path: str) -> tuple[int, str]:
        """Status and text of a page of a process; (0, "") if it does not answer."""
        connection = http.client.HTTPConnection(LOOPBACK, life.port, timeout=ASK_BOUND_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def values(self, life: Life) -> dict[str, float]:
        """A process's metrics by the names of `Setup.metrics`: the sum over the series that bear their labels."""
        status, page = self.ask(life, self.setup.metrics_path)
        found: dict[str, float] = {}
        for row in self.setup.metrics if status == 200 and life.role != "service" else ():
            if not concerns(row, life.role):  # type: ignore[arg-type]
                continue
            labels = [f'{key}="{value}"' for key, value in (row.labels or {}).items()]
            for line in page.splitlines():
                series, _, value = line.rpartition(" ")
                if series.partition("{")[0] == row.metric and all(label in series for label in labels):
                    found[row.name] = found.get(row.name, 0.0) + float(value)
        return found


def _filled(text: str, values: Mapping[str, object]) -> str:
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def _base(life: Life) -> str:
    """Its title without the number of the life."""
    base, _, number = life.title.rpartition("-")
    return base if base and number.isdigit() and base != "frontend" else life.title
