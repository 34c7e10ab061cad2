"""What can be wrong with what was seen: each check returns what it was, in words, or an empty text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

from ftmodel.invariants.grammar import Reading
from ftmodel.report.runtime.clients import Request, count
from ftmodel.report.runtime.cluster import Life
from ftmodel.report.runtime.trial import FOREVER, Trial

Check = Callable[[Trial], str]
PROBES = "probes"
"""Among names of requests: all that were sent until a worker that was started again served."""


def _of_any(names: Iterable[str], wrong: Callable[[Trial, Request], str]) -> Check:
    """The first of these requests with which something is wrong."""
    named = tuple(names)

    def check(trial: Trial) -> str:
        asked = [one for name in named for one in (trial.probes if name == PROBES else (trial.requests[name],))]
        sent = (request for request in asked if request.sent_s < FOREVER)
        return next((f"{request.name} {words}" for request in sent if (words := wrong(trial, request))), "")

    return check


def _client(request: Request) -> str:
    """How an answer ended, as its client saw it."""
    errors = [item.value for item in request.told("error")]
    parts = [f"status {request.status}" if request.status else "no status", f"{request.tokens} tokens"]
    parts += [f"finish {item.value}" for item in request.told("finish")] + [f"error {error!r}" for error in errors[:1]]
    return ", ".join(
        [*parts, *["[DONE]"] * len(request.told("done")), f"{request.how or 'no end'} {request.detail}".strip()]
    )


# --- answers


def status(*names: str, got: int) -> Check:
    """A request got this status."""
    return _of_any(names, lambda _, r: f"got status {got}: {_client(r)}" if r.status == got else "")


def failed(*names: str) -> Check:
    """A request was not answered in full, though its client waited."""
    return _of_any(names, lambda _, r: f"failed: {_client(r)}" if not r.whole and r.how != "left" else "")


def answered(*names: str) -> Check:
    """A request was answered in full that must not be."""
    return _of_any(names, lambda _, r: f"was answered in full: {_client(r)}" if r.whole else "")


def cut(*names: str) -> Check:
    """The connection of a request broke."""
    return _of_any(names, lambda _, r: f"lost its connection: {_client(r)}" if r.how == "cut" else "")


def refused(*names: str) -> Check:
    """A request got no connection."""
    return _of_any(names, lambda _, r: f"got no connection: {_client(r)}" if r.how == "refused" else "")


def error_in_stream(*names: str) -> Check:
    """A stream began well and ended in an error."""
    return _of_any(
        names, lambda _, r: f"ended in an error: {_client(r)}" if r.status == 200 and r.told("error") else ""
    )


def never_ended(*names: str) -> Check:
    """A request never came to its end."""
    return _of_any(names, lambda _, r: f"never ended: {_client(r)}" if not r.how else "")


def gap(*names: str, bound_s: float) -> Check:
    """A client waited longer than this for its next byte."""

    def wrong(trial: Trial, request: Request) -> str:
        until_s = min(request.over_s, trial.cluster.now())
        times = [request.sent_s, *request.heard, until_s]
        waits = [later - one for one, later in pairwise(times)]
        longest = max(waits, default=0.0)
        paused = sum(to - begin for begin, to in request.pauses)
        return f"waited {longest:.1f} s for its next byte: {_client(request)}" if longest - paused > bound_s else ""

    return _of_any(names, wrong)


def grammar(*names: str, slug: str) -> Check:
    """The form of an answer: what breaks it is one of the slugs of P1."""
    return _of_any(names, lambda _, r: _broken(r, slug))


def _broken(request: Request, slug: str) -> str:
    if request.how == "left":
        return ""
    reading = Reading()
    for _, item in request.items if request.status == 200 else ():
        breach = reading.breach(item)
        if breach is not None and breach[0] == slug:
            return f"has {breach[1]}: {_client(request)}"
    ended, good = request.how == "eof", request.status == 200
    found = {
        "cut": request.how == "cut",
        "unstructured-error": ended and not good and not request.told("error"),
        "error-without-done": ended and good and request.stream and reading.error and not reading.done,
        "empty-200": ended and good and not reading.said,
        "malformed": ended and good and reading.malformed is not None,
        "no-done": ended and good and request.stream and reading.said and not reading.done and not reading.error,
        "done-without-finish": ended and good and reading.said and not reading.error and not reading.finished
        and (reading.done or not request.stream),
        "looks-whole": request.whole and request.tokens < request.max_tokens,
    }  # fmt: skip
    return f"ends wrongly ({slug}): {_client(request)}" if found.get(slug) else ""


def foreign(*names: str, what: str) -> Check:
    """An answer bears the id or the model of another."""

    def wrong(_: Trial, request: Request) -> str:
        field = {"id": "answer_id", "model": "model"}[what]
        found = [value for _, item in request.items if (value := getattr(item, field))]
        return f"has a chunk of {what} {found[0]!r}" if found else ""

    return _of_any(names, wrong)


def text_differs(name: str, *, expected: str, exact: bool = False) -> Check:
    """The text is not the one that this engine gives to this request without a fault.

    Its last character may lack, of which max_tokens leaves out a part, unless the answer is to be `exact`.
    """

    def wrong(_: Trial, request: Request) -> str:
        got = request.text()
        stop = next(
            (i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), min(len(got), len(expected))
        )
        lacks = request.whole and len(got) < len(expected) - (not exact)
        if stop < len(got) or lacks:
            return f"differs at character {stop}: got {got[:40]!r}, expected {expected[:40]!r}; {_client(request)}"
        return ""

    return _of_any([name], wrong)


def length(*names: str, slug: str) -> Check:
    """A whole answer has another number of tokens than was asked for (short, long), or another finish than length."""

    def wrong(_: Trial, request: Request) -> str:
        have = count(request.text())
        finishes = {item.value for item in request.told("finish")}
        found = {
            "short": request.whole and have < request.max_tokens,
            "long": have > request.max_tokens,
            "finish-reason": request.whole and finishes != {"length"},
        }
        return f"has {have} of {request.max_tokens} tokens: {_client(request)}" if found[slug] else ""

    return _of_any(names, wrong)


def usage(name: str, *, what: str, prompt: int) -> Check:
    """The usage that an answer tells is not its own."""

    def wrong(_: Trial, request: Request) -> str:
        told = request.told("usage")
        if not request.whole:
            return ""
        if not told:
            return "told no usage" if what == "missing" else ""
        if what == "prompt-tokens" and told[-1].value and int(told[-1].value) != prompt:
            return f"told {told[-1].value} prompt tokens, expected {prompt}"
        have = request.tokens
        return (
            f"told {told[-1].count} tokens, its client has {have}"
            if what == "completion-tokens" and told[-1].count != have
            else ""
        )

    return _of_any([name], wrong)


# --- logs


def never_aborted(*names: str) -> Check:
    """A client left, and no worker aborted its request."""

    def wrong(trial: Trial, request: Request) -> str:
        begun = [life.title for life, _ in trial.cluster.said("begun", request.id)]
        ends = [line for what in ("aborted", "ended", "failed") for _, line in trial.cluster.said(what, request.id)]
        return (
            f"was left at {request.left_s:.2f} s, begun on {', '.join(begun)}, and no abort is logged"
            if (request.how == "left" and begun and not ends)
            else ""
        )

    return _of_any(names, wrong)


def late(*names: str, meaning: str) -> Check:
    """After its client left, a worker went on with a request (ended), aborted it late (aborted), or began it (begun)."""

    def wrong(trial: Trial, request: Request) -> str:
        due_s = request.left_s + trial.setup.abort_bound_s
        lines = [(life, line) for life, line in trial.cluster.said(meaning, request.id) if line.at.before_s > due_s]
        return (
            f"was left at {request.left_s:.2f} s, and {lines[0][0].title} logs {meaning} at {lines[0][1].at.after_s:.2f} s"
            if (lines)
            else ""
        )

    return _of_any(names, wrong)


def aborted_unasked(*names: str) -> Check:
    """A worker aborted a request that its client had not left."""

    def wrong(trial: Trial, request: Request) -> str:
        aborts = [life.title for life, _ in trial.cluster.said("aborted", request.id)]
        return f"was aborted by {aborts[0]}: {_client(request)}" if aborts and request.how != "left" else ""

    return _of_any(names, wrong)


def few_kills(*, frontend: str, least: int) -> Check:
    """A frontend logged fewer control messages than clients left."""

    def check(trial: Trial) -> str:
        kills = sum(life.title == frontend for life, _ in trial.cluster.said("kill"))
        left = [request for request in trial.requests.values() if request.how == "left"]
        return (
            f"{frontend} logged {kills} control messages, {len(left)} clients left"
            if (kills < least <= len(left))
            else ""
        )

    return check


def begun_more(*names: str, most: int) -> Check:
    """A request was begun on more workers than it may be."""

    def wrong(trial: Trial, request: Request) -> str:
        begun = [life.title for life, _ in trial.cluster.said("begun", request.id)]
        return f"was begun {len(begun)} times: {', '.join(begun)}" if len(begun) > most else ""

    return _of_any(names, wrong)


def log_line(*, meaning: str) -> Check:
    """A process wrote what no process should: panic, traceback, assertion."""

    def check(trial: Trial) -> str:
        for life, line in trial.cluster.said(meaning):
            if line.at.after_s < life.hit_s:
                text = life.log.read_text(errors="replace").splitlines()[line.line - 1]
                return f"{life.title} wrote a {meaning}: {text[:200]}"
        return ""

    return check


# --- counters and gauges


def counted(*, metric: str, role: str, high: bool, spare: int = 0, least: int = 0) -> Check:
    """The cancellations that processes of a role counted are more, or fewer, than clients left.

    `spare`: so many more could be counted for another cause; `least`: so many of the clients surely left in the middle.
    """

    def check(trial: Trial) -> str:
        rise = sum(_risen(trial, life, metric) for life in trial.cluster.lives.values() if life.role == role)
        left = sum(request.how == "left" for request in trial.requests.values())
        words = f"{role}s counted {rise:g} cancellations, {left} clients left"
        wrong = rise > left + spare if high else rise < least <= left
        return words if wrong else ""

    return check


def counted_success(*, metric: str = "success") -> Check:
    """A frontend counted more requests as successful than were."""

    def check(trial: Trial) -> str:
        rise = sum(_risen(trial, life, metric) for life in trial.cluster.lives.values() if life.role == "frontend")
        whole = sum(request.whole for request in trial.requests.values())
        restarted = sum(life.role == "frontend" for life in trial.cluster.lives.values()) > trial.setup.frontends
        late_probes = sum(life.role == "worker" for life in trial.cluster.lives.values()) > trial.setup.workers
        return (
            f"{rise:g} requests were counted as successful, {whole} were"
            if (rise > whole and not restarted and not late_probes)
            else ""
        )

    return check


def _risen(trial: Trial, life: Life, metric: str) -> float:
    last = [values[metric] for _, title, values in trial.samples if title == life.title and metric in values]
    return last[-1] - trial.first.get(life.title, {}).get(metric, 0.0) if last else 0.0


def still_running() -> Check:
    """After clients left, and the time to abort was over, workers went on generating for them."""

    def check(trial: Trial) -> str:
        lefts = [request.left_s for request in trial.requests.values() if request.how == "left"]
        for at_s, title, values in trial.samples:
            if not any(left_s + trial.setup.abort_bound_s < at_s for left_s in lefts):
                continue
            recent = [left_s for left_s in lefts if at_s - trial.setup.abort_bound_s <= left_s <= at_s]
            open_ = [r for r in trial.requests.values() if r.sent_s <= at_s <= r.over_s + LAG_S]
            if values.get("running", 0.0) > len(open_) + len(recent):
                return (
                    f"{title} has {values['running']:g} requests running at {at_s:.1f} s, {len(open_)} are open; clients"
                    f" left at {', '.join(f'{left_s:.1f}' for left_s in lefts)} s"
                )
        return ""

    return check


LAG_S = 1.0
"""A gauge is looked at so long after an answer's end at the earliest."""


def gauge_left(*, metric: str, role: str) -> Check:
    """At rest a gauge is not back at zero."""

    def check(trial: Trial) -> str:
        last = {title: values[metric] for _, title, values in trial.samples if metric in values}
        alive = {life.title for life in trial.cluster.alive(role)}
        raised = {title: value for title, value in last.items() if value and title in alive}
        return (
            f"at rest {metric} is {', '.join(f'{value:g} on {title}' for title, value in raised.items())}"
            if raised
            else ""
        )

    return check


def negative() -> Check:
    """A metric was below zero."""

    def check(trial: Trial) -> str:
        found = ((t, n, v) for _, t, values in trial.samples for n, v in values.items() if v < 0)
        return next((f"{title}: {name} is {value:g}" for title, name, value in found), "")

    return check


# --- processes


def exited(*roles: str) -> Check:
    """A process ended by itself."""

    def check(trial: Trial) -> str:
        for life in trial.cluster.lives.values():
            if life.role in roles and not life.alive and life.hit_s == FOREVER:
                return f"{life.title} ended by itself at {life.ended_s:.1f} s, exit code {life.process.returncode}"
        return ""

    return check


def orphan() -> Check:
    """A process of a dead worker's or frontend's session is left."""

    def check(trial: Trial) -> str:
        gone = {life.process.pid: life.title for life in trial.cluster.lives.values() if not life.alive}
        for entry in Path("/proc").iterdir():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
            except OSError:
                continue
            if fields and int(fields[3]) in gone and fields[0] not in "ZX" and entry.name != str(os.getpid()):
                return f"process {entry.name} of {gone[int(fields[3])]} is left"
        return ""

    return check


def never_exits(*, bound_s: float) -> Check:
    """A process that was asked to stop is still there, though it has nothing to do."""

    def check(trial: Trial) -> str:
        for life in trial.cluster.alive("worker", "prefill", "frontend"):
            if trial.cluster.now() - life.stopped_s > bound_s:
                return f"{life.title} was asked to stop at {life.stopped_s:.1f} s and lives"
        return ""

    return check


def health(*, role: str, page: str, draining: bool, bound_s: float) -> Check:
    """/health or /live of a process is wrong: while it drains and serves, or while it is ready and nothing is amiss.

    Draining: /live must be 200 and /health must not. Else both must be 200; longer than `bound_s` otherwise is wrong.
    """

    def check(trial: Trial) -> str:
        for title, life in trial.cluster.lives.items():
            if life.role != role:
                continue
            told = [(at_s, live if page == "live" else ready) for at_s, who, ready, live in trial.told if who == title]
            words = _while_draining(trial, life, told, page) if draining else _while_ready(life, told, page, bound_s)
            if words:
                return words
        return ""

    return check


def _while_draining(trial: Trial, life: Life, told: list[tuple[float, int]], page: str) -> str:
    served = [r for r in trial.requests.values() if r.head_s < life.stopped_s < r.over_s and r.whole]
    for at_s, got in told:
        under_way = [request.name for request in served if life.stopped_s <= at_s < request.over_s]
        if under_way and got and (got != 200 if page == "live" else got == 200):
            return f"{life.title} says {got} on /{page} while it drains, {under_way[0]} still under way"
    return ""


def _while_ready(life: Life, told: list[tuple[float, int]], page: str, bound_s: float) -> str:
    ready = next((at_s for at_s, got in told if got == 200), None)
    wrong_s: float | None = None
    for at_s, got in told:
        if ready is None or at_s < ready or at_s >= life.hit_s:
            continue
        wrong_s = None if got == 200 else at_s if wrong_s is None else wrong_s
        if wrong_s is not None and at_s - wrong_s > bound_s:
            return f"{life.title} says {got} on /{page} since {wrong_s:.1f} s"
    return ""
