"""Names for the functions and parameters of generated exercises.

They consist of words from a large vocabulary, and no word is used in two splits. A name does not describe the
program, so it does not reveal the answer. The model must copy a test name from the question, because no part of it
occurs in training.
"""

from __future__ import annotations

import random
from functools import cache
from importlib.resources import files

from bilora.records import Split
from bilora.sources.split_by_hash import split_by_hash

WORD_TEST_SHARE, WORD_VALIDATION_SHARE = 0.20, 0.10
PREFIX_LETTERS = 4
"""Words with the same first letters, this many, share a split: `paint` and `painter` are never separated."""
FUNCTION_WORDS = (2, 2, 3)
PARAMETER_WORDS = (1, 1, 2)


@cache
def vocabulary() -> tuple[str, ...]:
    """Return all words in alphabetical order."""
    text = (files(__package__) / "words.txt").read_text(encoding="utf-8")
    return tuple(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


def split_of_word(word: str) -> Split:
    """Return the only split whose exercises use a word."""
    return split_by_hash(word[:PREFIX_LETTERS], test=WORD_TEST_SHARE, validation=WORD_VALIDATION_SHARE)


@cache
def split_words(split: Split) -> tuple[str, ...]:
    """Return the words of a split in alphabetical order."""
    return tuple(word for word in vocabulary() if split_of_word(word) == split)


def draw_names(split: Split, rng: random.Random) -> tuple[str, str]:
    """Return random names of a function and its parameter from the words of a split, none used twice."""
    function, parameter = rng.choice(FUNCTION_WORDS), rng.choice(PARAMETER_WORDS)
    words = rng.sample(split_words(split), function + parameter)
    return "_".join(words[:function]), "_".join(words[function:])
