"""Names for the functions and parameters of generated exercises.

They are words of a large vocabulary, and no word is used in two splits. Such a name says nothing about the program:
it cannot give the answer away, and a tested name has to be read off the question, because no part of it occurs in
training.
"""

from __future__ import annotations

import random
from functools import cache
from importlib.resources import files

from bilora.records import Split
from bilora.sources.split_by_hash import split_by_hash

WORD_TEST_SHARE, WORD_VALIDATION_SHARE = 0.20, 0.10
FAMILY = 4
"""Words that agree in this many first letters share a split, so that `paint` and `painter` are never on two sides."""
FUNCTION_WORDS = (2, 2, 3)
PARAMETER_WORDS = (1, 1, 2)


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
