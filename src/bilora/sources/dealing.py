"""Assign things to splits by a hash of their name, the same on every machine and for every seed."""

from __future__ import annotations

import hashlib

from bilora.records import Split


def deal(key: str, *, test: float, validation: float) -> Split:
    """Return the split of `key`; `test` and `validation` are the shares of all keys that go there."""
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    if place < test:
        return "test"
    return "validation" if place < test + validation else "train"
