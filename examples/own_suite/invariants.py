"""An invariant of this project's own: its clients give up when the first token takes longer than 20 s."""

from collections.abc import Iterable

from ftmodel.history import Event, Interval, Received, RequestSent
from ftmodel.invariants.base import Finding, Invariant, when
from ftmodel.invariants.ledger import Ledger

FIRST_TOKEN_S = 20.0


class FirstToken(Invariant):
    """MY1. The first text of a stream came later than promised, though no worker had been frozen."""

    id = "MY1"
    sentence = "A stream's first token comes within 20 s, unless a worker was frozen."
    kinds = frozenset({"request-sent", "received"})
    slugs = frozenset({"late"})

    def __init__(self) -> None:
        super().__init__()
        self._sent: dict[str, Interval] = {}

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Remember when a stream was asked for; judge it when its first text comes."""
        if isinstance(event, RequestSent) and event.stream:
            self._sent[event.request] = event.at
        elif isinstance(event, Received) and any(item.what == "text" for item in event.items):
            sent = self._sent.pop(event.request, None)
            frozen = any(fault.fault == "freeze-worker" for worker in ledger.workers for fault in worker.faults)
            if sent is not None and not frozen:
                yield from self._judge(event, sent)

    def _judge(self, event: Received, sent: Interval) -> Iterable[Finding]:
        self.tally.evaluated += 1
        waited_s = event.at.before_s - sent.after_s
        if waited_s > FIRST_TOKEN_S:
            yield self.finding(
                "late",
                event.request,
                f"the first token of {event.request} came after {waited_s:.1f} s, expected at most {FIRST_TOKEN_S:g} s",
                f"client, {when(sent)}: sent",
                f"client, {when(event.at)}: first text",
            )
