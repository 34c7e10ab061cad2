"""Free ports on loopback, below the range from which the kernel gives out its own."""

from __future__ import annotations

import random
import socket
import ssl
from typing import Final

from ftmodel.errors import HarnessError

FIRST: Final = 10_000
LAST: Final = 32_000
"""Some releases read a port as a signed 16-bit number: above 32767 the worker dies at its start."""
TRIES: Final = 200

NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Nothing here speaks TLS; a client that is given none reads all certificates of the machine for each of its own."""


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


def claim(name: str) -> socket.socket | None:
    """Take a name among all testers of this machine; None if it is taken. Close what is returned to give it back.

    The name is an abstract socket's: it leaves no file, and goes with the process that holds it.
    """
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0ftmodel-{name}")
    except OSError:
        held.close()
        return None
    return held


class Ports:
    """Gives out ports; none twice before it was given back, not even by another ftmodel on this machine."""

    def __init__(self) -> None:
        self._claims: dict[int, socket.socket] = {}

    def take(self, wanted: int | None = None) -> int:
        """A free port, or the wanted one. Raises HarnessError if it is taken, or if none was found free."""
        if wanted is not None:
            if not self._claim(wanted):
                raise HarnessError(
                    f"port {wanted}: taken by another process, expected a free one;"
                    f" try: ss -ltnp 'sport = :{wanted}', or leave the port out of the topology"
                )
            return wanted
        for _ in range(TRIES):
            port = random.randint(FIRST, LAST)  # noqa: S311 - not for secrets, and no part of any plan
            if self._claim(port):
                return port
        raise HarnessError(f"no free port between {FIRST} and {LAST} after {TRIES} tries; try: ss -ltn")

    def give_back(self, port: int) -> None:
        """The port is no longer used."""
        held = self._claims.pop(port, None)
        if held is not None:
            held.close()

    def close(self) -> None:
        """Give everything back."""
        for port in list(self._claims):
            self.give_back(port)

    def _claim(self, port: int) -> bool:
        """Take the name that stands for the port among all testers: a process listens on it only a while later."""
        if port in self._claims:
            return False
        held = claim(f"port-{port}")
        if held is None:
            return False
        if not is_free(port):
            held.close()
            return False
        self._claims[port] = held
        return True
