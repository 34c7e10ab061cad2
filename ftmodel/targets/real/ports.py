"""Free ports on loopback, below the range from which the kernel gives out its own."""

from __future__ import annotations

import random
import socket
from typing import Final

from ftmodel.errors import HarnessError

FIRST: Final = 10_000
LAST: Final = 32_000
"""Some releases read a port as a signed 16-bit number: above 32767 the worker dies at its start."""
TRIES: Final = 200


def is_free(port: int) -> bool:
    """True if a server could listen on this port of loopback and of every address now."""
    for host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - bound for an instant, never listened on
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


class Ports:
    """Gives out ports; none twice before it was given back."""

    def __init__(self) -> None:
        self._out: set[int] = set()

    def take(self, wanted: int | None = None) -> int:
        """A free port, or the wanted one. Raises HarnessError if it is taken, or if none was found free."""
        if wanted is not None:
            if wanted in self._out or not is_free(wanted):
                raise HarnessError(
                    f"port {wanted}: taken by another process, expected a free one;"
                    f" try: ss -ltnp 'sport = :{wanted}', or leave the port out of the topology"
                )
            self._out.add(wanted)
            return wanted
        for _ in range(TRIES):
            port = random.randint(FIRST, LAST)  # noqa: S311 - not for secrets, and no part of any plan
            if port not in self._out and is_free(port):
                self._out.add(port)
                return port
        raise HarnessError(f"no free port between {FIRST} and {LAST} after {TRIES} tries; try: ss -ltn")

    def give_back(self, port: int) -> None:
        """The port is no longer used."""
        self._out.discard(port)
