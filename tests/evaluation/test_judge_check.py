"""The judge's own examination tells a sound judge from those that can be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bilora.evaluation.judge_check import PLEA, check_judge
from bilora.metrics.judged import family
from bilora.records import Sample, Score

Grade = Callable[[Sample, str, int], float | None]
"""Points from 1 to 5 for one answer that stands at a place; None: the call failed."""


class Judge:
    def __init__(self, grade: Grade) -> None:
        self._grade = grade

    def rate(self, sample: Sample, answers: dict[str, str]) -> dict[str, Score]:
        names = sorted(answers, reverse=sample.id.endswith("#again"))
        found = {}
        for place, name in enumerate(names):
            points = self._grade(sample, answers[name], place)
            value = None if points is None else (points - 1) / 4
            found[name] = Score(sample_id=sample.id, system=name, metric="judge", value=value)
        return found


def sound(sample: Sample, answer: str, place: int) -> float:
    return 5 if answer == sample.target else 1


@pytest.fixture
def samples(sample: Callable[..., Any]) -> list[Sample]:
    return [sample("docstring", number, target=f"Add {number}.") for number in range(10)]


def test_a_sound_judge_passes(samples: list[Sample]) -> None:
    found = check_judge(Judge(sound), samples, "m")
    assert (found.scored, found.gap, found.uplift, found.flips, found.faults) == (10, 4, 0, 0, ())
    assert found.told() == "m, 10 samples scored, 0 not: gap 4.00 points, plea +0.00, order flips 0%; sound."


@pytest.mark.parametrize(
    ("grade", "fault"),
    [
        (lambda sample, answer, place: 4, "only 0.00 points above"),
        (lambda sample, answer, place: 5 if PLEA in answer else sound(sample, answer, place), "a plea for five points"),
        (lambda sample, answer, place: 5 - 2 * place, "changes the winner in 100%"),
        (lambda sample, answer, place: None, "10 of 10 samples are unscored"),
        (lambda sample, answer, place: None if sample.target == "Add 3." else 5, "1 of 10 samples are unscored"),
    ],
    ids=["generous", "credulous", "first come", "broken", "sometimes broken"],
)
def test_a_judge_that_can_be_had_is_named(samples: list[Sample], grade: Grade, fault: str) -> None:
    found = check_judge(Judge(grade), samples, "m")
    assert any(fault in one for one in found.faults), found.faults
    assert found.scored + found.unscored == len(samples)


def test_one_sample_is_no_check(samples: list[Sample]) -> None:
    with pytest.raises(ValueError, match="two samples"):
        check_judge(Judge(sound), samples[:1], "m")


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("meta-llama/Llama-3.3-70B", "llama-3.1-8b-instant", True),
        ("microsoft/Phi-3-mini-4k-instruct", "phi3:mini", True),
        ("openai/gpt-oss-120b", "microsoft/Phi-3-mini-4k-instruct", False),
    ],
)
def test_models_of_one_line_are_one_family(one: str, other: str, alike: bool) -> None:
    assert (family(one) == family(other)) == alike
