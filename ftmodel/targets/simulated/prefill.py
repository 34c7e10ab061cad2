"""A simulated prefill worker: it reads the prompts that other workers then answer, and hands their first tokens on.

As in the dialect's newest release the request comes to it first, and goes from the frontend to a worker that decodes once
it has been read. A prefill that fails is returned to the client; what is moved to another worker later is read again.
"""

from __future__ import annotations

from ftmodel.targets.simulated.orders import Order
from ftmodel.targets.simulated.worker import Job, Stream, Worker


class PrefillWorker(Worker):
    """One life of a prefill worker: a job of it is over with the first token."""

    def asked(self, stream: Stream) -> int:  # noqa: ARG002 - it asks for no more of any
        """The one token that comes with the reading."""
        return 1

    def order_of(self, job: Job) -> Order | None:  # noqa: ARG002 - orders are for the other role
        """None: orders are for the worker that decodes."""
        return None

    def transmit(self, job: Job, tokens: dict[int, list[int]], finish: str | None) -> None:  # noqa: ARG002
        """Hand the first tokens to the frontend."""
        stream = job.stream
        first = {index: ids[0] for index, ids in tokens.items() if ids}
        self.send(stream.down, stream.frontend, stream.frontend.was_read, stream, first)
