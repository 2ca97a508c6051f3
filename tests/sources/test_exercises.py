"""Generated exercises are correct, varied, the same everywhere, and never cross a split."""

from __future__ import annotations

import ast
import random
from collections.abc import Sequence

import pytest

from bilora.sources.exercises import cases
from bilora.sources.exercises.cases import ExerciseValue, UnusableVariant, is_small, write_tests
from bilora.sources.exercises.compositions import (
    TIERS,
    Composition,
    composition_name,
    compositions,
    split_of_composition,
)
from bilora.sources.exercises.generate import VARIANTS, Exercise, generate_exercise, generate_exercises
from bilora.sources.exercises.operations import Operation, all_operations
from bilora.sources.exercises.programs import CODE_STYLES, Style, write_program
from bilora.sources.kinds.exercises import Exercises, ExercisesSettings


@pytest.fixture(scope="module")
def rows() -> list[Exercise]:
    counts = {"one": 111, "two": 60, "three": 60}
    return [row for tier in TIERS for row in generate_exercises(tier, counts[tier], 42)]


def test_every_operation_is_used_alone(rows: list[Exercise]) -> None:
    alone = {row.composition for row in rows if row.tier == "one"}
    assert alone == {operation.name for operation in all_operations()}


def test_every_exercise_passes_its_own_tests(rows: list[Exercise]) -> None:
    for row in rows:
        space: dict[str, object] = {}
        exec(row.code, space)
        for test in row.test_list:
            exec(test, space)


def test_no_exercise_is_solved_by_one_constant(rows: list[Exercise]) -> None:
    for row in rows:
        expected = {ast.unparse(ast.parse(test).body[0].test.comparators[0]) for test in row.test_list}  # type: ignore[attr-defined]
        assert len(expected) > 1, row


def test_every_exercise_tests_the_empty_input(rows: list[Exercise]) -> None:
    empties = {"[]", "''", "{}", "0"}
    for row in rows:
        call = ast.parse(row.test_list[-1]).body[0].test.left  # type: ignore[attr-defined]
        assert ast.unparse(call.args[0]) in empties


@pytest.mark.parametrize("chain", random.Random(1).sample(compositions("three"), 40), ids=composition_name)
def test_all_styles_compute_the_same(chain: Composition) -> None:
    bound = [operation.with_constant(3) for operation in chain]
    for style in CODE_STYLES:
        ast.parse(write_program(bound, style, "f", "x"))
    try:
        write_tests(bound, "f", "x", random.Random(0))
    except UnusableVariant:
        pytest.skip("these constants make values too large or all alike")


def test_an_exercise_with_disagreeing_styles_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    (chain,) = [chain for chain in compositions("one") if composition_name(chain) == "total"]
    honest = cases.write_program

    def lying(chain: Sequence[Operation], style: Style, name: str, argument: str) -> str:
        text = honest(chain, style, name, argument)
        return text.replace("result += v", "result += v + 1") if style == "loops" else text

    assert generate_exercise(chain, "one", 0, 42)
    monkeypatch.setattr(cases, "write_program", lying)
    with pytest.raises(UnusableVariant):
        generate_exercise(chain, "one", 0, 42)


def test_equal_seeds_give_equal_rows() -> None:
    source = ExercisesSettings(kind="exercises", compositions={"one": 20, "two": 20})
    first, again, other = (list(Exercises(source, seed).rows()) for seed in (42, 42, 43))
    assert first == again != other


def test_a_composition_has_one_split_whatever_the_seed() -> None:
    seen = {row.composition: row.split for row in generate_exercises("two", 80, 1)}
    for row in generate_exercises("two", 80, 2):
        assert seen.get(row.composition, row.split) == row.split


def test_compositions_with_the_same_code_share_a_split() -> None:
    named = {operation.name: (operation,) for operation in all_operations()}
    alike = ("length", "size", "word_count")
    assert len({write_program(list(named[name]), "nested", "f", "x") for name in alike}) == 1
    assert len({split_of_composition(named[name]) for name in alike}) == 1
    assert {split_of_composition(chain) for chain in compositions("two")} == {"train", "validation", "test"}


def test_tiers_are_chains_of_their_length_and_there_are_tens_of_thousands() -> None:
    sizes = {tier: len(compositions(tier)) for tier in TIERS}
    assert sizes["one"] == len(all_operations()) and sizes["three"] > 20_000
    assert all(len(chain) == TIERS[tier] for tier in TIERS for chain in compositions(tier))


def test_phrasings_and_styles_vary(rows: list[Exercise]) -> None:
    openings = {tuple(row.text.split()[:4]) for row in rows}
    assert len(openings) >= 5 and {row.style for row in rows} == set(CODE_STYLES) and VARIANTS["one"] > 1


@pytest.mark.parametrize(("style", "functions"), [("helper", 2), ("steps", 1)])
def test_a_source_writes_only_the_requested_styles(style: Style, functions: int) -> None:
    source = ExercisesSettings(kind="exercises", compositions={"two": 40}, styles=[style])
    codes = [str(row["code"]) for row in Exercises(source, 42).rows()]
    assert {code.count("def ") for code in codes} == {functions} and all("    result = " in code for code in codes)


@pytest.mark.parametrize("value", [[1] * 10_001, "a" * 10_001, 10**7 + 1, [10**8]], ids=["list", "text", "n", "item"])
def test_a_value_too_large_for_the_next_step_is_refused(value: ExerciseValue) -> None:
    assert not is_small(value) and is_small([1] * 10_000) and is_small(10**7)
