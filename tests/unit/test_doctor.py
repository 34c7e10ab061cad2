"""The doctor sees what lacks in planted surroundings, and says what to type."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from ftmodel import doctor, topology
from ftmodel.doctor import Check
from ftmodel.errors import HarnessError
from ftmodel.services import Service

AGGREGATED = topology.find("aggregated")
GIB = 1 << 30
Script = Callable[[str, str], Path]
Plant = Callable[[str, dict[str, str]], Path]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with nothing installed, not even pip."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Makes a program, in the only folder that is searched for programs."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "own" / "python"))

    def make(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Puts modules, and a release of the system under test, where the interpreter finds them."""

    def make(version: str, modules: dict[str, str]) -> Path:
        root = tmp_path / "planted"
        for name, text in modules.items():
            file = root.joinpath(*name.split(".")).with_suffix(".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            for package in (file.parent, *file.parent.parents):
                if package != root and package.is_relative_to(root):
                    (package / "__init__.py").touch()
            file.write_text(text)
        if version:
            info = root / f"ai_dynamo-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ai-dynamo\nVersion: {version}\n")
        monkeypatch.setenv("PYTHONPATH", str(root))
        return root

    return make


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Plants control groups: the lines that name those of this process, and files with their text."""

    def make(own: str, **files: str) -> Path:
        (tmp_path / "own").write_text(own)
        root = tmp_path / "cgroup"
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        monkeypatch.setattr(doctor, "OWN_CGROUPS", tmp_path / "own")
        monkeypatch.setattr(doctor, "CGROUPS", root)
        return root

    return make


def limited(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))


def lacks(check: Check, *, found: str, remedy: str, grade: str = "needed") -> None:
    assert not check.ok
    assert check.grade == grade
    assert check.blocks is (grade == "needed")
    assert found in check.found
    assert remedy in check.remedy


# -- the machine


def test_a_check_is_a_row_and_only_a_needed_lack_blocks() -> None:
    check = Check(name="x", ok=False, found="y", remedy="z", grade="optional")
    assert check.row() == {"name": "x", "ok": False, "found": "y", "remedy": "z", "grade": "optional"}
    assert [Check(name="x", ok=ok, found="").blocks for ok in (True, False)] == [False, True]
    assert not check.blocks


def test_another_kernel_than_linux_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._machine().ok is (sys.platform == "linux")
    monkeypatch.setattr(sys, "platform", "darwin")
    lacks(doctor._machine(), found="darwin", remedy="docker run")


@pytest.mark.parametrize(
    ("soft", "hard", "remedy"),
    [
        (256, 4096, "ulimit -Sn 1024"),
        (256, 1024, "ulimit -Sn 1024"),
        (256, resource.RLIM_INFINITY, "ulimit -Sn 1024"),
        (256, 512, "sudo prlimit --pid $$ --nofile=1024:1024"),
    ],
)
def test_too_few_open_files_are_raised_as_far_as_the_hard_limit_lets(
    soft: int, hard: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, soft, hard)
    lacks(doctor._files(), found="256", remedy=remedy)


@pytest.mark.parametrize("soft", [1024, resource.RLIM_INFINITY])
def test_enough_open_files_are_enough(soft: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, soft, resource.RLIM_INFINITY)
    assert doctor._files().ok


def test_the_remedy_for_open_files_works() -> None:
    said = subprocess.run(
        ["bash", "-c", f"{doctor._raised('n', 'nofile', 100, 4096)} && ulimit -n"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.strip() == "100"


def test_a_limit_on_processes_counts_what_runs_already_and_spares_root(
    monkeypatch: pytest.MonkeyPatch, cgroups: Callable[..., Path]
) -> None:
    cgroups("")
    monkeypatch.setattr(doctor, "_own_tasks", lambda: 700)
    limited(monkeypatch, 1000, resource.RLIM_INFINITY)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    lacks(doctor._tasks(), found="room for 300 more", remedy="ulimit -Su 1212")
    limited(monkeypatch, 1212, 1212)
    assert doctor._tasks().ok
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    limited(monkeypatch, 1000, 1000)
    assert doctor._tasks().ok


def test_this_users_threads_are_counted() -> None:
    assert 0 < doctor._own_tasks() < 1_000_000


@pytest.mark.parametrize(
    ("own", "place"),
    [
        ("0::/a/b\n", "a"),
        ("8:pids:/a/b\n0::/\n", "pids/a"),
        ("8:cpu,pids:/a\n", "pids/a"),
        ("0::/elsewhere/seen/from/outside\n", "."),
    ],
    ids=["the second version", "the first", "the first, joined", "a container's own root"],
)
def test_a_control_group_above_limits_processes(
    own: str, place: str, monkeypatch: pytest.MonkeyPatch, cgroups: Callable[..., Path]
) -> None:
    limited(monkeypatch, resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    stat = {f"{place}/memory.stat": "inactive_file 900"}
    root = cgroups(own, **{f"{place}/pids.max": "600", f"{place}/pids.current": "200"}, **stat)
    lacks(doctor._tasks(), found="room for 400 more", remedy=f"echo 712 | sudo tee {root / place}/pids.max")
    cgroups(own, **{f"{place}/pids.max": "max"})
    assert doctor._tasks().ok
    assert doctor._tasks().found == "no limit"


def available(monkeypatch: pytest.MonkeyPatch, amount: int) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=amount))


def test_too_little_memory_lacks(monkeypatch: pytest.MonkeyPatch, cgroups: Callable[..., Path]) -> None:
    cgroups("")
    available(monkeypatch, GIB)
    lacks(doctor._memory(), found="1.0 GiB", remedy="ps aux --sort=-rss | head")
    available(monkeypatch, 3 * GIB)
    assert doctor._memory().ok


def test_a_control_group_that_is_lower_limits_memory(
    monkeypatch: pytest.MonkeyPatch, cgroups: Callable[..., Path]
) -> None:
    available(monkeypatch, 64 * GIB)
    full = {"a/memory.max": f"{4 * GIB}", "a/memory.current": f"{3 * GIB}"}
    root = cgroups("0::/a\n", **full)
    lacks(doctor._memory(), found="1.0 GiB by", remedy=f"echo {5 * GIB} | sudo tee {root}/a/memory.max")
    cgroups("0::/a\n", **full, **{"a/memory.stat": f"anon 5\ninactive_file {2 * GIB}"})
    assert doctor._memory().ok


def test_a_control_group_without_a_limit_limits_nothing(
    monkeypatch: pytest.MonkeyPatch, cgroups: Callable[..., Path]
) -> None:
    available(monkeypatch, 64 * GIB)
    used = {"memory/a/memory.limit_in_bytes": "9223372036854771712", "memory/a/memory.usage_in_bytes": "5"}
    cgroups("4:memory:/a\n", **used)
    assert doctor._memory().found.startswith("64.0 GiB, at least")


def test_a_temporary_folder_with_a_long_path_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * doctor.LONGEST_TEMPORARY)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    lacks(doctor._temporary(), found=f"{len(str(long))} characters", remedy="TMPDIR=/tmp ftmodel doctor")


def test_the_longest_temporary_folder_is_just_what_a_session_bears() -> None:
    assert len(str(Path("/" + "x" * (doctor.LONGEST_TEMPORARY - 1)) / "ftm-12345678")) == doctor.SCRATCH_ROOM


def test_a_full_temporary_folder_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    assert doctor._temporary().ok
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=5 << 20))
    lacks(doctor._temporary(), found="0.0 GiB in /tmp", remedy="TMPDIR=/dev/shm ftmodel doctor")


def test_no_temporary_folder_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    lacks(doctor._temporary(), found="No usable temporary directory", remedy="mkdir -m 1777 /tmp")


def test_ports_that_are_taken_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._ports().ok
    monkeypatch.setattr(doctor.ports, "is_free", lambda port: port < 10_999)
    lacks(doctor._ports(), found="999 free on loopback from 10000 to 32000", remedy="ss -tanp 'sport >= :10000")


def test_a_machine_without_loopback_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_address: object) -> socket.socket:
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "create_server", refuse)
    lacks(doctor._ports(), found="Cannot assign", remedy="ip link set lo up")


# -- what can be beside it


@pytest.mark.parametrize("service", doctor.SERVICES, ids=lambda service: service.name)
def test_a_service_that_is_nowhere_lacks(service: Service, script: Script, bare: Path) -> None:
    check = doctor._service(service, python=bare)
    found, remedy = f"not found; for clusters over {service.called}", f"pip install '{service.package}>="
    lacks(check, found=found, remedy=remedy, grade="optional")
    assert check.name == service.program
    assert check.remedy.startswith(str(Path(sys.executable)))


def test_a_service_on_the_path_tells_its_version(script: Script, bare: Path) -> None:
    path = script("etcd", 'test "$1" = --version && printf "etcd Version: 3.5.1\\nGit SHA: e87\\n"')
    check = doctor._service(doctor.SERVICES[0], python=bare)
    assert check.ok
    assert check.found == f"etcd Version: 3.5.1 in {path}; for clusters over etcd"


def test_a_service_beside_the_interpreter_under_test_is_found_first(script: Script, tmp_path: Path) -> None:
    script("etcd", "echo of the path")
    beside = script("other", "echo beside").rename(tmp_path / "etcd")
    assert str(beside) in doctor._service(doctor.SERVICES[0], python=tmp_path / "python").found


def test_a_service_that_fails_lacks(script: Script, bare: Path) -> None:
    script("nats-server", "echo broken library >&2; exit 127")
    check = doctor._service(doctor.SERVICES[1], python=bare)
    lacks(check, found="exit code 127 broken library", remedy="pip install", grade="optional")


def test_no_gpu_lacks(script: Script) -> None:
    lacks(doctor._gpu(), found="no nvidia-smi", remedy="lspci -d 10de:", grade="optional")


def test_gpus_are_named_with_their_memory_and_driver(script: Script) -> None:
    script("nvidia-smi", "echo 'NVIDIA H100, 81559 MiB, 570.86.15'; echo 'NVIDIA H100, 81559 MiB, 570.86.15'")
    check = doctor._gpu()
    assert check.ok
    assert check.found.startswith("NVIDIA H100 81559 MiB, NVIDIA H100 81559 MiB, driver 570.86.15")


def test_a_driver_that_fails_lacks(script: Script) -> None:
    script("nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    lacks(doctor._gpu(), found="exit code 9 NVIDIA-SMI has failed", remedy="nvidia-smi", grade="optional")


def test_what_hangs_is_ended_with_all_that_it_started(script: Script, tmp_path: Path) -> None:
    path = script("slow", f"/bin/sleep 600 & echo $! > {tmp_path}/pid; wait")
    before_s = time.monotonic()
    said = doctor._ask([str(path)], bound_s=0.5)
    assert time.monotonic() - before_s < 10
    assert (said.code, said.why) == (None, f"{path}: no answer in 0.5 s")
    pid = int((tmp_path / "pid").read_text())
    gone_by_s = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < gone_by_s
        time.sleep(0.02)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model cache of its own, empty."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(doctor.hub, "HF_HUB_CACHE", str(folder))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return folder


def filled(cache: Path, *names: str) -> None:
    repository = cache / "models--deepseek-ai--DeepSeek-R1-Distill-Llama-8B"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    for name in names:
        (snapshot / name).write_text(json.dumps({"weight_map": {"x": "1.safetensors", "y": "2.safetensors"}}))


def test_a_model_that_is_not_cached_lacks(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacks(doctor._model(), found=f"not in {cache}", remedy="snapshot_download(", grade="optional")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lacks(doctor._model(), found="HF_HUB_OFFLINE=1", remedy="HF_HUB_OFFLINE=0 ", grade="optional")


WHOLE = ("config.json", "tokenizer.json", "model.safetensors.index.json", "1.safetensors", "2.safetensors")


@pytest.mark.parametrize("lost", WHOLE)
def test_a_model_that_is_cached_in_part_lacks(lost: str, cache: Path) -> None:
    filled(cache, *(name for name in WHOLE if name != lost))
    lacks(doctor._model(), found="in part", remedy="snapshot_download(", grade="optional")


def test_a_model_that_is_cached_is_there(cache: Path) -> None:
    filled(cache, *WHOLE)
    assert doctor._model().ok
    assert "whole, " in doctor._model().found


def test_the_remedy_for_a_model_is_python(cache: Path) -> None:
    python, option, code = shlex.split(doctor._model().remedy)
    assert (python, option) == (sys.executable, "-c")
    compile(code, "remedy", "exec")


# -- the interpreter under test

MODULES = {"dynamo.frontend.main": "", "dynamo.mocker.main": "print('said on import')"}


def test_a_release_that_is_understood_is_there(bare: Path, plant: Plant, tmp_path: Path) -> None:
    root = plant("1.4.2", MODULES)
    check = doctor._system(bare, AGGREGATED, tmp_path)
    assert check.ok, check
    assert check.found == f"1.4.2 in {bare}, PYTHONPATH={root}"


def test_an_interpreter_without_the_system_lacks(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    check = doctor._system(bare, AGGREGATED, tmp_path)
    lacks(check, found=f"no ai-dynamo in {bare}", remedy=f"{bare} -m ensurepip && {bare} -m pip install 'ai-dynamo<1.5")


def test_an_interpreter_that_has_pip_needs_no_more(bare: Path, plant: Plant, tmp_path: Path) -> None:
    plant("", {"pip": ""})
    assert doctor._system(bare, AGGREGATED, tmp_path).remedy.startswith(f"{bare} -m pip install 'ai-dynamo")


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.9.1", "expected 1.1 up to 1.7"), ("1.7.0", "expected 1.1 up to 1.7"), ("nightly", "expected one that begins")],
)
def test_a_release_without_a_dialect_lacks(
    version: str, expected: str, bare: Path, plant: Plant, tmp_path: Path
) -> None:
    plant(version, MODULES)
    lacks(
        doctor._system(bare, AGGREGATED, tmp_path),
        found=expected,
        remedy="python3 -m venv sut && sut/bin/pip install 'ai-dynamo<1.5,>=1.4'",
    )


def test_a_module_that_cannot_be_imported_lacks(
    bare: Path, plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = plant("1.4.2", {**MODULES, "dynamo.mocker.main": "import nonesuch"})
    found = "import dynamo.mocker.main: ModuleNotFoundError: No module named 'nonesuch'"
    remedy = f"env -u PYTHONPATH ftmodel doctor --sut-python {bare}"
    lacks(doctor._system(bare, AGGREGATED, tmp_path), found=found, remedy=remedy)
    monkeypatch.delenv("PYTHONPATH")
    site = next(bare.parents[1].glob("lib/python*/site-packages")) / "planted.pth"
    site.write_text(f"{root}\n")
    try:
        lacks(
            doctor._system(bare, AGGREGATED, tmp_path), found=found, remedy="install --force-reinstall ai-dynamo==1.4.2"
        )
    finally:
        site.unlink()


def test_an_interpreter_that_is_none_lacks(tmp_path: Path) -> None:
    check = doctor._system(tmp_path / "python", AGGREGATED, tmp_path)
    lacks(check, found=f"{tmp_path}/python: No such file", remedy="python3 -m venv sut && ")


def test_an_interpreter_that_dies_lacks(script: Script, tmp_path: Path) -> None:
    path = script("python", "echo cannot load >&2; kill -SEGV $$")
    lacks(doctor._system(path, AGGREGATED, tmp_path), found="exit code -11 cannot load", remedy="python3 -m venv sut")


def test_what_is_imported_finds_a_home_that_is_thrown_away(bare: Path, plant: Plant, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    writes = "import pathlib, tempfile; (pathlib.Path.home() / 'a').touch(); tempfile.mkdtemp()"
    plant("1.4.2", {**MODULES, "dynamo.mocker.main": writes})
    assert doctor._system(bare, AGGREGATED, home).ok
    assert len(list(home.iterdir())) == 2


def test_vllm_that_is_there_tells_its_version(bare: Path, plant: Plant, tmp_path: Path) -> None:
    plant("", {"vllm": "__version__ = '0.26.0'"})
    check = doctor._vllm(bare, AGGREGATED, tmp_path)
    assert check.ok
    assert check.found == f"0.26.0 in {bare}; for vLLM workers (docs/vllm.md: on a GPU and on a CPU)"


def test_no_vllm_lacks(bare: Path, plant: Plant, tmp_path: Path) -> None:
    plant("1.4.2", MODULES)
    check = doctor._vllm(bare, AGGREGATED, tmp_path)
    lacks(check, found=f"not in {bare}", remedy="sut/bin/pip install 'ai-dynamo[vllm]", grade="optional")


def test_vllm_that_cannot_be_imported_lacks(bare: Path, plant: Plant, tmp_path: Path) -> None:
    plant("", {"vllm": "raise ImportError('libcudart.so.13: cannot open')"})
    check = doctor._vllm(bare, AGGREGATED, tmp_path)
    lacks(check, found="ImportError: libcudart.so.13: cannot open", remedy="sut/bin/pip", grade="optional")


# -- all of it


def planted_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is there, and no cluster is booted."""
    for name in ("_service", "_gpu", "_model", "_system", "_vllm"):
        check = Check(name=name, ok=True, found="")
        monkeypatch.setattr(doctor, name, lambda *_given, _check=check, **_named: _check)


def test_clusters_are_compared_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bare: Path) -> None:
    planted_ok(monkeypatch)
    monkeypatch.setattr(doctor, "_fork", lambda *_given: Check(name="fork", ok=True, found=""))
    names = [check.name for check in doctor.examine(bare)]
    assert names[:6] == ["machine", "open files", "processes", "free memory", "temporary files", "ports"]
    assert names[6] == "file watches"
    assert names[7:] == ["_service", "_service", "_gpu", "_model", "_system", "_vllm", "fork"]


def test_no_cluster_is_booted_without_the_system(monkeypatch: pytest.MonkeyPatch, bare: Path) -> None:
    planted_ok(monkeypatch)
    monkeypatch.setattr(doctor, "_system", lambda *_given: Check(name="system", ok=False, found=""))
    assert [check.name for check in doctor.examine(bare)][-1] == "_vllm"


def test_a_machine_on_which_nothing_can_be_tried_is_told(monkeypatch: pytest.MonkeyPatch, bare: Path) -> None:
    planted_ok(monkeypatch)

    def full(*_given: object, **_named: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    lacks(list(doctor.examine(bare))[-1], found="No space left", remedy="df -h")


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("w1 ended while the cluster was starting; see /gone/w1.log", "ftmodel run --examples 1 --sut-python "),
        ("scratch folder too long; try: TMPDIR=/tmp", "TMPDIR=/tmp"),
    ],
)
def test_a_cluster_that_does_not_boot_lacks(
    said: str, remedy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bare: Path
) -> None:
    def fail(*_given: object, **_named: object) -> None:
        raise HarnessError(said)

    monkeypatch.setattr(doctor, "Session", fail)
    lacks(doctor._fork(bare, AGGREGATED, tmp_path), found=said.partition("; try")[0], remedy=remedy)


def test_no_remedy_names_a_host() -> None:
    text = Path(doctor.__file__).read_text(encoding="utf-8")
    assert re.findall(r"://|\.(?:com|co|org|io|net)\b", text) == []


def test_few_file_watches_lack_and_block_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "max_user_instances"
    monkeypatch.setattr(doctor.lanes, "WATCHES", limit)
    limit.write_text("128\n")
    check = doctor._watches()
    assert not check.ok
    assert not check.blocks
    assert "128 inotify instances" in check.found
    assert "fs.inotify.max_user_instances=1024" in check.remedy
    limit.write_text("8192\n")
    assert doctor._watches().ok
