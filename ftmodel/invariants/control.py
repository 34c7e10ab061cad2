"""The control plane: C3 an outage of it does no lasting damage.

Who owns what: the end of a process that an outage of the control plane could explain is C3's, any other R5's. A worker
that was listed before an outage and is not any more after it is C3's, one that was listed in between C7's. Requests
that fail in an outage and shortly after it are nobody's; later ones are L2's as ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ftmodel.invariants.base import Finding, Invariant, when
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.outages import CONTROL, Outage, outages, upset
from ftmodel.invariants.records import Incarnation, View


class OutageIsOutlived(Invariant):
    """C3. Documented (runtime, discovery client): a process ends when its lease has expired; so not before that.

    A lease is renewed when half of it is left, so `outage_s` is less than half of it. What outlives an outage, however
    long, is found again: an instance is listed exactly while it can be routed to (discovery plane).
    """

    id = "C3"
    sentence = "An outage of the control plane that is shorter than the lease ends nobody; who outlives one is listed."
    needs = frozenset({"a control plane service"})
    slugs = frozenset({"ended", "unlisted"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each outage that was over by then."""
        own = [outage for outage in outages(ledger) if outage.service == CONTROL]
        for outage in own:
            alone = all(other is outage or _are_apart(ledger, outage, other) for other in own)
            if outage.longest_s < ledger.setting.promise.outage_s:
                yield from self._ended(ledger, outage, alone=alone)
            if alone:
                yield from self._unlisted(ledger, outage)

    def _ended(self, ledger: Ledger, outage: Outage, *, alone: bool) -> Iterator[Finding]:
        over_s = outage.back.after_s + ledger.setting.bounds.list_bound_s
        for process in (*ledger.frontends, *ledger.all_workers):
            if process.faults or process.exit_ordered or not _was_up(ledger, process, outage):
                continue
            exited = process.exited
            hurt = exited is not None and exited.at.could_overlap(outage.began.before_s, over_s)
            if (hurt and not alone) or ledger.stalled(outage.began.before_s, ledger.setting.promise.outage_s):
                self.tally.unknown += 1  # several outages are as good as a long one, and who sleeps renews no lease
                continue
            if not hurt and ledger.rest_s <= over_s:
                continue
            self.tally.evaluated += 1
            if hurt and exited is not None:
                how = f"signal {exited.signal}" if exited.signal is not None else f"exit code {exited.code}"
                yield self.finding(
                    "ended",
                    process.title,
                    f"{process.title} ended by itself ({how}) {exited.at.before_s - outage.began.before_s:.1f} s after"
                    f" the beginning of an outage of {outage.service} of {outage.longest_s:.1f} s, expected to outlive"
                    f" it: the lease is {ledger.setting.bounds.lease_s:g} s",
                    *_course(outage),
                    f"{process.title}, {when(exited.at)}: {how}",
                )

    def _unlisted(self, ledger: Ledger, outage: Outage) -> Iterator[Finding]:
        """A worker that lived through it untouched, and that an untouched frontend does not list any more."""
        over_s = outage.back.after_s + ledger.setting.bounds.list_bound_s
        for worker in ledger.all_workers:
            for frontend, view in ledger.views.items():
                listed = worker.listed.get(frontend)
                until_s = min(worker.touched_from_s, ledger.touched_from_s(frontend))
                late = [i for i in view.since(over_s) if view.befores_s[i] > over_s and view.afters_s[i] < until_s]
                if listed is None or not listed.surely_before(outage.began) or not late:
                    continue
                if ledger.stalled(outage.back.after_s, ledger.setting.bounds.list_bound_s):
                    self.tally.unknown += 1
                    continue
                self.tally.evaluated += 1
                if lost_in(view, worker.title, outage, late[0]):
                    message = (
                        f"{frontend} did not list {worker.title} {view.befores_s[late[0]] - outage.back.after_s:.1f} s"
                        f" after the end of an outage of {outage.service}, which it lived through untouched"
                    )
                    yield self.finding("unlisted", worker.title, message, *_course(outage))


def lost_in(view: View, title: str, outage: Outage, poll: int) -> bool:
    """True if this poll surely does not show it, and none has since the outage was over."""
    return view.lacks(poll, title) and view.last_showing(title, outage.back.after_s, poll) is None


def _are_apart(ledger: Ledger, one: Outage, other: Outage) -> bool:
    """True if what one upset was calm again before the other began."""
    calm_s = ledger.setting.bounds.list_bound_s
    first, second = sorted((one, other), key=lambda outage: outage.began.before_s)
    return first.back.after_s + calm_s < second.began.before_s


def _was_up(ledger: Ledger, process: Incarnation, outage: Outage) -> bool:
    """It surely was ready before the outage: a worker on a list, a frontend that lists somebody; and no outage shook it."""
    if process.started.role != "frontend":
        return any(at.surely_before(outage.began) for at in process.listed.values())
    view = ledger.views.get(process.title)
    return view is not None and any(
        titles and after_s < outage.began.before_s for titles, after_s in zip(view.titles, view.afters_s, strict=True)
    )


def _course(outage: Outage) -> Iterator[str]:
    yield f"{outage.title}, {when(outage.began)}: {outage.fault}"
    yield f"{outage.service}, {when(outage.back)}: serves again"


def may_end(ledger: Ledger, process: Incarnation) -> bool:
    """True if an outage of the control plane could explain that it ended by itself: that is C3's to judge."""
    exited = process.exited
    return exited is not None and upset(ledger, exited.at.before_s, exited.at.after_s, CONTROL)
