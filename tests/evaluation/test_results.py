"""results.json and the table: complete, comparable, and explicit on what was not measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bilora.evaluation.results import TaskRun, build_results, comparability_key, guard_conditions
from bilora.evaluation.summary import Summarizer
from bilora.evaluation.table import Cell, TableRow, build_table
from bilora.guards.guard import Guard
from bilora.records import Drop, EvalRow, Sample, Scale
from bilora.results import Results, read_results, write_results
from bilora.tasks.task import Task


def find(results: Results, task: str, metric: str, *, dataset: str = "test", tier: str = "") -> TableRow:
    (row,) = [
        row
        for section in build_table(results).sections
        if section.dataset == dataset
        for row in section.rows
        if (row.task, row.metric, row.tier) == (task, metric, tier)
    ]
    return row


def test_results_survive_the_file(results: Results, tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


def test_equal_rows_give_equal_bytes(results_of: Callable[..., Results], tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_results(tmp_path / name, results_of())
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_every_row_is_kept(results: Results, benchmark_rows: dict[str, list[EvalRow]]) -> None:
    counts = {name: len(task.rows) for name, task in results.tasks.items()}
    assert counts == {name: len(rows) for name, rows in benchmark_rows.items()}


def test_a_task_that_nobody_planned_for_adds_its_own_rows(results: Results) -> None:
    row = find(results, "haiku", "syllables")
    assert row.label == "Write haiku · syllables"
    assert row.cells["bilora"].n == 60


def test_a_new_metric_is_written_on_the_scale_that_it_has(
    measured_by: Callable[..., Task], row: Callable[..., EvalRow], sample: Callable[..., Sample]
) -> None:
    task = measured_by({"beats": Scale(label="metre", factor=17.0, unit=" beats", digits=0)})
    rows = [row(sample("haiku", number), "haiku", {"beats": 1.0}) for number in range(3)]
    built = build_results([TaskRun(task, rows)], Summarizer(seed=1, draws=1000), profile="smollm2")
    table_row = find(built, "haiku", "beats")
    assert (table_row.label, table_row.cells["bilora"].text) == ("Write haiku · metre", "17 beats")


def test_a_new_metric_that_runs_answers_has_pass_at_k_of_its_first_number(
    measured_by: Callable[..., Task], row: Callable[..., EvalRow], sample: Callable[..., Sample]
) -> None:
    scales = {"compiles": Scale(label="compiles"), "lines": Scale(label="lines")}
    rows = [
        row(sample("haiku", 1), "haiku", {"compiles": value, "lines": 0.0}, dataset="sampled") for value in (1.0, 0.0)
    ]
    summarizer = Summarizer(seed=1, draws=1000, k=[1])
    built = build_results([TaskRun(measured_by(scales, runs_answers=True), rows)], summarizer, profile="smollm2")
    metrics = built.tasks["haiku"].summary["sampled"].systems["haiku"].metrics
    assert {name: metric.mean for name, metric in metrics.items()} == {"pass_at_1": 0.5}


def test_adapters_share_one_column_and_trivial_answers_have_none(results: Results) -> None:
    assert build_table(results).columns == ["base", "bilora", "remote", "silent"]


def test_trivial_answers_are_beside_the_score(results: Results) -> None:
    names = [score.name for score in find(results, "docstring", "bleu").trivial_scores]
    assert names == ["empty", "name"]


def test_the_mean_is_of_the_rows(results: Results, benchmark_rows: dict[str, list[EvalRow]]) -> None:
    values = [
        row.scores[0].value
        for row in benchmark_rows["codegen"]
        if row.dataset == "test" and row.completion.system == "codegen"
    ]
    cell = find(results, "codegen", "pass_at_1").cells["bilora"]
    assert cell.mean == pytest.approx(sum(value for value in values if value is not None) / 60)
    assert cell.low < cell.mean < cell.high


def test_test_split_and_curated_set_are_separate(results: Results) -> None:
    assert find(results, "codegen", "pass_at_1").cells["base"].n == 60
    assert find(results, "codegen", "pass_at_1", dataset="curated").cells["base"].n == 10


def test_a_task_with_tiers_is_shown_by_tier(results: Results) -> None:
    counts = [find(results, "codegen", "pass_at_1", tier=tier).cells["base"].n for tier in ("one", "two", "three")]
    assert counts == [20, 20, 20]


def test_tiers_are_in_the_order_of_their_length(
    results_of: Callable[..., Results], row: Callable[..., EvalRow], sample: Callable[..., Sample]
) -> None:
    rows = [
        row(sample("codegen", number, tier=tier, target="x" * length), "base", {"pass_at_1": 1.0})
        for number, (tier, length) in enumerate([("three", 30), ("one", 10), ("two", 20)])
    ]
    built = results_of(rows={"codegen": rows})
    assert [tier.tier for tier in built.tasks["codegen"].summary["test"].tiers] == [
        "one",
        "two",
        "three",
    ]


def test_a_metric_never_run_says_why_and_shows_no_number(results: Results) -> None:
    row = find(results, "codegen", "judge")
    assert row.note == "no judge is configured"
    assert {cell.text for cell in row.cells.values()} == {"not run"}


def test_a_metric_never_run_is_reported_once(results: Results) -> None:
    labels = [row.label for section in build_table(results).sections for row in section.rows]
    assert labels.count("Write code · quality") == 1


def test_a_system_that_did_not_answer_says_why(results: Results) -> None:
    cell = find(results, "codegen", "pass_at_1").cells["silent"]
    assert cell == Cell("not run", "did not answer within 60 s")


def test_unscored_is_counted_and_not_averaged(
    results_of: Callable[..., Results], pairs: Callable[..., list[EvalRow]]
) -> None:
    rows = pairs("codegen", "pass_at_1", [1.0, None, 1.0], [None, None, None], reason="sandbox broke")
    built = results_of(rows={"codegen": rows})
    adapter, base = (find(built, "codegen", "pass_at_1").cells[column] for column in ("bilora", "base"))
    assert (adapter.mean, adapter.n, adapter.unscored) == (1.0, 2, 1)
    assert (base.text, base.unscored, base.note) == ("unscored", 3, "sandbox broke (3)")


def test_a_judge_adds_its_row_on_a_scale_from_one_to_five(
    results_of: Callable[..., Results], pairs: Callable[..., list[EvalRow]]
) -> None:
    rows = pairs("docstring", "judge", [0.5, 1.0], [0.0, 0.0])
    built = results_of(rows={"docstring": rows}, not_run={})
    cells = find(built, "docstring", "judge").cells
    assert (cells["bilora"].text, cells["base"].text) == ("4.00 / 5", "1.00 / 5")


def test_latency_excludes_trivial_answers_and_failed_calls(
    results_of: Callable[..., Results], row: Callable[..., EvalRow], sample: Callable[..., Sample]
) -> None:
    first, second = sample("docstring", 1), sample("docstring", 2)
    rows = [
        row(first, "remote", {"bleu": 0.5}, latency_s=2.0),
        row(second, "remote", {"bleu": None}, latency_s=60.0, finish="error"),
        row(first, "floor:name", {"bleu": 0.1}),
    ]
    built = results_of(rows={"docstring": rows})
    cells = find(built, "", "latency_s").cells
    assert (cells["remote"].mean, cells["remote"].n) == (2.0, 1)
    assert built.tasks["docstring"].summary["test"].systems["floor:name"].latency_s is None


def test_nothing_measured_is_still_a_result(results_of: Callable[..., Results]) -> None:
    built = results_of(rows={"codegen": []}, verdicts={})
    assert build_table(built).sections == []


def test_a_task_without_rows_shows_as_not_run(
    results_of: Callable[..., Results], pairs: Callable[..., list[EvalRow]]
) -> None:
    built = results_of(rows={"codegen": pairs("codegen", "pass_at_1", GOOD, GOOD)})
    assert find(built, "haiku", "syllables").cells["base"].text == "not run"


GOOD = [1.0, 0.0, 1.0]


def test_the_entry_contains_the_adapters_scores(results: Results) -> None:
    entry = results.tasks["codegen"].entry
    assert (entry.key, entry.metric) == ("key-codegen", "pass_at_1")
    assert {metric: len(scores) for metric, scores in entry.scores.items()} == {
        "pass_at_1": 60,
        "test_pass_rate": 60,
    }


class TestComparabilityKey:
    def key(self, task: Task, samples: list[Sample], **overrides: Any) -> str:
        fields: dict[str, Any] = {"decoding": {"temperature": 0.0}, "judge": None, "isolation": "strict"}
        return comparability_key(task, samples, **(fields | overrides))

    @pytest.fixture
    def task(self) -> Task:
        return Task(
            name="codegen",
            title="Write code",
            system="You write Python functions.",
            sample=lambda row: Drop(rule="unused"),
            answer=str,
            extract=str,
            metrics=(),
            example="",
        )

    def test_order_of_samples_does_not_matter(self, task: Task, sample: Callable[..., Sample]) -> None:
        samples = [sample("codegen", number) for number in range(3)]
        assert self.key(task, samples) == self.key(task, samples[::-1])

    @pytest.mark.parametrize(
        "change", [{"decoding": {"temperature": 0.7}}, {"judge": "some-judge"}, {"isolation": "weak"}]
    )
    def test_conditions_matter(self, task: Task, sample: Callable[..., Sample], change: dict[str, Any]) -> None:
        samples = [sample("codegen", 1)]
        assert self.key(task, samples) != self.key(task, samples, **change)

    def test_a_guard_s_data_prompt_and_decoding_matter_and_without_guards_the_key_is_as_before(
        self, task: Task, sample: Callable[..., Sample]
    ) -> None:
        guard, first, second = (
            Guard(title="G", task="codegen", size=1, rows=list),
            sample("codegen", 1),
            sample("codegen", 2),
        )
        conditions = [
            guard_conditions(task, guard, [first]),
            guard_conditions(task, guard, [second]),
            guard_conditions(replace(task, system="Other words."), guard, [first]),
            guard_conditions(task, replace(guard, max_new_tokens=8), [first]),
        ]
        keys = {self.key(task, [first], guards={"g": condition}) for condition in conditions}
        assert len(keys | {self.key(task, [first])}) == 5
        assert self.key(task, [first], guards={}) == self.key(task, [first])

    def test_data_and_prompts_matter(self, task: Task, sample: Callable[..., Sample]) -> None:
        first = sample("codegen", 1)
        keys = {
            self.key(task, [first]),
            self.key(task, [sample("codegen", 2)]),
            self.key(task, [first.model_copy(update={"tests": ()})]),
            self.key(replace(task, system="Other words."), [first]),
        }
        assert len(keys) == 4


def test_build_results_needs_no_judge_no_trivial_answer_no_endpoint(
    pairs: Callable[..., list[EvalRow]], results_of: Callable[..., Results]
) -> None:
    built = results_of(rows={"codegen": pairs("codegen", "pass_at_1", GOOD, GOOD)}, not_run=None, notes=None)
    assert build_table(built).columns == ["base", "bilora"]
    assert "judge" not in built.tasks["codegen"].metrics
