"""Defects planted into a history: each changes what a defect would change, and names the one finding that is right.

A mutation works on any history, synthetic or recorded, and returns None where there is nothing to plant it into. It
picks its subject from those of which nothing was found before.
"""

from __future__ import annotations

from mutations_of_answers import MUTATIONS as OF_ANSWERS
from mutations_of_clusters import (
    abort_elsewhere,
    abort_late,
    abort_missing,
    abort_twice,
    begun_after_cancel,
    cries,
    end_missing,
    exits,
    frontend_overcounts,
    ghost,
    leak,
    logged_without,
    migrating_after_cancel,
    migrations_overcounted,
    missing,
    more_ended,
    no_kill,
    orphan,
    over_limit,
    overcounted_success,
    ran_on,
    still_running,
    uncancelled,
    unfinished,
    unlogged,
    worker_counts,
)
from mutations_of_requests import (
    after,
    broken,
    completed_though_impossible,
    cut_at_the_end,
    drop,
    empty_200,
    failing,
    grammar,
    hang,
    never_ended,
    said,
    tail,
    too_long,
    unstructured,
    wrong_finish,
    wrong_remainder,
)
from mutations_of_services import MUTATIONS as OF_SERVICES
from mutations_of_stops import MUTATIONS as OF_STOPS
from mutations_of_usage import MUTATIONS as OF_USAGE
from mutations_of_workers import MUTATIONS as OF_WORKERS
from planting import Mutation

from ftmodel.history import (
    Item,
)
from ftmodel.invariants.resources import GAUGES

MUTATIONS = (
    Mutation("a request never ends", "L1/never-ended", never_ended),
    Mutation("a must gets a 500", "L2/status-500", failing(500, "eof")),
    Mutation("a must that is not streamed gets a 503", "L2/status-503", failing(503, "eof", streamed=False)),
    Mutation("a must gets a status that nobody knows", "L2/status-other", failing(418, "eof")),
    Mutation("a must gets an error in its stream", "L2/error-in-stream", failing(200, "eof")),
    Mutation("a must loses its connection", "L2/cut", failing(200, "cut")),
    Mutation("a must is refused a connection", "L2/refused", failing(None, "refused")),
    Mutation("what cannot complete completes", "L2/completed", completed_though_impossible),
    Mutation("a stream stands still", "L3/hang", hang),
    Mutation("[DONE] is cut off", "P1/no-done", grammar(drop("done"))),
    Mutation("the finish is left out", "P1/done-without-finish", grammar(drop("finish"))),
    Mutation("a second finish", "P1/two-finishes", grammar(after("finish", Item("finish", "length")))),
    Mutation("text after the finish", "P1/after-finish", grammar(after("finish", Item("text", "more")))),
    Mutation("text after [DONE]", "P1/after-done", grammar(after("done", Item("text", "more")))),
    Mutation("a second [DONE]", "P1/after-done", grammar(after("done", Item("done")))),
    Mutation("a line that is no event", "P1/malformed", grammar(after("text", Item("malformed", "{")))),
    Mutation("an empty 200", "P1/empty-200", empty_200),
    Mutation("an answer goes on after its error", "P1/after-error", broken(after("error", Item("finish", "length")))),
    Mutation("no [DONE] after an error", "P1/error-without-done", broken(drop("done"))),
    Mutation("an error that is no JSON", "P1/unstructured-error", unstructured),
    Mutation("the connection breaks at the end", "P1/cut", cut_at_the_end),
    Mutation("a token is lost", "T1/lost", said(lambda value, size: value[size:])),
    Mutation("a token is doubled", "T1/doubled", said(lambda value, size: value[:size] + value)),
    Mutation(
        "two tokens are swapped",
        "T1/reordered",
        said(lambda value, size: value[size : 2 * size] + value[:size] + value[2 * size :]),
    ),
    Mutation("a character that nobody said", "T1/differs", said(lambda value, _size: "@" + value[1:])),
    Mutation("a token is lost, by count", "T2/short", said(lambda value, size: value[size:], exact=False)),
    Mutation("a token is doubled, by count", "T2/long", said(lambda value, size: value[:size] + value, exact=False)),
    Mutation("the last token is lost", "T2/short", tail(lambda _, value: value[: -4 if value.isascii() else -1])),
    Mutation("tokens beyond max_tokens", "T2/long", tail(too_long)),
    Mutation("the wrong finish reason", "T2/finish-reason", grammar(wrong_finish)),
    Mutation("a worker is asked for too much", "T2/wrong-remainder", wrong_remainder),
    Mutation("more migrations than the limit", "M1/over-limit", over_limit),
    Mutation("migrations are overcounted", "M1/counter", migrations_overcounted),
    Mutation("begun after a cancel", "M5/begun-after-cancel", begun_after_cancel),
    Mutation("migrated after a cancel", "M5/migrating-after-cancel", migrating_after_cancel),
    Mutation("a migration is not logged", "M6/unlogged", unlogged),
    Mutation("a migration is logged that was none", "M6/without-migration", logged_without),
    Mutation("the abort is missing", "A1/missing", abort_missing),
    Mutation("the abort comes late", "A1/late", abort_late),
    Mutation("no Kill message", "A1/no-kill", no_kill),
    Mutation("the frontend overcounts cancels", "A1/counter", frontend_overcounts),
    Mutation("a worker counts no cancel", "A1/counter-low", worker_counts(lambda _value, _begun: 0.0)),
    Mutation("a worker counts too many cancels", "A1/counter-high", worker_counts(lambda _value, begun: begun + 1.0)),
    Mutation("an abort that nobody asked for", "A2/uncancelled", uncancelled),
    Mutation("two aborts of one request", "A2/double", abort_twice),
    Mutation("an abort where nothing began", "A2/unknown", abort_elsewhere),
    Mutation("two ends of one request", "A2/more-ended", more_ended),
    Mutation("a request without an end in the log", "A2/never-ended", end_missing),
    Mutation("the engine goes on after a cancel", "A3/ran-on", ran_on),
    Mutation("the gauge goes on after a cancel", "A3/still-running", still_running),
    Mutation("a left request has no end in the log", "A3/still-running", unfinished),
    Mutation("a ghost in the list", "C7/ghost", ghost),
    Mutation("a living worker is not listed", "C7/missing", missing),
    *(
        Mutation(f"{name} of a {role} does not come back", f"R1/{slug}", leak(role, name))
        for role, gauges in GAUGES.items()
        for name, slug in gauges.items()
    ),
    Mutation("a process is left", "R3/orphan", orphan),
    Mutation("a frontend panics", "R5/panic", cries("panic", "frontend")),
    Mutation("a worker writes a traceback", "R5/traceback", cries("traceback", "worker")),
    Mutation("a worker fails an assertion", "R5/assertion", cries("assertion", "worker")),
    Mutation("a worker ends by itself", "R5/exited", exits),
    Mutation("a failure is counted as a success", "O2/failed-as-success", overcounted_success),
    *OF_ANSWERS,
    *OF_WORKERS,
    *OF_STOPS,
    *OF_SERVICES,
    *OF_USAGE,
)
