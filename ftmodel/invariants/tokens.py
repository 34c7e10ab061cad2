"""Tokens: T1 the text is the one that it must be, T2 there are as many as were asked for.

Who owns what: a text that is not a prefix of the expected one, however far that would go on, is T1's, and T2 then says
nothing of its length. A text that is as expected but ends too early or too late is T2's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ftmodel.history import Event, LogLine
from ftmodel.invariants.base import Finding, Invariant, said, when
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Choice, Request
from ftmodel.invariants.requests import course_of
from ftmodel.invariants.texts import Twin, difference, whole_text

SHOWN_CHARS = 24


class TextIsExact(Invariant):
    """T1. At every time the text is a prefix of what a fault-free run gives (documented: a migration loses nothing)."""

    id = "T1"
    sentence = "No token is lost, doubled, reordered or foreign, migrated or not: the text equals the fault-free one."
    needs = frozenset({"exact text"})
    at_any_end = True
    slugs = frozenset({"lost", "doubled", "reordered", "foreign", "differs"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each choice's text as far as it came."""
        for request in ledger.requests.values():
            twins = [(i, choice.twin) for i, choice in request.choices.items() if choice.twin is not None]
            self.tally.evaluated += bool(twins)
            for index, twin in twins:
                if twin.differs_at is not None:
                    yield self._differs(ledger, request, index, twin, twin.differs_at)

    def _differs(self, ledger: Ledger, request: Request, index: int, twin: Twin, at: int) -> Finding:
        slug = difference(twin, _texts_beside(ledger, request))
        expected = whole_text(twin.key, twin.max_tokens)
        span = slice(max(0, at - 4), at + SHOWN_CHARS)
        return self.finding(
            slug,
            request.name,
            f"the text of {request.name}, choice {index}, differs at character {at}: got {twin.text[span]!r},"
            f" expected {expected[span]!r}",
            *course_of(ledger, request),
        )


def _texts_beside(ledger: Ledger, request: Request) -> list[str]:
    """The full texts of the requests that were open at the same time."""
    life = ledger.life(request)
    return [
        whole_text(other.sent.key.encode(), other.sent.max_tokens)
        for other in ledger.requests.values()
        if other is not request and ledger.life(other).could_overlap(life.before_s, life.after_s)
    ]


class CountIsExact(Invariant):
    """T2. With ignore_eos a whole answer has exactly max_tokens tokens and says so.

    A second engine is asked for what was left (documented: within max_tokens, migrated or not).
    """

    id = "T2"
    sentence = (
        "A whole answer has exactly max_tokens tokens and finish reason length; a second engine gets what is left."
    )
    kinds = frozenset({"log"})
    at_any_end = True
    slugs = frozenset({"short", "long", "finish-reason", "wrong-remainder"})

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Judge what an engine was asked for."""
        if not isinstance(event, LogLine) or event.meaning != "begun" or event.id not in ledger.by_id:
            return
        position, left = event.fields.get("position"), event.fields.get("max_tokens")
        if not isinstance(position, int) or not isinstance(left, int):
            return
        self.tally.evaluated += 1
        request = ledger.by_id[event.id]
        wanted = request.sent.max_tokens
        if position + left != wanted:
            yield self.finding(
                "wrong-remainder",
                request.name,
                f"{event.title} was asked for {left} tokens of {request.name} from position {position},"
                f" expected {wanted - position}: max_tokens is {wanted}",
                said(event),
            )

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each choice's length and finish reason."""
        for request in ledger.requests.values():
            for index, choice in sorted(request.choices.items()):
                yield from self._judge(ledger, request, index, choice)

    def _judge(self, ledger: Ledger, request: Request, index: int, choice: Choice) -> Iterator[Finding]:
        if choice.twin is not None and choice.twin.differs_at is not None:
            return  # T1's
        off = _off(ledger, request, choice)
        if off is None:
            self.tally.unknown += 1
            off = ("", "")
        else:
            self.tally.evaluated += 1
        slug, words = off
        if request.whole and choice.finish != "length":
            slug, words = "finish-reason", f"finish reason {choice.finish!r}, expected 'length'"
        if slug:
            evidence = f"client, {when(request.ended.at)}: end of the body" if request.ended else "client: still open"
            message = f"{request.name}, choice {index}, has {words}; max_tokens is {request.sent.max_tokens}"
            yield self.finding(slug, request.name, message, evidence, *course_of(ledger, request))


def _off(ledger: Ledger, request: Request, choice: Choice) -> tuple[str, str] | None:
    """Slug and words if the answer is too long, or whole and too short; empty if not; None if it cannot be told."""
    wanted, token_chars = request.sent.max_tokens, ledger.setting.token_chars
    if choice.twin is not None:
        long, short, count = choice.twin.over, not choice.twin.complete, choice.twin.least_tokens
    elif token_chars:
        long, short = choice.chars > wanted * token_chars, choice.chars < wanted * token_chars
        count = choice.chars // token_chars
    else:
        return None
    if long:
        return "long", f"at least {count} tokens, more than max_tokens"
    if short and request.whole:
        return "short", f"{count} tokens in a whole answer, expected all"
    return "", ""
