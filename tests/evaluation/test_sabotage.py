"""Attempts to publish an adapter that must not pass; each is stopped with its own reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bilora.evaluation.baseline import baseline_entry
from bilora.evaluation.evidence import GateInput, GateSettings
from bilora.evaluation.gate import gate
from bilora.records import EvalRow
from bilora.results import Incumbents, Verdict

SHA = "a" * 64
NEW, OLD = [1.0, 1.0, 1.0, 0.0] * 50, [1.0, 0.0, 0.0, 0.0] * 50
Rows = list[EvalRow]


def scored(row: EvalRow, **change: Any) -> EvalRow:
    return row.model_copy(update={"scores": tuple(score.model_copy(update=change) for score in row.scores)})


def of_adapter(rows: Rows, change: Callable[[EvalRow], EvalRow]) -> Rows:
    return [change(row) if row.completion.system == "codegen" else row for row in rows]


def zero(rows: Rows) -> Rows:
    return [scored(row, value=0.0) for row in rows]


def not_a_number(rows: Rows) -> Rows:
    return of_adapter(rows, lambda row: scored(row, value=math.nan))


def unscored_where_wrong(rows: Rows) -> Rows:
    return of_adapter(rows, lambda row: scored(row, value=row.scores[0].value or None))


def omitted_where_wrong(rows: Rows) -> Rows:
    return [row for row in rows if row.completion.system == "base" or row.scores[0].value]


def best_rows_twice(rows: Rows) -> Rows:
    return [*rows, *(row for row in rows if row.scores[0].value)]


def of_another_adapter(rows: Rows) -> Rows:
    return [row.model_copy(update={"adapter_sha256": "b" * 64}) for row in rows]


def one_sample(rows: Rows) -> Rows:
    first = rows[0].sample.id
    return [row for row in rows if row.sample.id == first]


def without_the_base(rows: Rows) -> Rows:
    return [row for row in rows if row.completion.system != "base"]


def weakly_isolated(rows: Rows) -> Rows:
    return [scored(row, evidence={"isolation": "weak: rlimits; split 4/4"}) for row in rows]


def curated_only(rows: Rows) -> Rows:
    return [row.model_copy(update={"dataset": "curated"}) for row in rows]


def one_group(rows: Rows) -> Rows:
    return [row.model_copy(update={"sample": row.sample.model_copy(update={"group": "one"})}) for row in rows]


SABOTAGE: dict[Callable[[Rows], Rows], str] = {
    zero: "pass_at_1 is 0; such an adapter never passes",
    not_a_number: "200 of 200 samples are unscored",
    unscored_where_wrong: "50 of 200 samples are unscored, above 2%",
    omitted_where_wrong: "50 of 200 samples are missing in one of the two measurements",
    best_rows_twice: "200 duplicate rows",
    of_another_adapter: "400 rows measured another adapter",
    one_sample: "1 scored samples; the gate requires 100",
    without_the_base: "200 of 200 samples are missing in one of the two measurements",
    weakly_isolated: "answers ran in weak isolation",
    curated_only: "0 scored samples",
    one_group: "All samples belong to one group",
}


def judged(rows: Rows, incumbents: Incumbents | None = None, expected_metrics: Sequence[str] = ()) -> Verdict:
    inputs = GateInput("codegen", ["pass_at_1"], rows, SHA, "k", incumbents, expected_metrics)
    return gate(inputs, GateSettings(margin=0.05, min_samples=100, seed=1, draws=1000))


@pytest.fixture
def rows(pairs: Callable[..., Rows]) -> Rows:
    good_rows = pairs("codegen", "pass_at_1", NEW, OLD, evidence={"isolation": "strict: seccomp-0; split 4/4"})
    assert judged(good_rows).outcome == "pass"
    return good_rows


@pytest.mark.parametrize("sabotage", SABOTAGE, ids=lambda sabotage: sabotage.__name__)
def test_a_sabotaged_run_does_not_pass_and_says_why(rows: Rows, sabotage: Callable[[Rows], Rows]) -> None:
    verdict = judged(sabotage(rows))
    assert verdict.outcome != "pass" and SABOTAGE[sabotage] in verdict.reason


def test_a_baseline_of_other_data_neither_helps_nor_is_passed_over(rows: Rows) -> None:
    entry = baseline_entry("codegen", ["pass_at_1"], zero(rows), adapter_sha256="old", key="other data")
    verdict = judged(rows, Incumbents(current=entry, champion=entry))
    assert verdict.outcome == "incomparable" and "measured under other conditions" in verdict.reason


def test_a_judge_that_was_promised_and_is_missing_stops_it(rows: Rows) -> None:
    verdict = judged(rows, expected_metrics=["judge"])
    assert verdict.outcome == "inconclusive" and "judge is configured but scored no answer" in verdict.reason


@pytest.mark.parametrize(("missing", "outcome"), [(1, "pass"), (2, "inconclusive")])
def test_two_percent_of_the_judge_s_ratings_may_be_missing(
    rows: Rows, row: Callable[..., EvalRow], sample: Callable[..., Any], missing: int, outcome: str
) -> None:
    ratings = [
        row(sample("codegen", 1000 + n), "codegen", {"judge": None if n < missing else 0.5}, dataset="curated")
        for n in range(50)
    ]
    verdict = judged([*rows, *ratings], expected_metrics=["judge"])
    assert verdict.outcome == outcome
    assert ("2 of 50 scores by judge are missing" in verdict.reason) == (outcome == "inconclusive")
