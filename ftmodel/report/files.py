"""Files that a report leaves in an example's folder, or in a store."""

from __future__ import annotations

from pathlib import Path

from ftmodel.errors import StoreError


def written(path: Path, text: str) -> Path:
    """Write a text and return its path. Half a character, as a broken answer may have, is written as its escape.

    Raises StoreError.
    """
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: expected a folder that can be written to") from None
    return path
