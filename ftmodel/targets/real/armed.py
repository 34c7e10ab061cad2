"""Orders to a worker to die or fail at an exact token, for engines that can: a client would see the token too late.

The order is a file named by the request's id that holds a position and how to end there; the worker that reaches it
first takes the file and obeys. Of several orders for one request that with the lowest position stands in the file, of
equals that which was given first; the others wait.
"""

from __future__ import annotations

from pathlib import Path


class Orders:
    """The orders of one example, in a folder that its workers look into."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[str, dict[str, tuple[int, str]]] = {}
        """By request id: position and how, by step, in the order in which they were given."""
        self._standing: dict[str, str] = {}
        """By request id: the step whose position is in the file."""
        self._taken: set[str] = set()

    def give(self, step: str, request_id: str, position: int, how: str = "die") -> None:
        """Order the worker that generates token `position` of the request to end it so there, on behalf of a step."""
        self._waiting.setdefault(request_id, {})[step] = position, how
        self._stand(request_id)

    def is_taken(self, step: str, request_id: str) -> bool:
        """True once a worker has taken the order of this step."""
        standing = self._standing.get(request_id)
        if standing is not None and not (self._folder / request_id).exists():
            self._taken.add(standing)
            del self._standing[request_id]
            del self._waiting[request_id][standing]
            self._stand(request_id)
        return step in self._taken

    def withdraw(self, step: str, request_id: str) -> bool:
        """Take the order back; False if a worker has it already."""
        if self.is_taken(step, request_id):
            return False
        if self._standing.get(request_id) == step:
            try:
                (self._folder / request_id).unlink()
            except FileNotFoundError:
                return not self.is_taken(step, request_id)
            del self._standing[request_id]
        del self._waiting[request_id][step]
        self._stand(request_id)
        return True

    def _stand(self, request_id: str) -> None:
        """Put the lowest position into the file. A file that a worker has just taken is left for `is_taken`."""
        waiting = self._waiting[request_id]
        if not waiting:
            return
        lowest = min(waiting, key=lambda step: waiting[step][0])
        file = self._folder / request_id
        standing = self._standing.get(request_id)
        if standing == lowest:
            return
        if standing is not None:
            try:
                file.unlink()  # not just replaced: whoever removes the file, we or a worker, has it alone
            except FileNotFoundError:
                return
            del self._standing[request_id]
        new = file.with_suffix(".new")
        position, how = waiting[lowest]
        new.write_text(f"{position} {how}")
        new.replace(file)
        self._standing[request_id] = lowest
