"""Tokens: T1 the text is the one that it must be, T2 there are as many as were asked for.

Who owns what: a text that is not a prefix of the expected one, however far that would go on, is T1's, and T2 then says
nothing of its length; if what is strange in it is another request's, it is P4's. A text that is as expected but ends
too early or too late is T2's; one that goes on past its stop string, or lacks what was withheld before it, is T4's. A text that ends early because the tester
had its engine fail it is P1's, and only if it looks like a whole one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ftmodel.engines.counting.worker import choice_key
from ftmodel.history import Event, LogLine
from ftmodel.invariants.base import Finding, Invariant, said, when
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Choice, Request
from ftmodel.invariants.requests import course_of
from ftmodel.invariants.stops import lacks_withheld
from ftmodel.invariants.texts import BROKEN, BROKEN_MOST, Twin, difference, foreign_part, whole_text

SHOWN_CHARS = 24


class TextIsExact(Invariant):
    """T1. At every time the text is a prefix of what a fault-free run gives (documented: a migration loses nothing)."""

    id = "T1"
    sentence = "No token is lost, doubled or reordered, migrated or not: the text equals the fault-free one."
    needs = frozenset({"exact text"})
    at_any_end = True
    slugs = frozenset({"lost", "doubled", "reordered", "differs"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each choice's text as far as it came."""
        for request in ledger.requests.values():
            twins = [(i, choice.twin) for i, choice in request.asked if choice.twin is not None]
            self.tally.evaluated += bool(twins)
            for index, twin in twins:
                if twin.differs_at is None or (request.erred is not None and is_cut_short(twin)):
                    continue
                if not cross_talk(ledger, request, twin):
                    words = f"the text of {request.name}, choice {index}, differs"
                    message = f"{words} at character {twin.differs_at}: {shown(twin, twin.differs_at)}"
                    yield self.finding(difference(twin), request.name, message, *course_of(ledger, request))


def is_cut_short(twin: Twin) -> bool:
    """The text is the beginning of the expected one, but for a last character that its engine did not finish."""
    whole = twin.text.rstrip(BROKEN)
    return len(twin.text) - len(whole) <= BROKEN_MOST and whole_text(twin.key, twin.max_tokens).startswith(whole)


def shown(twin: Twin, at: int) -> str:
    """Got and expected, around a character."""
    span = slice(max(0, at - 4), at + SHOWN_CHARS)
    return f"got {twin.text[span]!r}, expected {whole_text(twin.key, twin.max_tokens)[span]!r}"


def cross_talk(ledger: Ledger, request: Request, twin: Twin) -> tuple[Request, str] | None:
    """The request whose tokens, or whose key, stand in another's text that differs, and what of it stands there.

    A text that is the expected one with tokens lost, doubled or reordered holds no other's. Only valid at rest.
    """
    key = ("cross-talk", twin.key)
    if key not in ledger.memo:
        strange = twin.differs_at is not None and difference(twin) == "differs"
        ledger.memo[key] = next(_foreign(ledger, request, twin), None) if strange else None
    known: tuple[Request, str] | None = ledger.memo[key]
    return known


def _foreign(ledger: Ledger, request: Request, twin: Twin) -> Iterator[tuple[Request, str]]:
    until_s = ledger.life(request).after_s
    for other in ledger.requests.values():
        if other is request or other.sent.at.before_s > until_s:
            continue
        if other.sent.key in twin.text:
            yield other, other.sent.key
        for index in range(other.sent.n):
            part = foreign_part(twin, choice_key(other.sent.key.encode(), index), other.sent.max_tokens)
            if part:
                yield other, part


class CountIsExact(Invariant):
    """T2. With ignore_eos a whole answer has exactly max_tokens tokens and says so; a stop string ends it before.

    A second engine is asked for what was left (documented: within max_tokens, migrated or not).
    """

    id = "T2"
    sentence = (
        "A whole answer has max_tokens tokens and finish reason length, or ends at its stop string; a second engine gets"
        " what is left."
    )
    kinds = frozenset({"log"})
    at_any_end = True
    slugs = frozenset({"short", "long", "finish-reason", "wrong-remainder"})

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Judge what an engine was asked for."""
        if not isinstance(event, LogLine) or event.meaning != "begun" or event.id not in ledger.by_id:
            return
        position, left = event.fields.get("position"), event.fields.get("max_tokens")
        request = ledger.by_id[event.id]
        if not isinstance(position, int) or not isinstance(left, int) or request.sent.wrong:
            return
        self.tally.evaluated += 1
        remainder = max(0, request.sent.max_tokens - position)  # with more than was asked for, nothing is left
        if left != remainder:
            yield self.finding(
                "wrong-remainder",
                request.name,
                f"{event.title} was asked for {left} tokens of {request.name} from position {position},"
                f" expected {remainder}: max_tokens is {request.sent.max_tokens}",
                said(event),
            )

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each choice's length and finish reason."""
        for request in ledger.requests.values():
            for index, choice in request.asked:
                yield from self._judge(ledger, request, index, choice)

    def _judge(self, ledger: Ledger, request: Request, index: int, choice: Choice) -> Iterator[Finding]:
        if choice.twin is not None and (choice.twin.differs_at is not None or choice.twin.leaks):
            return  # T1's or P4's, or T4's
        long = too_long(ledger, request, choice)
        if long is None:
            self.tally.unknown += 1
        else:
            self.tally.evaluated += 1
        slug = words = ""
        if long:
            slug, words = "long", f"at least {count(ledger, choice)} tokens, more than max_tokens"
        elif request.whole and request.erred is None:
            slug, words = _ending(ledger, request, choice)
        if slug:
            evidence = f"client, {when(request.ended.at)}: end of the body" if request.ended else "client: still open"
            message = f"{request.name}, choice {index}, has {words}; max_tokens is {request.sent.max_tokens}"
            yield self.finding(slug, request.name, message, evidence, *course_of(ledger, request))


def _ending(ledger: Ledger, request: Request, choice: Choice) -> tuple[str, str]:
    """Slug and words of what is wrong with the end of a whole answer; empty if nothing is."""
    reasons = finishes(ledger, request, choice)
    if choice.finish not in reasons:
        expected = " or ".join(map(repr, reasons))
        return "finish-reason", f"finish reason {choice.finish!r}, expected {expected}"
    if too_short(ledger, request, choice) and not lacks_withheld(choice):
        up_to = " up to its stop string" if request.sent.stop else ""
        return "short", f"{count(ledger, choice)} tokens in a whole answer, expected all{up_to}"
    return "", ""


def finishes(ledger: Ledger, request: Request, choice: Choice) -> tuple[str, ...]:
    """The reasons for which this choice may finish: by max_tokens, or by a stop string if its text can have one."""
    if ledger.is_guided(request):
        return "length", "stop"
    if not request.sent.stop:
        return ("length",)
    if choice.twin is None or not choice.twin.stops:
        return "length", "stop"
    return ("length",) if choice.twin.stops_at is None else ("stop",)


def too_long(ledger: Ledger, request: Request, choice: Choice) -> bool | None:
    """True if it has more than max_tokens tokens; None if that cannot be told."""
    if choice.twin is not None:
        return choice.twin.over
    token_chars = ledger.setting.token_chars
    return choice.chars > request.sent.max_tokens * token_chars if token_chars else None


def too_short(ledger: Ledger, request: Request, choice: Choice) -> bool | None:
    """True if its text lacks what must come before its end; None if that cannot be told.

    Where only the engine knows where its stop string stands, a text that ends there may have any length; so may one that
    a grammar shapes.
    """
    if ledger.is_guided(request):
        return None
    if request.sent.stop and choice.finish == "stop" and (choice.twin is None or not choice.twin.stops):
        return None
    if choice.twin is not None:
        return not choice.twin.complete
    token_chars = ledger.setting.token_chars
    return choice.chars < request.sent.max_tokens * token_chars if token_chars else None


def count(ledger: Ledger, choice: Choice) -> int:
    """The tokens that its text shows at least."""
    if choice.twin is not None:
        return choice.twin.least_tokens
    return choice.chars // max(1, ledger.setting.token_chars)


def delivered(ledger: Ledger, request: Request, choice: Choice) -> range | None:
    """How many tokens of a whole answer's choice the client was given; None if that is not sure.

    A text that is not as it must be is another invariant's: how many tokens it has cannot be told.
    """
    if choice.beyond or too_long(ledger, request, choice) or choice.finish not in finishes(ledger, request, choice):
        return None
    if ledger.is_guided(request):
        return None
    if choice.twin is not None and (choice.twin.leaks or not choice.twin.complete):
        return None
    short, wanted = too_short(ledger, request, choice), request.sent.max_tokens
    if short is False:
        return choice.twin.tokens if choice.twin is not None else range(wanted, wanted + 1)
    token_chars = ledger.setting.token_chars
    if short is None and choice.twin is None and token_chars:
        hidden = max(map(len, request.sent.stop))
        return range(choice.chars // token_chars, -(-(choice.chars + hidden) // token_chars) + 2)
    return None
