"""The warden: a small process that owns every process of one cluster under test.

It runs by path in the interpreter of the system under test, so it is one file with the standard library alone. It
imports the modules under `--preload` once and forks processes from there, or executes a command line where forking is
not valid. It is the parent of all it started, and through PR_SET_CHILD_SUBREAPER of their orphans too, so no process id
can be reused before the warden has reaped it. When its tester dies it kills everything and leaves.

Protocol: JSON lines, commands on stdin, replies and events on stdout. Every time is `time.monotonic()` in seconds, and
every `time_s` is a pair [before, after] that encloses the moment.

    {"event": "ready", "pid", "versions"}   or   {"event": "failed", "error", "missing": name | null}   (then it exits)
    {"event": "exit", "pid", "code": n | null, "signal": n | null, "time_s"}    a spawned process was reaped
    {"event": "orphan", same}                                                   an adopted descendant was reaped
    {"event": "stall", "time_s"}                                                the warden did not run between these

    {"id", "op": "spawn", "title", "how": "fork" | "exec", "module", "function", "argv", "env", "cwd", "log"}
                                          -> {"pid", "time_s"}
    {"id", "op": "signal", "pid", "signal", "group"}   -> {"time_s"}, or the error "gone"
    {"id", "op": "state", "pid"}          -> {"state": letter | null, "alive"}
    {"id", "op": "pids"}                  -> {"pids": [{"pid", "parent", "session", "state", "command"}]}
    {"id", "op": "kill_all"}, {"id", "op": "quit"}   -> {"killed", "left"}

A reply is {"id", "ok": true, ...} or {"id", "ok": false, "error"}.

What a forked process shares with the warden, because it was made before the fork: whatever the preloaded modules read
at import (its logging level, HF_HUB_OFFLINE, HF_HOME), and /proc/PID/environ, which keeps showing the
warden's environment. `os.environ` and the C environment are the child's own.
"""

from __future__ import annotations

import argparse
import atexit
import ctypes
import gc
import importlib
import importlib.metadata
import importlib.util
import json
import os
import random
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType, ModuleType

BEAT_S = 0.010
"""The loop runs at least this often."""
STALL_S = 0.100
"""A gap between two beats longer than this is reported."""
KILL_BOUND_S = 5.0
"""How long killing everything may take before what is left is given up."""
LEAVE_BOUND_S = 10
"""After this long in leaving, the kernel ends the warden (whole seconds)."""
FLUSH_BOUND_S = 1.0
LINE_BOUND_BYTES = 8 << 20
OUTBOX_BOUND_BYTES = 32 << 20
SCRATCH_MARK = "ftm-"
CRASH_CODE = 1
EXEC_FAILED_CODE = 127

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

Message = dict[str, Any]


class RefusedError(Exception):
    """A command that the warden does not carry out. The text becomes the reply's error."""


# --- what is read from /proc ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stat:
    """One process as /proc/PID/stat tells it."""

    pid: int
    command: str
    state: str
    parent: int
    session: int
    arguments: tuple[int, int]
    """Where the argument vector begins and ends in the memory of the process."""


def read_stat(pid: int | str) -> Stat | None:
    """The process `pid` ("self" for this one, "1/task/2" for a thread), or None if there is none."""
    try:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    opened, closed = raw.index(b"("), raw.rindex(b")")
    fields = raw[closed + 2 :].split()  # the first of these is field 3 of proc(5)
    return Stat(
        pid=int(raw[:opened]),
        command=raw[opened + 1 : closed].decode(errors="replace"),
        state=fields[0].decode(),
        parent=int(fields[1]),
        session=int(fields[3]),
        arguments=(int(fields[45]), int(fields[46])),
    )


def state_of(pid: int) -> str | None:
    """The kernel's letter for a process; T only when each of its threads has stopped, which takes a while."""
    stat = read_stat(pid)
    if stat is None or stat.state != "T":
        return stat.state if stat else None
    threads = (read_stat(f"{pid}/task/{name}") for name in os.listdir(f"/proc/{pid}/task"))
    return next((thread.state for thread in threads if thread and thread.state != "T"), "T")


def everyone() -> Iterator[Stat]:
    """All processes of the machine."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := read_stat(name)):
            yield stat


def descendants(pid: int) -> list[Stat]:
    """All processes below `pid`, parents before their children."""
    children: dict[int, list[Stat]] = {}
    for stat in everyone():
        children.setdefault(stat.parent, []).append(stat)
    found: list[Stat] = []
    level = [pid]
    while level:
        below = [stat for parent in level for stat in children.get(parent, ())]
        found += below
        level = [stat.pid for stat in below]
    return found


# --- what is told to the kernel ---------------------------------------------------------------------------------------

libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: Any) -> None:
    """Set an option of this process by the kernel call of this name. Raises OSError."""
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if libc.prctl(option, argument, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl({option}): {os.strerror(errno)}")


def show_title(title: str) -> None:
    """Make `ps` show `title` for this process: in the memory of its arguments, which `--title-room` made long enough.

    The last byte stays NUL, or the kernel would take the title to go on into the environment.
    """
    stat = read_stat("self")
    if stat is None:
        return
    begin, end = stat.arguments
    room = end - begin
    if room > 1:
        ctypes.memmove(begin, title.encode()[: room - 1].ljust(room, b"\0"), room)
    # Names of 15 bytes are all that the kernel keeps here, so the part that tells processes apart comes early.
    prctl(PR_SET_NAME, title.replace("ftmodel ", "", 1).encode()[:15])


def deliver(pid: int, signum: int, *, group: bool) -> None:
    """Signal an unreaped child, with the group that it leads if `group`. Raises OSError."""
    if group:
        try:
            os.killpg(pid, signum)
        except ProcessLookupError:
            pass  # it leads no group: its setsid is still to come and it has no children yet, or it is an adopted one
        else:
            return
    os.kill(pid, signum)


def remove_scratch(scratch: Path) -> None:
    """Remove the scratch folder, if it is one: a true folder whose name carries the mark."""
    if scratch.name.startswith(SCRATCH_MARK) and scratch.is_absolute() and not scratch.is_symlink():
        shutil.rmtree(scratch, ignore_errors=True)


# --- what becomes of a child ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    """What to run. With `fork`, `argv` is the arguments alone; with `exec`, it is the whole command line."""

    title: str
    how: str
    module: str
    function: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    log: str

    @classmethod
    def read(cls, command: Message) -> Launch:
        """The launch that a command describes. Raises RefusedError with the field that is wrong."""
        values: Message = {"module": "", "function": "main", **command}
        for name in ("title", "how", "module", "function", "cwd", "log"):
            if not isinstance(values.get(name), str):
                raise RefusedError(f"spawn: {name}={values.get(name)!r}: expected a string")
        argv, env = values.get("argv"), values.get("env")
        if not isinstance(argv, list) or not all(isinstance(part, str) for part in argv):
            raise RefusedError(f"spawn: argv={argv!r}: expected a list of strings")
        if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
            raise RefusedError("spawn: env: expected an object whose values are strings")
        launch = cls(**{name: values[name] for name in cls.__dataclass_fields__})
        launch.check()
        return launch

    def check(self) -> None:
        """Refuse what the child could only fail of."""
        if self.how not in {"fork", "exec"}:
            raise RefusedError(f"spawn: how={self.how!r}: expected fork or exec")
        if self.how == "fork" and not self.module:
            raise RefusedError("spawn: module is empty: expected a module's name or the path of a .py file")
        if not Path(self.cwd).is_dir():
            raise RefusedError(f"spawn: cwd={self.cwd!r}: expected a folder")

    def program(self) -> str | None:
        """The path of the file to execute; None for a fork."""
        if self.how == "fork":
            return None
        path = shutil.which(self.argv[0], path=self.env.get("PATH", os.defpath)) if self.argv else None
        if path is None:
            raise RefusedError(f"spawn: argv={self.argv!r}: no such program")
        return os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow a virtual environment's link


def load(entry: str) -> ModuleType:
    """Import a module by its name, or by its path if that ends in .py."""
    if not entry.endswith(".py"):
        return importlib.import_module(entry)
    name = f"_by_path_{Path(entry).stem}"
    spec = importlib.util.spec_from_file_location(name, entry)
    if spec is None or spec.loader is None:
        raise ImportError(f"{entry}: not loadable")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def become(launch: Launch, program: str | None, *, log: int, warden: int, modules: dict[str, ModuleType]) -> NoReturn:
    """Turn this freshly forked process into the launched one. Nothing gets out of here but the end of the process."""
    code = EXEC_FAILED_CODE if program else CRASH_CODE
    try:
        settle(log=log, warden=warden, python=program is None)
        os.chdir(launch.cwd)
        if program:
            os.execve(program, launch.argv, launch.env)
        code = call(launch, modules)
    except BaseException:  # noqa: BLE001 - a child that dies without a word in its log cannot be explained
        traceback.print_exc()
    finally:
        flush_streams()
        os._exit(code)


def settle(*, log: int, warden: int, python: bool) -> None:
    """Own session and log, no descriptor of the warden's, signals as in a fresh process, death with the warden."""
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != warden:  # it died before the line above
        os._exit(CRASH_CODE)
    os.dup2(log, 1)
    os.dup2(log, 2)
    close_from(3)
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_DFL)
    if python:  # which a fresh interpreter sets; without them a write to a closed pipe would kill the forked one alone
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_from(lowest: int) -> None:
    """Close every descriptor from `lowest` on.

    Not by os.closerange: where the C library is old that tries every number below the limit.
    """
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= lowest:
            with suppress(OSError):  # the one by which the folder was listed is closed already
                os.close(int(name))


def call(launch: Launch, modules: dict[str, ModuleType]) -> int:
    """Run the function as `python -m` would, its end included, and return the exit code."""
    os.environ.clear()
    os.environ.update(launch.env)
    sys.argv[:] = [launch.module, *launch.argv]
    show_title(launch.title)
    forget_inherited()
    code, interrupted = 0, False
    try:
        module = modules.get(launch.module) or load(launch.module)
        getattr(module, launch.function)()
    except SystemExit as leaving:
        code = exit_code(leaving.code)
    except KeyboardInterrupt:
        traceback.print_exc()
        interrupted = True
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = CRASH_CODE
    # What the interpreter does at its end: a thread that keeps a real process from ending must keep this one too.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if interrupted:
        flush_streams()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return code


def forget_inherited() -> None:
    """Make forks of one interpreter differ where fresh interpreters would."""
    random.seed()
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()
    if tempfile := sys.modules.get("tempfile"):
        tempfile.tempdir = None  # type: ignore[attr-defined]  # kept from the first look at TMPDIR, which was the warden's


def exit_code(value: object) -> int:
    """What `sys.exit(value)` makes of a value."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value & 0xFF
    print(value, file=sys.stderr)
    return CRASH_CODE


def flush_streams() -> None:
    """Flush what Python still holds of stdout and stderr."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or the disk is full: nobody is left to be told
            stream.flush()


# --- the warden itself ------------------------------------------------------------------------------------------------


class Warden:
    """The loop: commands in, replies and events out, children reaped, all of it from the main thread."""

    def __init__(self, *, commands: int, replies: int, scratch: Path, stall_s: float) -> None:
        self.commands = commands
        self.replies = replies
        self.scratch = scratch
        self.stall_s = stall_s
        self.pid = os.getpid()
        self.modules: dict[str, ModuleType] = {}
        self.children: dict[int, float] = {}
        """Spawned and not yet reaped: when each was begun."""
        self.leaving = False
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.beat_s = self.seen_s = time.monotonic()
        self.wake, self.woken = os.pipe()
        for descriptor in (commands, replies, self.wake, self.woken):
            os.set_blocking(descriptor, False)

    # -- its life

    def catch_signals(self) -> None:
        """Have SIGCHLD wake the loop, SIGTERM and SIGINT end it."""

        def note(signum: int, _frame: FrameType | None) -> None:
            self.leaving |= signum != signal.SIGCHLD

        signal.set_wakeup_fd(self.woken, warn_on_full_buffer=False)
        for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, note)

    def preload(self, entries: Iterable[str], distributions: Iterable[str]) -> bool:
        """Import all entries and report `ready`, or `failed`. Returns whether it went well."""
        try:
            for entry in entries:
                self.modules[entry] = load(entry)
        except BaseException as error:  # noqa: BLE001 - whatever an import raises, SystemExit too, is a failure to report
            traceback.print_exc()
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            self.send({"event": "failed", "error": one_line(error), "missing": missing})
            return False
        # What is alive now is alive in every child: never collected, so its pages are never copied for it.
        gc.collect()
        gc.freeze()
        self.beat_s = time.monotonic()  # from the word that it is ready on, a gap is a stall
        self.send({"event": "ready", "pid": self.pid, "versions": versions(distributions)})
        return True

    def run(self) -> None:
        """Serve until the tester closes the pipe, says quit, or a signal ends it."""
        poll = select.poll()
        poll.register(self.commands, select.POLLIN)
        poll.register(self.wake, select.POLLIN)
        while not self.leaving:
            poll.register(self.replies, select.POLLOUT if self.outbox else 0)
            ready = dict(poll.poll(BEAT_S * 1000))
            self.beat()
            self.drain_wake()
            self.reap()
            if self.commands in ready:
                self.receive()
            self.flush()
            if ready.get(self.replies, 0) & select.POLLERR:  # nobody reads any more
                self.leaving = True

    def leave(self) -> None:
        """Kill everything, remove the scratch folder. Bounded by the kernel itself."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LEAVE_BOUND_S)
        self.leaving = True
        self.kill_all()
        remove_scratch(self.scratch)

    def beat(self) -> None:
        """Note that the loop runs, and report if it did not for too long."""
        now_s = time.monotonic()
        if now_s - self.beat_s > self.stall_s:
            self.send({"event": "stall", "time_s": [self.beat_s, now_s]})
        self.beat_s = now_s

    # -- its pipes

    def receive(self) -> None:
        """Read what there is and carry out each whole line."""
        try:
            chunk = os.read(self.commands, 1 << 16)
        except BlockingIOError:
            return
        if not chunk:  # the tester is gone, however it died
            self.leaving = True
            return
        self.inbox += chunk
        while not self.leaving and (end := self.inbox.find(b"\n")) >= 0:
            line = bytes(self.inbox[:end])
            del self.inbox[: end + 1]
            self.answer(line)
        if len(self.inbox) > LINE_BOUND_BYTES:
            self.inbox.clear()
            self.send({"id": None, "ok": False, "error": f"line longer than {LINE_BOUND_BYTES} bytes"})

    def answer(self, line: bytes) -> None:
        """Carry out one command and reply to it."""
        command: Any = None
        try:
            command = json.loads(line)
            reply = {"ok": True, **self.obey(command)}
        except RefusedError as refused:
            reply = {"ok": False, "error": str(refused)}
        except Exception as error:  # noqa: BLE001 - nothing on stdin may end the owner of all processes
            reply = {"ok": False, "error": one_line(error)}
        self.send({"id": command.get("id") if isinstance(command, dict) else None, **reply})

    def obey(self, command: Any) -> Message:
        """Do what one command says and return what its reply tells."""
        orders = {
            "spawn": self.spawn,
            "signal": self.signal,
            "state": self.state,
            "pids": self.pids,
            "kill_all": self.kill_all_told,
            "quit": self.quit,
        }
        op = command.get("op") if isinstance(command, dict) else command
        if not isinstance(op, str) or op not in orders:
            raise RefusedError(f"op={op!r}: expected one of {', '.join(orders)}")
        return orders[op](command)

    def send(self, message: Message) -> None:
        """Queue a line for the tester and write what the pipe takes. Never blocks: a stopped tester stops nobody."""
        self.outbox += json.dumps(message).encode() + b"\n"
        self.flush()
        if len(self.outbox) > OUTBOX_BOUND_BYTES:
            self.leaving = True

    def flush(self) -> None:
        """Write what the pipe takes at once."""
        while self.outbox:
            try:
                written = os.write(self.replies, self.outbox)
            except BlockingIOError:
                return
            except OSError:  # EPIPE: the tester is gone
                self.outbox.clear()
                self.leaving = True
                return
            del self.outbox[:written]

    def flush_last(self) -> None:
        """Write all that is left, waiting a bounded time for the reader."""
        poll = select.poll()
        poll.register(self.replies, select.POLLOUT)
        end_s = time.monotonic() + FLUSH_BOUND_S
        while self.outbox and (left_s := end_s - time.monotonic()) > 0:
            poll.poll(left_s * 1000)
            self.flush()

    # -- its orders

    def spawn(self, command: Message) -> Message:
        """Start a process."""
        launch = Launch.read(command)
        program = launch.program()
        log = os.open(launch.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        # Blocked until the child has put its signals right: until then its handlers and wakeup pipe are the warden's.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            before_s = time.monotonic()
            pid = os.fork()
            if pid == 0:
                become(launch, program, log=log, warden=self.pid, modules=self.modules)
            after_s = time.monotonic()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.close(log)
        self.children[pid] = before_s
        return {"pid": pid, "time_s": [before_s, after_s]}

    def signal(self, command: Message) -> Message:
        """Signal a spawned process that is not reaped yet."""
        pid, signum = command["pid"], command["signal"]
        self.reap()
        if pid not in self.children:
            raise RefusedError("gone")
        before_s = time.monotonic()
        deliver(pid, signum, group=bool(command.get("group", True)))
        return {"time_s": [before_s, time.monotonic()]}

    def state(self, command: Message) -> Message:
        """The state of a spawned process, as the kernel has it now."""
        pid = command["pid"]
        self.reap()
        state = state_of(pid) if pid in self.children else None
        return {"state": state, "alive": state is not None and state not in "ZX"}

    def pids(self, _command: Message) -> Message:
        """Every descendant."""
        told = ("pid", "parent", "session", "state", "command")
        return {"pids": [{name: getattr(stat, name) for name in told} for stat in descendants(self.pid)]}

    def kill_all_told(self, _command: Message) -> Message:
        """Kill every descendant."""
        killed, left = self.kill_all()
        return {"killed": killed, "left": left}

    def quit(self, command: Message) -> Message:
        """Kill every descendant, remove the scratch folder, then leave the loop."""
        reply = self.kill_all_told(command)
        self.leave()
        return reply

    # -- its children

    def reap(self) -> None:
        """Collect the children that ended and report each. The end lies after the last look that found it alive."""
        while True:
            asked_s = time.monotonic()
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid, status = 0, 0
            if pid == 0:
                self.seen_s = asked_s
                return
            code = os.waitstatus_to_exitcode(status)
            began_s = self.children.pop(pid, None)
            self.send(
                {
                    "event": "orphan" if began_s is None else "exit",
                    "pid": pid,
                    "code": code if code >= 0 else None,
                    "signal": -code if code < 0 else None,
                    "time_s": [max(self.seen_s, began_s or 0.0), time.monotonic()],
                }
            )

    def kill_all(self) -> tuple[int, int]:
        """SIGKILL every descendant until none is left, or the bound is reached: how many were killed, and are left.

        Only children are signalled, with the groups that they lead: their ids cannot have been reused, because nobody
        has reaped them yet. What they leave behind becomes the warden's child, and is killed in the next round.
        """
        end_s = time.monotonic() + KILL_BOUND_S
        killed: set[int] = set()
        while True:
            self.reap()
            below = descendants(self.pid)
            if not below or time.monotonic() > end_s:
                return len(killed), len(below)
            killed.update(stat.pid for stat in below if stat.state not in "ZX")
            for stat in below:
                if stat.parent == self.pid:
                    deliver(stat.pid, signal.SIGKILL, group=True)
            self.await_child()
            self.beat()

    def await_child(self) -> None:
        """Wait until a child ends, at most a beat."""
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        poll.poll(BEAT_S * 1000)
        self.drain_wake()

    def drain_wake(self) -> None:
        """Forget the wake-ups so far."""
        with suppress(BlockingIOError):
            os.read(self.wake, 1 << 12)


def versions(distributions: Iterable[str]) -> dict[str, str | None]:
    """The releases of the interpreter and of these distributions in it; None for one that is not installed."""
    found: dict[str, str | None] = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def listed(text: str) -> list[str]:
    """The parts of a list with commas."""
    return [part for part in text.split(",") if part]


def one_line(error: BaseException) -> str:
    """An exception as the last line of its traceback."""
    return " ".join("".join(traceback.format_exception_only(type(error), error)).split())


class HangupGuard:
    """Ends the warden if its tester dies while the imports, which may take long or hang, keep the loop from running.

    A thread, which is gone before the first fork.
    """

    def __init__(self, commands: int, scratch: Path) -> None:
        self.commands = commands
        self.scratch = scratch
        self.stopped, self.stop = os.pipe()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        os.close(self.stop)
        self.thread.join()
        os.close(self.stopped)

    def watch(self) -> None:
        """Wait for the other end of either pipe to be closed."""
        poll = select.poll()
        poll.register(self.commands, 0)
        poll.register(self.stopped, 0)
        closed = dict(poll.poll())
        if self.stopped not in closed:
            remove_scratch(self.scratch)
            os._exit(0)


def take_pipes() -> tuple[int, int]:
    """Move the tester's pipes away from stdin and stdout, so that no import and no child reads or writes them."""
    commands, replies = os.dup(0), os.dup(1)  # neither is inheritable
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return commands, replies


def main() -> None:
    """Run the warden. Never returns."""
    parser = argparse.ArgumentParser(description="owns the processes of one cluster under test")
    parser.add_argument("--title-room", default="", help="filler: the longer, the longer a title `ps` can show")
    parser.add_argument("--scratch", type=Path, required=True, help=f"folder {SCRATCH_MARK}..., removed at the end")
    parser.add_argument("--preload", default="", help="modules or .py files to import, separated by commas")
    parser.add_argument("--versions", default="", help="distributions whose versions are reported, separated by commas")
    parser.add_argument("--stall-s", type=float, default=STALL_S, help="report gaps longer than this")
    settings = parser.parse_args()
    sys.path.pop(0)  # this file's folder: its siblings are no part of the system under test
    commands, replies = take_pipes()
    if os.getsid(0) != os.getpid():
        os.setsid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # while the imports run, an end is a failed import
    warden = Warden(commands=commands, replies=replies, scratch=settings.scratch, stall_s=settings.stall_s)
    with HangupGuard(commands, settings.scratch):
        loaded = warden.preload(listed(settings.preload), listed(settings.versions))
    try:
        if loaded:
            show_title("ftmodel warden")
            warden.catch_signals()
            warden.run()
    except BaseException:  # noqa: BLE001 - even then nothing may stay behind
        traceback.print_exc()
    finally:
        warden.leave()
        warden.flush_last()
        flush_streams()
        os._exit(0)


if __name__ == "__main__":
    main()
