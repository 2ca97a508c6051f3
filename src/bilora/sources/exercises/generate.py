"""Generate exercises as variants of compositions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bilora.records import Split
from bilora.sources.exercises.cases import UnusableVariant, write_tests
from bilora.sources.exercises.compositions import (
    Composition,
    Tier,
    composition_name,
    compositions,
    split_of_composition,
)
from bilora.sources.exercises.names import draw_names
from bilora.sources.exercises.programs import CODE_STYLES, Style, write_program
from bilora.sources.exercises.statements import write_statement

VARIANTS: dict[Tier, int] = {"one": 8, "two": 2, "three": 1}
"""Variants per composition."""
ATTEMPTS = 8
"""Maximum number of draws of names, constants and inputs per variant."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: MBPP's `text`, `code` and `test_list`, its style and its composition."""

    text: str
    code: str
    test_list: tuple[str, ...]
    style: Style
    composition: str
    tier: Tier
    split: Split


def generate_exercises(
    tier: Tier,
    count: int | None,
    seed: int,
    *,
    styles: Sequence[Style] = CODE_STYLES,
) -> Iterator[Exercise]:
    """Yield the variants of up to `count` compositions of a tier (None: of all), in a seeded order."""
    pool = compositions(tier)
    random.Random(f"{seed}:{tier}").shuffle(pool)
    generated = 0
    for composition in pool:
        if generated == count:
            return
        variants = []
        for number in range(VARIANTS[tier]):
            try:
                variants.append(generate_exercise(composition, tier, number, seed, styles=styles))
            except UnusableVariant:
                continue
        generated += bool(variants)
        yield from {variant.code: variant for variant in variants}.values()


def generate_exercise(
    composition: Composition,
    tier: Tier,
    number: int,
    seed: int,
    *,
    styles: Sequence[Style] = CODE_STYLES,
) -> Exercise:
    """Return variant `number` of a composition, in one of `styles`.

    Raises:
        UnusableVariant: no attempt gave usable tests.
    """
    name, split = composition_name(composition), split_of_composition(composition)
    rng = random.Random(f"{seed}:{name}:{number}")
    for _ in range(ATTEMPTS):
        chain = [operation.with_constant(rng.randint(2, 6)) for operation in composition]
        function, parameter = draw_names(split, rng)
        try:
            tests = write_tests(chain, function, parameter, rng)
        except (UnusableVariant, ValueError, TypeError, ZeroDivisionError):
            continue
        style = rng.choice([candidate for candidate in styles if candidate != "helper" or len(chain) > 1] or styles)
        code = write_program(chain, style, function, parameter)
        return Exercise(write_statement(chain, rng), code, tests, style, name, tier, split)
    raise UnusableVariant
