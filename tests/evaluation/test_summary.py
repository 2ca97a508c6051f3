"""Derived numbers: pass@k of several answers, and the form of answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bilora.evaluation.table import build_table
from bilora.records import Dataset, EvalRow, Sample
from bilora.results import MetricSummary, Results

Row = Callable[..., EvalRow]
MakeSample = Callable[..., Sample]
ResultsOf = Callable[..., Results]


def summary(built: Results, dataset: Dataset) -> dict[str, MetricSummary]:
    return built.tasks["codegen"].summary[dataset].systems["codegen"].metrics


def drawn(row: Row, sample: MakeSample, *answers: tuple[float | None, ...]) -> list[EvalRow]:
    return [
        row(sample("codegen", number), "codegen", {"pass_at_1": value}, dataset="sampled", reason="the sandbox broke")
        for number, values in enumerate(answers)
        for value in values
    ]


def test_pass_at_k_is_the_mean_of_the_samples_estimates(results_of: ResultsOf, row: Row, sample: MakeSample) -> None:
    rows = drawn(row, sample, (1.0, 0.0, 0.0, 0.0), (0.0,) * 4)
    summaries = summary(results_of(rows={"codegen": rows}, k=[1, 2]), "sampled")
    assert list(summaries) == ["pass_at_1", "pass_at_2"]
    assert summaries["pass_at_1"].mean == pytest.approx((1 / 4 + 0) / 2)
    assert summaries["pass_at_2"].mean == pytest.approx((1 - 3 / 6 + 0) / 2)


def test_a_sample_with_an_answer_that_was_not_scored_is_unscored(
    results_of: ResultsOf, row: Row, sample: MakeSample
) -> None:
    rows = drawn(row, sample, (1.0, None), (1.0, 1.0))
    pass_at_2 = summary(results_of(rows={"codegen": rows}, k=[2]), "sampled")["pass_at_2"]
    assert (pass_at_2.n, pass_at_2.unscored, pass_at_2.mean) == (1, 1, 1.0)
    assert pass_at_2.reasons == {"the sandbox broke": 1}


def test_form_counts_complete_answers_and_excludes_missing_ones(
    results_of: ResultsOf, row: Row, sample: MakeSample
) -> None:
    rows = [
        row(sample("codegen", number), "codegen", {"pass_at_1": 0.0}, **answer)
        for number, answer in enumerate(
            [{"text": "def f(): pass"}, {"text": ""}, {"text": "def f", "finish": "length"}, {"finish": "error"}]
        )
    ]
    summaries = summary(results_of(rows={"codegen": rows}), "test")
    assert (summaries["well_formed"].mean, summaries["well_formed"].n) == (pytest.approx(2 / 3), 3)
    assert (summaries["stopped"].mean, summaries["stopped"].unscored) == (pytest.approx(2 / 3), 1)


def test_each_dataset_has_its_own_table(results_of: ResultsOf, row: Row, sample: MakeSample) -> None:
    hidden = [row(sample("codegen", 1), "codegen", {"pass_at_1": 1.0}, dataset="hidden")]
    built = results_of(rows={"codegen": [*drawn(row, sample, (1.0, 0.0)), *hidden]}, k=[1, 2])
    labels = {
        section.title: [line.label for line in section.rows if line.cells["bilora"].mean is not None and not line.tier]
        for section in build_table(built).sections
    }
    assert labels["Held-out test split, tests hidden"][0] == "Write code · pass@1"
    assert labels["Held-out test split, several answers per sample"][:2] == [
        "Write code · pass@1",
        "Write code · pass@2",
    ]


def test_the_first_token_s_time_is_a_median_of_those_that_were_seen(
    results_of: ResultsOf, row: Row, sample: MakeSample
) -> None:
    first_token_times: list[float | None] = [0.1, 0.3, 0.9, None]
    rows = []
    for number, first in enumerate(first_token_times):
        template = row(sample("codegen", number), "codegen", {"pass_at_1": 0.0})
        rows.append(
            template.model_copy(update={"completion": template.completion.model_copy(update={"first_token_s": first})})
        )
    built = results_of(rows={"codegen": rows})
    assert built.tasks["codegen"].summary["test"].systems["codegen"].latency_s.first_token_s == 0.3
    (cell,) = [
        line.cells["bilora"]
        for section in build_table(built).sections
        if section.dataset == "test"
        for line in section.rows
        if line.metric == "latency_s"
    ]
    assert cell.note.endswith("first token 0.30 s")


def test_what_the_sandbox_could_not_decide_has_columns_of_its_own(
    results_of: ResultsOf, row: Row, sample: MakeSample
) -> None:
    statuses = ["passed", "passed-in-process", "missing-module", "passed-in-process", "infrastructure"]
    rows = [
        row(sample("codegen", number), "codegen", {"pass_at_1": float(status == "passed")}, evidence={"status": status})
        for number, status in enumerate(statuses)
    ]
    built = results_of(rows={"codegen": rows})
    summaries = summary(built, "test")
    assert (summaries["passed_in_process"].mean, summaries["passed_in_process"].unscored) == (0.5, 1)
    assert summaries["missing_module"].mean == 0.25
    labels = {line.label for line in build_table(built).sections[0].rows}
    assert "Write code · passed in the answer's own process only" in labels


def test_answers_that_are_not_run_have_no_such_columns(results_of: ResultsOf, row: Row, sample: MakeSample) -> None:
    rows = [row(sample("docstring", 1), "docstring", {"bleu": 0.5})]
    built = results_of(rows={"docstring": rows})
    assert "passed_in_process" not in built.tasks["docstring"].metrics
