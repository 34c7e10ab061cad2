"""What a scripted test reads in a history besides the verdict: which lines were told, since when, and how answers stand."""

from __future__ import annotations

from collections.abc import Iterable

from ftmodel.errors import UsageError
from ftmodel.history import (
    Answered,
    ClientClosed,
    Event,
    Exited,
    FaultMade,
    Interval,
    Listed,
    LogLine,
    Received,
    RequestEnded,
    RequestSent,
    ResponseBegun,
    Setting,
    Started,
    StepDone,
)
from ftmodel.systems import Role


class Evidence:
    """The events of a history, as they stand. Requests and steps go by their names in the plan."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = tuple(events)

    @property
    def setting(self) -> Setting:
        """What the cluster is, what it promises, and which log meanings were proven. Raises UsageError if not told."""
        for event in self._events:
            if isinstance(event, Setting):
                return event
        raise UsageError("the history has no setting: expected it as its first event")

    def sent(self, request: str) -> RequestSent | None:
        """The sending of a request, once it was sent."""
        return next((e for e in self._events if isinstance(e, RequestSent) and e.request == request), None)

    def told(self, meaning: str, *, of: str = "", since: Interval | None = None) -> tuple[LogLine, ...]:
        """The log lines of this meaning (`LogLine`): of one request, and told from this moment on.

        Where a line bears no id, `since` keeps what an earlier case of the same test has caused out of a later one.
        """
        sent = self.sent(of) if of else None
        return tuple(
            event
            for event in self._events
            if isinstance(event, LogLine) and event.meaning == meaning
            if not of or (sent is not None and event.id == sent.id)
            if since is None or event.at.after_s >= since.before_s
        )

    def over(self, request: str) -> RequestEnded | ClientClosed | None:
        """How the client was done with a request; None while it is not."""
        overs = (e for e in self._events if isinstance(e, RequestEnded | ClientClosed) and e.request == request)
        return next(overs, None)

    def status(self, request: str) -> int | None:
        """The status of the answer, once its head has come."""
        begun = (e for e in self._events if isinstance(e, ResponseBegun) and e.request == request)
        return next((e.status for e in begun), None)

    def errors(self, request: str) -> tuple[str, ...]:
        """The messages of the errors that the answer told."""
        bursts = (e for e in self._events if isinstance(e, Received) and e.request == request)
        return tuple(item.value for burst in bursts for item in burst.items if item.what == "error")

    def answers(self, title: str) -> bool:
        """True once this worker has answered a request, or this frontend passed an answer on."""
        return any(isinstance(e, Answered) and title in (e.title, e.frontend) for e in self._events)

    def titles(self, role: Role) -> set[str]:
        """The lives of all processes of this role so far."""
        return {e.title for e in self._events if isinstance(e, Started) and e.role == role}

    def listed(self, frontend: str = "frontend-1") -> Listed | None:
        """The frontend's instance list as it was last asked."""
        lists = [e for e in self._events if isinstance(e, Listed) and e.frontend == frontend]
        return lists[-1] if lists else None

    def exited(self, title: str) -> Exited | None:
        """How a process ended; None while it lives."""
        return next((e for e in self._events if isinstance(e, Exited) and e.title == title), None)

    def hit(self, step: str) -> FaultMade | None:
        """The verified fault of a step: which process it hit, and when; None if there was none."""
        return next((e for e in self._events if isinstance(e, FaultMade) and e.step == step and e.verified), None)

    def done(self, step: str) -> StepDone | None:
        """When a step was done, and to what; None if it was not."""
        return next((e for e in self._events if isinstance(e, StepDone) and e.step == step), None)
