"""Generated exercises are correct, varied, the same everywhere, and never cross a split."""

from __future__ import annotations

import ast
import random
from typing import Any

import pytest

from bilora.params import ExercisesSource
from bilora.sources.exercises import (
    STYLES,
    TIERS,
    VARIANTS,
    Exercises,
    Unusable,
    _bound,
    _small,
    _tests,
    chains,
    composition,
    exercises,
    render,
    split_of,
    variant,
)
from bilora.sources.operations import OPERATIONS


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [row for tier, count in {"one": 111, "two": 60, "three": 60}.items() for row in exercises(tier, count, 42)]


def test_every_operation_is_used_alone(rows: list[dict[str, Any]]) -> None:
    alone = {row["composition"] for row in rows if row["tier"] == "one"}
    assert alone == {operation.name for operation in OPERATIONS}


def test_every_exercise_passes_its_own_tests(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        space: dict[str, Any] = {}
        exec(row["code"], space)
        for test in row["test_list"]:
            exec(test, space)


def test_no_exercise_is_solved_by_one_constant(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        expected = {ast.unparse(ast.parse(test).body[0].test.comparators[0]) for test in row["test_list"]}  # type: ignore[attr-defined]
        assert len(expected) > 1, row


def test_the_empty_input_is_always_asked(rows: list[dict[str, Any]]) -> None:
    empties = {"[]", "''", "{}", "0"}
    for row in rows:
        call = ast.parse(row["test_list"][-1]).body[0].test.left  # type: ignore[attr-defined]
        assert ast.unparse(call.args[0]) in empties


@pytest.mark.parametrize("chain", random.Random(1).sample(chains("three"), 40), ids=composition)
def test_all_styles_compute_the_same(chain: Any) -> None:
    bound = _bound(chain, [3] * len(chain))
    for style in STYLES:
        ast.parse(render(bound, style, "f", "x"))
    try:
        _tests(bound, "f", "x", random.Random(0))
    except Unusable:
        pytest.skip("these constants make values too large or all alike")


def test_disagreeing_styles_are_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import bilora.sources.exercises as module

    (chain,) = [chain for chain in chains("one") if composition(chain) == "total"]
    honest = module.render

    def lying(chain: Any, style: str, name: str, argument: str) -> str:
        text = honest(chain, style, name, argument)
        return text.replace("result += v", "result += v + 1") if style == "loops" else text

    assert variant(chain, 0, 42)
    monkeypatch.setattr(module, "render", lying)
    with pytest.raises(Unusable):
        variant(chain, 0, 42)


def test_equal_seeds_give_equal_rows() -> None:
    source = ExercisesSource(kind="exercises", compositions={"one": 20, "two": 20})
    first, again, other = (list(Exercises(source, seed).rows()) for seed in (42, 42, 43))
    assert first == again != other


def test_a_composition_has_one_split_whatever_the_seed() -> None:
    seen = {row["composition"]: row["split"] for row in exercises("two", 80, 1)}
    for row in exercises("two", 80, 2):
        assert seen.get(row["composition"], row["split"]) == row["split"]


def test_compositions_that_write_one_program_share_a_split() -> None:
    named = {operation.name: (operation,) for operation in OPERATIONS}
    alike = ("length", "size", "word_count")
    assert len({render(list(named[name]), "nested", "f", "x") for name in alike}) == 1
    assert len({split_of(named[name]) for name in alike}) == 1
    assert {split_of(chain) for chain in chains("two")} == {"train", "validation", "test"}


def test_asking_for_train_only_never_yields_a_held_out_composition() -> None:
    assert {row["split"] for row in exercises("two", 100, 42, only="train")} == {"train"}


def test_tiers_are_chains_of_their_length_and_there_are_tens_of_thousands() -> None:
    sizes = {tier: len(chains(tier)) for tier in TIERS}
    assert sizes["one"] == len(OPERATIONS) and sizes["three"] > 20_000
    assert all(len(chain) == TIERS[tier] for tier in TIERS for chain in chains(tier))


def test_phrasings_and_styles_vary(rows: list[dict[str, Any]]) -> None:
    openings = {tuple(row["text"].split()[:4]) for row in rows}
    assert len(openings) >= 5 and {row["style"] for row in rows} == set(STYLES) and VARIANTS["one"] > 1


@pytest.mark.parametrize(("style", "functions"), [("helper", 2), ("steps", 1)])
def test_a_source_writes_only_the_styles_that_it_is_asked_for(style: Any, functions: int) -> None:
    source = ExercisesSource(kind="exercises", compositions={"two": 40}, styles=[style])
    codes = [str(row["code"]) for row in Exercises(source, 42).rows()]
    assert {code.count("def ") for code in codes} == {functions} and all("    result = " in code for code in codes)


@pytest.mark.parametrize("value", [[1] * 10_001, "a" * 10_001, 10**7 + 1, [10**8]], ids=["list", "text", "n", "item"])
def test_what_a_next_step_would_never_end_with_is_not_handed_on(value: Any) -> None:
    assert not _small(value) and _small([1] * 10_000) and _small(10**7)
