"""What stays in the store of a soak: findings; folders of the last examples that held, of some that show each signature.

No more: and if that is more than the limit, findings alone.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ftmodel.errors import StoreError
from ftmodel.soak.journal import Journal, Lying

HELD: Final = 20
"""Examples that held whose folders are there."""
EACH: Final = 3
"""Examples of each signature whose folders are there, besides the one that is kept apart as the finding."""
LOOK_EVERY_S: Final = 5.0


@dataclass(slots=True, kw_only=True)
class Keeping:
    """Drops what is not to be kept, now and then."""

    folder: Path
    """The soak's."""
    limit_bytes: int
    held: int = HELD
    each: int = EACH
    looked_s: float = float("-inf")

    def look(self, journal: Journal, *, now_s: float | None = None) -> None:
        """Drop what is too much, if it is time. Raises StoreError if what must stay is more than the limit."""
        now_s = time.monotonic() if now_s is None else now_s
        if now_s < self.looked_s + LOOK_EVERY_S:
            return
        self.looked_s = now_s
        lying = journal.lying()
        gone = self._drop(journal, superfluous(lying, held=self.held, each=self.each))
        left = [one for one in lying if one.name not in gone]
        apart = size_of(self.folder / "findings") + journal.size
        size = sum(size_of(self.folder / "examples" / one.name) for one in left) + apart
        if size > self.limit_bytes:
            self._drop(journal, left)
            size = apart
        if size > self.limit_bytes:
            raise StoreError(
                f"{self.folder}: {size >> 20} MiB of findings and journal, expected at most {self.limit_bytes >> 20};"
                f" try: ftmodel soak --resume {self.folder} --store-limit {2 * size >> 20}M --for ..."
            )

    def _drop(self, journal: Journal, ones: Sequence[Lying]) -> set[str]:
        for one in ones:
            shutil.rmtree(self.folder / "examples" / one.name, ignore_errors=True)
        names = [one.name for one in ones]
        if names:
            journal.dropped(names)
        return set(names)


def superfluous(lying: Sequence[Lying], *, held: int, each: int) -> list[Lying]:
    """Of these examples, oldest first: those that held, but for the last ones; those that show nothing that others do not."""
    plain = [one for one in lying if not one.signatures]
    shown: Counter[str] = Counter()
    gone = plain[: max(0, len(plain) - held)]
    for one in lying:
        if one.signatures and all(shown[signature] >= each for signature in one.signatures):
            gone.append(one)
        shown.update(one.signatures)
    return gone


def size_of(folder: Path) -> int:
    """Bytes in a folder; some of it may be gone by now."""
    size = 0
    for place, _, names in os.walk(folder):  # what goes meanwhile is left out, be it a folder or a file
        for name in names:
            with suppress(FileNotFoundError):
                size += (Path(place) / name).stat().st_size
    return size
