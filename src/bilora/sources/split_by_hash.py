"""Assign names to splits by hash, the same on every machine and for every seed."""

from __future__ import annotations

import hashlib

from bilora.records import Split


def split_by_hash(key: str, *, test: float, validation: float) -> Split:
    """Return the split of `key`; `test` and `validation` are the fractions of all keys in those splits."""
    point = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    if point < test:
        return "test"
    return "validation" if point < test + validation else "train"
