"""The files of a hub repository at one commit, in a folder."""

from __future__ import annotations

import re
from pathlib import Path

from bilora.errors import BadData, Unreachable
from bilora.hub.client import FAULTS, why

_PINNED = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")


def pinned_snapshot(place: str, *, patterns: list[str] | None = None) -> Path:
    """Return a folder with a model repository's files, which are fetched once.

    Args:
        place: `owner/name@commit`, the commit in full.
        patterns: of the files that are wanted; None for all.

    Raises:
        BadData: no commit is named.
        Unreachable: the hub did not give it.
    """
    from huggingface_hub import snapshot_download

    pinned = _PINNED.fullmatch(place)
    if pinned is None:
        raise BadData(place, "is no folder here, and a hub id needs a pinned commit: owner/name@commit.")
    try:
        return Path(snapshot_download(pinned["name"], revision=pinned["commit"], allow_patterns=patterns))
    except FAULTS as error:
        raise Unreachable(f"{place} could not be fetched ({why(error)}).") from None
