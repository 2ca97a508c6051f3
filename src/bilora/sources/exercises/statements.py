"""Write a chain of operations as a task text."""

from __future__ import annotations

import random
from collections.abc import Sequence

from bilora.sources.exercises.operations import Operation, exercise_vocabulary


def write_statement(chain: Sequence[Operation], rng: random.Random) -> str:
    """Return one of several phrasings of a chain."""
    subject = exercise_vocabulary().types[chain[0].takes].noun
    steps = [rng.choice(operation.instructions) for operation in chain]
    joined = steps[0] if len(steps) == 1 else ", ".join(steps[:-1]) + " and then " + steps[-1]
    numbered = " ".join(f"({number}) {step};" for number, step in enumerate(steps, 1)).rstrip(";")
    result = f"the given {subject.removeprefix('a ')}"
    for operation in chain:
        result = operation.noun.replace("{x}", result)
    request = f"{joined}, for {subject}" if chain[-1].gives == "flag" else f"find {result}"
    phrasings = (
        f"Write a function that takes {subject} and does the following: {joined}.",
        f"Write a function to {joined}, given {subject}.",
        f"Given {subject}, {joined}.",
        f"Write a python function to {request}.",
        f"Write a function that takes {subject}. Steps: {numbered}.",
    )
    return rng.choice(phrasings)
