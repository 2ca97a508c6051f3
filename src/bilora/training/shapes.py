"""Round sizes up, to limit the number of different shapes of matrix products on a CPU.

oneDNN compiles code for every shape and caches it until the process ends (its cost: perf/training_parts.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

_Item = TypeVar("_Item")

ROW_MULTIPLE, PASS_MULTIPLE = 32, 64
"""Lengths of rows and passes are rounded up to multiples of these numbers of tokens."""


def round_up(size: int, step: int) -> int:
    """Return the next multiple of `step`."""
    return size + -size % step


def split_by_powers_of_two(items: Sequence[_Item]) -> list[Sequence[_Item]]:
    """Split items into the smallest number of groups whose sizes are powers of two."""
    groups: list[Sequence[_Item]] = []
    while items:
        size = 1 << (len(items).bit_length() - 1)
        groups, items = [*groups, items[:size]], items[size:]
    return groups
