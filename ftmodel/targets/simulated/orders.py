"""Orders to a worker to die or fail at an exact token: the one with the lowest position stands, the others wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ftmodel.targets.simulated.kernel import Kernel, Signal

How = Literal["die", "error", "cancelled", "no-finish", "stall"]


@dataclass(slots=True)
class Order:
    """On behalf of a step: whoever generates this token ends so there."""

    step: str
    position: int
    how: How
    over: Signal
    """Given when it was taken, or withdrawn."""
    taken: bool = False


@dataclass(slots=True)
class Orders:
    """The orders of one example, by request id."""

    kernel: Kernel
    _waiting: dict[str, list[Order]] = field(default_factory=dict)

    def give(self, step: str, request_id: str, position: int, how: How) -> Order:
        """Order it."""
        order = Order(step, position, how, Signal(self.kernel))
        orders = self._waiting.setdefault(request_id, [])
        orders.append(order)
        orders.sort(key=lambda other: other.position)
        return order

    def next(self, request_id: str) -> Order | None:
        """The order that stands."""
        orders = self._waiting.get(request_id)
        return orders[0] if orders else None

    def take(self, request_id: str) -> Order:
        """A worker takes the order that stands."""
        order = self._waiting[request_id].pop(0)
        order.taken = True
        order.over.give()
        return order

    def withdraw(self, request_id: str, order: Order) -> None:
        """Nobody is to obey it any more."""
        if not order.taken:
            self._waiting[request_id].remove(order)
