"""What the ledger keeps: per request, process, generation and frontend view, a small mutable record."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ftmodel.history import (
    ClientClosed,
    EngineErred,
    Exited,
    FaultMade,
    Interval,
    LogLine,
    RequestEnded,
    RequestSent,
    ResponseBegun,
    Sample,
    Started,
    Told,
)
from ftmodel.invariants.texts import Twin

NEVER: Final = Interval(math.inf, math.inf)

GONE_AFTER_S: Final = 1.0
"""A poll that begins this long after a death and does not show the dead one proves that it has left the list."""


# --- requests ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Choice:
    """One choice of an answer. Text that follows the finish is not counted here: it breaks the grammar (P1)."""

    finish: str | None = None
    chars: int = 0
    texts: int = 0
    twin: Twin | None = None
    beyond: bool = False
    """Something was said after its finish."""


@dataclass(slots=True)
class Request:
    """One request as its client saw it."""

    sent: RequestSent
    begun: ResponseBegun | None = None
    choices: dict[int, Choice] = field(default_factory=dict)
    said: list[tuple[float, int]] = field(default_factory=list)
    """Of the first choice: when its client had more text, and how many characters it had then."""
    dones: int = 0
    error: str | None = None
    """The message of the first error that the answer told."""
    malformed: str = ""
    """The first line of the answer that could not be read."""
    ended: RequestEnded | None = None
    closed: ClientClosed | None = None
    usage: tuple[int | None, int] | None = None
    """Prompt and completion tokens, as the answer last told them; no prompt tokens told: None."""
    pauses: list[Interval] = field(default_factory=list)
    """When its client read nothing, by its own will."""
    erred: EngineErred | None = None
    """Its engine failed it, as the tester told it to."""
    closed_after_end: bool = False
    """The client left only after it had read the end: that cancels nothing."""

    @property
    def name(self) -> str:
        """Its name in the plan."""
        return self.sent.request

    @property
    def over(self) -> Interval | None:
        """When the client was done with it, whichever way; None if it was not."""
        last = self.ended or self.closed
        return last.at if last else None

    @property
    def left_at(self) -> Interval:
        """When the client left; never, if it did not."""
        return self.closed.at if self.closed else NEVER

    @property
    def is_stalled(self) -> bool:
        """Its engine was told to stall, so it need not end before its client leaves or the worker dies."""
        return self.erred is not None and self.erred.how == "stall"

    @property
    def paused_s(self) -> float:
        """How long its client read nothing, by its own will."""
        return sum(pause.after_s - pause.before_s for pause in self.pauses)

    def paused_in_s(self, from_s: float, to_s: float) -> float:
        """How long its client read nothing in between, by its own will."""
        return sum(max(0.0, min(pause.after_s, to_s) - max(pause.before_s, from_s)) for pause in self.pauses)

    @property
    def status(self) -> int | None:
        """The answer's status, once its head has come."""
        return self.begun.status if self.begun else None

    @property
    def finished(self) -> bool:
        """Every choice that appeared, and one at least, has a finish. Engines may ignore n."""
        return bool(self.choices) and all(choice.finish is not None for choice in self.choices.values())

    @property
    def asked(self) -> list[tuple[int, Choice]]:
        """The choices that appeared, by index, without those that nobody asked for."""
        return [(index, choice) for index, choice in sorted(self.choices.items()) if index < self.sent.n]

    @property
    def told_all(self) -> bool:
        """The answer says of itself that it is complete."""
        said_done = not self.sent.stream or self.dones > 0
        return self.status == 200 and self.finished and said_done and self.error is None

    @property
    def whole(self) -> bool:
        """A complete answer, read to its end."""
        one_done = not self.sent.stream or self.dones == 1
        return self.told_all and one_done and self.ended is not None and self.ended.how == "eof"


# --- processes --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Incarnation:
    """One life of a process."""

    started: Started
    faults: list[FaultMade] = field(default_factory=list)
    exited: Exited | None = None
    listed: dict[str, Interval] = field(default_factory=dict)
    """By frontend, the first poll that showed it, with the model being served."""
    answered: dict[str, Interval] = field(default_factory=dict)
    """By frontend, when it first answered a request of the tester's."""
    running: list[Sample] = field(default_factory=list)
    """The samples that tell how many requests run there."""

    told: list[Told] = field(default_factory=list)
    """What it said of its own health."""

    identity: str = ""
    """Its id on the frontends' lists and in their logs; empty: not known."""

    exit_ordered: bool = False
    """It wrote that it dies as the tester told it to: a fault that a history may lack when it ends early."""

    @property
    def title(self) -> str:
        """Its name, which no other incarnation has."""
        return self.started.title

    @property
    def touches(self) -> list[Interval]:
        """Faults and exit: verified or not, each could have happened."""
        made = [fault.at for fault in self.faults if not fault.fault.startswith("thaw")]
        return made + ([self.exited.at] if self.exited else [])

    @property
    def touched_from_s(self) -> float:
        """The first moment when it could have been touched, for good; infinity if it never was."""
        return min((touch.before_s for touch in self.touches), default=math.inf)

    @property
    def died(self) -> Interval | None:
        """When it died; None if it surely did not or may not have."""
        if self.exited:
            return self.exited.at
        deadly = ("kill-worker", "kill-frontend")
        kills = [fault.at for fault in self.faults if fault.fault in deadly and fault.verified]
        return min(kills, key=lambda at: at.after_s, default=None)

    def frozen(self) -> Iterator[tuple[float, float]]:
        """The spans in which it could be frozen: to a verified thaw, its death, or for ever."""
        end = self.died.after_s if self.died else math.inf
        for fault in self.faults:
            if fault.fault.startswith("freeze"):
                thaws = (
                    thaw.at.after_s
                    for thaw in self.faults
                    if thaw.fault.startswith("thaw") and thaw.verified and thaw.at.after_s >= fault.at.before_s
                )
                yield fault.at.before_s, min(min(thaws, default=math.inf), end)

    def frozen_in(self, from_s: float, to_s: float, after_thaw_s: float = 0.0) -> bool:
        """True if it could be frozen at some time in [from_s, to_s]; a thaw counts only after_thaw_s later."""
        return any(begin <= to_s and from_s <= end + after_thaw_s for begin, end in self.frozen())


@dataclass(slots=True)
class Generation:
    """What the log of one incarnation says of one request id."""

    begun: list[LogLine] = field(default_factory=list)
    ended: list[LogLine] = field(default_factory=list)
    aborted: list[LogLine] = field(default_factory=list)
    failed: list[LogLine] = field(default_factory=list)
    finished: list[LogLine] = field(default_factory=list)
    signalled: list[LogLine] = field(default_factory=list)
    """It was told there that the client has left."""

    @property
    def ends(self) -> list[LogLine]:
        """Each of the ends that the engine itself told, of which a generation has one."""
        return self.ended + self.aborted + self.failed


# --- frontends --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class View:
    """The polls of one frontend's instance list, in the order in which they began."""

    befores_s: list[float] = field(default_factory=list)
    afters_s: list[float] = field(default_factory=list)
    titles: list[frozenset[str]] = field(default_factory=list)
    clear: list[bool] = field(default_factory=list)
    """The poll showed no id that the tester could not name: only then is a title that it lacks absent."""
    shown_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By title: when the first and the last of the polls that show it began."""

    def add(self, at: Interval, titles: frozenset[str], *, clear: bool) -> None:
        """Put in a poll; two that overlap may come in any order. Equal lists are kept once."""
        place = len(self.befores_s)
        while place and self.befores_s[place - 1] > at.before_s:
            place -= 1
        same = place > 0 and self.titles[place - 1] == titles
        self.befores_s.insert(place, at.before_s)
        self.afters_s.insert(place, at.after_s)
        self.titles.insert(place, self.titles[place - 1] if same else titles)
        self.clear.insert(place, clear)
        for title in titles:
            first_s, last_s = self.shown_s.get(title, (at.before_s, at.before_s))
            self.shown_s[title] = min(first_s, at.before_s), max(last_s, at.before_s)

    def shows(self, poll: int, title: str) -> bool:
        """This poll showed it."""
        return title in self.titles[poll]

    def lacks(self, poll: int, title: str) -> bool:
        """This poll surely did not show it."""
        return self.clear[poll] and title not in self.titles[poll]

    def since(self, from_s: float) -> range:
        """The polls that began at from_s or later."""
        return range(bisect_left(self.befores_s, from_s), len(self.titles))

    def first_showing(self, title: str, from_s: float) -> int | None:
        """The first poll begun at from_s or later that shows it."""
        first_s, last_s = self.shown_s.get(title, (0.0, -1.0))
        if last_s < from_s:
            return None
        return next((poll for poll in self.since(max(from_s, first_s)) if self.shows(poll, title)), None)

    def first_lacking(self, title: str, from_s: float) -> int | None:
        """The first poll begun at from_s or later that surely does not show it."""
        return next((poll for poll in self.since(from_s) if self.lacks(poll, title)), None)

    def last_showing(self, title: str, from_s: float, before_poll: int) -> int | None:
        """The last poll before this one, begun at from_s or later, that shows it."""
        earlier = range(before_poll - 1, self.since(from_s).start - 1, -1)
        return next((poll for poll in earlier if self.shows(poll, title)), None)

    def last_lacking(self, title: str, from_s: float, before_poll: int) -> int | None:
        """The last poll before this one, begun at from_s or later, that surely does not show it."""
        earlier = range(before_poll - 1, self.since(from_s).start - 1, -1)
        return next((poll for poll in earlier if self.lacks(poll, title)), None)


@dataclass(slots=True)
class Moves:
    """What a frontend's log says of one request id."""

    lines: list[LogLine] = field(default_factory=list)
    """`migrating` and `retrying`, in their order."""
    given_up: list[LogLine] = field(default_factory=list)

    @property
    def migrating(self) -> list[LogLine]:
        """Only the lines that tell of an ongoing stream."""
        return [line for line in self.lines if line.meaning == "migrating"]
