"""API keys from the environment and the command line, without the white space that copying adds."""

from __future__ import annotations

import os
from collections.abc import Mapping

from bilora.errors import BadData

INVISIBLE = "\ufeff\u200b"
"""Invisible characters that `str.strip` keeps: byte order mark and zero-width space."""


def clean_key(text: str | None, name: str) -> str | None:
    """Return a key without surrounding white space; None if nothing remains.

    Args:
        text: the key as it was read.
        name: the environment variable or option, for the message.

    Raises:
        BadData: it contains white space, control characters or non-ASCII letters, so no HTTP header can contain it.
    """
    key = (text or "").strip().strip(INVISIBLE).strip()
    if not key:
        return None
    if not key.isascii() or not key.isprintable() or " " in key:
        raise BadData(name, "this key contains white space, a control character or a non-ASCII letter. Copy it again.")
    return key


def environment_key(name: str) -> str | None:
    """Return the key in an environment variable; None if it is not set or blank.

    Raises:
        BadData: no HTTP header can contain it.
    """
    return clean_key(os.environ.get(name), name)


def endpoint_key(name: str | None, keys: Mapping[str, str]) -> str | None:
    """Return an endpoint's key from the command line, else from the environment; None if there is none.

    Args:
        name: the key's environment variable; None for an endpoint without a key.
        keys: the keys of the command line, by environment variable.

    Raises:
        BadData: no HTTP header can contain it.
    """
    return None if name is None else clean_key(keys.get(name), name) or environment_key(name)
