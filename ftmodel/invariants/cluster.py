"""The cluster: C7 a frontend's list of workers converges to those that live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ftmodel.history import Interval
from ftmodel.invariants.base import Finding, Invariant, when
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.records import Incarnation, View


class ListConverges(Invariant):
    """C7. Documented: an instance is listed exactly while it can be routed to, within the lease (discovery)."""

    id = "C7"
    sentence = "A frontend's list converges to the living workers: no ghost after the lease, nobody missing."
    needs = frozenset({"lease"})
    slugs = frozenset({"ghost", "missing"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each worker on each frontend's list."""
        for worker in ledger.workers:
            for frontend, view in ledger.views.items():
                if worker.died is not None:
                    yield from self._ghost(ledger, worker, worker.died, frontend, view)
                if frontend in worker.answered:
                    yield from self._missing(ledger, worker, frontend, view)

    def _ghost(
        self, ledger: Ledger, worker: Incarnation, died: Interval, frontend: str, view: View
    ) -> Iterator[Finding]:
        bound_s = ledger.setting.bounds.list_bound_s
        late = [i for i in view.since(died.after_s + bound_s) if view.befores_s[i] > died.after_s + bound_s]
        if not late:
            return
        if ledger.stalled(died.after_s, bound_s):
            self.tally.unknown += 1
            return
        self.tally.evaluated += 1
        shown = [i for i in late if view.shows(i, worker.title)]
        if shown:
            last = shown[-1]
            yield self.finding(
                "ghost",
                worker.title,
                f"{frontend} listed {worker.title} {view.befores_s[last] - died.after_s:.1f} s after its death,"
                f" expected at most {bound_s:g} s",
                f"{worker.title}, {when(died)}: died",
                f"{frontend}, {view.befores_s[last]:.3f} s: lists {', '.join(sorted(view.titles[last]))}",
            )

    def _missing(self, ledger: Ledger, worker: Incarnation, frontend: str, view: View) -> Iterator[Finding]:
        bound_s, listed = ledger.setting.bounds.list_bound_s, worker.listed.get(frontend)
        if listed is None:
            return
        late = [
            i
            for i in view.since(listed.after_s + bound_s)
            if view.befores_s[i] > listed.after_s + bound_s and view.afters_s[i] < worker.touched_from_s
        ]
        self.tally.evaluated += bool(late)
        for i in late:
            if not view.lacks(i, worker.title):
                continue
            if ledger.stalled(view.befores_s[i] - bound_s, bound_s):
                self.tally.unknown += 1
                continue
            shown = ", ".join(sorted(view.titles[i])) or "nobody"
            yield self.finding(
                "missing",
                worker.title,
                f"{frontend} did not list {worker.title}, which lived untouched and had been listed for"
                f" {view.befores_s[i] - listed.after_s:.1f} s",
                f"{frontend}, {when(listed)}: lists {worker.title}",
                f"{frontend}, {view.befores_s[i]:.3f} s: lists {shown}",
            )
            return
