"""One clock for everything, and the loop that everything of a real target runs in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from ftmodel.history import Interval

BEAT_S: Final = 0.010
STALL_S: Final = 0.100
"""A gap between two beats of more than this is a stall, and told to whoever listens."""

THREAD: Final = "ftmodel loop"
"""The name of the loop's thread, as logs tell it."""

T = TypeVar("T")


class Clock:
    """Seconds since the example began, on the machine's monotonic clock, which all processes share."""

    def __init__(self) -> None:
        self.zero_s = time.monotonic()

    def now(self) -> float:
        """Now."""
        return time.monotonic() - self.zero_s

    def since(self, before_s: float) -> Interval:
        """From then to now."""
        return Interval(before_s, self.now())

    def of_monotonic(self, at: Interval) -> Interval:
        """An interval of time.monotonic() seconds on this clock."""
        return Interval(at.before_s - self.zero_s, at.after_s - self.zero_s)

    def of_wall(self, wall_s: float) -> float:
        """A Unix time on this clock, by the two clocks' distance now."""
        return wall_s - time.time() + time.monotonic() - self.zero_s


class Loop:
    """An asyncio loop in a thread of its own. It beats, so that it notices when it was not scheduled."""

    def __init__(self) -> None:
        self.on_stall: list[Callable[[float, float], None]] = []
        """Called in the loop with (from, to) in time.monotonic() seconds."""
        self._calls: set[Future[Any]] = set()
        self._interrupted = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)
        self._thread.start()
        self._beating = asyncio.run_coroutine_threadsafe(self._beat(), self._loop)

    def call(self, coroutine: Coroutine[Any, Any, T], *, always: bool = False) -> T:
        """Run a coroutine in the loop and wait for its result; what it raises is raised here.

        Raises CancelledError once the loop is interrupted, unless it is to run always.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        if not always:
            self._calls.add(future)
            future.add_done_callback(self._calls.discard)
            if self._interrupted:
                future.cancel()
        try:
            return future.result()
        except BaseException:
            future.cancel()  # the waiting was interrupted: what nobody waits for must not go on
            raise

    def interrupt(self) -> None:
        """Cancel every call that is under way, and every later one but those that run always."""
        self._interrupted = True
        for future in list(self._calls):
            future.cancel()

    def close(self) -> None:
        """Cancel what still runs and end the thread."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(timeout=30)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=30)
            self._loop.close()

    def stalled(self, from_s: float, to_s: float) -> None:
        """Tell who listens that somebody was not scheduled; in time.monotonic() seconds."""
        for listener in list(self.on_stall):
            listener(from_s, to_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self) -> None:
        last_s = time.monotonic()
        while True:
            await asyncio.sleep(BEAT_S)
            now_s = time.monotonic()
            if now_s - last_s > STALL_S:
                self.stalled(last_s, now_s)
            last_s = now_s
