"""Names for the functions and parameters of generated exercises.

The exercises of the tasks are named by words of a large vocabulary, and no word is used in two splits. Such a name
says nothing about the program: it cannot give the answer away, and a tested name has to be read off the question,
because no part of it occurs in training.

The embedded base was pre-trained on exercises named after their operations. Those names repeat in every split, so
only a recipe of a base uses them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

from bilora.records import Split
from bilora.sources.exercises.operations import Operation, exercise_vocabulary
from bilora.sources.split_by_hash import split_by_hash

NameStyle = Literal["words", "operations"]
"""How exercises are named: by words that no other split uses, or after what they compute."""

WORD_TEST_SHARE, WORD_VALIDATION_SHARE = 0.20, 0.10
FAMILY = 4
"""Words that agree in this many first letters share a split, so that `paint` and `painter` are never on two sides."""
FUNCTION_WORDS = (2, 2, 3)
PARAMETER_WORDS = (1, 1, 2)

GENERIC = ("solve", "compute", "process")


@cache
def vocabulary() -> tuple[str, ...]:
    """Return all words in alphabetical order."""
    text = (files(__package__) / "words.txt").read_text(encoding="utf-8")
    return tuple(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


def split_of_word(word: str) -> Split:
    """Return the only split whose exercises use the word."""
    return split_by_hash(word[:FAMILY], test=WORD_TEST_SHARE, validation=WORD_VALIDATION_SHARE)


@cache
def words_of(split: Split) -> tuple[str, ...]:
    """Return the words of a split in alphabetical order."""
    return tuple(word for word in vocabulary() if split_of_word(word) == split)


def name_by_words(split: Split, rng: random.Random) -> tuple[str, str]:
    """Draw the names of a function and its parameter from the words of a split, none of them twice."""
    function, parameter = rng.choice(FUNCTION_WORDS), rng.choice(PARAMETER_WORDS)
    words = rng.sample(words_of(split), function + parameter)
    return "_".join(words[:function]), "_".join(words[function:])


def name_after_operations(chain: Sequence[Operation], rng: random.Random) -> tuple[str, str]:
    """Name the function after one or two of its operations, or not at all, and its parameter after the type.

    The recipes of the embedded bases depend on every draw here: a change makes another corpus of them.
    """
    names = [operation.name for operation in chain]
    generic = rng.random() < 0.3
    function = rng.choice(GENERIC) if generic else "_".join(rng.sample(names, k=min(2, len(names))))
    function = f"get_{function}" if function in names else function
    return function, rng.choice(exercise_vocabulary().types[chain[0].takes].parameters)
