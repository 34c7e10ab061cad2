"""T4: an answer ends before its stop string.

Who owns what: a text that is not the expected one is T1's, stop strings or not. One that is, but goes into its stop
string or past it, is T4's, and so is a whole one that lacks what a frontend withholds before a stop string: at most as
much as a stop string is long. What lacks more is T2's, and so is the finish reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ftmodel.history import Event, Received
from ftmodel.invariants.base import Finding, Invariant
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Choice, Request
from ftmodel.invariants.requests import course_of
from ftmodel.invariants.texts import Twin

SHOWN_CHARS = 24


def lacks_withheld(choice: Choice) -> bool:
    """True if an answer that its stop string ended lacks the last of the text before it."""
    twin = choice.twin
    if twin is None or twin.stops_at is None or twin.differs_at is not None or choice.finish != "stop":
        return False
    return 0 < twin.stops_at - len(twin.text) <= max(map(len, twin.stops))


class StopsHold(Invariant):
    """T4. As OpenAI's API has it: the answer ends at the first stop string, which is no part of it."""

    id = "T4"
    sentence = (
        "An answer ends right before its stop string, migrated or not: nothing of it is told, nothing before it lost."
    )
    kinds = frozenset({"received"})
    at_any_end = True
    slugs = frozenset({"leaked", "past-stop", "withheld-lost"})

    def __init__(self) -> None:
        super().__init__()
        self._tails: dict[tuple[str, int], str] = {}
        self._told: dict[tuple[str, int], tuple[str, bool]] = {}
        """By request and choice: the stop string that its text holds, and whether the text goes on behind it."""
        self._over: set[tuple[str, int]] = set()
        """Those that have a finish: what comes then breaks the grammar, which is P1's."""

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Look for stop strings in what a client was told, where the text itself is not known before."""
        if not isinstance(event, Received) or ledger.setting.exact_text:
            return ()
        sent = ledger.requests[event.request].sent
        for item in event.items if _is_judged(ledger.requests[event.request]) else ():
            key = (event.request, item.choice)
            if item.what == "finish":
                self._over.add(key)
            elif item.what == "text" and key not in self._over:
                self._look(key, item.value, sent.stop)
        return ()

    def _look(self, key: tuple[str, int], piece: str, stops: tuple[str, ...]) -> None:
        if key in self._told:
            self._told[key] = (self._told[key][0], self._told[key][1] or bool(piece))
            return
        text = self._tails.get(key, "") + piece
        self._tails[key] = text[-max(map(len, stops)) :]
        ends = [(text.find(stop) + len(stop), stop) for stop in stops if stop and stop in text]
        if ends:
            end, stop = min(ends)
            self._told[key] = (stop, end < len(text))

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each request that has stop strings and was answered."""
        for request in ledger.requests.values():
            for index, choice in sorted(request.choices.items()) if _is_judged(request) else ():
                self.tally.evaluated += 1
                yield from self._judge(ledger, request, index, choice)

    def _judge(self, ledger: Ledger, request: Request, index: int, choice: Choice) -> Iterator[Finding]:
        slug = words = ""
        if choice.twin is not None:
            slug, words = _wrong(request, choice, choice.twin)
        elif (request.name, index) in self._told:
            stop, goes_on = self._told[request.name, index]
            slug, words = ("past-stop", f"goes on past {stop!r}") if goes_on else ("leaked", f"ends with {stop!r}")
        if slug:
            stops = ", ".join(map(repr, request.sent.stop))
            message = f"the text of {request.name}, choice {index}, {words}; its stop strings are {stops}"
            yield self.finding(slug, request.name, message, *course_of(ledger, request))


def _is_judged(request: Request) -> bool:
    """It has stop strings that count from its first token on."""
    return any(request.sent.stop) and request.sent.min_tokens == 0


def _wrong(request: Request, choice: Choice, twin: Twin) -> tuple[str, str]:
    """Slug and words of what is wrong at the stop string of a text that is known before; empty if nothing is."""
    if twin.differs_at is not None or twin.stops_at is None:
        return "", ""
    told = twin.text[twin.stops_at :]
    if told:
        whole = any(told.startswith(stop) and len(told) > len(stop) for stop in twin.stops if stop)
        shown = repr(told[:SHOWN_CHARS])
        return ("past-stop", f"goes on with {shown}") if whole else ("leaked", f"ends with {shown}")
    if request.whole and request.erred is None and lacks_withheld(choice):
        lost = twin.stops_at - len(twin.text)
        return "withheld-lost", f"lacks the last {lost} of {twin.stops_at} characters before its stop string"
    return "", ""
