"""Read keys as people paste them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from bilora.errors import BadData

AROUND = "\ufeff\u200b"
"""Invisible, and no white space to Python: a byte order mark, and what web pages put between words."""


def clean_key(given: str | None, name: str) -> str | None:
    """Return a key without the white space around it; None if nothing is left.

    Args:
        given: the key as it was read.
        name: of the environment variable or option, for the message.

    Raises:
        BadData: no HTTP header can carry it: white space, control characters or letters outside ASCII.
    """
    key = (given or "").strip().strip(AROUND).strip()
    if not key:
        return None
    if not key.isascii() or not key.isprintable() or " " in key:
        raise BadData(
            name, "this key has white space, a control character or a letter outside ASCII in it. Copy it again."
        )
    return key


def environment_key(name: str) -> str | None:
    """Return the key that an environment variable holds; None if it is not set, or blank.

    Raises:
        BadData: it cannot be sent.
    """
    return clean_key(os.environ.get(name), name)


def endpoint_key(name: str | None, given: Mapping[str, str]) -> str | None:
    """Return an endpoint's key: the one that the command was given, else the environment's; None if there is none.

    Args:
        name: the environment variable that the key is in; None for an endpoint without a key.
        given: keys by the name of their environment variable.

    Raises:
        BadData: it cannot be sent.
    """
    return None if name is None else clean_key(given.get(name), name) or environment_key(name)
