"""Exercise names consist of thousands of words that mean nothing to Python, none of them in two splits."""

from __future__ import annotations

import ast
import builtins
import hashlib
import itertools
import keyword
import random
import re
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bilora.params import read_params
from bilora.records import Row
from bilora.sources.exercises.compositions import TIERS, compositions
from bilora.sources.exercises.generate import generate_exercises
from bilora.sources.exercises.names import (
    PREFIX_LETTERS,
    WORD_TEST_SHARE,
    WORD_VALIDATION_SHARE,
    draw_names,
    split_of_word,
    split_words,
    vocabulary,
)
from bilora.sources.exercises.programs import CODE_STYLES, write_program
from bilora.sources.kinds.exercises import Exercises, ExercisesSettings
from bilora.tasks.codegen import TASK

ROOT = Path(__file__).resolve().parents[2]
SPLITS = ("train", "validation", "test")
PYTHONS = {
    *keyword.kwlist,
    *keyword.softkwlist,
    *(name.lower() for name in dir(builtins)),
    *sys.stdlib_module_names,
    *itertools.chain.from_iterable(dir(kind) for kind in (str, int, list, dict)),
}


def last_function(code: str) -> ast.FunctionDef:
    """Return the function that the tests call: the last one."""
    return [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)][-1]


def names(code: str) -> list[str]:
    function = last_function(code)
    return [function.name, *(argument.arg for argument in function.args.args)]


def words(row: Row | dict[str, Any]) -> list[str]:
    return "_".join(names(row["code"])).split("_")


@pytest.fixture(scope="module")
def demo() -> list[Row]:
    params = read_params(ROOT / "profiles" / "smollm2-full.yaml")
    source = params.tasks["codegen"].source
    assert isinstance(source, ExercisesSettings)
    return list(Exercises(source, params.seed).rows())


@pytest.fixture(scope="module")
def styled() -> list[dict[str, Any]]:
    counts = {"one": 111, "two": 200, "three": 200}
    return [asdict(row) for tier in TIERS for row in generate_exercises(tier, counts[tier], 7)]


def test_the_vocabulary_is_unchanged() -> None:
    text = "\n".join(vocabulary())
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "e9381dbcf7664b2f4599fff9503575847d4f1bc3a350a5d289b519baec70ad66"
    )
    assert len(vocabulary()) == len(set(vocabulary())) > 5000


def test_every_word_is_lower_case_ascii_and_means_nothing_to_python() -> None:
    assert not [word for word in vocabulary() if not re.fullmatch(r"[a-z]{3,8}", word)]
    assert not PYTHONS.intersection(vocabulary())


def test_every_word_has_one_split_shared_by_words_with_its_prefix() -> None:
    dealt = {split: split_words(split) for split in SPLITS}  # type: ignore[arg-type]
    assert sorted(itertools.chain.from_iterable(dealt.values())) == list(vocabulary())
    families = {split: {word[:PREFIX_LETTERS] for word in words_of_split} for split, words_of_split in dealt.items()}
    for split, other in itertools.combinations(SPLITS, 2):
        assert not families[split] & families[other]
    shares = [len(dealt[split]) / len(vocabulary()) for split in ("validation", "test")]
    assert shares == pytest.approx([WORD_VALIDATION_SHARE, WORD_TEST_SHARE], abs=0.03)
    assert split_of_word("paint") == split_of_word("painter")


def test_no_word_of_a_name_is_used_in_two_splits_of_the_demo(demo: list[Row]) -> None:
    used: defaultdict[str, set[str]] = defaultdict(set)
    for row in demo:
        used[row["split"]].update(words(row))
    assert not used["test"] & (used["train"] | used["validation"]) and not used["train"] & used["validation"]
    assert len(used["train"]) > 3000 and len(used["test"]) > 700 and len(used["validation"]) > 300


def test_a_word_of_a_name_occurs_nowhere_else_in_any_exercise(demo: list[Row], styled: list[dict[str, Any]]) -> None:
    seen: set[str] = set()
    for row in (*demo, *styled):
        text = " ".join((row["text"], row["code"], *row["test_list"]))
        for name in names(row["code"]):
            text = re.sub(rf"\b{name}\b", " ", text)
        seen.update(re.findall(r"[a-z]+", text.lower()))
    assert "sorted" in seen and not seen.intersection(vocabulary())


def test_a_prompt_shows_the_names_and_no_word_of_another_split(demo: list[Row]) -> None:
    train = set(split_words("train")) | set(split_words("validation"))
    prompts = [TASK.sample(row).prompt for row in demo if row["split"] == "test"]  # type: ignore[union-attr]
    assert len(prompts) > 300
    assert not [prompt for prompt in prompts if train.intersection(re.findall(r"[a-z]+", prompt.lower()))]


def test_functions_have_two_or_three_words_and_parameters_one_or_two(demo: list[Row]) -> None:
    counts = {tuple(name.count("_") + 1 for name in names(row["code"])) for row in demo}
    assert counts == {(2, 1), (2, 2), (3, 1), (3, 2)}
    assert len({tuple(names(row["code"])) for row in demo}) == len(demo)


def test_a_name_hides_no_builtin_module_variable_or_other_name(demo: list[Row], styled: list[dict[str, Any]]) -> None:
    for row in (*demo, *styled):
        function, *parameters = names(row["code"])
        others = set(PYTHONS)
        for node in ast.walk(ast.parse(row["code"])):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                others.add(node.id)
            elif isinstance(node, ast.FunctionDef) and node.name != last_function(row["code"]).name:
                others.add(node.name)
        assert not others & {function, *parameters}
        assert len(set(words(row))) == len(words(row))
    assert {row["style"] for row in styled} == set(CODE_STYLES)


def test_every_exercise_of_the_demo_passes_its_own_tests(demo: list[Row]) -> None:
    for row in demo:
        space: dict[str, Any] = {}
        exec("\n".join((row["code"], *row["test_list"])), space)


def test_a_name_does_not_describe_the_program(demo: list[Row]) -> None:
    operations = {word for row in demo for name in row["group"].split("+") for word in name.split("_")}
    assert not [row for row in demo if operations.intersection(words(row))]


def test_equal_seeds_draw_equal_names() -> None:
    first, again, other = ([draw_names("test", rng) for _ in range(50)] for rng in map(random.Random, (1, 1, 2)))
    assert first == again != other
    assert all(split_of_word(word) == "test" for pair in first for word in "_".join(pair).split("_"))


def test_a_name_that_ends_like_a_module_imports_nothing() -> None:
    named = {chain[0].name: [chain[0].with_constant(2)] for chain in compositions("one")}
    assert "polymath.upper()" in (code := write_program(named["uppercase"], "steps", "some_words", "polymath"))
    assert "import" not in code
    assert write_program(named["product"], "steps", "some_words", "polymath").startswith("import math\n")
