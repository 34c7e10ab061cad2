"""The cluster: dead workers that are listed or chosen, living ones that are not, drains, health, who owns an id."""

from __future__ import annotations

from typing import Any, Final

from ftmodel.targets.simulated.discovery import Instance
from ftmodel.targets.simulated.frontend import Frontend
from ftmodel.targets.simulated.hooks import Act, Admit, Count, Defect, Drain, Lease, Route, Tell
from ftmodel.targets.simulated.worker import Job, Worker


def _routes_to_the_dead(at: Route, normal: Act, instances: list[Instance]) -> Any:
    known = at.cluster.notes.setdefault(at.frontend.title, {})
    known |= {instance.identity: instance for instance in at.frontend.listed.values()}
    dead = [
        one for identity, one in sorted(known.items()) if identity not in at.frontend.shunned and not one.worker.alive
    ]
    return normal([*instances, *(one for one in dead if one not in instances)])


def _passes_over_the_restarted(at: Route, normal: Act, instances: list[Instance]) -> Any:
    return normal([one for one in instances if "-" not in one.worker.title] or instances)


def _off_the_list(at: Count, normal: Act, name: str, amount: float) -> None:
    normal(name, amount)
    began = at.cluster.holders.get(at.call.request.id) if at.call is not None else None
    if name == "failed" and began and began[-1].alive and isinstance(at.process, Frontend):
        at.process.listed.pop(began[-1].instance.identity, None)


def _keeps_lapsed(at: Lease, normal: Act, *args: Any) -> None:
    if at.what != "lapse":
        normal(*args)


def _renews_no_more(at: Lease, normal: Act, instance: Instance, *args: Any) -> None:
    if not (at.what == "renew" and instance.worker.slot > 2):
        normal(instance, *args)


def _never_listed(at: Lease, normal: Act, instance: Instance, *args: Any) -> None:
    if not (at.what == "register" and "-" in instance.worker.title):
        normal(instance, *args)


def _second_life_of_an_id(at: Lease, normal: Act, instance: Instance, *args: Any) -> None:
    if at.what == "register" and "-" in instance.worker.title:
        alive = [other for other in at.cluster.discovery.instances.values() if other.worker.alive]
        instance.identity = min((other.identity for other in alive), default=instance.identity)
    normal(instance, *args)


def _stranger(at: Tell, normal: Act) -> Any:
    told = normal()
    restarted = at.what == "list" and any("-" in title and title.startswith("w") for title in at.cluster.lives)
    return [*told, "4711"] if restarted else told


def _stays_listed(at: Drain, normal: Act) -> None:
    worker = at.process
    if isinstance(worker, Worker):
        worker.leave_if_idle()
    else:
        normal()


def _not_heard(at: Drain, normal: Act) -> None:
    if isinstance(at.process, Worker):
        at.process.draining = False
    else:
        normal()


def _never_exits(at: Drain, normal: Act) -> None:
    worker = at.process
    if isinstance(worker, Worker):
        at.cluster.discovery.deregister(worker.instance)
        worker.refusing = True
        worker.draining = bool(worker.streams)  # what is busy leaves, what is idle hangs
    else:
        normal()


def _drops_work(at: Drain, normal: Act) -> None:
    if isinstance(at.process, Worker):
        at.process.die(signal=None, code=0)
    else:
        normal()


def _unhealthy_after_cancel(at: Tell, normal: Act) -> Any:
    cancelled = at.process.role == "worker" and at.process.values.get("cancellations", 0.0) > 0
    return 503 if at.what == "health" and cancelled else normal()


def _frontend_unhealthy_alone(at: Tell, normal: Act) -> Any:
    alone = isinstance(at.process, Frontend) and at.process.ready and not at.process.listed
    return 503 if at.what == "health" and alone else normal()


def _dead_while_draining(at: Tell, normal: Act) -> Any:
    draining = isinstance(at.process, Frontend) and at.process.draining
    return 503 if at.what == "live" and draining else normal()


def _model_lost(at: Tell, normal: Act) -> Any:
    """The first worker that leaves takes the model along."""
    gone = any(not life.alive for life in at.cluster.lives.values() if life.role == "worker")
    return normal() and not gone if at.what == "models" else normal()


def _stops_at_the_third(at: Admit, normal: Act, job: Job) -> None:
    normal(job)
    count = at.cluster.notes[at.worker.title] = at.cluster.notes.get(at.worker.title, 0) + (job.request.step.n > 1)
    if count > 2:
        job.state = "stalled"


def _second_guided_hangs(at: Admit, normal: Act, job: Job) -> None:
    """A worker that compiles grammars has one place for them."""
    normal(job)
    count = at.cluster.notes[at.worker.title] = at.cluster.notes.get(at.worker.title, 0) + job.request.step.guided
    if count > 1 and job.request.step.guided:
        job.state = "stalled"


def _takes_for_a_duplicate(at: Admit, normal: Act, job: Job) -> None:
    normal(job)
    known = at.cluster.notes.setdefault(at.worker.title, set())
    if job.id in known:
        job.state = "stalled"
    known.add(job.id)


CLUSTER: Final = (
    Defect(
        id="routes-to-the-dead", hook="route", act=_routes_to_the_dead, least_steps=1,
        sentence="A worker that was listed once is chosen for ever, dead or not.",
    ),
    Defect(
        id="restarted-is-passed-over", hook="route", act=_passes_over_the_restarted, least_steps=1,
        sentence="A worker that came back is never chosen while another is there.",
    ),
    Defect(
        id="engine-error-takes-worker-off", hook="count", act=_off_the_list, least_steps=2,
        sentence="A worker whose engine failed a request is taken off its frontend's list for ever.",
    ),
    Defect(
        id="ghost", hook="lease", act=_keeps_lapsed, least_steps=1,
        sentence="A dead worker stays on the list.",
    ),
    Defect(
        id="lease-not-renewed", hook="lease", act=_renews_no_more, least_steps=1,
        sentence="The third worker and the fourth do not renew their leases.",
    ),
    Defect(
        id="restarted-is-not-listed", hook="lease", act=_never_listed, least_steps=1,
        sentence="A worker that came back does not appear on the list.",
    ),
    Defect(
        id="two-owners", hook="lease", act=_second_life_of_an_id, least_steps=1,
        sentence="A worker that came back takes the id of another that lives.",
    ),
    Defect(
        id="stranger-is-listed", hook="tell", act=_stranger, least_steps=1,
        sentence="Once a worker has come back, the list shows an id that nobody has.",
    ),
    Defect(
        id="drain-stays-listed", hook="drain", act=_stays_listed, least_steps=2, hard=True,
        sentence="A worker that drains stays on the list.",
    ),
    Defect(
        id="drain-not-heard", hook="drain", act=_not_heard, least_steps=1,
        sentence="A worker that is asked to stop goes on.",
    ),
    Defect(
        id="drain-never-exits", hook="drain", act=_never_exits, least_steps=1,
        sentence="An idle worker that is asked to stop leaves the list and lives on.",
    ),
    Defect(
        id="drain-drops-work", hook="drain", act=_drops_work, least_steps=2,
        sentence="A worker that is asked to stop ends at once, whatever it holds.",
    ),
    Defect(
        id="unhealthy-after-cancel", hook="tell", act=_unhealthy_after_cancel, least_steps=1,
        sentence="A worker that has aborted a request says that it is not healthy.",
    ),
    Defect(
        id="frontend-unhealthy-alone", hook="tell", act=_frontend_unhealthy_alone, least_steps=1, hard=True,
        sentence="A frontend that lists no worker says that it is not healthy.",
    ),
    Defect(
        id="draining-frontend-says-dead", hook="tell", act=_dead_while_draining, least_steps=2,
        sentence="A frontend that drains says that it does not live.",
    ),
    Defect(
        id="model-leaves-with-a-worker", hook="tell", act=_model_lost, least_steps=1,
        sentence="When one worker ends, the model leaves the list of models.",
    ),
    Defect(
        id="third-of-several-choices-hangs", hook="admit", act=_stops_at_the_third, least_steps=3, hard=True,
        sentence="A worker that has had three requests with several choices generates nothing more.",
    ),
    Defect(
        id="second-guided-hangs", hook="admit", act=_second_guided_hangs, least_steps=2, hard=True,
        sentence="A worker generates for the first request with a grammar, and for no other one.",
    ),
    Defect(
        id="returning-request-is-dropped", hook="admit", act=_takes_for_a_duplicate, least_steps=2,
        sentence="A request that comes to a worker a second time is taken for a duplicate, and left to wait.",
    ),
)  # fmt: skip
