"""Few shapes of products on a CPU.

oneDNN compiles code for every shape of a 16-bit product and keeps it as long as the process lives; what that costs,
perf/training_parts.py measures. So the sizes that depend on the data are rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

_Item = TypeVar("_Item")

ROW_STEP, PASS_STEP = 32, 64
"""Numbers of tokens that the lengths of rows and passes are rounded up to multiples of."""


def rounded_up(size: int, step: int) -> int:
    """Return the next multiple of `step`."""
    return size + -size % step


def powers_of_two(items: Sequence[_Item]) -> list[Sequence[_Item]]:
    """Divide items into as few groups as possible whose sizes are powers of two."""
    found: list[Sequence[_Item]] = []
    while items:
        size = 1 << (len(items).bit_length() - 1)
        found, items = [*found, items[:size]], items[size:]
    return found
