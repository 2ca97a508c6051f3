from __future__ import annotations

import pytest

from bilora.data.similarity import (
    NEAR_DUPLICATE,
    SAME_PROGRAM,
    SAME_STATEMENT,
    DuplicateIndex,
    ngrams,
    program_hash,
    statement,
)
from bilora.params import Processing
from bilora.records import Sample

CODE = "def f(values):\n    total = 0\n    for v in values:\n        total += v\n    return total"
PROSE = [f"word{number}" for number in range(60)]


def coded(text: str, code: str = CODE) -> Sample:
    prompt = f"{text}\n\nSignature: def {len(code)}\nMust pass: assert {hash(code)}"
    options = {"source": "s", "group": "g", "licence": "MIT", "tests": ("assert True",)}
    return Sample.create(task="codegen", prompt=prompt, target=code, **options)


def described(words: list[str]) -> Sample:
    options = {"source": "s", "group": "g", "licence": "MIT"}
    return Sample.create(task="docstring", prompt=" ".join(words), target="x", **options)


@pytest.mark.parametrize(
    "other",
    [
        CODE.replace("values", "xs").replace("total", "s").replace("v ", "item ").replace("+= v", "+= item"),
        CODE.replace("def f(", "def add_up("),
        CODE.replace("(values)", "(values: list[int]) -> int"),
        "# sums\n" + CODE.replace("    ", "  ") + "  # done",
    ],
)
def test_names_annotations_and_formatting_are_ignored(other: str) -> None:
    assert program_hash(other) == program_hash(CODE)


@pytest.mark.parametrize(
    "other",
    [
        CODE.replace("+=", "-="),
        CODE.replace("= 0", "= 1"),
        CODE.replace("total += v", "total += total"),
        CODE.replace("return total", "return abs(total)"),
    ],
)
def test_a_different_program_has_another_hash(other: str) -> None:
    assert program_hash(other) != program_hash(CODE)


def test_names_of_classes_and_keywords_are_ignored() -> None:
    code = "class A:\n    def go(self, by):\n        return by\n\nx = A().go(by=1)"
    assert program_hash(code) == program_hash(code.replace("A", "B").replace("by", "k"))


def test_builtins_and_modules_keep_their_names() -> None:
    assert program_hash("import math\nx = math.floor(1)") != program_hash("import cmath\nx = cmath.floor(1)")
    assert program_hash("x = min(1, 2)") != program_hash("x = max(1, 2)")


def test_code_that_does_not_parse_is_compared_as_text() -> None:
    assert program_hash("def (") == program_hash("def (") != program_hash("def )")


def test_the_statement_ends_at_the_first_blank_line() -> None:
    assert statement(coded("Add up, all VALUES!")) == "add up all values"


def test_either_half_of_a_program_sample_repeats() -> None:
    known = DuplicateIndex(Processing(), [coded("Add up.")])
    assert known.find_repeat(coded("add up", "x = 1"))[0] == SAME_STATEMENT  # type: ignore[index]
    assert known.find_repeat(coded("Sum."))[0] == SAME_PROGRAM  # type: ignore[index]
    assert known.find_repeat(coded("Sum.", "x = 1")) is None


def test_a_duplicate_agrees_in_both_halves() -> None:
    known = DuplicateIndex(Processing())
    first = coded("Add up.")
    assert [known.find_or_add(sample) for sample in (first, coded("Sum."), coded("Add up.", "x = 1"))] == [None] * 3
    assert known.find_or_add(coded("ADD UP")) is first


@pytest.mark.parametrize(("changed", "like"), [(0, True), (2, True), (12, False)])
def test_similarity_is_by_word_triples(changed: int, like: bool) -> None:
    other = [*PROSE[: len(PROSE) - changed], *(f"new{number}" for number in range(changed))]
    repeat = DuplicateIndex(Processing(), [described(PROSE)]).find_repeat(described(other))
    assert (repeat is not None and repeat[0] == NEAR_DUPLICATE) is like


def test_a_candidate_below_the_threshold_does_not_match() -> None:
    known = DuplicateIndex(Processing(near_duplicate=0.99), [described(PROSE)])
    assert known.find_repeat(described([*PROSE[:-1], "other"])) is None


def test_short_texts_can_be_compared() -> None:
    known = DuplicateIndex(Processing(), [described(["a"])])
    assert known.find_repeat(described(["a"])) and not known.find_repeat(described(["b"]))


def test_ngrams_are_sequences_of_words() -> None:
    assert ngrams("One two, three four", 3) == {"one two three", "two three four"}
    assert ngrams("One two", 3) == set()
