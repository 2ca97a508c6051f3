"""Download a hub repository at one commit."""

from __future__ import annotations

import re
from pathlib import Path

from bilora.errors import BadData, Unreachable
from bilora.hub.client import HUB_ERRORS, describe_error

_PINNED = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")


def pinned_snapshot(hub_id: str, *, patterns: list[str] | None = None) -> Path:
    """Return the cache folder with a model repository's files, downloaded once.

    Args:
        hub_id: `owner/name@commit` with a full commit.
        patterns: of the files to download; None for all.

    Raises:
        BadData: `hub_id` has another form.
        Unreachable: the files could not be downloaded.
    """
    from huggingface_hub import snapshot_download

    pinned = _PINNED.fullmatch(hub_id)
    if pinned is None:
        raise BadData(hub_id, "is not a folder, and a hub id needs a pinned commit: owner/name@commit.")
    try:
        return Path(snapshot_download(pinned["name"], revision=pinned["commit"], allow_patterns=patterns))
    except HUB_ERRORS as error:
        raise Unreachable(f"{hub_id} could not be downloaded ({describe_error(error)}). Try again.") from None
