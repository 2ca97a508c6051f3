"""Read the licence in a model card."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from bilora.textfiles import read_text

MODEL_CARD = "README.md"
UNKNOWN_LICENCE = "unknown"
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def model_card_licence(card: Path) -> str:
    """Return the licence in the front matter of a model card; `unknown` if there is no card or no licence.

    Several licences are joined by AND. For the licence `other` it returns the card's `license_name`.
    """
    match = _FRONT_MATTER.match(read_text(card)) if card.is_file() else None
    try:
        front = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        front = None
    if not isinstance(front, dict):
        return UNKNOWN_LICENCE
    licence = front.get("license")
    if licence == "other":
        licence = front.get("license_name") or licence
    return " AND ".join(map(str, licence if isinstance(licence, list) else [licence] if licence else [])) or (
        UNKNOWN_LICENCE
    )
