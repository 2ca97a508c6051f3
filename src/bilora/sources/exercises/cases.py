"""Test cases of an exercise: random inputs, and the expected values that its code computes in all styles."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import cast

from bilora.sources.exercises.operations import Operation, ValueType, exercise_vocabulary
from bilora.sources.exercises.programs import CODE_STYLES, write_program

ExerciseValue = bool | int | str | list[int] | list[str] | dict[str, int]

CASES = 4
MAX_ANSWER_CHARS = 90
MAX_NUMBER = 10**7
MAX_LENGTH = 10**4
EMPTY_INPUTS: dict[ValueType, ExerciseValue] = {
    "numbers": [],
    "words": [],
    "text": "",
    "counts": {},
    "n": 0,
    "flag": False,
}
"""The empty input of each type, which every exercise tests."""


class UnusableVariant(Exception):
    """A variant is not usable: its styles disagree, a value is too large, or its tests are too weak."""


def write_tests(chain: Sequence[Operation], name: str, parameter: str, rng: random.Random) -> tuple[str, ...]:
    """Return asserts of the chain's values for random inputs and the empty input.

    Raises:
        UnusableVariant: the styles disagree, a value is too large, or too few values are different.
    """
    reference, *others = (_run(write_program(chain, style, name, parameter), name) for style in CODE_STYLES)
    steps = [_run(write_program(chain[:count], "steps", name, parameter), name) for count in range(1, len(chain))]
    tests: list[str] = []
    answers: set[str] = set()
    for number in range(CASES):
        value = EMPTY_INPUTS[chain[0].takes] if number == CASES - 1 else _draw_input(chain[0].takes, rng)
        # 1) Check the intermediate values: a loop up to a huge number would not end.
        if not all(is_small(step(value)) for step in steps):
            raise UnusableVariant
        # 2) Check the final value.
        answer = reference(value)
        expected = repr(answer)
        if len(expected) > MAX_ANSWER_CHARS or not is_small(answer):
            raise UnusableVariant
        # 3) Check that all styles agree.
        if any(repr(other(value)) != expected for other in others):
            raise UnusableVariant
        answers.add(expected)
        tests.append(f"assert {name}({value!r}) == {expected}")
    if len(answers) < (2 if chain[-1].gives in ("flag", "n") else 3):
        raise UnusableVariant
    return tuple(tests)


def _run(code: str, name: str) -> Callable[[ExerciseValue], ExerciseValue]:
    """Return the function that generated code defines."""
    space: dict[str, object] = {"__builtins__": __builtins__}
    exec(compile(code, "<exercise>", "exec"), space)
    return cast(Callable[[ExerciseValue], ExerciseValue], space[name])


def _draw_word(rng: random.Random) -> str:
    word = rng.choice(exercise_vocabulary().input_words)
    return word.capitalize() if rng.random() < 0.2 else word


def _draw_input(kind: ValueType, rng: random.Random) -> ExerciseValue:
    match kind:
        case "numbers":
            return [rng.randint(-9, 20) for _ in range(rng.randint(3, 7))]
        case "words":
            return [_draw_word(rng) for _ in range(rng.randint(2, 5))]
        case "text":
            return rng.choice((" ", " ", "")).join(_draw_word(rng) for _ in range(rng.randint(1, 3)))
        case "counts":
            return {_draw_word(rng): rng.randint(0, 9) for _ in range(rng.randint(2, 4))}
        case "n":
            return rng.randint(2, 60)
        case "flag":
            return rng.random() < 0.5


def is_small(value: ExerciseValue) -> bool:
    """Return whether a value and its items are small enough for the next operation to end quickly."""
    match value:
        case bool():
            return True
        case int():
            return abs(value) <= MAX_NUMBER
        case _ if len(value) > MAX_LENGTH:
            return False
        case str():
            return True
        case dict():
            return all(is_small(item) for pair in value.items() for item in pair)
        case list():
            return all(is_small(item) for item in value)
