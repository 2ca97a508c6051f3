"""Destinations of exported ratings: parse and print their names, and print the commands for one."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.errors import BadData
from bilora.feedback.destination_names import HUB_DATASETS, UNRECORDED

if TYPE_CHECKING:
    from bilora.feedback.shards import Target


def open_target(destination: str) -> Target:
    """Open a folder or a dataset of the hub.

    Raises:
        BadData: it is neither.
    """
    from bilora.feedback.shards import FolderTarget

    if not destination.startswith(HUB_DATASETS):
        if "://" in destination:
            raise BadData(destination, f"is not a destination: name a folder, or {HUB_DATASETS}OWNER/NAME.")
        path = Path(destination)
        nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        if not nearest.is_dir():
            raise BadData(destination, f"{nearest} is a file; name a folder.")
        return FolderTarget(path)
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    from bilora.feedback.hub_target import HubTarget
    from bilora.hub.client import connect
    from bilora.hub.repository import Repository
    from bilora.hub.token import hub_token

    name = destination.removeprefix(HUB_DATASETS).rstrip("/")
    try:
        validate_repo_id(name)
    except HFValidationError:
        name = ""
    if name.count("/") != 1:
        raise BadData(destination, f"a dataset is named {HUB_DATASETS}OWNER/NAME.")
    return HubTarget(Repository(connect(hub_token()), name, "dataset", private=True))


def display_name(name: str) -> str:
    """Return a destination's name relative to the current directory."""
    current = os.path.realpath(".")
    if not Path(name).is_relative_to(current):
        return name
    relative = str(Path(name).relative_to(current))
    is_ambiguous = relative.startswith("-") or relative == UNRECORDED  # looks like an option, or like no folder
    return f"./{relative}" if is_ambiguous else relative


def export_command(name: str) -> str:
    """Return the command that updates a destination."""
    return f"bilora feedback export --to {shlex.quote(display_name(name))}"


def forget_command(name: str) -> str:
    """Return the command that removes a destination's record."""
    return f"bilora feedback forget {shlex.quote(display_name(name))}"
