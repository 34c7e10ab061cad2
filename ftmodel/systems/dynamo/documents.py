"""What Dynamo's documentation promises, word for word, with the page at the commit that was read."""

from __future__ import annotations

from typing import Final

from ftmodel.systems import Document

_ROOT: Final = "https://github.com/ai-dynamo/dynamo/blob"
_MIGRATION: Final = "fault-tolerance/request-migration"
_CANCELLATION: Final = "fault-tolerance/request-cancellation"
_SHUTDOWN: Final = "fault-tolerance/graceful-shutdown"
_COMMITS: Final = {
    _MIGRATION: "2f130281fe5dfaf987dd5de8fd65c56395fa5f44",
    _CANCELLATION: "15cb78a78c246f29a56ccd3383561d270465b7a9",
    _SHUTDOWN: "00a36384eb504aa9a7f3962fc5d7565b686ec921",
}


def _said(page: str, quote: str, about: str) -> Document:
    return Document(about=tuple(about.split()), quote=quote, page=page, link=f"{_ROOT}/{_COMMITS[page]}/docs/{page}.md")


DOCUMENTS: Final = (
    _said(
        _MIGRATION,
        "Worker is unreachable when creating the initial connection. [...] Decrements migration retry count. Attempts to"
        " create a new stream with the original request.",
        "L2/status-500 L2/error-in-stream C1",
    ),
    _said(
        _MIGRATION,
        "The client receives tokens from the first worker until failure occurs, then seamlessly continues receiving"
        " tokens from the backup worker without any indication of the underlying migration.",
        "L1 L2 L3 T5 M2 R5 P1/cut P1/error-without-done X1 X2 X3",
    ),
    _said(_MIGRATION, "No tokens are lost or duplicated during the transition", "T1 T4/withheld-lost P4 M4"),
    _said(
        _MIGRATION,
        "The system also updates the remaining token budget to reflect the number of tokens already generated, ensuring"
        " that the total generation stays within the originally requested limits.",
        "T2 P1/two-finishes P1/after-finish",
    ),
    _said(
        _MIGRATION,
        "The system carefully tracks not only token sequences but also metadata such as remaining token budgets, stop"
        " conditions, and sampling parameters to ensure complete state preservation.",
        "T4 P5",
    ),
    _said(
        _MIGRATION,
        "This parameter specifies the maximum number of times a request can be migrated to another worker",
        "M1 M3",
    ),
    _said(
        _MIGRATION,
        "The system detects the stream disconnection through error monitoring.",
        "M6",
    ),
    _said(
        _CANCELLATION,
        "When a client disconnects before the response is fully delivered, the frontend detects this and initiates"
        " cancellation.",
        "A1/counter A5 O1 O2 M5",
    ),
    _said(
        _CANCELLATION,
        "The counter uses deduplication logic to ensure that each cancelled request is only counted once, even if both a"
        " control message and a socket close are detected for the same request.",
        "A1/counter-high A1/counter-low",
    ),
    _said(
        _CANCELLATION,
        "This ensures that when a client cancels a request at the frontend, all associated sub-requests on downstream"
        " workers are automatically cancelled, saving computational resources across the entire request pipeline.",
        "A1 A2 A3 A4 R1 R2",
    ),
    _said(
        _SHUTDOWN,
        "`/live` continues to return `200 OK` so liveness checks do not restart the frontend while admitted responses are"
        " still draining.",
        "C4/live-draining",
    ),
    _said(
        _SHUTDOWN,
        "`/health` returns `503 Service Unavailable`, allowing Kubernetes or ingress controllers to remove the frontend"
        " from ready endpoints.",
        "C4/health-draining",
    ),
    _said(
        _SHUTDOWN,
        "Routing stops quickly - Endpoints are unregistered from discovery first",
        "C5/still-listed C5/takes-work C7",
    ),
    _said(_SHUTDOWN, "In-flight requests can finish - Workers keep serving during a short grace period", "C5"),
)
"""Where no page speaks of an invariant, the sentence of the invariant itself is what is expected."""
