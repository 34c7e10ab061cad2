"""The tester's side of the warden: starts it, tells it what to do, hears what became of its processes.

A `Warden` lives in one asyncio loop, which may run in any thread: the warden is a plain `subprocess.Popen`, and the
loop itself reads and writes its two pipes. It does not get the parent-death signal (which comes at the end of the
*thread* that started a process); the end of its command pipe tells it that the tester is gone. So a child that the
tester makes by a bare `os.fork` holds that end open, and the cluster alive.

All times are `time.monotonic()` seconds.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ftmodel.errors import HarnessError, UsageError
from ftmodel.history import Interval
from ftmodel.targets.real.leftovers import MARKER, SCRATCH_MARK, SWEEP_BOUND_S, clear

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WARDEN: Final = Path(__file__).with_name("warden.py")
TITLE_ROOM: Final = 120
STALL_S: Final = 0.100
START_BOUND_S: Final = 120.0
REPLY_BOUND_S: Final = 10.0
STOP_BOUND_S: Final = 1.0
CLOSE_BOUND_S: Final = 15.0
LINE_BOUND_BYTES: Final = 16 << 20
LOG_TAIL_LINES: Final = 5


class ProcessGoneError(HarnessError):
    """The process has ended already, so there is nothing to signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to run. With `fork`, `argv` is the arguments of `function`; with `exec`, it is the whole command line.

    `env` is the complete environment. A forked process keeps what preloaded modules read from the warden's at import.
    """

    title: str
    how: Literal["fork", "exec"]
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    module: str = ""
    """A module's name, or the path of a .py file."""
    function: str = "main"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: its code, or the signal that ended it; neither if it died with its warden."""

    code: int | None
    signal: int | None
    at: Interval


@dataclass(frozen=True, slots=True)
class Descendant:
    """A process below the warden."""

    pid: int
    parent: int
    session: int
    state: str
    command: str


class Process:
    """A process that the warden started."""

    __slots__ = ("exit", "exited", "pid", "started", "title")

    def __init__(self, *, pid: int, title: str, started: Interval) -> None:
        self.pid = pid
        self.title = title
        self.started = started
        self.exit: Exit | None = None
        self.exited = asyncio.Event()
        """Set as soon as `exit` is known."""

    @property
    def alive(self) -> bool:
        """True until its end was reported."""
        return self.exit is None

    async def wait(self) -> Exit:
        """Wait for its end. May be cancelled without harm."""
        await self.exited.wait()
        assert self.exit is not None
        return self.exit

    def __repr__(self) -> str:
        return f"<Process {self.title} {self.pid} {'alive' if self.alive else 'gone'}>"


def _no_exit(_process: Process, _exit: Exit) -> None: ...


def _no_stall(_from_s: float, _to_s: float) -> None: ...


def _no_death() -> None: ...


class Warden:
    """One warden and its processes. Make it with `start`; use it from the loop that made it."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        *,
        scratch: Path,
        log: Path,
        on_exit: Callable[[Process, Exit], None],
        on_stall: Callable[[float, float], None],
        on_death: Callable[[], None],
    ) -> None:
        self.pid = popen.pid
        self.scratch = scratch
        self.log = log
        self.versions: Mapping[str, str | None] = {}
        self.on_exit = on_exit
        self.on_stall = on_stall
        self.on_death = on_death
        self._popen = popen
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._asked: dict[int, tuple[Launch | None, asyncio.Future[Any]]] = {}
        self._count = 0
        self._live: dict[int, Process] = {}
        self._closing = False
        self._closed: asyncio.Task[None] | None = None
        self._commands: asyncio.WriteTransport
        self._replies: asyncio.ReadTransport
        self._lines = asyncio.StreamReader(limit=LINE_BOUND_BYTES)
        self._listening: asyncio.Task[None]

    @classmethod
    async def start(
        cls,
        sut_python: Path,
        *,
        preload: tuple[str, ...],
        distributions: tuple[str, ...],
        scratch: Path,
        log: Path,
        env: Mapping[str, str],
        stall_s: float = STALL_S,
        on_exit: Callable[[Process, Exit], None] = _no_exit,
        on_stall: Callable[[float, float], None] = _no_stall,
        on_death: Callable[[], None] = _no_death,
    ) -> Warden:
        """Start a warden in the interpreter `sut_python` and wait until it has imported `preload`.

        `scratch` (made if missing) is removed when the warden ends. `distributions` are those whose versions are
        wanted; the first is what to install where a preloaded module is missing. Callbacks run in the loop.
        Raises UsageError for an interpreter that will not do, HarnessError for a warden that did not start.
        """
        if not scratch.name.startswith(SCRATCH_MARK):
            raise HarnessError(f"scratch folder {scratch}: expected a name that begins with {SCRATCH_MARK}")
        scratch = scratch.absolute()
        sut_python = _checked(sut_python)
        scratch.mkdir(parents=True, exist_ok=True)
        command = [str(sut_python), "-u", str(WARDEN), "--title-room", "X" * TITLE_ROOM, "--scratch", str(scratch)]
        command += ["--preload", ",".join(preload), "--versions", ",".join(distributions), "--stall-s", str(stall_s)]
        popen = _popen(command, env={**env, MARKER: str(scratch)}, cwd=scratch, log=log)
        warden = cls(popen, scratch=scratch, log=log, on_exit=on_exit, on_stall=on_stall, on_death=on_death)
        try:
            await warden._connect()
            async with asyncio.timeout(START_BOUND_S):
                ready = await warden._ready
            _check_ready(ready, python=sut_python, install=distributions[:1], log=log)
        except BaseException as error:
            await warden._abandon()
            if isinstance(error, TimeoutError):
                raise HarnessError(f"{sut_python}: no warden after {START_BOUND_S:g} s; see {log}") from error
            raise
        warden.versions = ready["versions"]
        return warden

    @property
    def processes(self) -> tuple[Process, ...]:
        """The spawned processes whose end was not reported yet."""
        return tuple(self._live.values())

    async def spawn(self, launch: Launch) -> Process:
        """Start a process. Its environment gets the marker. Raises HarnessError."""
        order = asdict(launch) | {"cwd": str(launch.cwd.absolute()), "log": str(launch.log.absolute())}
        order["env"] = {**launch.env, MARKER: str(self.scratch)}
        process: Process = await self._ask({"op": "spawn", **order}, launch)
        return process

    async def signal(self, process: Process, signum: int, group: bool = True) -> Interval:
        """Send a signal to the process, and to the group that it leads: when it was sent. Raises ProcessGoneError."""
        if not process.alive:
            raise ProcessGoneError(f"{process.title} ({process.pid}) is gone")
        try:
            reply = await self._ask({"op": "signal", "pid": process.pid, "signal": int(signum), "group": group})
        except _RefusedError as refused:
            if str(refused) == "gone":
                raise ProcessGoneError(f"{process.title} ({process.pid}) is gone") from refused
            raise
        return Interval(*reply["time_s"])

    async def state(self, process: Process) -> str | None:
        """The kernel's letter for the state of the process (T: all its threads are stopped), None if it is gone.

        Right after a SIGSTOP a busy process is often seen still running; `stops` waits for it.
        """
        if not process.alive:
            return None
        letter: str | None = (await self._ask({"op": "state", "pid": process.pid}))["state"]
        return letter

    async def stops(self, process: Process, *, stopped: bool = True, bound_s: float = STOP_BOUND_S) -> bool:
        """Whether the process stops (or with `stopped=False` is found going on) within the bound."""
        end_s = time.monotonic() + bound_s
        while (state := await self.state(process)) is not None:
            if (state == "T") is stopped:
                return True
            if time.monotonic() > end_s:
                break
        return False

    async def descendants(self) -> tuple[Descendant, ...]:
        """Every process below the warden: those spawned, theirs, and adopted orphans."""
        return tuple(Descendant(**row) for row in (await self._ask({"op": "pids"}))["pids"])

    async def kill_all(self) -> int:
        """SIGKILL every descendant and wait until none is left: how many there were. Raises HarnessError."""
        reply = await self._ask({"op": "kill_all"})
        if reply["left"]:
            raise HarnessError(f"{reply['left']} processes below the warden {self.pid} outlived SIGKILL")
        return int(reply["killed"])

    async def close(self) -> None:
        """Kill every descendant, remove the scratch folder and end the warden. May be called again."""
        if self._closed is None:
            self._closing = True
            self._closed = self._loop.create_task(self._close())
        # Shielded: a caller that is cancelled must not leave the work half done.
        await asyncio.shield(self._closed)

    # -- its end

    async def _close(self) -> None:
        with suppress(HarnessError):
            await self._ask({"op": "quit"})
        await self._abandon()

    async def _abandon(self) -> None:
        """End the warden, whatever state it is in, and leave nothing behind. Bounded."""
        self._closing = True
        if hasattr(self, "_commands"):
            self._commands.close()
        gone = await asyncio.to_thread(_wait_for, self._popen, CLOSE_BOUND_S)
        if not gone:
            self._popen.kill()
            await asyncio.to_thread(_wait_for, self._popen, SWEEP_BOUND_S)
        if hasattr(self, "_replies"):
            self._replies.close()
        if self.scratch.exists():  # it was not the warden that removed it
            await asyncio.to_thread(clear, self.scratch)
        self._settle(HarnessError("the warden is closed"))

    async def _died(self) -> None:
        """Clean up after a warden that ended by itself, then say so."""
        self._commands.close()
        await asyncio.to_thread(_wait_for, self._popen, SWEEP_BOUND_S)
        await asyncio.to_thread(clear, self.scratch)
        code = self._popen.returncode
        self._settle(HarnessError(f"the warden {self.pid} died (exit status {code}); see {self.log}"))
        self._loop.call_soon(self.on_death)

    def _settle(self, error: HarnessError) -> None:
        """Nobody will answer any more: end all waiting."""
        for _, answer in self._asked.values():
            if not answer.done():
                answer.set_exception(error)
        self._asked.clear()
        if not self._ready.done():
            self._ready.set_result({"event": "failed", "error": str(error), "missing": None})
        for process in list(self._live.values()):
            at = Interval(process.started.before_s, time.monotonic())
            self._exited(process, Exit(code=None, signal=None, at=at))

    # -- its pipes

    async def _connect(self) -> None:
        """Attach both pipes to the loop and listen."""
        lines = self._lines
        self._replies, _ = await self._loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), self._popen.stdout
        )
        self._commands, _ = await self._loop.connect_write_pipe(asyncio.BaseProtocol, self._popen.stdin)
        self._listening = self._loop.create_task(self._listen(), name=f"warden {self.pid}")

    async def _ask(self, order: dict[str, Any], launch: Launch | None = None) -> Any:
        """Send an order and wait for its reply; for a launch, its process."""
        if self._commands.is_closing() or self._listening.done():
            raise HarnessError(f"the warden {self.pid} is gone; see {self.log}")
        self._count += 1
        number = self._count
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._asked[number] = launch, answer
        self._commands.write(json.dumps({"id": number, **order}).encode() + b"\n")
        try:
            async with asyncio.timeout(REPLY_BOUND_S):
                return await answer
        except TimeoutError as error:
            raise HarnessError(f"the warden {self.pid} did not answer {order['op']} in {REPLY_BOUND_S:g} s") from error

    async def _listen(self) -> None:
        """Hear the warden until its pipe ends."""
        try:
            while line := await self._lines.readline():
                self._heed(json.loads(line))
        except asyncio.CancelledError:  # the loop is being shut down, and nobody called close
            await self._abandon()
            raise
        finally:
            if not self._closing and self._ready.done():
                await self._died()
            else:
                self._settle(HarnessError(f"the warden {self.pid} ended; see {self.log}"))

    def _heed(self, message: dict[str, Any]) -> None:
        """Take in one reply or event, in the order in which the warden told them."""
        match message:
            case {"event": "ready" | "failed"}:
                self._ready.set_result(message)
            case {"event": "exit", "pid": pid}:
                at = Interval(*message["time_s"])
                self._exited(self._live[pid], Exit(code=message["code"], signal=message["signal"], at=at))
            case {"event": "stall", "time_s": [from_s, to_s]}:
                self._loop.call_soon(self.on_stall, from_s, to_s)
            case {"id": int(number)}:
                self._answered(*self._asked.pop(number), message)

    def _answered(self, launch: Launch | None, answer: asyncio.Future[Any], reply: dict[str, Any]) -> None:
        """Hand a reply to who asked. A new process is known from here on, before any word of its end is read."""
        result: Any = reply
        if launch and reply["ok"]:
            result = Process(pid=reply["pid"], title=launch.title, started=Interval(*reply["time_s"]))
            self._live[result.pid] = result
        if answer.done():  # its caller was cancelled, or ran out of patience
            return
        if reply["ok"]:
            answer.set_result(result)
        else:
            answer.set_exception(_RefusedError(reply["error"]))

    def _exited(self, process: Process, end: Exit) -> None:
        del self._live[process.pid]
        process.exit = end
        process.exited.set()
        self._loop.call_soon(self.on_exit, process, end)


class _RefusedError(HarnessError):
    """The warden would not carry out an order."""


# --- the start ----------------------------------------------------------------------------------------------------


def _checked(python: Path) -> Path:
    """The interpreter, made absolute but not resolved: the link is what makes a virtual environment."""
    found = shutil.which(python)
    if found is None:
        wrong = "not executable" if python.exists() else "not found"
        raise UsageError(
            f"interpreter {python}: {wrong}, expected the Python of the system under test; "
            f"try: {shlex.join(['python3', '-m', 'venv', str(python.parent.parent)])}"
        )
    return Path(found).absolute()


def _popen(command: list[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the warden in a session of its own, so that a Ctrl-C in the tester's terminal is the tester's alone."""
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("ab") as err:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
    except OSError as error:
        raise UsageError(
            f"interpreter {command[0]}: {error.strerror}, expected a Python; "
            f"try: {shlex.join([command[0], '--version'])}"
        ) from error


def _check_ready(message: Mapping[str, Any], *, python: Path, install: tuple[str, ...], log: Path) -> None:
    """Raise unless the warden said that it is ready."""
    if message["event"] == "ready":
        return
    missing = message.get("missing")
    if missing and install:
        raise UsageError(
            f"no module named {missing} in {python}: expected an interpreter with {install[0]}; "
            f"try: {shlex.join([str(python), '-m', 'pip', 'install', install[0]])}"
        )
    raise HarnessError(f"{python}: no warden: {message['error']}\n{_tail(log)}".rstrip())


def _tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
    except OSError:
        return ""


def _wait_for(popen: subprocess.Popen[bytes], bound_s: float) -> bool:
    """True if the warden ended within the bound."""
    try:
        popen.wait(bound_s)
    except subprocess.TimeoutExpired:
        return False
    return True
