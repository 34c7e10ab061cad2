"""Models of the Hugging Face hub: found in its cache, or loaded into it, with a progress bar."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from ftmodel.errors import UsageError

WEIGHTS: Final = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")


def fetch(name: str, *, weights: bool) -> Path:
    """The folder of a model: a path as it is, a name of the hub loaded if it is not cached. Raises UsageError."""
    if Path(name).is_dir():
        return Path(name).absolute()
    import huggingface_hub as library  # noqa: PLC0415 - half a second, for this alone
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    ignored = ["original/*", *([] if weights else WEIGHTS)]
    try:
        # With what is cached alone first: a model that is there needs no network.
        return Path(library.snapshot_download(name, ignore_patterns=ignored, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise UsageError(f"model {name!r}: {error}: expected a folder, or a name of the hub like owner/model") from None
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
    print(f"loading {name} from the hub", file=sys.stderr)  # noqa: T201 - the library's own progress bar follows
    try:
        return Path(library.snapshot_download(name, ignore_patterns=ignored))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"model {name}: not in the cache, and not loaded{offline}: {why}; where there is a network, try:"
            f" HF_HUB_OFFLINE=0 hf download {name}"
        ) from error
