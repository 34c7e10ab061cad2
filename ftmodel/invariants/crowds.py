"""Who is open at the same time as a request, and whether a worker surely has a slot and KV blocks for all of them.

A worker that has every one of them may let a request wait: for as long as the others need, one after the other.
Known only at rest.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final

from ftmodel.history import Interval, Setting
from ftmodel.invariants.records import Request


class Crowds:
    """The requests of an example, by when each can have held a slot: from its sending on."""

    def __init__(self, setting: Setting, lives: Sequence[tuple[Request, Interval]]) -> None:
        """`lives`: each request from its sending to its end. What its client left can hold on for `abort_bound_s`."""
        self._setting = setting
        self._room_tokens = setting.cache_tokens * setting.admits_share
        spans = [(life.before_s, _held_until_s(setting, request, life), request) for request, life in lives]
        by_start = sorted(spans, key=lambda span: span[0])
        by_end = sorted(spans, key=lambda span: span[1])
        self._starts_s: Final = [start_s for start_s, _, _ in by_start]
        self._ends_s: Final = [end_s for _, end_s, _ in by_end]
        self._orders: Final = [request for *_, request in by_start], [request for *_, request in by_end]
        self._counts = self._at_sendings(lambda _: 1.0)
        self._tokens = self._at_sendings(self._tokens_of)
        self._most = int(max(self._counts, default=0.0))
        self._is_roomy = self._fits(self._most, max(self._tokens, default=0.0))
        self._work_s = self._sums(lambda request: self.own_s(request) + request.paused_s)
        self._longest_s = max((self.own_s(request) for request, _ in lives), default=0.0)
        self._stalled = self._sums(lambda request: float(request.is_stalled))

    def own_s(self, request: Request) -> float:
        """Four times what generating the answer takes."""
        return 4 * request.sent.max_tokens * self._setting.pace_s

    def most(self, life: Interval) -> int:
        """The most requests that could be open at one moment of this life, or of any where slots are never short."""
        if self._most <= self._setting.slots:
            return self._most
        return int(max(self._within(self._counts, life), default=1))

    def has_room(self, life: Interval) -> bool:
        """True if one worker has a slot and KV blocks for all that could be open at one moment of this life."""
        return self._is_roomy or (self._has_slots(life) and self._has_blocks(life))

    def wait_s(self, life: Interval) -> float:
        """Four times what it takes until one that waits in this life is over: for a slot by rounds, each of the longest.

        For KV blocks, of which some need many, they are served one after the other at worst.
        """
        if not self._has_blocks(life):
            return self._over(self._work_s, life)
        rounds = math.ceil(self.most(life) / max(1, self._setting.slots))
        return self._longest_s * rounds

    def has_stalled(self, life: Interval) -> bool:
        """True if the engine was told to stall one that could be open in this life: it keeps what it holds."""
        return self._over(self._stalled, life) > 0

    def _at_sendings(self, weight: Callable[[Request], float]) -> list[float]:
        """At each sending, in order of time: the sum of the weights of those that are open then."""
        started, ended = self._sums(weight)
        return [started[i + 1] - ended[bisect_left(self._ends_s, at_s)] for i, at_s in enumerate(self._starts_s)]

    def _sums(self, weight: Callable[[Request], float]) -> tuple[list[float], list[float]]:
        """The sums of the weights of the first so many: by their sending, and by their end."""
        by_start, by_end = ([0.0, *accumulate(map(weight, order))] for order in self._orders)
        return by_start, by_end

    def _over(self, sums: tuple[list[float], list[float]], life: Interval) -> float:
        started, ended = sums
        return started[bisect_right(self._starts_s, life.after_s)] - ended[bisect_left(self._ends_s, life.before_s)]

    def _within(self, at_sendings: list[float], life: Interval) -> list[float]:
        return at_sendings[bisect_left(self._starts_s, life.before_s) : bisect_right(self._starts_s, life.after_s)]

    def _has_slots(self, life: Interval) -> bool:
        return self.most(life) <= self._setting.slots

    def _has_blocks(self, life: Interval) -> bool:
        return self._fits(0.0, max(self._within(self._tokens, life), default=0.0))

    def _fits(self, count: float, tokens: float) -> bool:
        return count <= self._setting.slots and (not self._room_tokens or tokens <= self._room_tokens)

    def _tokens_of(self, request: Request) -> float:
        """Of KV blocks, of which it takes whole ones; the most that it can grow to."""
        sent, block = request.sent, max(1, self._setting.block_tokens)
        return -(-(sent.prompt_tokens + sent.n * sent.max_tokens) // block) * block


def _held_until_s(setting: Setting, request: Request, life: Interval) -> float:
    clean = request.ended is not None and request.ended.how == "eof"
    return life.after_s + (0.0 if clean else setting.bounds.abort_bound_s)
