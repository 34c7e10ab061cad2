"""The duty to complete, held against an adversary: what is "must" completes whatever the router and the list do.

The adversary chooses where a request is placed, among the workers that are listed and not shunned; when a worker dies;
and when the list changes, at which the frontend forgets whom it shuns. A death is a change too. It always avoids the
one worker that stays healthy, as long as another can be chosen. Every branch of this game is walked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import pytest

from ftmodel.invariants.duty import attempts_needed

MOST_DYING = MOST_DEAD = MOST_CHANGES = 3
LIMITS = range(11)


@dataclass(frozen=True)
class Game:
    """Where everything stands. Workers are numbers; the healthy one is none of them."""

    alive: frozenset[int]
    """Alive and about to die."""
    dead: frozenset[int]
    """Dead, but still listed."""
    shunned: frozenset[int] = frozenset()
    changes: int = 0
    holder: int | None = None

    def moves(self) -> list[tuple[int, Game]]:
        """What the adversary can do next, each with the attempts that it costs the request."""
        found = [(int(self.holder == worker), self.kill(worker)) for worker in self.alive]
        if self.changes:
            found.append((0, replace(self, changes=self.changes - 1, shunned=frozenset())))
        if self.holder is None:
            found += [(0, replace(self, holder=worker)) for worker in self.alive - self.shunned]
            found += [(1, replace(self, shunned=self.shunned | {dead})) for dead in self.dead - self.shunned]
        return found

    def kill(self, worker: int) -> Game:
        """It dies; the list changes, so the shunned are forgotten; if it held the request, it is shunned itself."""
        held = self.holder == worker
        return replace(
            self,
            alive=self.alive - {worker},
            dead=self.dead | {worker},
            shunned=frozenset({worker} if held else ()),
            holder=None if held else self.holder,
        )


@cache
def most_attempts(game: Game) -> int:
    """The attempts that fail in the worst branch. With none left to choose, the request goes to the healthy worker."""
    return max((cost + most_attempts(after) for cost, after in game.moves()), default=0)


def completes(dying: int, dead: int, changes: int, limit: int) -> bool:
    """True if the request completes in every branch: each failed attempt needs one more re-dispatch."""
    workers = range(dying + dead)
    game = Game(frozenset(workers[:dying]), frozenset(workers[dying:]), changes=changes)
    return most_attempts(game) <= limit


CASES = list(product(range(MOST_DYING + 1), range(MOST_DEAD + 1), range(1, MOST_CHANGES + 1), LIMITS))


def test_what_must_complete_completes_in_every_branch() -> None:
    owed = [case for case in CASES if attempts_needed(case[0] + case[1], case[2]) <= case[3]]
    assert len(owed) > 100
    assert [case for case in owed if not completes(*case)] == []


def test_the_rule_loosened_by_one_promises_too_much() -> None:
    loose = [case for case in CASES if attempts_needed(case[0] + case[1], case[2]) - 1 <= case[3]]
    assert [case for case in loose if not completes(*case)] != []


def test_without_the_changes_the_rule_promises_too_much() -> None:
    loose = [case for case in CASES if attempts_needed(case[0] + case[1], 0) <= case[3]]
    assert [case for case in loose if not completes(*case)] != []


@pytest.mark.parametrize("dying", range(1, MOST_DYING + 1))
def test_where_all_die_under_the_request_the_rule_is_exact(dying: int) -> None:
    for changes in range(1, MOST_CHANGES + 1):
        needed = attempts_needed(dying, changes)
        assert completes(dying, 0, changes, needed)
        assert not completes(dying, 0, changes, needed - 1)


@pytest.mark.parametrize(("limit", "borne"), [(0, 0), (1, 0), (3, 1), (10, 3)])
def test_a_limit_bears_so_many_touched_workers_without_a_change_of_the_list(limit: int, borne: int) -> None:
    assert max(touched for touched in range(7) if attempts_needed(touched, 1) <= limit) == borne
