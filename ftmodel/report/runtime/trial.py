"""Does the steps of a plan on a cluster: each in a thread of its own that waits for its moment."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ftmodel.report.runtime.clients import Clients, Request
from ftmodel.report.runtime.cluster import LOOK_S, Cluster, Life, NoTrialError, Setup, VoidError
from ftmodel.targets.real.armed import Orders

AT_ONCE_S = 5.0
"""A step without an anchor is waited for so long."""
SETTLE_S = 15.0
QUIET_S = 3.0
SAMPLE_S = 0.25
FOREVER = float("inf")
NOW = ("now",)
ASIDE = ("aside",)
"""At once too, but the next step does not wait for it."""
GAUGES = ("inflight", "queued", "active", "plane_inflight", "running", "waiting", "kv")


def sent(request: str) -> tuple[str, ...]:
    """When the request has been sent."""
    return "sent", request


def begun(request: str) -> tuple[str, ...]:
    """When a worker has begun the request."""
    return "begun", request


def token(request: str, k: int) -> tuple[str, ...]:
    """When the client has token k of the request; 0: the head of its answer."""
    return "token", request, str(k)


def end(request: str) -> tuple[str, ...]:
    """When the request has ended."""
    return "end", request


def after(step: str) -> tuple[str, ...]:
    """When another step has been done."""
    return "after", step


def gone(step: str) -> tuple[str, ...]:
    """When the process that another step was done to has ended."""
    return "gone", step


def slot(number: int, role: str = "worker") -> tuple[str, ...]:
    """The worker in this place."""
    return "slot", str(number), role


def holder_of(request: str, role: str = "worker") -> tuple[str, ...]:
    """The worker that serves this request, or served it last."""
    return "holder", request, role


def not_holder_of(request: str, role: str = "worker") -> tuple[str, ...]:
    """The living worker of the lowest place that does not serve this request."""
    return "not-holder", request, role


def victim_of(step: str) -> tuple[str, ...]:
    """The worker that another step was done to."""
    return "victim", step, ""


class Trial:
    """One run of the steps on one cluster, and what was seen."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.cluster = Cluster(setup)
        self.requests: dict[str, Request] = {}
        self.probes: list[Request] = []
        """What was asked until a worker that was started again served (`probe_restarted`)."""
        self.first: dict[str, dict[str, float]] = {}
        """The metrics of each process before the first step."""
        self.samples: list[tuple[float, str, dict[str, float]]] = []
        """Time, process, its metrics."""
        self.told: list[tuple[float, str, int, int]] = []
        """Time, process, its statuses on /health and /live."""
        self.trouble: BaseException | None = None
        self._changed = threading.Condition()
        self._done: dict[str, bool | None] = {}
        """Of each step: done, void, or neither yet."""
        self._victims: dict[str, Life] = {}
        self._waiting: set[str] = set()
        self._closing = False
        self._probing = False
        self._probed = itertools.count()
        self._orders: Orders | None = None
        self._clients: Clients | None = None
        self._watch: threading.Thread | None = None

    # -- the whole of it

    def run(self, steps: Callable[[Trial], None]) -> None:
        """Start the cluster, do the steps, and bring all to rest. Raises NoTrialError."""
        self.cluster.start()
        self._orders = Orders(self.cluster.folder / "armed")
        model = self.setup.model.replace("{model}", str(self.cluster.folder / "model"))
        self._clients = Clients(model, self.setup.header, self.cluster.now, self._changed)
        self._until_ready()
        self.first = {life.title: self.cluster.values(life) for life in self.cluster.lives.values()}
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()
        steps(self)
        self._finish()
        if self.trouble is not None:
            raise NoTrialError(repr(self.trouble))

    def close(self) -> None:
        """End every process, whatever is under way."""
        self._closing = True
        with self._changed:
            self._changed.notify_all()
        self.cluster.close()

    def _until_ready(self) -> None:
        """Until the model is listed and each worker has begun a request through each frontend."""
        bound_s = self.setup.boot_bound_s

        def listed() -> bool:
            gates = self.cluster.alive("frontend")
            self._all_alive()
            return all('"id"' in self.cluster.ask(gate, self.setup.models_path)[1] for gate in gates)

        self.cluster.until(listed, bound_s, "the model is listed")
        for place in range(1, self.setup.frontends + 1):
            asked: list[str] = []

            def served(place: int = place, asked: list[str] = asked) -> bool:
                self._all_alive()
                probe = self._probe(place)
                asked.append(probe.id)
                with self._changed:
                    self._changed.wait_for(lambda: bool(probe.how), 1.0)
                lines = self.cluster.said("begun")
                answering = {life.title for life, line in lines if line.id in asked}
                return all(life.title in answering for life in self.cluster.alive("worker", "prefill"))

            self.cluster.until(served, bound_s, "every worker has answered")

    def _probe(self, place: int) -> Request:
        number = next(self._probed)
        probe = Request(f"probe{number + 1}", _uuid(place, number), stream=False, chars=20, ask=_PROBE)
        self._sent(probe, place)
        return probe

    def probe_restarted(self) -> None:
        """From now on, ask through each frontend after the start of a worker until that serves, as who waits for it does."""
        self._probing = True

    def _until_serves(self, life: Life, place: int) -> None:
        end_s = self.cluster.now() + self.setup.boot_bound_s
        asked: set[str] = set()
        with contextlib.suppress(VoidError):  # the trial is over
            while life.alive and self.cluster.now() < end_s:
                probe = self._probe(place)
                self.probes.append(probe)
                asked.add(probe.id)
                self._wait(lambda probe=probe: bool(probe.how), 1.0)  # type: ignore[misc]
                if any(at is life and line.id in asked for at, line in self.cluster.said("begun")):
                    return
                self._wait(lambda: False, LOOK_S)

    def _all_alive(self) -> None:
        for life in self.cluster.lives.values():
            if not life.alive:
                tail = life.log.read_text(errors="replace")[-400:]
                raise NoTrialError(f"{life.title} ended while the cluster was starting: {tail}")

    def _sample(self) -> None:
        """Ask every living process for its metrics and its health, again and again."""
        while not self._closing:
            for life in self.cluster.alive("frontend", "worker", "prefill"):
                if not life.frozen and not self._closing:
                    now_s = self.cluster.now()
                    self.samples.append((now_s, life.title, self.cluster.values(life)))
                    told = (self.cluster.ask(life, path)[0] for path in (self.setup.health_path, self.setup.live_path))
                    self.told.append((now_s, life.title, *told))  # type: ignore[arg-type]
            self.cluster.poll()
            time.sleep(SAMPLE_S)

    def _finish(self) -> None:
        """Let armed steps fire, wait as long as the plan does, heal, and wait until all requests have ended."""
        quiet_s = self.cluster.now() + QUIET_S
        while any(done is None for done in self._done.values()) and self.cluster.now() < quiet_s + 2 * SETTLE_S:
            heard = [request.heard[-1] for request in self._open() if request.heard]
            if self.cluster.now() > max([quiet_s, *(at + QUIET_S for at in heard)]):
                break
            time.sleep(LOOK_S)
        self._wait(lambda: False, self.setup.patience_s)
        self._heal()
        self._wait(lambda: not self._open(), self.setup.end_bound_s)
        rest_s = self.cluster.now() + self.setup.rest_bound_s
        least_s = self.cluster.now() + self.setup.abort_bound_s
        while self.cluster.now() < rest_s:
            raised = any(self.cluster.values(life).get(gauge) for life in self._answering() for gauge in GAUGES)
            if not raised and self.cluster.now() > least_s:
                break
            time.sleep(LOOK_S)
        for life in self._answering():
            self.samples.append((self.cluster.now(), life.title, self.cluster.values(life)))
        self.cluster.poll()

    def _answering(self) -> list[Life]:
        return [life for life in self.cluster.alive("frontend", "worker", "prefill") if not life.frozen]

    def _open(self) -> list[Request]:
        return [request for request in self.requests.values() if not request.how and request.sent_s < FOREVER]

    def _wait(self, holds: Callable[[], bool], bound_s: float) -> bool:
        """Wait for something that requests, steps or logs tell; False if it did not come in time."""
        end_s = self.cluster.now() + bound_s
        while not holds():
            if self._closing:
                raise VoidError("the trial is over")
            if self.cluster.now() >= end_s:
                return False
            with self._changed:
                self._changed.wait(LOOK_S)
        return True

    # -- when

    def _step(
        self, name: str, deed: Callable[[], object], at: tuple[str, ...], skew_ms: int, *, calm: bool = False,
        undone: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Do it at its moment; if that never comes, `undone`. What is done NOW is waited for; `calm`: however long."""
        self._done[name] = None

        def carry_out() -> None:
            done = False
            try:
                self._moment(at, skew_ms)
                deed()
                done = True
            except VoidError:  # its subject does not exist, or its moment never came: as any step of a plan may
                undone()
            except BaseException as error:  # noqa: BLE001 - told where the trial ends
                self.trouble = error
            with self._changed:
                self._done[name] = done
                self._changed.notify_all()

        thread = threading.Thread(target=carry_out, daemon=True)
        thread.start()
        if calm or (at == NOW and not skew_ms):
            thread.join(None if calm else AT_ONCE_S)

    def _moment(self, at: tuple[str, ...], skew_ms: int) -> None:
        match at:
            case ("after", step):
                self._wait(lambda: self._done.get(step) is not None, FOREVER)
                if not self._done[step]:
                    raise VoidError(f"{step} was not done")
            case ("gone", step):
                self._moment(after(step), 0)
                if step not in self._victims:
                    raise VoidError(f"{step} was done to no process")
                self._wait(lambda: not self._victims[step].alive, FOREVER)
            case (what, name, *more):
                request = self._known(name)
                self._wait(lambda: request.sent_s < FOREVER or bool(request.how) or request.void, FOREVER)
                if request.void:
                    raise VoidError(f"{name} was never sent")
                if what == "begun":
                    self._until_held(request, "prefill" if self.setup.prefill_workers else "worker", strict=True)
                elif what == "token":
                    k = int(more[0])
                    self._wait(lambda: _has(request, k) or bool(request.how), FOREVER)
                    if not _has(request, k):
                        raise VoidError(f"{name} has no token {k}")
                elif what == "end":
                    self._wait(lambda: bool(request.how), FOREVER)
            case _:
                pass
        if skew_ms:
            self._wait(lambda: False, skew_ms / 1000)

    def _until_held(self, request: Request, role: str, *, strict: bool = False) -> None:
        """Until some worker of this role has begun the request, or it is over."""

        def held() -> bool:
            return any(life.role == role for life, _ in self.cluster.said("begun", request.id))

        self._wait(lambda: held() or bool(request.how), FOREVER)
        if strict and not held():
            raise VoidError(f"no {role} began {request.name}")

    def _known(self, name: str) -> Request:
        if name not in self.requests:
            raise VoidError(f"there is no request {name}")
        return self.requests[name]

    # -- whom

    def _resolve(self, whom: tuple[str, ...]) -> Life:
        by, name, role = whom
        life: Life | None = None
        if by == "slot":
            life = self.cluster.at(role, int(name))
        elif by == "victim":
            life = self._victims.get(name)
        else:
            request = self._known(name)
            self._until_held(request, role)
            life = self.cluster.holder(request.id, role, over=bool(request.how))
            if by == "not-holder":
                others = [other for other in self.cluster.alive(role) if other is not life]
                life = others[0] if others else None
        if life is None or not life.alive:
            raise VoidError(f"nobody is {' '.join(whom)}")
        return life

    # -- requests

    def submit(
        self, name: str, *, id: str, at: tuple[str, ...] = NOW, skew_ms: int = 0, ask: Mapping[str, Any] | None = None,  # noqa: A002
        **how: Any,
    ) -> None:  # fmt: skip
        """Send a request; does not wait for its answer."""
        request = self.requests[name] = Request(name, id, ask=ask or {}, **how)

        def undone() -> None:
            request.void = True

        self._step(name, lambda: self._sent(request, request.frontend), at, skew_ms, undone=undone)

    def _sent(self, request: Request, place: int) -> None:
        assert self._clients is not None
        self._clients.send(request, self.cluster.url_port(place))

    def cancel(self, name: str, request: str, *, at: tuple[str, ...] = NOW, skew_ms: int = 0) -> None:
        """The client closes its socket."""

        def deed() -> None:
            asked = self._known(request)
            self._moment(sent(request), 0)
            assert self._clients is not None
            self._clients.leave(asked)

        self._step(name, deed, at, skew_ms)

    def slow_reader(
        self, name: str, request: str, *, pause_ms: int, at: tuple[str, ...] = NOW, skew_ms: int = 0
    ) -> None:
        """The client of a stream reads nothing for a while."""

        def deed() -> None:
            asked = self._known(request)
            self._moment(sent(request), 0)
            assert self._clients is not None
            self._clients.pause(asked, pause_ms / 1000)

        self._step(name, deed, at if at != NOW else ASIDE, skew_ms)

    # -- faults

    def kill(self, name: str, whom: tuple[str, ...], *, at: tuple[str, ...] = NOW, skew_ms: int = 0) -> None:
        """SIGKILL a worker's process group, and wait until it is gone."""
        self._step(name, lambda: self._killed(name, self._resolve(whom)), at, skew_ms)

    def stop(self, name: str, whom: tuple[str, ...], *, at: tuple[str, ...] = NOW, skew_ms: int = 0) -> None:
        """SIGTERM a worker: it drains."""
        self._step(name, lambda: self._stopped(name, self._resolve(whom)), at, skew_ms)

    def freeze(self, name: str, whom: tuple[str, ...], *, at: tuple[str, ...] = NOW, skew_ms: int = 0) -> None:
        """SIGSTOP a worker's process group."""
        self._step(name, lambda: self._frozen(name, self._resolve(whom), frozen=True), at, skew_ms)

    def thaw(self, name: str, whom: tuple[str, ...], *, at: tuple[str, ...] = NOW, skew_ms: int = 0) -> None:
        """SIGCONT a worker's process group."""
        self._step(name, lambda: self._frozen(name, self._resolve(whom), frozen=False), at, skew_ms)

    def on(
        self, name: str, deed: str, what: str, place: int = 0, *, at: tuple[str, ...] = NOW, skew_ms: int = 0
    ) -> None:
        """Kill, stop, freeze, thaw or start a frontend (its place) or a service (0)."""

        def do() -> None:
            if deed == "start":
                self._start(what, place)
                return
            life = self.cluster.at(what, place)
            if life is None or not life.alive:
                raise VoidError(f"{what} does not live")
            if deed == "kill":
                self._killed(name, life)
            elif deed == "stop":
                self._stopped(name, life)
            else:
                self._frozen(name, life, frozen=deed == "freeze")

        self._step(name, do, at, skew_ms)

    def kill_at_token(self, name: str, request: str, k: int) -> None:
        """The worker that comes to token k of the request kills itself there: its client would see the token too late."""
        self._ordered(name, request, k, "die")

    def engine_error(self, name: str, request: str, k: int, how: str) -> None:
        """The worker fails the request at token k: error, cancelled, no-finish or stall."""
        self._ordered(name, request, k, how)

    def _ordered(self, name: str, request: str, k: int, how: str) -> None:
        given = threading.Event()

        def deed() -> None:
            orders, asked = self._orders, self._known(request)
            assert orders is not None
            orders.give(name, asked.id, k, how)
            given.set()
            self._wait(lambda: orders.is_taken(name, asked.id) or bool(asked.how), FOREVER)
            if not orders.is_taken(name, asked.id):
                orders.withdraw(name, asked.id)
                raise VoidError(f"{request} ended before token {k}")
            if how == "die":
                held = [life for life, line in self.cluster.said("armed-death", asked.id)]
                self._wait(lambda: any(not life.alive for life in held), AT_ONCE_S)
                for life in held:
                    life.hit_s = min(life.hit_s, self.cluster.now())
                    self._victims[name] = life

        self._step(name, deed, ASIDE, 0)
        given.wait(AT_ONCE_S)

    def _killed(self, name: str, life: Life) -> None:
        self._victims[name] = life
        life.hit_s = min(life.hit_s, self.cluster.now())
        os.killpg(life.process.pid, signal.SIGKILL)
        life.process.wait()

    def _stopped(self, name: str, life: Life) -> None:
        self._victims[name] = life
        life.stopped_s = min(life.stopped_s, self.cluster.now())
        life.hit_s = min(life.hit_s, self.cluster.now())
        os.kill(life.process.pid, signal.SIGTERM)
        # What it says of itself while it drains, which may be short.
        told = (self.cluster.ask(life, path)[0] for path in (self.setup.health_path, self.setup.live_path))
        self.told.append((self.cluster.now(), life.title, *told))  # type: ignore[arg-type]

    def _frozen(self, name: str, life: Life, *, frozen: bool) -> None:
        if life.frozen is frozen:
            raise VoidError(f"{life.title} is frozen already" if frozen else f"{life.title} is not frozen")
        self._victims[name] = life
        life.hit_s, life.frozen = min(life.hit_s, self.cluster.now()), frozen
        os.killpg(life.process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)
        self._wait(lambda: _is_stopped(life.process.pid) is frozen or not life.alive, AT_ONCE_S)

    # -- starts

    def start(
        self, name: str, place: int, *, role: str = "worker", again: bool = False, at: tuple[str, ...] = NOW,
        skew_ms: int = 0,
    ) -> None:  # fmt: skip
        """Start a worker in an empty place (0: the lowest), on its predecessor's port if it is to be there `again`."""
        self._step(name, lambda: self._start(role, place, again=again), at, skew_ms)

    def _start(self, role: str, place: int, *, again: bool = False) -> None:
        if role in self.setup.servers:
            life = self.cluster.at(role, 0)
            if life is not None and life.alive:
                raise VoidError(f"{role} lives")
            self.cluster.start_server(role)
            return
        if not place:
            free = (n for n in range(1, 5) if (there := self.cluster.at(role, n)) is None or not there.alive)
            place = next(free, 0)
        life = self.cluster.at(role, place) if place else None
        if not place or (life is not None and life.alive):
            raise VoidError(f"no place for a {role}")
        started = self.cluster.spawn(role, place, life.plane if life is not None and again else 0)
        for gate in self.cluster.alive("frontend") if self._probing and role != "frontend" else ():
            threading.Thread(target=self._until_serves, args=(started, gate.slot), daemon=True).start()

    def settle(self, name: str) -> None:
        """Wait until no request is open and every other step is done."""

        def deed() -> None:
            def calm() -> bool:
                return not self._open() and all(d is not None for n, d in self._done.items() if n != name)

            self._wait(calm, SETTLE_S)

        self._step(name, deed, NOW, 0, calm=True)

    def heal(self, name: str, *, at: tuple[str, ...] = NOW, skew_ms: int = 0) -> None:
        """Thaw what is frozen, and start a process in each place of the cluster that is empty."""
        self._step(name, self._heal, at, skew_ms)

    def _heal(self) -> None:
        for life in list(self.cluster.lives.values()):
            if life.frozen and life.alive:
                self._frozen("heal", life, frozen=False)
        places = [(name, 0) for name in self.setup.servers]
        counts = (
            ("frontend", self.setup.frontends),
            ("worker", self.setup.workers),
            ("prefill", self.setup.prefill_workers),
        )
        for role, many in counts:
            places += [(role, place) for place in range(1, many + 1)]
        for role, place in places:
            there = self.cluster.at(role, place)
            if there is None or not there.alive:
                self._start(role, place)


_PROBE = {"max_tokens": 1, "ignore_eos": True, "temperature": 0.0}


def _uuid(*numbers: int) -> str:
    return "00000000-0000-4000-8000-" + "".join(f"{number:06d}" for number in numbers)


def _has(request: Request, k: int) -> bool:
    return request.head_s < FOREVER and (k == 0 or request.tokens >= k)


def _is_stopped(pid: int) -> bool:
    """True if a process is stopped, or gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TtZX"
    except OSError:
        return True
