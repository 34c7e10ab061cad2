"""The cluster: C2 a worker that starts joins, C6 one owner an id, C7 a list converges to those that live.

Who owns what: a worker that a list has never shown is C2's, one that it has lost C7's. A frontend that was hit or asked
to stop is judged up to then alone: while it drains it lists nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

from ftmodel.history import Event, Interval, Listed
from ftmodel.invariants.base import Finding, Invariant, when
from ftmodel.invariants.duty import list_changes
from ftmodel.invariants.ledger import Ledger
from ftmodel.invariants.outages import CONTROL, outages, upset
from ftmodel.invariants.records import Incarnation, Request, View

ROUNDS = 4
"""Of so many rounds among all workers, a worker that is there gets at least one request."""


@dataclass(frozen=True, slots=True)
class Spell:
    """A time in which every poll of a frontend showed a worker, but not the model."""

    frontend: str
    title: str
    first: Interval
    last: Interval


class WorkersJoin(Invariant):
    """C2. Documented: workers register when they start and frontends discover them (discovery plane); no bound is.

    A worker's own word that it is ready starts `join_bound_s`; one that never says so has `boot_bound_s` from its start.
    """

    id = "C2"
    sentence = "A started worker appears in the instance list and in /v1/models, and gets traffic."
    kinds = frozenset({"listed"})
    slugs = frozenset({"not-listed", "no-model", "no-traffic"})
    rests_on = frozenset({"begun"})

    def __init__(self) -> None:
        super().__init__()
        self._without: dict[tuple[str, str], Interval] = {}
        """By frontend and worker, the first poll of those up to now that showed it without the model."""
        self._spells: list[Spell] = []

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:
        """Follow how long a worker is listed without the model."""
        if isinstance(event, Listed):
            shown = set() if event.models else set(event.titles)
            for key in [key for key in self._without if key[0] == event.frontend and key[1] not in shown]:
                del self._without[key]
            for title in shown:
                first = self._without.setdefault((event.frontend, title), event.at)
                if event.at.before_s - first.after_s > ledger.setting.bounds.join_bound_s:
                    self._spells.append(Spell(event.frontend, title, first, event.at))
                    del self._without[event.frontend, title]
        return ()

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each worker on each frontend's list, the model beside it, and its share of the requests."""
        for spell in self._spells:
            yield from self._no_model(ledger, spell)
        by_frontend: dict[str, list[Request]] = {}
        for request in ledger.requests.values():
            by_frontend.setdefault(request.sent.frontend, []).append(request)
        for worker in ledger.all_workers:
            for frontend, view in ledger.views.items():
                yield from self._not_listed(ledger, worker, frontend, view)
                yield from self._no_traffic(ledger, worker, frontend, view, by_frontend.get(frontend, []))

    def _not_listed(self, ledger: Ledger, worker: Incarnation, frontend: str, view: View) -> Iterator[Finding]:
        bounds, until_s = ledger.setting.bounds, min(worker.touched_from_s, ledger.touched_from_s(frontend))
        ready = next((told for told in worker.told if told.health == 200), None)
        ready_s = ready.at.after_s + bounds.join_bound_s if ready else math.inf
        due_s = min(ready_s, worker.started.at.after_s + bounds.boot_bound_s)
        due_s = max(due_s, view.befores_s[0] + bounds.join_bound_s)
        shown = view.first_showing(worker.title, 0.0)
        if shown is not None and view.befores_s[shown] <= due_s:
            self.tally.evaluated += 1
            return
        late = [i for i in view.since(due_s) if view.befores_s[i] > due_s and view.afters_s[i] < until_s]
        if not late or upset(ledger, worker.started.at.before_s, view.afters_s[late[0]]):
            return
        if not view.lacks(late[0], worker.title) or ledger.stalled(due_s - bounds.join_bound_s, bounds.join_bound_s):
            self.tally.unknown += not view.shows(late[0], worker.title)
            return
        self.tally.evaluated += 1
        said = (
            f"{worker.title}, {when(ready.at)}: says that it is ready" if ready else f"{worker.title} was never ready"
        )
        yield self.finding(
            "not-listed",
            worker.title,
            f"{frontend} did not list {worker.title} {view.befores_s[late[0]] - worker.started.at.after_s:.1f} s after"
            f" its start, expected within {bounds.join_bound_s:g} s after it is ready and {bounds.boot_bound_s:g} s at"
            " most",
            f"{worker.title}, {when(worker.started.at)}: started",
            said,
            f"{frontend}, {view.befores_s[late[0]]:.3f} s: lists {_named(view, late[0])}",
        )

    def _no_model(self, ledger: Ledger, spell: Spell) -> Iterator[Finding]:
        bound_s, until_s = ledger.setting.bounds.join_bound_s, spell.last.after_s
        touched_s = min(ledger.touched_from_s(spell.title), ledger.touched_from_s(spell.frontend))
        if touched_s <= until_s or upset(ledger, spell.first.before_s, until_s):
            return
        if not _is_complete(ledger, spell):
            return
        if ledger.stalled(spell.first.after_s, bound_s):
            self.tally.unknown += 1
            return
        self.tally.evaluated += 1
        yield self.finding(
            "no-model",
            spell.frontend,
            f"{spell.frontend} lacked the model in /v1/models for {spell.last.before_s - spell.first.after_s:.1f} s while"
            f" it listed {spell.title}, which lived untouched, expected at most {bound_s:g} s",
            f"{spell.frontend}, {when(spell.first)}: lists {spell.title}, not the model",
            f"{spell.frontend}, {when(spell.last)}: lists {spell.title}, not the model",
        )

    def _no_traffic(
        self, ledger: Ledger, worker: Incarnation, frontend: str, view: View, requests: list[Request]
    ) -> Iterator[Finding]:
        """Round robin passes nobody over, but may begin anew at each change of the list and each failure."""
        shown = view.first_showing(worker.title, 0.0)
        if shown is None or ledger.setting.router_mode != "round-robin":
            return
        from_s = view.afters_s[shown] + ledger.setting.bounds.join_bound_s
        until_s = min(worker.touched_from_s, ledger.touched_from_s(frontend), ledger.rest_s)
        if upset(ledger, from_s, until_s):
            return
        mine = [r for r in requests if from_s < r.sent.at.before_s and ledger.life(r).after_s < until_s]
        begun = [titles for r in mine if (titles := _begun_on(ledger, r, worker.title))]
        changes = sum(change.could_overlap(from_s, until_s) for change in list_changes(ledger, frontend))
        changes += sum(len(moves.lines) for r in mine if (moves := ledger.moves.get(r.sent.id)))
        setting = ledger.setting
        workers = setting.prefill_workers if ledger.prefills(worker.title) else setting.workers
        if len(begun) < workers * (ROUNDS + changes):
            return
        if any(worker.title in titles for titles in begun):
            self.tally.evaluated += 1
        elif _has_work(ledger, worker, from_s) or ledger.stalled(from_s, until_s - from_s):
            self.tally.unknown += 1  # it may be passed over for what it holds
        elif self.proven(ledger, "begun"):
            self.tally.evaluated += 1
            yield self.finding(
                "no-traffic",
                worker.title,
                f"{frontend} sent none of {len(begun)} requests to {worker.title}, which it had listed for"
                f" {until_s - view.afters_s[shown]:.1f} s and which lived untouched",
                f"{frontend}, {view.afters_s[shown]:.3f} s: lists {worker.title}",
                f"begun elsewhere: {', '.join(r.name for r in mine[:10])}",
            )


def _is_complete(ledger: Ledger, spell: Spell) -> bool:
    """True if a worker of the other role was there too, all that time: without one the model need not be served."""
    others = ledger.workers if ledger.prefills(spell.title) else ledger.prefill_workers
    views = ledger.views[spell.frontend]
    polls = [i for i in views.since(spell.first.before_s) if views.befores_s[i] <= spell.last.before_s]
    there = (o for o in others if o.touched_from_s > spell.last.after_s)
    return not ledger.setting.prefill_workers or any(all(views.shows(i, o.title) for i in polls) for o in there)


def _has_work(ledger: Ledger, worker: Incarnation, from_s: float) -> bool:
    """True if it held anything at this time or later."""
    requests = [ledger.by_id.get(id_) for id_ in ledger.served.get(worker.title, {})]
    return any(request is None or ledger.life(request).after_s >= from_s for request in requests)


def _begun_on(ledger: Ledger, request: Request, title: str) -> set[str]:
    """The workers of the role of this one on which a request has begun."""
    return {other for other, g in ledger.placed(request.sent.id, title).items() if g.begun}


def _named(view: View, poll: int) -> str:
    return ", ".join(sorted(view.titles[poll])) or "nobody"


class OneOwner(Invariant):
    """C6. Documented: instances of one endpoint are told apart by their ids (discovery plane), so no two share one."""

    id = "C6"
    sentence = "No two live processes own one instance id, and a list shows no id that nobody owns."
    kinds = frozenset({"listed"})
    slugs = frozenset({"two-owners", "stranger"})

    def __init__(self) -> None:
        super().__init__()
        self._strange: dict[str, Listed] = {}
        """By id, the first poll that showed it when nobody was known to own it."""

    def see(self, event: Event, ledger: Ledger) -> Iterable[Finding]:  # noqa: ARG002
        """Keep the ids that were nobody's at that time."""
        if isinstance(event, Listed):
            for identity in event.strangers:
                self._strange.setdefault(identity, event)
        return ()

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each pair of owners of an id, then each id that has none."""
        owners: dict[str, list[Incarnation]] = {}
        for worker in ledger.all_workers:
            if worker.identity:
                owners.setdefault(worker.identity, []).append(worker)
        for identity, workers in owners.items():
            self.tally.evaluated += 1
            for one, other in combinations(workers, 2):
                if _both_live(one, other):
                    message = f"{one.title} and {other.title} lived at once, both as instance {identity}"
                    starts = (f"{worker.title}, {when(worker.started.at)}: started" for worker in (one, other))
                    yield self.finding("two-owners", one.title, message, *starts)
        for identity, listed in self._strange.items():
            if identity in owners or ledger.touched_from_s(listed.frontend) <= listed.at.after_s:
                continue
            if any(w.started.at.before_s <= listed.at.after_s and not w.identity for w in ledger.all_workers):
                self.tally.unknown += 1  # it may be that one's
                continue
            self.tally.evaluated += 1
            message = f"{listed.frontend} listed instance {identity}, which is no process of this cluster"
            evidence = f"{listed.frontend}, {when(listed.at)}: lists {', '.join((*listed.titles, *listed.strangers))}"
            yield self.finding("stranger", listed.frontend, message, evidence)


def _both_live(one: Incarnation, other: Incarnation) -> bool:
    ends = [worker.died.before_s if worker.died else math.inf for worker in (one, other)]
    return max(one.started.at.after_s, other.started.at.after_s) < min(ends)


class ListConverges(Invariant):
    """C7. Documented: an instance is listed exactly while it can be routed to, within the lease (discovery)."""

    id = "C7"
    sentence = "A frontend's list converges to the living workers: no ghost after the lease, nobody missing."
    needs = frozenset({"lease"})
    slugs = frozenset({"ghost", "missing"})

    def at_rest(self, ledger: Ledger) -> Iterable[Finding]:
        """Judge each worker on each frontend's list."""
        for worker in ledger.all_workers:
            for frontend, view in ledger.views.items():
                if worker.died is not None:
                    yield from self._ghost(ledger, worker, worker.died, frontend, view)
                if frontend in worker.answered:
                    yield from self._missing(ledger, worker, frontend, view)

    def _ghost(
        self, ledger: Ledger, worker: Incarnation, died: Interval, frontend: str, view: View
    ) -> Iterator[Finding]:
        bound_s = ledger.setting.bounds.list_bound_s
        over_s, until_s = died.after_s + bound_s, ledger.touched_from_s(frontend)
        late = [i for i in view.since(over_s) if view.befores_s[i] > over_s and view.afters_s[i] < until_s]
        late = [i for i in late if not upset(ledger, view.befores_s[i], view.afters_s[i])]
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
        until_s = min(worker.touched_from_s, ledger.touched_from_s(frontend))
        if listed is None:
            return
        late = [
            i
            for i in view.since(listed.after_s + bound_s)
            if view.befores_s[i] > listed.after_s + bound_s and view.afters_s[i] < until_s
        ]
        late = [i for i in late if not upset(ledger, view.befores_s[i], view.afters_s[i])]
        self.tally.evaluated += bool(late)
        for i in late:
            if not view.lacks(i, worker.title) or self._is_lost(ledger, worker.title, view, i):
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

    def _is_lost(self, ledger: Ledger, title: str, view: View, poll: int) -> bool:
        """It was lost in an outage of the control plane: that is C3's."""
        before = [o for o in outages(ledger) if o.service == CONTROL and o.back.after_s < view.befores_s[poll]]
        return bool(before) and view.last_showing(title, before[-1].back.after_s, poll) is None
