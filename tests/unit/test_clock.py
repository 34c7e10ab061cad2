"""One clock for all, and a loop in a thread that notices when it was not scheduled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from ftmodel.history import Interval
from ftmodel.targets.real import clock as clock_module
from ftmodel.targets.real.clock import STALL_S, Clock, Loop

BOUND_S = 5.0
"""The longest that any condition is waited for."""


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_the_clock_begins_at_zero_and_never_goes_back() -> None:
    clock = Clock()
    first, second = clock.now(), clock.now()
    assert 0 <= first <= second < BOUND_S


def test_an_interval_runs_from_its_begin_to_now() -> None:
    clock = Clock()
    before_s = clock.now()
    at = clock.since(before_s)
    assert at.before_s == before_s <= at.after_s <= clock.now()


def test_times_of_other_clocks_are_put_on_the_one_clock() -> None:
    clock = Clock()
    at = clock.of_monotonic(Interval(clock.zero_s + 1, clock.zero_s + 2))
    assert (at.before_s, at.after_s) == (pytest.approx(1), pytest.approx(2))
    assert clock.of_wall(time.time()) == pytest.approx(clock.now(), abs=0.05)
    assert clock.of_wall(time.time() - 100) == pytest.approx(clock.now() - 100, abs=0.05)


def test_a_call_gives_what_the_coroutine_returns_and_raises_what_it_raises(loop: Loop) -> None:
    async def thread() -> str:
        return threading.current_thread().name

    async def fail() -> None:
        raise KeyError("r1")

    assert loop.call(thread()) == "ftmodel loop"
    with pytest.raises(KeyError, match="r1"):
        loop.call(fail())


def test_a_call_whose_waiting_is_interrupted_is_cancelled(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def stay() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    real = asyncio.run_coroutine_threadsafe

    def interrupted(coroutine: object, on: asyncio.AbstractEventLoop) -> object:
        future = real(coroutine, on)  # type: ignore[arg-type]

        def result() -> None:
            assert begun.wait(BOUND_S)
            raise KeyboardInterrupt

        future.result = result  # type: ignore[method-assign, assignment]
        return future

    with monkeypatch.context() as patch:
        patch.setattr(clock_module.asyncio, "run_coroutine_threadsafe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.call(stay())
    assert cancelled.wait(BOUND_S)


def test_a_loop_that_was_not_scheduled_tells_from_when_to_when(loop: Loop) -> None:
    told: list[tuple[float, float]] = []
    heard = threading.Event()

    def listen(from_s: float, to_s: float) -> None:
        told.append((from_s, to_s))
        heard.set()

    async def block() -> tuple[float, float]:
        loop.on_stall.append(listen)
        begin_s = time.monotonic()
        while time.monotonic() < begin_s + 1.5 * STALL_S:  # the stall itself: nothing else runs in the loop
            pass
        return begin_s, time.monotonic()

    begin_s, end_s = loop.call(block())
    assert heard.wait(BOUND_S)
    from_s, to_s = told[0]
    assert from_s <= begin_s
    assert end_s <= to_s
    assert to_s - from_s > STALL_S


def test_who_no_longer_listens_is_told_nothing_and_the_others_are(loop: Loop) -> None:
    told: list[str] = []

    def once(_from_s: float, _to_s: float) -> None:
        told.append("once")
        loop.on_stall.remove(once)

    loop.on_stall += [once, lambda _from_s, _to_s: told.append("always")]
    loop.stalled(1, 2)
    loop.stalled(3, 4)
    assert told == ["once", "always", "always"]


def test_closing_cancels_what_runs_ends_the_thread_and_may_be_repeated() -> None:
    loop = Loop()
    cancelled = threading.Event()

    async def begin() -> asyncio.Task[None]:
        begun = asyncio.Event()

        async def stay() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        task = asyncio.create_task(stay())
        await begun.wait()
        return task

    task = loop.call(begin())
    loop.close()
    assert cancelled.is_set()
    assert task.cancelled()
    assert not loop._thread.is_alive()
    loop.close()
