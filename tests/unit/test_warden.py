"""The warden owns its processes: starts and ends them exactly, tells all that happens, leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil
import pytest

from ftmodel.errors import HarnessError, UsageError
from ftmodel.targets.real import processes
from ftmodel.targets.real.leftovers import MARKER, survivors, sweep
from ftmodel.targets.real.processes import Exit, Launch, Process, ProcessGoneError, Warden

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

BOUND_S = 5.0
"""The longest that any condition is waited for."""
HERE = Path(sys.executable)
ROOT = Path(processes.__file__).parents[3]

CHILD = '''
import json, os, random, signal, subprocess, sys, tempfile

LOADED_IN = os.getpid()


def tell(**facts):
    path = sys.argv[1]
    with open(path + ".new", "w") as file:
        json.dump(facts, file)
    os.rename(path + ".new", path)


def describe():
    files = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            files[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # the folder itself
    tell(
        argv=sys.argv,
        env=dict(os.environ),
        printenv=subprocess.run(["/usr/bin/env"], stdout=subprocess.PIPE, env=None).stdout.decode(),
        cwd=os.getcwd(),
        files=files,
        leads=[os.getsid(0), os.getpgid(0)],
        blocked=[int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        term=signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        child=signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL,
        pipe=signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN,
        interrupt=signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        loaded_in=LOADED_IN,
        random=random.random(),
        tmp=tempfile.gettempdir(),
        here=sys.path[0],
    )


def fail():
    raise ValueError("boom")


def leave():
    print("leaving")
    sys.exit(7)


def complain():
    sys.exit("no port")


def wait():
    tell(pid=os.getpid())
    while True:
        signal.pause()


def family():
    """A child in the same group; one in a session of its own, whose parent ends at once."""
    near = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    code = (
        "import os, subprocess, sys;"
        "pause = [sys.executable, '-c', 'import signal; signal.pause()'];"
        "far = subprocess.Popen(pause, stdout=subprocess.DEVNULL, start_new_session=True);"
        "print(far.pid); sys.stdout.flush(); os._exit(0)"
    )
    far = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE).stdout
    tell(pids=[near.pid, int(far)])
    while True:
        signal.pause()
'''


@pytest.fixture
def child(tmp_path: Path) -> Path:
    path = tmp_path / "child.py"
    path.write_text(CHILD)
    return path


class House:
    """A warden under test and what it told."""

    def __init__(self, folder: Path, child: Path) -> None:
        self.folder = folder
        self.child = child
        self.scratch = folder / "ftm-test"
        self.exits: list[tuple[Process, Exit]] = []
        self.stalls: list[tuple[float, float]] = []
        self.deaths: list[float] = []
        self.warden: Warden

    async def open(self, *preload: str, stall_s: float = 0.1, **env: str) -> Warden:
        self.warden = await Warden.start(
            HERE,
            preload=preload,
            distributions=("pytest", "no-such-distribution"),
            scratch=self.scratch,
            log=self.folder / "warden.log",
            env={"PATH": os.environ["PATH"], **env},
            stall_s=stall_s,
            on_exit=lambda process, end: self.exits.append((process, end)),
            on_stall=lambda from_s, to_s: self.stalls.append((from_s, to_s)),
            on_death=lambda: self.deaths.append(time.monotonic()),
        )
        return self.warden

    def launch(self, function: str, *argv: str, title: str = "ftmodel worker w1", **env: str) -> Launch:
        log = self.folder / "child.log"
        return Launch(
            title=title,
            how="fork",
            module=str(self.child),
            function=function,
            argv=argv,
            env={"PATH": os.environ["PATH"], **env},
            cwd=self.folder,
            log=log,
        )

    def execute(self, *command: str) -> Launch:
        env = {"PATH": os.environ["PATH"], "ONLY": "this"}
        log = self.folder / "child.log"
        return Launch(title="ftmodel worker w1", how="exec", argv=command, env=env, cwd=self.folder, log=log)

    async def told(self, name: str = "facts") -> dict[str, Any]:
        """What a child wrote, once it has."""
        path = self.folder / name
        await until(path.exists)
        return cast("dict[str, Any]", json.loads(path.read_text()))

    async def ready(self, function: str = "wait") -> Process:
        """A forked process that has reached its function."""
        process = await self.warden.spawn(self.launch(function, str(self.folder / "facts")))
        await self.told()
        return process

    @property
    def log(self) -> str:
        return (self.folder / "child.log").read_text()


async def until(condition: Callable[[], object], bound_s: float = BOUND_S) -> None:
    async with asyncio.timeout(bound_s):
        while not condition():
            await asyncio.sleep(0.005)


def gone(pid: int) -> bool:
    """True if there is no such process, or a zombie that waits for a parent which is not ours."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def house(tmp_path: Path, child: Path) -> Iterator[House]:
    made = House(tmp_path, child)
    yield made
    left = sweep(made.scratch)
    assert left == []


@asynccontextmanager
async def opened(house: House, *preload: str, stall_s: float = 0.1, **env: str) -> AsyncIterator[Warden]:
    warden = await house.open(*preload, stall_s=stall_s, **env)
    try:
        yield warden
    finally:
        await warden.close()
    assert not house.scratch.exists()
    assert gone(warden.pid)


def test_a_fork_is_like_a_fresh_interpreter(house: House, child: Path) -> None:
    async def run() -> None:
        async with opened(house, str(child), ONLY="warden", TMPDIR="/var/tmp") as warden:
            facts_at = str(house.folder / "facts")
            process = await warden.spawn(house.launch("describe", facts_at, "two", ONLY="child", TMPDIR="/tmp"))
            facts = await house.told()
            end = await process.wait()
        assert (end.code, end.signal) == (0, None)
        assert facts["argv"] == [str(child), facts_at, "two"]
        expected = {"PATH": os.environ["PATH"], "ONLY": "child", "TMPDIR": "/tmp", MARKER: str(house.scratch)}
        assert facts["env"] == expected
        assert dict(line.split("=", 1) for line in facts["printenv"].splitlines()) == expected
        assert facts["cwd"] == str(house.folder)
        log = str(house.folder / "child.log")
        assert facts["files"] == {"0": "/dev/null", "1": log, "2": log}
        assert facts["leads"] == [process.pid, process.pid]
        assert facts["blocked"] == []
        assert all(facts[name] for name in ("term", "child", "pipe", "interrupt"))
        assert facts["loaded_in"] == warden.pid
        assert facts["tmp"] == "/tmp"
        assert facts["here"] != str(processes.WARDEN.parent)

    asyncio.run(run())


def test_forks_differ_in_their_random_numbers(house: House, child: Path) -> None:
    async def run() -> None:
        async with opened(house, str(child)) as warden:
            drawn = set()
            for name in ("a", "b"):
                await warden.spawn(house.launch("describe", str(house.folder / name)))
                drawn.add((await house.told(name))["random"])
        assert len(drawn) == 2

    asyncio.run(run())


def test_a_module_that_was_not_preloaded_is_imported_in_the_fork(house: House) -> None:
    async def run() -> None:
        async with opened(house) as warden:
            process = await warden.spawn(house.launch("describe", str(house.folder / "facts")))
            assert (await house.told())["loaded_in"] == process.pid

    asyncio.run(run())


def test_a_command_line_is_executed(house: House) -> None:
    async def run() -> None:
        async with opened(house) as warden:
            code = "import os; print(sorted(os.environ.items()), sorted(os.listdir('/proc/self/fd'))); exit(3)"
            process = await warden.spawn(house.execute(str(HERE), "-c", code))
            end = await process.wait()
        assert end.code == 3
        assert "('ONLY', 'this')" in house.log
        assert "ftm-test" in house.log
        assert "['0', '1', '2', '3']" in house.log  # the last is the folder itself

    asyncio.run(run())


def test_an_executed_process_dies_with_the_warden(house: House) -> None:
    async def run() -> None:
        warden = await house.open()
        process = await warden.spawn(house.execute("sleep", "100"))
        await until(lambda: psutil.Process(process.pid).name() == "sleep")
        os.kill(warden.pid, signal.SIGKILL)
        await until(lambda: gone(process.pid))
        await warden.close()

    asyncio.run(run())


def test_the_title_of_a_fork_is_seen_from_outside(house: House, child: Path) -> None:
    async def run() -> None:
        async with opened(house, str(child)) as warden:
            process = await house.ready()
            shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            assert shown.rstrip(b"\0") == b"ftmodel worker w1"
            assert Path(f"/proc/{process.pid}/comm").read_text().strip() == "worker w1"
            assert Path(f"/proc/{warden.pid}/cmdline").read_bytes().rstrip(b"\0") == b"ftmodel warden"
            long = await warden.spawn(house.launch("wait", str(house.folder / "long"), title="ftmodel " + "x" * 5000))
            await house.told("long")
            assert Path(f"/proc/{long.pid}/cmdline").read_bytes().startswith(b"ftmodel xxx")
            assert b"PATH=" not in Path(f"/proc/{long.pid}/cmdline").read_bytes()

    asyncio.run(run())


def test_versions_are_those_of_the_interpreter_under_test(house: House) -> None:
    async def run() -> None:
        async with opened(house) as warden:
            assert warden.versions["python"] == ".".join(map(str, sys.version_info[:3]))
            assert warden.versions["pytest"] == pytest.__version__
            assert warden.versions["no-such-distribution"] is None

    asyncio.run(run())


@pytest.mark.parametrize(
    ("function", "code", "word"),
    [
        ("leave", 7, "leaving"),
        ("fail", 1, "ValueError: boom"),
        ("complain", 1, "no port"),
        ("none", 1, "AttributeError"),
    ],
)
def test_an_end_is_told_with_its_code_and_its_log_says_why(
    house: House, child: Path, function: str, code: int, word: str
) -> None:
    async def run() -> None:
        async with opened(house, str(child)) as warden:
            process = await warden.spawn(house.launch(function))
            end = await process.wait()
            assert (end.code, end.signal) == (code, None)
            assert word in house.log
            assert process.started.before_s <= end.at.before_s < end.at.after_s <= time.monotonic()
            await until(lambda: house.exits == [(process, end)])
            assert not process.alive
            assert warden.processes == ()

    asyncio.run(run())


def test_a_kill_is_told_with_its_signal_and_encloses_the_moment(house: House, child: Path) -> None:
    async def run() -> None:
        async with opened(house, str(child)) as warden:
            process = await house.ready()
            asked_s = time.monotonic()
            sent = await warden.signal(process, signal.SIGKILL)
            end = await process.wait()
            assert (end.code, end.signal) == (None, signal.SIGKILL)
            assert asked_s <= sent.before_s <= sent.after_s
            assert end.at.after_s >= sent.before_s
            assert end.at.after_s - end.at.before_s < 1.0

    asyncio.run(run())


def test_a_signal_right_after_the_start_is_not_lost(house: House, child: Path) -> None:
    async def run() -> None:
        async with opened(house, str(child)) as warden:
            for signum in (signal.SIGTERM, signal.SIGKILL) * 5:
                process = await warden.spawn(house.launch("wait", str(house.folder / "facts")))
                with suppress(ProcessGoneError):
                    await warden.signal(process, signum)
                async with asyncio.timeout(BOUND_S):
                    assert (await process.wait()).signal == signum

    asyncio.run(run())


def test_a_process_that_is_gone_is_not_signalled(house: House, child: Path) -> None:
    async def run() -> None:
        async with opened(house, str(child)) as warden:
            process = await warden.spawn(house.launch("leave"))
            await process.wait()
            with pytest.raises(ProcessGoneError, match="ftmodel worker w1"):
                await warden.signal(process, signal.SIGKILL)
            assert await warden.state(process) is None
            ours = Process(pid=os.getpid(), title="the tester", started=process.started)
            with pytest.raises(ProcessGoneError, match="the tester"):
                await warden.signal(ours, signal.SIGKILL)

    asyncio.run(run())


def test_a_frozen_process_is_seen_stopped_and_going_on(house: House, child: Path) -> None:
    async def run() -> None:
        async with opened(house, str(child)) as warden:
            process = await house.ready()
            await warden.signal(process, signal.SIGSTOP)
            assert await warden.stops(process)
            assert await warden.state(process) == "T"
            await warden.signal(process, signal.SIGCONT)
            assert await warden.stops(process, stopped=False)
            assert not await warden.stops(process, bound_s=0.05)
            await warden.signal(process, signal.SIGSTOP)
            assert await warden.kill_all() == 1
            assert (await process.wait()).signal == signal.SIGKILL
            assert not await warden.stops(process)

    asyncio.run(run())


def test_kill_all_reaches_other_sessions_and_orphans(house: House, child: Path) -> None:
    async def run() -> None:
        async with opened(house, str(child)) as warden:
            process = await house.ready("family")
            kin = {process.pid, *(await house.told())["pids"]}
            below = {row.pid: row for row in await warden.descendants()}
            assert set(below) == kin
            assert [row.parent for row in below.values()].count(warden.pid) == 2  # the worker and the adopted orphan
            assert {one.pid for one in survivors(house.scratch)} == kin | {warden.pid}
            assert await warden.kill_all() == 3
            assert all(map(gone, kin))
            assert not process.alive
            again = await warden.spawn(house.launch("leave"))
            assert (await again.wait()).code == 7
        assert survivors(house.scratch) == []

    asyncio.run(run())


def test_a_kill_of_the_main_process_alone_spares_its_children(house: House, child: Path) -> None:
    async def run() -> None:
        async with opened(house, str(child)) as warden:
            process = await house.ready("family")
            kin = set((await house.told())["pids"])
            await warden.signal(process, signal.SIGKILL, group=False)
            await process.wait()
            assert {row.pid for row in await warden.descendants()} == kin

    asyncio.run(run())


TESTER = """
import asyncio, sys
from pathlib import Path
from ftmodel.targets.real.processes import Launch, Warden

async def main(folder, child):
    warden = await Warden.start(
        Path(sys.executable), preload=(child,), distributions=(), scratch=Path(folder, "ftm-test"),
        log=Path(folder, "warden.log"), env={"PATH": "/usr/bin:/bin"},
    )
    launch = Launch(title="ftmodel worker w1", how="fork", module=child, function="family",
        argv=(folder + "/facts",), env={"PATH": "/usr/bin:/bin"}, cwd=Path(folder), log=Path(folder, "child.log"))
    process = await warden.spawn(launch)
    Path(folder, "pids.new").write_text(f"{warden.pid} {process.pid}")
    Path(folder, "pids.new").rename(Path(folder, "pids"))
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("freeze", [False, True], ids=["running", "frozen"])
def test_a_killed_tester_leaves_nothing_behind(house: House, child: Path, freeze: bool) -> None:  # noqa: FBT001
    async def run() -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", TESTER, str(house.folder), str(child)]
        with subprocess.Popen(command, env=env) as tester:  # noqa: ASYNC220
            try:
                kin = (await house.told())["pids"]
                await until((house.folder / "pids").exists)
                kin += map(int, (house.folder / "pids").read_text().split())
                if freeze:
                    os.kill(kin[-1], signal.SIGSTOP)
            finally:
                tester.kill()
        await until(lambda: all(map(gone, kin)) and not house.scratch.exists())

    asyncio.run(run())


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_warden_told_to_end_takes_everything_along(house: House, child: Path, signum: int) -> None:
    async def run() -> None:
        warden = await house.open(str(child))
        process = await house.ready("family")
        kin = (await house.told())["pids"]
        os.kill(warden.pid, signum)
        await until(lambda: house.deaths)
        assert all(map(gone, [process.pid, *kin, warden.pid]))
        assert not house.scratch.exists()
        await warden.close()

    asyncio.run(run())


def test_after_the_death_of_the_warden_the_tester_sweeps(house: House, child: Path) -> None:
    async def run() -> None:
        warden = await house.open(str(child))
        process = await house.ready("family")
        kin = (await house.told())["pids"]
        os.kill(warden.pid, signal.SIGKILL)
        await until(lambda: house.deaths)
        assert all(map(gone, [process.pid, *kin]))
        assert survivors(house.scratch) == []
        assert not house.scratch.exists()
        assert process.exit is not None
        assert (process.exit.code, process.exit.signal) == (None, None)
        with pytest.raises(HarnessError, match="warden"):
            await warden.spawn(house.launch("leave"))
        await warden.close()
        await warden.close()

    asyncio.run(run())


def test_a_stopped_warden_reports_its_stall(house: House) -> None:
    async def run() -> None:
        async with opened(house, stall_s=0.05) as warden:
            before_s = time.monotonic()
            os.kill(warden.pid, signal.SIGSTOP)
            await until(lambda: time.monotonic() - before_s > 0.2)
            os.kill(warden.pid, signal.SIGCONT)
            await until(lambda: house.stalls)
            from_s, to_s = max(house.stalls, key=lambda stall: stall[1] - stall[0])
            assert to_s - from_s > 0.15
            assert before_s - 0.1 < from_s < to_s <= time.monotonic()

    asyncio.run(run())


def test_a_warden_that_does_not_answer_is_closed_all_the_same(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "REPLY_BOUND_S", 0.1)
    monkeypatch.setattr(processes, "CLOSE_BOUND_S", 0.2)

    async def run() -> None:
        async with opened(house) as warden:
            process = await warden.spawn(house.execute("sleep", "100"))
            os.kill(warden.pid, signal.SIGSTOP)
            with pytest.raises(HarnessError, match="did not answer pids"):
                await warden.descendants()
        assert gone(process.pid)
        assert house.deaths == []

    asyncio.run(run())


def test_the_loop_may_run_in_another_thread(house: House, child: Path) -> None:
    ended: list[Exit] = []

    async def run() -> None:
        async with opened(house, str(child)) as warden:
            process = await warden.spawn(house.launch("leave"))
            ended.append(await process.wait())

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    thread.join(BOUND_S)
    assert [end.code for end in ended] == [7]


def test_a_loop_that_ends_takes_an_open_warden_along(house: House, child: Path) -> None:
    pids = []

    async def run() -> None:
        warden = await house.open(str(child))
        pids.extend([warden.pid, (await house.ready()).pid])

    async def see() -> None:
        await until(lambda: all(map(gone, pids)) and not house.scratch.exists())

    asyncio.run(run())
    asyncio.run(see())


# --- the bare protocol --------------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    scratch = tmp_path / "ftm-bare"
    scratch.mkdir()
    command = [sys.executable, "-u", str(processes.WARDEN), "--title-room", "X" * 80, "--scratch", str(scratch)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        assert hear(popen)["event"] == "ready"
        yield popen
        assert popen.stdin
        popen.stdin.close()
        assert popen.wait(BOUND_S) == 0
    assert not scratch.exists()


def hear(popen: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert popen.stdout
    return cast("dict[str, Any]", json.loads(popen.stdout.readline()))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"17",
        b"[" * 100_000,
        b'{"id": 1}',
        b'{"op": ["spawn"]}',
        b'{"op": "spawn"}',
        b'{"op": "spawn", "title": "x", "how": "exec", "argv": ["/no/such"], "env": {}, "cwd": "/", "log": "/x"}',
        b'{"op": "spawn", "title": "x", "how": "exec", "argv": ["true"], "env": {"A": 1}, "cwd": "/", "log": "/x"}',
        b'{"op": "spawn", "title": "x", "how": "exec", "argv": ["true"], "env": {}, "cwd": "/", "log": "/no/such"}',
        b'{"op": "signal", "pid": 1, "signal": 9}',
        b'{"op": "signal", "pid": -1, "signal": 9}',
        b'{"op": "signal", "pid": [], "signal": 9}',
        b'{"op": "signal"}',
    ],
)
def test_garbage_is_refused_and_harms_nothing(bare: subprocess.Popen[bytes], line: bytes) -> None:
    assert bare.stdin
    bare.stdin.write(line + b'\n{"id": 5, "op": "pids"}\n')
    bare.stdin.flush()
    refusal, after = hear(bare), hear(bare)
    assert refusal["ok"] is False
    assert refusal["error"]
    assert after == {"id": 5, "ok": True, "pids": []}


def test_a_reader_that_is_gone_ends_the_warden(bare: subprocess.Popen[bytes]) -> None:
    assert bare.stdout
    bare.stdout.close()
    assert bare.wait(BOUND_S) == 0


def test_only_a_marked_folder_is_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    command = [sys.executable, str(processes.WARDEN), "--scratch", str(precious)]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=BOUND_S, check=True)
    assert precious.is_dir()


def test_the_tester_may_die_while_the_imports_hang(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(f"import signal\nopen({str(tmp_path / 'slow')!r}, 'w').close()\nsignal.pause()\n")
    scratch = tmp_path / "ftm-slow"
    scratch.mkdir()
    command = [sys.executable, str(processes.WARDEN), "--scratch", str(scratch), "--preload", str(slow)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        asyncio.run(until((tmp_path / "slow").exists))
        assert popen.stdin
        popen.stdin.close()
        assert popen.wait(BOUND_S) == 0
    assert not scratch.exists()


def test_no_sibling_of_the_warden_shadows_the_standard_library() -> None:
    """Run by path, it has its own folder in front of sys.path while it imports."""
    assert not {path.stem for path in processes.WARDEN.parent.iterdir()} & sys.stdlib_module_names


# --- interpreters that will not do ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("python", "preload", "error", "words"),
    [
        ("/no/such/python", (), UsageError, "interpreter /no/such/python: not found.*try: python3 -m venv /no$"),
        (__file__, (), UsageError, "not executable"),
        (
            sys.executable,
            ("nosuch.main",),
            UsageError,
            "no module named nosuch in .*pytest; try: .* -m pip install pytest$",
        ),
        (sys.executable, ("BROKEN",), HarnessError, "RuntimeError: broken"),
        ("/bin/true", (), HarnessError, "ended"),
    ],
)
def test_an_interpreter_that_will_not_do_is_refused(
    house: House, python: str, preload: tuple[str, ...], error: type[Exception], words: str
) -> None:
    broken = house.folder / "broken.py"
    broken.write_text(textwrap.dedent("raise RuntimeError('broken')"))

    async def run() -> None:
        with pytest.raises(error, match=words):
            await Warden.start(
                Path(python),
                preload=tuple(entry.replace("BROKEN", str(broken)) for entry in preload),
                distributions=("pytest",),
                scratch=house.scratch,
                log=house.folder / "warden.log",
                env={},
            )

    asyncio.run(run())
    assert not house.scratch.exists()


def test_a_scratch_folder_without_the_mark_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        with pytest.raises(HarnessError, match="begins with ftm-"):
            await Warden.start(
                HERE, preload=(), distributions=(), scratch=tmp_path, log=tmp_path / "warden.log", env={}
            )

    asyncio.run(run())
    assert tmp_path.is_dir()


def test_sweep_spares_who_does_not_carry_the_marker(tmp_path: Path) -> None:
    scratch = tmp_path / "ftm-mine"
    near = {MARKER: str(scratch) + "-other"}
    with subprocess.Popen(["sleep", "100"], env=near) as other:
        marked = {MARKER: str(scratch)}
        with subprocess.Popen(["sleep", "100"], env=marked, start_new_session=True) as mine:
            asyncio.run(until(lambda: [one.pid for one in survivors(scratch)] == [mine.pid]))
            assert sweep(scratch) == [mine.pid]
        assert other.poll() is None
        other.kill()
