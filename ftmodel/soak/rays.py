"""Lanes as actors of a Ray cluster. An actor holds a lane's process on its node, and carries lines, as `Local` does.

Needs the extra `ray`. What lanes keep of examples lies on their nodes, unless the soak's folder is shared; plans, findings
and the corpus are in the driver's journal.
"""

from __future__ import annotations

import importlib
import importlib.util
import queue
import threading
from contextlib import suppress
from typing import Any, Final

from ftmodel.errors import UsageError
from ftmodel.soak.lane import Setup
from ftmodel.soak.places import Hand, Heard, LocalHand

ray: Any = importlib.import_module("ray") if importlib.util.find_spec("ray") is not None else None

HEAR_S: Final = 0.5
"""An actor waits so long for something that its lane tells."""
TOLD_MOST: Final = 500
"""Lines that are carried at once."""


class Holder:
    """What runs as an actor: it holds one lane of its node. With the actor's end the lane's orders end, and so it ends."""

    def __init__(self, setup: Setup) -> None:
        self._told: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._hand = LocalHand(setup, lambda _name, row: self._told.put(row))

    def send(self, order: dict[str, Any] | None) -> None:
        """Give the lane an order."""
        self._hand.send(order)

    def kill(self) -> None:
        """End the lane."""
        self._hand.kill()

    def hear(self) -> list[dict[str, Any] | None]:
        """What the lane has told since; None: it has ended."""
        rows: list[dict[str, Any] | None] = []
        with suppress(queue.Empty):
            rows.append(self._told.get(timeout=HEAR_S))
            while len(rows) < TOLD_MOST:
                rows.append(self._told.get_nowait())
        return rows


class Ray:
    """The Ray cluster at this address; each lane asks for so many of its CPUs and GPUs."""

    def __init__(self, address: str = "auto", *, cpus: float = 1.0, gpus: float = 0.0) -> None:
        """Raises UsageError if Ray is not installed, or no cluster answers."""
        if ray is None:
            raise UsageError("--on ray: Ray is not installed; try: pip install 'ftmodel[ray]'")
        self._cpus, self._gpus = cpus, gpus
        self._mine = not ray.is_initialized()
        if self._mine:
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except ConnectionError:
                raise UsageError(
                    f"--on ray: no Ray cluster at {address}, expected one; try: ray start --head"
                ) from None

    def start(self, setup: Setup, heard: Heard) -> Hand:
        """Have Ray start one where there is room; until there is, it waits, and tells nothing."""
        holder = ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_concurrency=3, max_restarts=0)(Holder)
        return RayHand(setup.name, holder.remote(setup), heard)

    def close(self) -> None:
        """Leave the cluster."""
        if self._mine:
            ray.shutdown()


class RayHand:
    """Holds a lane by its actor."""

    pid = 0

    def __init__(self, name: str, actor: Any, heard: Heard) -> None:
        self._name = name
        self._actor = actor
        self._heard = heard
        self.listener = threading.Thread(target=self._listen, name=f"lane {name}", daemon=True)
        self.listener.start()

    def send(self, order: dict[str, Any] | None) -> None:
        """Carry the order to the actor; one that has died is told by the end of what it tells."""
        self._actor.send.remote(order)

    def kill(self) -> None:
        """End the actor, and so the lane."""
        ray.kill(self._actor)

    def _listen(self) -> None:
        try:
            while True:
                for row in ray.get(self._actor.hear.remote()):
                    self._heard(self._name, row)
                    if row is None:
                        return
        except ray.exceptions.RayError:  # the actor has died, or its node
            self._heard(self._name, None)
