"""The shrinker: from a plan that fails sometimes to a smaller one that still does.

It knows plans, and a function that executes one and says which signatures were seen; nothing of clusters, files or
Hypothesis. First the plan is run as it is, which gives its rate. Then it is made smaller: big pieces first (what has
nothing to do with the finding, whole kinds of steps, halves), then single steps, then values. Whether a smaller plan
still fails is decided by a sequential test of repeats (`ftmodel.rates.StillFails`), loosely among the big pieces and
strictly among single steps. At last the rate of the result is measured, by runs that had no part in choosing it.

What was executed is remembered by the plan's hash, and everything else follows from it: given the same memory again, a
search goes to where it was without executing anything. So the memory is all that has to be kept of one that is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from typing import Final, Protocol

from ftmodel import planfile, smaller
from ftmodel.errors import HarnessError
from ftmodel.rates import Rate, StillFails
from ftmodel.steps import Plan

FIRST_RUNS: Final = 10
"""Replays of the plan as it is ..."""
FIRST_RUNS_MOST: Final = 60
"""... and so many, if it did not fail once in those."""
RATE_RUNS: Final = 40
"""Replays of the result, unless the time does not allow them."""
RATE_SHARE: Final = 0.25
"""Of the time, what is kept for them at most."""
COARSE_MISS: Final = 0.3
"""Among big pieces: how often a plan that fails as expected may be taken for one that does not."""
FINE_MISS: Final = 0.03
"""Among single steps and values."""
RARE: Final = 0.3
"""Of a plan that fails more often: what is left of that, when what it fails through is there only once."""
AS_OFTEN: Final = 3.0
"""A plainer value is not worth a plan that fails by so much more rarely ..."""
AS_OFTEN_CLEAR: Final = 7.0
"""... and it must be so much likelier that it does not."""
SURE_AFTER: Final = 3
"""A plan's rate is known well enough after so many failures, or `FIRST_RUNS_MOST` runs."""
UNKNOWN_BOUND: Final = 3
"""A plan of which so many executions were unknown is given up; likewise the whole, of the first one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one execution showed."""

    signatures: frozenset[str]
    where: str = ""
    """Where the caller finds the execution again; only for its own use."""


Execute = Callable[[Plan], Seen | None]
"""Runs a plan on a cluster of its own; None: unknown, the harness failed. Called from several threads with an executor."""


class Watcher(Protocol):
    """Is told how the search goes on, in the thread that searches."""

    def began(self, stage: str) -> None:
        """A stage begins: the plan as it is, big pieces, single steps, values, the rate."""

    def executed(self, stage: str, plan: Plan, seen: Seen | None) -> None:
        """An execution has ended. To go on after a crash, its row must be kept."""

    def smallest(self, plan: Plan, rate: Rate) -> None:
        """This plan still fails, and is now the smallest; the rate is that of the runs that chose it."""


Memory = dict[str, list[frozenset[str] | None]]
"""By `key`: the signatures of each execution, in the order in which they ended."""
SEARCH: Final = "search"
RATE: Final = "rate"
"""The runs that measure the rate of the result: they choose nothing."""


def key(stage: str, plan: Plan) -> str:
    """Under which an execution is remembered."""
    digest = hashlib.sha256(planfile.dump(plan).encode()).hexdigest()[:20]
    return digest if stage == SEARCH else f"{stage}:{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """What became of a plan."""

    plan: Plan
    signature: str
    from_steps: int
    executions: int
    """Of all calls together, but for those that measured the rate."""
    unknown: int
    """Of these, how often the harness failed."""
    first: Rate
    """Of the plan as it was."""
    rate: Rate
    """Of the result, by runs of their own."""
    done: bool
    """False if the time was over before nothing more could be left out."""

    @property
    def reproduced(self) -> bool:
        """True if it failed at all."""
        return self.first.failed > 0


class OutOfTimeError(Exception):
    """The budget is spent: what was found so far is the result."""


def replay(
    plan: Plan,
    signature: str,
    *,
    execute: Execute,
    watcher: Watcher,
    memory: Memory | None = None,
    executor: Executor | None = None,
    lanes: int = 1,
) -> Rate:
    """How often the plan shows the signature, in a few runs. Raises what `execute` raises."""
    runs = Runs(signature, execute, watcher, {} if memory is None else memory, executor, lanes)
    runs.until(SEARCH, plan, lambda failed: FIRST_RUNS - len(failed))
    runs.end()
    return runs.rate(SEARCH, plan)


def shrink(
    plan: Plan,
    signature: str,
    *,
    execute: Execute,
    budget_s: float,
    watcher: Watcher,
    subjects: Sequence[str] = (),
    admits: Callable[[Plan], bool] = lambda _: True,
    memory: Memory | None = None,
    executor: Executor | None = None,
    lanes: int = 1,
    rate_runs: int = RATE_RUNS,
    clock: Callable[[], float] = time.monotonic,
) -> Shrunk:
    """Make the plan smaller, as long as it shows the signature, until nothing more can be left out or time is over.

    `subjects` are those of the recorded finding; what has nothing to do with them is left out first. `admits` says which
    plans are possible at all. `memory` is what earlier calls have executed. With an executor, `lanes` executions go on
    at once. Raises HarnessError if the plan itself cannot be executed, and what `execute` raises.
    """
    runs = Runs(
        signature, execute, watcher, {} if memory is None else memory, executor, lanes, until_s=clock() + budget_s,
        keep_s=budget_s * RATE_SHARE, keep_runs=rate_runs, clock=clock,
    )  # fmt: skip
    search = Search(plan, runs, subjects, admits)
    done = False
    with contextlib.suppress(OutOfTimeError):  # the result is what was found so far
        if search.replay().failed:
            search.leave_out()
        done = True
    runs.keep_runs = 0
    first = search.first or runs.rate(SEARCH, plan)
    watcher.began("rate")
    rate = runs.measured(search.plan, rate_runs) if first.failed else first
    return Shrunk(
        plan=search.plan,
        signature=signature,
        from_steps=len(plan.steps),
        executions=runs.count(SEARCH),
        unknown=runs.unknown,
        first=first,
        rate=rate,
        done=done,
    )


class Runs:
    """Executes plans, several at once if there are lanes, and remembers what was seen."""

    def __init__(
        self,
        signature: str,
        execute: Execute,
        watcher: Watcher,
        memory: Memory,
        executor: Executor | None,
        lanes: int,
        *,
        until_s: float = math.inf,
        keep_s: float = 0.0,
        keep_runs: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Of the time, the search leaves as much as `keep_runs` executions may take, `keep_s` at most."""
        self.watcher = watcher
        self.keep_runs = keep_runs
        self._keep_s = keep_s
        self._signature = signature
        self._execute = execute
        self._memory = memory
        self._executor = executor
        self._lanes = lanes if executor is not None else 1
        self._until_s = until_s
        self._clock = clock
        self._under_way: dict[Future[Seen | None], tuple[str, Plan]] = {}
        self._began_s = clock()
        self._ended = 0

    # -- what is remembered

    def failed(self, stage: str, plan: Plan) -> list[bool]:
        """Of each known execution of the plan: whether the signature was seen."""
        return [self._signature in seen for seen in self._memory.get(key(stage, plan), []) if seen is not None]

    def rate(self, stage: str, plan: Plan) -> Rate:
        """Of all known executions of the plan."""
        failed = self.failed(stage, plan)
        return Rate(failed=sum(failed), of=len(failed))

    def is_given_up(self, plan: Plan, stage: str = SEARCH) -> bool:
        """True if too many executions were unknown to decide anything."""
        return sum(seen is None for seen in self._memory.get(key(stage, plan), [])) >= UNKNOWN_BOUND

    def count(self, stage: str) -> int:
        """Executions of this stage in all, known or not."""
        return sum(len(seen) for name, seen in self._memory.items() if (":" in name) == (stage != SEARCH))

    @property
    def unknown(self) -> int:
        """Executions that the harness failed."""
        return sum(seen is None for one in self._memory.values() for seen in one)

    # -- executing

    def first(self, candidates: Iterable[Plan], test: StillFails) -> int | None:
        """The place of the first of these plans that still fails, all before it being decided; None if none does.

        Later ones are executed meanwhile where lanes are free. Raises OutOfTimeError.
        """
        waiting = _Ahead(candidates)
        while True:
            waiting.drop(lambda plan: self._answer(plan, test) is False)
            first = waiting.peek(1)
            if not first:
                return None
            if self._answer(first[0], test):
                return next(iter(waiting.taken))
            self._fill(waiting, test)
            self._wait()

    def _answer(self, plan: Plan, test: StillFails) -> bool | None:
        answer = test.answer(self.failed(SEARCH, plan))
        return False if answer is None and self.is_given_up(plan) else answer

    def _fill(self, waiting: _Ahead, test: StillFails) -> None:
        """Give each free lane a run: of the first plan as many as it may need, then of the next."""
        ahead = 1
        while len(self._under_way) < self._lanes and len(waiting.peek(ahead)) == ahead:
            plan = waiting.peek(ahead)[-1]
            begun = sum(other == plan for _, other in self._under_way.values())
            undecided = self._answer(plan, test) is None
            if undecided and begun < test.passes_left(self.failed(SEARCH, plan)):
                self._start(SEARCH, plan)
            else:
                ahead += 1

    def until(self, stage: str, plan: Plan, enough: Callable[[list[bool]], int]) -> list[bool]:
        """Execute a plan until there are enough runs: `enough` says how many more are needed.

        Returns the first that were enough, in their order, or all if too many were unknown. Raises OutOfTimeError.
        """
        while not self.is_given_up(plan, stage):
            failed = self.failed(stage, plan)
            for count in range(len(failed) + 1):
                if enough(failed[:count]) <= 0:
                    return failed[:count]
            begun = sum(other == (stage, plan) for other in self._under_way.values())
            while begun < enough(failed) and len(self._under_way) < self._lanes:
                self._start(stage, plan)
                begun += 1
            self._wait()
        return self.failed(stage, plan)

    def measured(self, plan: Plan, runs: int) -> Rate:
        """The rate of a plan by runs that choose nothing; by fewer, if the time is over before."""
        with contextlib.suppress(OutOfTimeError):
            self.until(RATE, plan, lambda failed: runs - len(failed))
        self.end()
        return self.rate(RATE, plan)

    def _start(self, stage: str, plan: Plan) -> None:
        if self._clock() >= self._until_s - self._kept_s:
            self.end()
            raise OutOfTimeError
        if self._executor is not None:
            future = self._executor.submit(self._execute, plan)
        else:
            future = Future()
            future.set_result(self._execute(plan))
        self._under_way[future] = (stage, plan)

    @property
    def _kept_s(self) -> float:
        """What as many executions take as are still to come: as long as those so far."""
        each_s = (self._clock() - self._began_s) / self._ended if self._ended else 0.0
        return min(self._keep_s, self.keep_runs * each_s)

    def _wait(self) -> None:
        """Wait until an execution ends, and remember what was seen."""
        ended, _ = wait(self._under_way, return_when=FIRST_COMPLETED)
        for future in sorted(ended, key=list(self._under_way).index):
            stage, plan = self._under_way.pop(future)
            self._ended += 1
            seen = future.result()
            self._memory.setdefault(key(stage, plan), []).append(None if seen is None else seen.signatures)
            self.watcher.executed(stage, plan, seen)

    def end(self) -> None:
        """Wait for what is under way."""
        while self._under_way:
            self._wait()


class _Ahead:
    """An iterator of plans that are looked at before they are taken."""

    def __init__(self, plans: Iterable[Plan]) -> None:
        self._rest: Iterator[tuple[int, Plan]] = iter(enumerate(plans))
        self.taken: dict[int, Plan] = {}

    def peek(self, count: int) -> list[Plan]:
        """So many of the plans that are left, or all."""
        while len(self.taken) < count:
            place, plan = next(self._rest, (-1, None))
            if plan is None:
                break
            self.taken[place] = plan
        return list(self.taken.values())[:count]

    def drop(self, is_over: Callable[[Plan], bool]) -> None:
        """Leave the first ones out, as long as this is true of them."""
        while (first := self.peek(1)) and is_over(first[0]):
            del self.taken[next(iter(self.taken))]


@dataclass(slots=True)
class Search:
    """The passes over one plan. Each makes `plan` smaller."""

    plan: Plan
    runs: Runs
    subjects: Sequence[str] = ()
    admits: Callable[[Plan], bool] = lambda _: True
    first: Rate | None = field(default=None, init=False)
    """Of the plan as it was; None until it is known."""
    share: float = field(default=0.0, init=False)
    """The rate of the plan as it is now, as far as it is known."""

    def replay(self) -> Rate:
        """Run the plan as it is. Raises HarnessError if that cannot be done, and OutOfTimeError."""
        self.runs.watcher.began("the plan as it is")

        def more(failed: list[bool]) -> int:
            wanted = FIRST_RUNS if len(failed) < FIRST_RUNS or any(failed[:FIRST_RUNS]) else FIRST_RUNS_MOST
            return wanted - len(failed)

        failed = self.runs.until(SEARCH, self.plan, more)
        if not failed:
            raise HarnessError(f"the plan was executed {UNKNOWN_BOUND} times, and the tester failed each time")
        self.first = Rate(failed=sum(failed), of=len(failed))
        self.share = self.first.share
        return self.first

    def leave_out(self) -> None:
        """All passes. Raises OutOfTimeError; `plan` is the smallest so far in any case."""
        self._begin("big pieces")
        self.big()
        self._begin("values")
        self.plainer()
        self._begin("single steps")
        self.single()

    def _begin(self, stage: str) -> None:
        self.runs.watcher.began(stage)
        self.share = self._known_share()

    # -- the passes

    def big(self) -> None:
        """Whatever has nothing to do with the finding; kinds of steps; then halves, quarters, down to single steps."""
        test = StillFails(share=min(self.share, RARE), miss=COARSE_MISS)
        if self.plan.patience == "long":
            self._take_first([smaller.Plainer("", "patience", ("short",)).at(self.plan, "short")], test)
        self._take_first(smaller.slices(self.plan, self.subjects), test)
        while self._take_first(smaller.kinds(self.plan), test) is not None:
            pass
        size = len(self.plan.steps) // 2
        while size > 1:
            self._leave_out_by(size, test)
            size = min(size // 2, len(self.plan.steps) // 2)
        while self._leave_out_by(1, test):
            pass

    def plainer(self) -> None:
        """Values: all at once, else all of a sort, else those of one step; a length at last by its ladder."""
        test = StillFails(share=self.share, miss=COARSE_MISS, rarer=AS_OFTEN, clear=AS_OFTEN_CLEAR)
        todo = smaller.values(self.plan)
        if self._set_back(todo, test):
            return
        for sort in dict.fromkeys(one.sort for one in todo):
            of_sort = [one for one in todo if one.sort == sort]
            if self._set_back(of_sort, test):
                continue
            for step in dict.fromkeys(one.step for one in of_sort):
                own = [one for one in of_sort if one.step == step]
                if not self._set_back(own, test) and len(own) == 1:
                    self._take_first([own[0].at(self.plan, value) for value in own[0].values[1:]], test)

    def single(self) -> None:
        """Each step, with all that hangs on it or without; again, until no step can be left out."""
        test = StillFails(share=min(self.share, RARE), miss=FINE_MISS)
        while self._leave_out_by(1, test):
            pass

    # -- what they do

    def _known_share(self) -> float:
        """The rate of the plan as it is now, by a few runs."""

        def more(failed: list[bool]) -> int:
            return 0 if sum(failed) >= SURE_AFTER else FIRST_RUNS_MOST - len(failed)

        failed = self.runs.until(SEARCH, self.plan, more)
        return max(sum(failed), 1) / max(len(failed), 1)

    def _leave_out_by(self, size: int, test: StillFails) -> bool:
        """Leave out so many steps at a time, from the end to the beginning. True if any were."""
        before = len(self.plan.steps)
        todo = smaller.chunks(self.plan, size)
        while todo:
            candidates = [(place, one) for place, names in enumerate(todo) for one in self._without(names)]
            found = self._take_first([one for _, one in candidates], test)
            if found is None:
                break
            todo = todo[candidates[found][0] + 1 :]
        return len(self.plan.steps) < before

    def _without(self, names: Sequence[str]) -> Iterator[Plan]:
        present = {step.name for step in self.plan.steps}
        names = [name for name in names if name in present]
        if not names:
            return
        whole = smaller.without(self.plan, names)
        yield whole
        if len(names) == 1:
            others = [smaller.freed(self.plan, names[0]), *smaller.replaced(self.plan, names[0])]
            yield from (other for other in dict.fromkeys(others) if other != whole)

    def _set_back(self, todo: Sequence[smaller.Plainer], test: StillFails) -> bool:
        """Set all of these back to the plainest. True if it still fails then, or there is nothing to set back."""
        plainest = self.plan
        for one in todo:
            plainest = one.at(plainest, one.values[0])
        return plainest == self.plan or self._take_first([plainest], test) is not None

    def _take_first(self, candidates: Iterable[Plan], test: StillFails) -> int | None:
        """Go on with the first of these that still fails, if one does; its place among them."""
        possible = [
            (place, plan)
            for place, plan in enumerate(candidates)
            if plan.steps and plan != self.plan and self.admits(plan)
        ]
        found = self.runs.first([plan for _, plan in possible], test)
        if found is None:
            return None
        place, self.plan = possible[found]
        self.runs.watcher.smallest(self.plan, self.runs.rate(SEARCH, self.plan))
        return place
