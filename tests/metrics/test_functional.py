"""Scores from sandbox outcomes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from support.fakes import FakeSandbox

from bilora.metrics import Functional
from bilora.metrics.functional import pass_at_k
from bilora.protocols import Referees
from bilora.records import Outcome, Program, Sample, Score


def sample(tests: tuple[str, ...] = ("assert f() == 1", "assert f() == 2")) -> Sample:
    return Sample.create(
        task="codegen",
        prompt="p",
        target="t",
        tests=tests,
        setup="import math",
        source="s",
        group="g",
        licence="MIT",
    )


def score(outcome: Outcome, sample_to_score: Sample | None = None) -> tuple[Score, ...]:
    pairs = [(sample_to_score or sample(), "code")]
    (scores,) = Functional().score(pairs, Referees(sandbox=FakeSandbox(scripted=[outcome])), system="base")
    return scores


@pytest.mark.parametrize(
    ("status", "results", "values"),
    [
        ("passed", (True, True), [1.0, 1.0]),
        ("failed", (True, False), [0.0, 0.5]),
        ("timeout", (False, None), [0.0, 0.0]),
        ("crashed", (True, None), [0.0, 0.5]),
        ("denied", (None, None), [0.0, 0.0]),
        ("failed", (True, True), [0.0, 1.0]),
        ("missing-module", (None, None), [0.0, 0.0]),
        ("passed-in-process", (True, True), [0.0, 0.0]),
        ("untested", (True, True), [0.0, 0.0]),
        ("infrastructure", (None, None), [None, None]),
    ],
)
def test_only_our_own_failure_is_unscored(
    status: Any, results: tuple[bool | None, ...], values: list[float | None]
) -> None:
    scores = score(Outcome(status=status, results=results, detail="why"))
    assert [score.value for score in scores] == values


def test_scores_carry_reason_and_evidence() -> None:
    outcome = Outcome(status="failed", results=(False, False), detail="test 1 gave 3", isolation="process; split 2/2")
    for metric_score, name in zip(score(outcome), Functional().scales, strict=True):
        assert (metric_score.metric, metric_score.system, metric_score.reason) == (name, "base", "test 1 gave 3")
        assert metric_score.evidence == {"status": "failed", "isolation": "process; split 2/2"}


def test_a_sample_without_tests_is_unscored() -> None:
    scores = score(Outcome(status="passed"), sample(tests=()))
    assert [(score.value, score.reason) for score in scores] == [(None, "the sample has no tests")] * 2


def test_the_answer_runs_with_its_samples_setup_and_tests() -> None:
    sandbox = FakeSandbox(scripted=[Outcome(status="passed", results=(True, True))])
    Functional().score([(sample(), "code")], Referees(sandbox=sandbox), system="base")
    assert sandbox.programs == [Program(code="code", setup="import math", tests=sample().tests)]


def test_a_sandbox_that_answers_too_little_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        Functional().score([(sample(), "code")], Referees(sandbox=FakeSandbox(scripted=())), system="base")


def test_progress_is_passed_on() -> None:
    counted: list[int] = []
    sandbox = FakeSandbox(scripted=[Outcome(status="passed", results=(True, True))])
    Functional().score([(sample(), "code")], Referees(sandbox=sandbox), system="base", progress=counted.append)
    assert counted == [1]


@pytest.mark.parametrize(("n", "k"), [(5, 1), (5, 2), (5, 5), (6, 3)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(n: int, k: int) -> None:
    for c in range(n + 1):
        draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 6, 1), (5, -1, 1), (5, 2, 0), (5, 2, 6), (0, 0, 1)])
def test_pass_at_k_refuses_what_cannot_be(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@k"):
        pass_at_k(n, c, k)
