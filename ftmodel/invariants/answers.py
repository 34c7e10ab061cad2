"""What an answer tells beside its text: P3 one id, one model, its own choices; P4 no cross-talk; P5 a true usage.

Who owns what: a text that is strange because another request's tokens are in it is P4's, any other that differs is T1's.
Of an answer whose text is not what it must be (T1, T2, T4, P4), or that goes on past its finish (P1), nobody can tell how
many tokens were delivered: P5 leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ftmodel.history import Event, Interval, Item, Received
from ftmodel.invariants.base import Finding, Invariant, when
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Request
from ftmodel.invariants.requests import course_of
from ftmodel.invariants.texts import Twin
from ftmodel.invariants.tokens import cross_talk, delivered, shown

_SPOKEN: Final = frozenset({"text", "finish", "usage", "empty"})
"""Items of a chunk that has an id and a model."""


class OneIdentity(Invariant):
    """P3. The API is OpenAI's (components/frontend): each chunk bears the answer's id and model; a choice is below n.

    The id that a client gives becomes the answer's where the system adopts it: it does if it ever did in this example.
    """

    id = "P3"
    sentence = "All chunks of an answer bear one id, one model and indexes of choices that were asked for."
    kinds = frozenset({"received"})
    at_any_end = True
    slugs = frozenset({"id", "model", "index"})

    def __init__(self) -> None:
        super().__init__()
        self._strange: dict[tuple[str, str], tuple[Item, Interval]] = {}
        """By slug and request, the first chunk that bears another's."""
        self._adopted = {"id": False, "model": False}
        self._spoke: set[str] = set()

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Keep what is strange; an index is judged at once."""
        if isinstance(event, Received):
            request = ledger.requests[event.request]
            for item in event.items:
                if item.what in _SPOKEN:
                    yield from self._read(event, item, request)

    def _read(self, event: Received, item: Item, request: Request) -> Iterator[Finding]:
        self._spoke.add(event.request)
        for slug, strange in (("id", item.answer_id), ("model", item.model)):
            if strange:
                self._strange.setdefault((slug, event.request), (item, event.at))
            else:
                self._adopted[slug] = True
        if not 0 <= item.choice < request.sent.n:
            message = f"{request.name} got choice {item.choice}, expected less than {request.sent.n}"
            yield self.finding("index", request.name, message, _received(item, event.at))

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge the ids and models that are not the request's own."""
        self.tally.evaluated += len(self._spoke)
        for (slug, name), (item, at) in self._strange.items():
            request = ledger.requests[name]
            if not self._adopted[slug]:
                self.tally.unknown += 1  # the system may name all answers otherwise
                continue
            got = item.answer_id if slug == "id" else item.model
            own = f"one that ends in {request.sent.id}" if slug == "id" else "the one asked for, as in other chunks"
            yield self.finding(
                slug, name, f"a chunk of {name} bears the {slug} {got!r}, expected {own}", _received(item, at)
            )


def _received(item: Item, at: Interval) -> str:
    return f"client, {when(at)}: {item.what} {item.value[:40]!r} of choice {item.choice}"


class NoCrossTalk(Invariant):
    """P4. Several tokens of another request, or its key, in an answer. No page says that this must not be; it is plain."""

    id = "P4"
    sentence = "No token of one request is in another's answer."
    needs = frozenset({"exact text"})
    at_any_end = True
    slugs = frozenset({"cross-talk"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each choice's text, where there was another request that it could be mixed up with."""
        for request in ledger.requests.values():
            twins = [(i, choice.twin) for i, choice in request.asked if choice.twin is not None]
            self.tally.evaluated += bool(twins) and len(ledger.requests) > 1
            for index, twin in twins:
                yield from self._judge(ledger, request, index, twin)

    def _judge(self, ledger: Ledger, request: Request, index: int, twin: Twin) -> Iterator[Finding]:
        found = cross_talk(ledger, request, twin)
        if found is None or twin.differs_at is None:
            return
        other, part = found
        yield self.finding(
            "cross-talk",
            request.name,
            f"the text of {request.name}, choice {index}, holds {part!r} of {other.name}: from character"
            f" {twin.differs_at} on {shown(twin, twin.differs_at)}",
            *course_of(ledger, request),
            *course_of(ledger, other),
        )


class UsageIsTrue(Invariant):
    """P5. As in OpenAI's API (components/frontend): usage in every answer that is not streamed, in a stream if asked for.

    No page speaks of it over a migration; that is said to be transparent (fault-tolerance/request-migration), so the
    prompt is the client's own, not what the second engine was given. The tokens of a stop string may count or not.
    """

    id = "P5"
    sentence = "Usage is true: prompt_tokens is the prompt's, completion_tokens is what was delivered, migrated or not."
    slugs = frozenset({"prompt-tokens", "completion-tokens", "missing"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each whole answer that told a usage, or had to."""
        for request in ledger.requests.values():
            if not request.whole or request.sent.wrong or request.erred is not None:
                continue
            if request.usage is not None:
                yield from self._told(ledger, request, *request.usage)
            elif request.sent.usage or not request.sent.stream:
                self.tally.evaluated += 1
                message = f"{request.name} was answered without usage, expected it at the end"
                yield self.finding("missing", request.name, message, *course_of(ledger, request))

    def _told(self, ledger: Ledger, request: Request, prompt: int | None, completion: int) -> Iterator[Finding]:
        counted = ledger.setting.exact_text or ledger.setting.token_chars > 0  # a token of the prompt is a byte there
        if prompt is None or not counted:
            self.tally.unknown += 1
        else:
            self.tally.evaluated += 1
            if prompt != request.sent.prompt_tokens:
                words = f"{prompt} prompt tokens for {request.name}, expected {request.sent.prompt_tokens}"
                yield self.finding("prompt-tokens", request.name, f"usage tells {words}", *course_of(ledger, request))
        parts = [delivered(ledger, request, choice) for _, choice in request.asked]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            self.tally.unknown += 1
            return
        self.tally.evaluated += 1
        least, most = sum(part.start for part in known), sum(part.stop - 1 for part in known)
        if not least <= completion <= most:
            expected = f"{least}" if least == most else f"{least} to {most}"
            words = f"{completion} completion tokens for {request.name}, expected {expected}"
            yield self.finding("completion-tokens", request.name, f"usage tells {words}", *course_of(ledger, request))
