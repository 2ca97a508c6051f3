"""Compositions: chains of one to three operations, each always in the same split."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Literal

from bilora.records import Split
from bilora.sources.exercises.operations import Operation, all_operations
from bilora.sources.split_by_hash import split_by_hash

Tier = Literal["one", "two", "three"]
Composition = tuple[Operation, ...]

TIERS: dict[Tier, int] = {"one": 1, "two": 2, "three": 3}
"""The number of operations of each tier."""
_TEST_SHARE, _VALIDATION_SHARE = 0.10, 0.05


def compositions(tier: Tier) -> list[Composition]:
    """Return every well-typed composition of a tier in a fixed order; no operation follows itself."""
    chains: list[Composition] = [(operation,) for operation in all_operations()]
    for _ in range(TIERS[tier] - 1):
        chains = [(*chain, op) for chain in chains for op in all_operations() if chain[-1].gives == op.takes]
    return [chain for chain in chains if all(a is not b for a, b in itertools.pairwise(chain))]


def composition_name(composition: Composition) -> str:
    """Return the names of the operations, joined by `+`."""
    return "+".join(operation.name for operation in composition)


@cache
def _first_names() -> dict[str, str]:
    """Return for each expression the name of its first operation."""
    names: dict[str, str] = {}
    for operation in all_operations():
        names.setdefault(operation.as_expression("x"), operation.name)
    return names


def split_of_composition(composition: Composition) -> Split:
    """Return the split of a composition, the same on every machine and for every seed.

    Operations with the same code count as the same: the number of words and the length of a string are both
    `len(x)`.
    """
    names = "+".join(_first_names()[operation.as_expression("x")] for operation in composition)
    return split_by_hash(names, test=_TEST_SHARE, validation=_VALIDATION_SHARE)
