"""A guard trips if the adapter is significantly worse than the base; with incomplete rows it is inconclusive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bilora.evaluation.baseline import baseline_entry
from bilora.evaluation.compare import compare_entries
from bilora.evaluation.evidence import GateInput, GateSettings
from bilora.evaluation.gate import gate
from bilora.evaluation.guard_checks import guard_lines
from bilora.evaluation.report import render_report
from bilora.evaluation.table import build_table
from bilora.guards.guard import Guard
from bilora.records import EvalRow
from bilora.results import Results, Verdict, read_results, write_results

Rows = list[EvalRow]
Pairs = Callable[..., Rows]
SHA = "a" * 64
N = 164
BETTER = ([1.0, 1.0, 1.0, 0.0] * 50, [1.0, 0.0, 0.0, 0.0] * 50)
"""The adapter's and the base's scores on the test split: the headline passes."""


def scores(broken: int, fixed: int, both: int = 10) -> tuple[list[float | None], list[float | None]]:
    """Return the adapter's and the base's scores on a guard, of which they differ on the given numbers of questions."""
    neither = N - broken - fixed - both
    new = [0.0] * broken + [1.0] * (fixed + both) + [0.0] * neither
    old = [1.0] * broken + [0.0] * fixed + [1.0] * both + [0.0] * neither
    return [*new], [*old]


def judge(rows: Rows, **overrides: Any) -> Verdict:
    inputs = GateInput("codegen", ["pass_at_1"], rows, SHA, "k", **({"guards": {"humaneval": N}} | overrides))
    return gate(inputs, GateSettings(margin=0.05, min_samples=100, seed=1, draws=2000))


@pytest.fixture
def rows(pairs: Pairs) -> Callable[..., Rows]:
    """Return the rows of a test split that passes, and those of a guard."""

    def guarded_rows(new: list[float | None], old: list[float | None], **overrides: Any) -> Rows:
        guard = pairs("codegen", "pass_at_1", new, old, dataset="guard:humaneval", **overrides)
        return [*pairs("codegen", "pass_at_1", *BETTER), *guard]

    return guarded_rows


@pytest.mark.parametrize(
    ("broken", "fixed", "outcome"),
    [(0, 0, "pass"), (3, 3, "pass"), (3, 0, "pass"), (4, 0, "regressed"), (6, 1, "pass"), (7, 1, "regressed")],
)
def test_a_guard_trips_when_the_whole_interval_is_below_zero(
    rows: Callable[..., Rows], broken: int, fixed: int, outcome: str
) -> None:
    verdict = judge(rows(*scores(broken, fixed)))
    (check,) = verdict.guards
    assert verdict.outcome == outcome
    assert check.tripped == (check.high < 0) == (outcome == "regressed")
    assert (check.n, check.delta) == (N, pytest.approx((fixed - broken) / N))
    assert ("guard humaneval" in verdict.reason) == check.tripped


def test_a_tripped_guard_leaves_the_headline_s_numbers_in_the_verdict(rows: Callable[..., Rows]) -> None:
    tripped, passed = judge(rows(*scores(20, 0))), judge(rows(*scores(0, 0)))
    assert (tripped.outcome, passed.outcome) == ("regressed", "pass")
    assert (tripped.low, tripped.delta, tripped.high) == (passed.low, passed.delta, passed.high)


@pytest.mark.parametrize("systems", [("codegen",), ("base",), ("codegen", "base")])
def test_missing_rows_decide_nothing(rows: Callable[..., Rows], systems: tuple[str, ...]) -> None:
    left = [row for row in rows(*scores(0, 0)) if row.dataset == "test" or row.completion.system not in systems]
    verdict = judge(left)
    assert verdict.outcome == "inconclusive" and verdict.reason.startswith("guard humaneval: ")


def test_an_unanswered_question_is_inconclusive(rows: Callable[..., Rows]) -> None:
    verdict = judge(rows(*scores(0, 0)), guards={"humaneval": N + 1})
    assert verdict.outcome == "inconclusive"
    assert "guard humaneval: 164 of 165 questions were answered; run `dvc repro evaluate`" in verdict.reason


@pytest.mark.parametrize(("unscored", "outcome"), [(3, "pass"), (4, "inconclusive")])
def test_up_to_two_percent_of_a_guard_may_be_unscored(rows: Callable[..., Rows], unscored: int, outcome: str) -> None:
    new, old = scores(0, 0)
    verdict = judge(rows([*new[:-unscored], *[None] * unscored], old))
    assert (verdict.outcome, verdict.guards[0].unscored) == (outcome, unscored)


def test_a_guard_measured_with_other_bytes_or_twice_decides_nothing(rows: Callable[..., Rows]) -> None:
    stale = rows(*scores(0, 0))
    stale[-1] = stale[-1].model_copy(update={"adapter_sha256": "b" * 64})
    assert "guard humaneval: 1 rows measured another adapter" in judge(stale).reason
    twice = rows(*scores(0, 0))
    assert "guard humaneval: 1 duplicate rows" in judge([*twice, twice[-1]]).reason


def test_a_guard_under_weak_isolation_decides_nothing(rows: Callable[..., Rows]) -> None:
    verdict = judge(rows(*scores(0, 0), evidence={"isolation": "weak"}))
    assert verdict.outcome == "inconclusive" and "guard humaneval: answers ran in weak isolation" in verdict.reason


def test_a_guard_that_params_do_not_name_does_not_decide(rows: Callable[..., Rows]) -> None:
    verdict = judge(rows(*scores(40, 0)), guards={})
    assert verdict.outcome == "pass" and verdict.guards == ()


def test_a_task_that_is_worse_on_its_own_questions_says_that_first(rows: Callable[..., Rows], pairs: Pairs) -> None:
    worse = pairs("codegen", "pass_at_1", *BETTER[::-1])
    verdict = judge([*worse, *(row for row in rows(*scores(20, 0)) if row.dataset != "test")])
    assert verdict.outcome == "regressed" and verdict.reason.startswith("pass_at_1 is worse than the base model")


def test_two_adapters_are_compared_on_a_guard_without_a_say_in_the_outcome(rows: Callable[..., Rows]) -> None:
    settings = GateSettings(margin=0.05, min_samples=100, seed=1, draws=2000)
    new, old = (
        baseline_entry("codegen", ["pass_at_1"], rows(*scores(broken, 0)), adapter_sha256=SHA, key="k")
        for broken in (20, 0)
    )
    compared = compare_entries("codegen", new, old, settings)
    assert compared.outcome == "pass" and "; guard humaneval " in compared.reason and "n 164" in compared.reason
    alone = compare_entries("codegen", new, old.model_copy(update={"guards": {}}), settings)
    assert alone.outcome == "pass" and "guard" not in alone.reason


HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def results(rows: Callable[..., Rows], results_of: Callable[..., Results]) -> Results:
    """Return results with a guard whose title is markup."""
    guard_rows = rows(*scores(4, 2))
    guard = Guard(title=f"HumanEval {HOSTILE}", task="codegen", size=N, rows=list)
    return results_of(rows={"codegen": guard_rows}, guards={"codegen": {"humaneval": guard}})


def test_results_with_a_guard_survive_the_file(results: Results, tmp_path: Any) -> None:
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results
    task = results.tasks["codegen"]
    assert task.entry.guards["humaneval"].keys() == {
        row.sample_id for row in task.rows if row.dataset == "guard:humaneval"
    }
    assert task.verdict and task.verdict.guards[0].delta == pytest.approx(-2 / N)


def test_the_terminal_shows_scores_interval_tokens_and_how_many_ended(results: Results) -> None:
    (line,) = guard_lines("codegen", results.tasks["codegen"])
    assert "pass@1 of the base 8.5" in line and "of the adapter 7.3" in line
    assert "difference -1.2 points, 95 % [-5.1, +2.2], n 164: not significantly worse" in line
    assert "base 3,280 tokens, 100% ended by themselves; adapter 3,280 tokens" in line


def test_a_guard_has_its_own_section_of_the_table_with_both_systems(results: Results) -> None:
    (section,) = [section for section in build_table(results).sections if section.dataset == "guard:humaneval"]
    (row,) = [row for row in section.rows if (row.metric, row.tier) == ("pass_at_1", "")]
    assert section.title == f"Public guard: HumanEval {HOSTILE}"
    assert (row.cells["base"].n, row.cells["bilora"].n) == (N, N)


def test_the_report_shows_the_guard_beside_the_headline_and_its_prompt_escaped(results: Results) -> None:
    page = render_report(results, {})
    top = page[page.index('id="verdicts"') : page.index("Held-out test split</h2>")]
    assert "HumanEval &lt;script&gt;" in top and "95 % [-5.1, +2.2]" in top and '<svg class="difference"' in top
    assert HOSTILE not in page
    assert "[system]\nYou do codegen." in page and "[user]\nWrite a function that adds 0" in page
