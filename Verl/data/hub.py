"""Read published data from the Hugging Face Hub, and fail within seconds where there is no Hub.

Left to itself `datasets` retries an unreachable Hub for about half a minute per request. So we ask once, with a
short limit, and switch its offline mode on if nothing answers: then its cache still serves a set loaded before.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import sys
import threading
import urllib.error
import urllib.request
from typing import Any

from Verl.data.readers import RawRow, RawSplit

PROBE_SECONDS = 5.0
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


class HubError(RuntimeError):
    """The Hub did not give the data; the message says what to do instead."""


def load_hub_split(name: str, split: str, config: str | None = None) -> RawSplit:
    """One split of a Hub data set, as published. Raises HubError."""
    go_offline_unless_reachable(f"datasets/{name}")
    # Imported late: both variables above are read when `datasets` is first imported.
    import datasets
    import httpx

    try:
        table = datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        raise HubError(
            f"{name}: cannot be loaded from the Hub ({type(error).__name__}); "
            "give the published files with --source FOLDER (Dataset/README.md says where they are)"
        ) from error
    label = f"{name} ({split} split on the Hub)"
    rows = [RawRow(label, index + 1, index, dict(values)) for index, values in enumerate(table)]
    return RawSplit(rows, [{"file": f"hub:{name}:{split}", "sha256": _sha256_of(rows)}])


def go_offline_unless_reachable(repository: str) -> None:
    """Set the offline variables of the Hub's libraries unless the Hub answers for `repository` in PROBE_SECONDS."""
    if any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in _OFFLINE_VARIABLES):
        return
    if not _answers(f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co')}/{repository}/resolve/main/README.md"):
        os.environ.update(dict.fromkeys(_OFFLINE_VARIABLES, "1"))
        # The variables are read once, at import: who imported it before us would go on asking, five times with pauses.
        if constants := sys.modules.get("huggingface_hub.constants"):
            constants.HF_HUB_OFFLINE = True


def _answers(url: str) -> bool:
    """Whether a request for `url` gets an answer in time. In a thread, because no timeout bounds name resolution."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                return
        except (OSError, ValueError, http.client.HTTPException):
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()


def _sha256_of(rows: list[RawRow]) -> str:
    """A hash of the rows themselves: the same for a download and for a cached copy of it."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row.values, sort_keys=True, default=_as_text).encode())
    return digest.hexdigest()


def _as_text(value: Any) -> str:
    return str(value)
