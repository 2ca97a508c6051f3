"""The places that ratings are exported to: as they are typed, as they are shown, and the command that updates one."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.errors import BadData
from bilora.feedback.destination_names import HUB_DATASETS, UNRECORDED

if TYPE_CHECKING:
    from bilora.feedback.shards import Target


def target(place: str) -> Target:
    """Build the target that a person named.

    Raises:
        BadData: it is neither a folder nor a dataset of the hub.
    """
    from bilora.feedback.shards import FolderTarget

    if not place.startswith(HUB_DATASETS):
        if "://" in place:
            raise BadData(place, f"is no destination: name a folder, or {HUB_DATASETS}OWNER/NAME.")
        nearest = next(path for path in (Path(place), *Path(place).absolute().parents) if path.exists())
        if not nearest.is_dir():
            raise BadData(place, f"{nearest} is a file; name a folder.")
        return FolderTarget(Path(place))
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    from bilora.feedback.hub_target import HubTarget
    from bilora.hub.client import connect
    from bilora.hub.repository import Repository
    from bilora.hub.token import hub_token

    name = place.removeprefix(HUB_DATASETS).rstrip("/")
    try:
        validate_repo_id(name)
    except HFValidationError:
        name = ""
    if name.count("/") != 1:
        raise BadData(place, f"a dataset is named {HUB_DATASETS}OWNER/NAME.")
    return HubTarget(Repository(connect(hub_token()), name, "dataset", private=True))


def display_name(name: str) -> str:
    """Return a destination's name as a person would type it here."""
    here = os.path.realpath(".")
    if not Path(name).is_relative_to(here):
        return name
    typed = str(Path(name).relative_to(here))
    return f"./{typed}" if typed.startswith("-") or typed == UNRECORDED else typed  # no option, and a folder


def export_command(name: str) -> str:
    """Return the command that brings a destination up to date."""
    return f"bilora feedback export --to {shlex.quote(display_name(name))}"


def forget_command(name: str) -> str:
    """Return the command that gives a destination up."""
    return f"bilora feedback forget {shlex.quote(display_name(name))}"
