"""P1: the grammar of an answer, as OpenAI's API has it: chunks, one finish per choice, one [DONE]; or an error.

What an answer does not tell is judged here in every case (an empty 200, a missing finish or [DONE]). How a told failure
looks (`cut`, `error-without-done`, `unstructured-error`) is judged where the request may fail: where it must complete,
the failure itself is L2's. Of a request that its client left, only the prefix that it read is judged. An answer that is
too short though it looks like a whole one is T2's, unless the tester had the engine fail it: then it is this one's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ftmodel.history import ClientClosed, Event, Item, Received, RequestEnded
from ftmodel.invariants.base import Finding, Invariant, when
from ftmodel.invariants.duty import completion
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Request
from ftmodel.invariants.tokens import count, too_short


@dataclass(slots=True)
class Reading:
    """How far one answer has been read."""

    finished: set[int] = field(default_factory=set)
    done: bool = False
    error: bool = False
    said: bool = False
    malformed: str | None = None

    def breach(self, item: Item) -> tuple[str, str] | None:
        """What this item breaks, as a slug and in words, and read on."""
        broken = self._breach(item)
        self.said = self.said or item.what != "empty"
        match item.what:
            case "finish":
                self.finished.add(item.choice)
            case "done":
                self.done = True
            case "error":
                self.error = True
            case "malformed":
                self.malformed = item.value
            case _:
                pass
        return broken

    def _breach(self, item: Item) -> tuple[str, str] | None:
        if self.malformed is not None:
            return "malformed", f"a line that is no event: {self.malformed[:60]!r}"
        if self.done:
            return "after-done", f"{_named(item)} after [DONE]"
        speaks = item.what == "finish" or (item.what == "text" and item.value != "")
        if self.error and speaks:
            return "after-error", f"{_named(item)} after an error"
        if item.choice in self.finished and speaks:
            slug = "two-finishes" if item.what == "finish" else "after-finish"
            return slug, f"{_named(item)} after the finish of choice {item.choice}"
        return None


def _named(item: Item) -> str:
    return f"{item.what} {item.value[:40]!r}" if item.value else item.what


class Grammar(Invariant):
    """P1. One finish per choice, one [DONE], nothing after it, or a structured error; never an empty 200."""

    id = "P1"
    sentence = "An answer is chunks, one finish per choice and one [DONE], or a structured error; a cut one says so."
    kinds = frozenset({"received", "request-ended", "client-closed"})
    slugs = frozenset(
        {
            "empty-200",
            "no-done",
            "done-without-finish",
            "two-finishes",
            "after-finish",
            "after-done",
            "after-error",
            "malformed",
            "unstructured-error",
            "error-without-done",
            "cut",
            "looks-whole",
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self._readings: dict[str, Reading] = {}

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Read on, and judge endings that tell nothing."""
        match event:
            case Received():
                yield from self._read(event, ledger.requests[event.request])
            case RequestEnded():
                self.tally.evaluated += 1
                reading = self._readings.pop(event.request, Reading())
                request = ledger.requests[event.request]
                if request.ended is event:
                    yield from self._silent(request, reading, event)
            case ClientClosed():
                self.tally.evaluated += not ledger.requests[event.request].closed_after_end
                self._readings.pop(event.request, None)
            case _:
                pass

    def _read(self, event: Received, request: Request) -> Iterator[Finding]:
        if request.status != 200:
            return
        reading = self._readings.setdefault(event.request, Reading())
        for item in event.items:
            broken = reading.breach(item)
            if broken:
                slug, words = broken
                yield self._finding(slug, request, f"has {words}", f"client, {when(event.at)}: {_named(item)}")

    def _silent(self, request: Request, reading: Reading, event: RequestEnded) -> Iterator[Finding]:
        """Endings that do not tell that the answer is incomplete."""
        if event.how != "eof" or request.status != 200:
            return
        evidence = f"client, {when(event.at)}: end of the body"
        if reading.malformed is not None:
            yield self._finding("malformed", request, f"ends in a line that is no event: {reading.malformed[:60]!r}")
        elif not reading.said:
            yield self._finding("empty-200", request, "is an empty 200, expected a body", evidence)
        elif reading.error:
            return
        elif request.sent.stream and not reading.done:
            yield self._finding("no-done", request, "ends without [DONE] and without an error", evidence)
        elif not request.finished:
            lacking = [str(i) for i, choice in sorted(request.choices.items()) if choice.finish is None] or ["0"]
            words = f"ends as a whole one, but choice {', '.join(lacking)} has no finish"
            yield self._finding("done-without-finish", request, words, evidence)

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Endings that tell of a failure: their form, where a failure is allowed."""
        for request in ledger.requests.values():
            ended = request.ended
            told = self._told(ledger, request, ended) if ended else None
            if ended and told and (request.told_all or completion(ledger, request).value != "must"):
                slug, words = told
                evidence = f"client, {when(ended.at)}: {ended.how} {ended.detail}".rstrip()
                yield self._finding(slug, request, words, evidence)
            elif ended and request.erred is not None and request.whole:
                yield from self._looks_whole(ledger, request, ended)

    def _looks_whole(self, ledger: Ledger, request: Request, ended: RequestEnded) -> Iterator[Finding]:
        """What an engine broke off must not end like what it finished."""
        how = request.erred.how if request.erred else ""
        for index, choice in request.asked:
            if choice.finish in ("length", "stop") and too_short(ledger, request, choice):
                words = (
                    f"ends as a whole one, choice {index} with finish reason {choice.finish!r}, though its engine broke"
                    f" it off ({how}) at {count(ledger, choice)} of {request.sent.max_tokens} tokens"
                )
                yield self._finding("looks-whole", request, words, f"client, {when(ended.at)}: end of the body")
                return

    def _told(self, ledger: Ledger, request: Request, ended: RequestEnded) -> tuple[str, str] | None:
        how, promised = ended.how, ledger.setting.promise.broken_stream
        if how == "cut" and promised and ledger.touched_from_s(request.sent.frontend) > ended.at.after_s:
            return "cut", "ends in a broken connection, expected " + " and ".join(promised)
        if how != "eof":
            return None
        if request.status != 200:
            body = repr(request.malformed[:60]) if request.malformed else "empty"
            words = f"has status {request.status}, its body is {body}, expected a JSON error"
            return ("unstructured-error", words) if request.error is None else None
        if request.error is not None and request.sent.stream and "done" in promised and not request.dones:
            return "error-without-done", f"ends after an error without [DONE]: {request.error[:60]}"
        return None

    def _finding(self, slug: str, request: Request, words: str, *evidence: str) -> Finding:
        sent = f"client, {when(request.sent.at)}: {request.name} sent through {request.sent.frontend}"
        return self.finding(slug, request.name, f"the answer of {request.name} {words}", sent, *evidence)
