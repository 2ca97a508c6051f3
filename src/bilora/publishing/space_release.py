"""release.json: the bundle of a deployed Space, and the release id that its /health reports."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bilora.records import Record
from bilora.storage import read_record

RELEASE_FILE = "hf_space/release.json"
"""`bilora deploy` writes it to the Space. The workspace's file names no bundle."""


class SpaceRelease(Record):
    """One deployment: its bundle, release id and adapters.

    `release` is the SHA-256 of the Space's files with `release` itself empty; `adapters` has each adapter's SHA-256.
    """

    bundle: str = ""
    release: str = ""
    adapters: dict[str, str] = Field(default_factory=dict)


def read_space_release(root: Path) -> SpaceRelease:
    """Return the release of a workspace or Space; an empty one if the file is absent.

    Raises:
        BadData: the file is malformed.
    """
    path = root / RELEASE_FILE
    return read_record(path, SpaceRelease) if path.is_file() else SpaceRelease()
