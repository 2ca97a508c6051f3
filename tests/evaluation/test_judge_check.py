"""The judge check distinguishes a sound judge from one that can be influenced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.fakes import FakeJudge, Grade

from bilora.evaluation.judge_check import PLEA, check_judge
from bilora.metrics.judged import ENDPOINT_FAULT, JUDGE_FAILED, REPLY_FAULT, model_family
from bilora.records import Sample


def sound(sample: Sample, answer: str, place: int) -> float:
    return 5 if answer == sample.target else 1


def ungraded(sample: Sample, answer: str, place: int) -> None:
    return None


@pytest.fixture
def samples(sample: Callable[..., Any]) -> list[Sample]:
    return [sample("docstring", number, target=f"Add {number}.") for number in range(10)]


def test_a_sound_judge_passes(samples: list[Sample]) -> None:
    check = check_judge(FakeJudge(sound), samples, "m")
    assert (check.scored, check.gap, check.uplift, check.flips, check.faults) == (10, 4, 0, 0, ())
    assert check.sentence() == "m, 10 samples scored, 0 not: gap 4.00 points, plea +0.00, order flips 0%; sound."


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
def test_an_unsound_judge_is_reported(samples: list[Sample], grade: Grade, fault: str) -> None:
    check = check_judge(FakeJudge(grade), samples, "m")
    assert any(fault in reported for reported in check.faults), check.faults
    assert check.scored + check.unscored == len(samples)


@pytest.mark.parametrize(("fault", "unreachable", "calls"), [(ENDPOINT_FAULT, True, 6), (REPLY_FAULT, False, 20)])
def test_the_commonest_reason_is_reported_and_a_dead_endpoint_is_given_up(
    samples: list[Sample], fault: str, unreachable: bool, calls: int
) -> None:
    judge = FakeJudge(ungraded, f"{JUDGE_FAILED}HTTP 429: too many requests.", {"fault": fault})
    check = check_judge(judge, samples, "m")
    assert (judge.calls, check.unreachable, check.unscored) == (calls, unreachable, 10)
    assert f"most often ({calls} of {calls} calls): HTTP 429: too many requests." in check.sentence()
    assert not check.sentence().endswith("..")


def test_a_judge_that_answers_later_was_reached(samples: list[Sample]) -> None:
    def late(sample: Sample, answer: str, place: int) -> float | None:
        return None if judge.calls < 6 else sound(sample, answer, place)

    judge = FakeJudge(late, f"{JUDGE_FAILED}the server did not answer in time", {"fault": ENDPOINT_FAULT})
    check = check_judge(judge, samples, "m")
    assert (check.scored, check.unreachable) == (
        7,
        False,
    ) and "(5 of 20 calls): the server did not answer" in check.sentence()


def test_parameters_that_the_judge_refused_are_reported(samples: list[Sample]) -> None:
    judge = FakeJudge(sound, evidence={"remark": "without seed"})
    assert check_judge(judge, samples, "m").sentence().endswith("; sound; requests were sent without seed.")


def test_one_sample_is_no_check(samples: list[Sample]) -> None:
    with pytest.raises(ValueError, match="two samples"):
        check_judge(FakeJudge(sound), samples[:1], "m")


@pytest.mark.parametrize(
    ("model", "other", "same"),
    [
        ("meta-llama/Llama-3.3-70B", "llama-3.1-8b-instant", True),
        ("microsoft/Phi-3-mini-4k-instruct", "phi3:mini", True),
        ("openai/gpt-oss-120b", "microsoft/Phi-3-mini-4k-instruct", False),
    ],
)
def test_models_of_one_family_are_recognized(model: str, other: str, same: bool) -> None:
    assert (model_family(model) == model_family(other)) == same
