"""The gate passes only what is significantly better."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from bilora.evaluation.baseline import baseline_entry
from bilora.evaluation.evidence import GateInput, GateSettings
from bilora.evaluation.gate import EXIT_CODES, gate, holm_corrected, overall_outcome
from bilora.evaluation.statistics import score_difference
from bilora.records import EvalRow
from bilora.results import Check, Incumbents, Verdict

Rows = list[EvalRow]
Pairs = Callable[..., Rows]
SHA = "a" * 64
GOOD = [1.0, 1.0, 1.0, 0.0] * 50
POOR = [1.0, 0.0, 0.0, 0.0] * 50


def judge(rows: Rows, incumbents: Incumbents | None = None, *, min_samples: int = 100, **overrides: Any) -> Verdict:
    fields: dict[str, Any] = {"adapter_sha256": SHA, "key": "k", "incumbents": incumbents}
    metrics = [score.metric for score in rows[0].scores] if rows else ["pass_at_1"]
    settings = GateSettings(margin=0.05, min_samples=min_samples, seed=1, draws=2000)
    return gate(GateInput("codegen", metrics, rows, **(fields | overrides)), settings)


def promoted(rows: Rows, **overrides: Any) -> Incumbents:
    metrics = [score.metric for score in rows[0].scores]
    entry = baseline_entry("codegen", metrics, rows, **({"adapter_sha256": "old", "key": "k"} | overrides))
    return Incumbents(current=entry, champion=entry)


def test_clearly_better_than_the_base_passes_and_says_against_what(pairs: Pairs) -> None:
    verdict = judge(pairs("codegen", "pass_at_1", GOOD, POOR))
    assert (verdict.outcome, verdict.against, verdict.n) == ("pass", "base", 200)
    assert verdict.delta == pytest.approx(0.5)
    assert "no adapter has been promoted, so it is compared with the base model only" in verdict.reason


def test_the_verdict_is_bound_to_the_bytes(pairs: Pairs) -> None:
    rows = pairs("codegen", "pass_at_1", GOOD, POOR, adapter_sha256="abc")
    assert judge(rows, adapter_sha256="abc").adapter_sha256 == "abc"


def test_rows_of_other_bytes_decide_nothing(pairs: Pairs) -> None:
    rows = pairs("codegen", "pass_at_1", GOOD, POOR)
    verdict = judge([*rows[:-1], rows[-1].model_copy(update={"adapter_sha256": "stale"})])
    assert verdict.outcome == "inconclusive" and "1 rows measured another adapter" in verdict.reason


def test_worse_than_the_base_is_regressed(pairs: Pairs) -> None:
    assert judge(pairs("codegen", "pass_at_1", POOR, GOOD)).outcome == "regressed"


def test_equal_to_the_base_does_not_pass(pairs: Pairs) -> None:
    assert judge(pairs("codegen", "pass_at_1", GOOD, GOOD)).outcome == "inconclusive"


def test_a_little_luck_is_not_enough(pairs: Pairs) -> None:
    lucky = [1.0] * 3 + [0.0] * 197
    assert judge(pairs("codegen", "pass_at_1", lucky, [0.0] * 200)).outcome == "inconclusive"


@pytest.mark.parametrize("missing", [1, 50])
def test_a_sample_without_its_pair_decides_nothing(pairs: Pairs, missing: int) -> None:
    verdict = judge(pairs("codegen", "pass_at_1", GOOD, POOR)[:-missing])
    assert verdict.outcome == "inconclusive"
    assert f"{missing} of 200 samples are missing in one" in verdict.reason


@pytest.mark.parametrize(("unscored", "outcome"), [(4, "pass"), (5, "inconclusive")])
def test_up_to_two_percent_may_be_unscored(pairs: Pairs, unscored: int, outcome: str) -> None:
    new = [None] * unscored + GOOD[unscored:]
    verdict = judge(pairs("codegen", "pass_at_1", new, POOR))
    assert (verdict.outcome, verdict.unscored, verdict.n) == (outcome, unscored, 200 - unscored)


def test_too_few_samples_never_pass(pairs: Pairs) -> None:
    verdict = judge(pairs("codegen", "pass_at_1", [1.0] * 99, [0.0] * 99))
    assert verdict.outcome == "inconclusive"
    assert "99 scored samples; the gate requires 100" in verdict.reason


def test_a_duplicate_row_is_noticed(pairs: Pairs) -> None:
    rows = pairs("codegen", "pass_at_1", GOOD, POOR)
    verdict = judge([*rows, rows[0]])
    assert verdict.outcome == "inconclusive"
    assert "1 duplicate rows" in verdict.reason


def test_zero_never_passes(pairs: Pairs) -> None:
    verdict = judge(pairs("codegen", "pass_at_1", [0.0] * 200, [0.0] * 200))
    assert verdict.outcome == "inconclusive"
    assert "is 0; such an adapter never passes" in verdict.reason


def test_nan_counts_as_unscored(pairs: Pairs) -> None:
    rows = pairs("codegen", "bleu", [0.5, 0.6] * 100, [0.1, 0.2] * 100)
    nan = rows[0].scores[0].model_copy(update={"value": float("nan")})
    verdict = judge([rows[0].model_copy(update={"scores": (nan,)}), *rows[1:]])
    assert verdict.unscored == 1


def test_no_rows_at_all_decide_nothing() -> None:
    assert judge([]).outcome == "inconclusive"


def test_the_curated_set_does_not_decide(pairs: Pairs) -> None:
    rows = pairs("codegen", "pass_at_1", GOOD, POOR, dataset="curated")
    assert judge(rows).n == 0


def test_a_test_sample_that_is_also_curated_counts_once(pairs: Pairs) -> None:
    rows = pairs("codegen", "pass_at_1", GOOD, POOR)
    curated = pairs("codegen", "pass_at_1", POOR, GOOD, dataset="curated")
    assert judge([*rows, *curated]) == judge(rows)


def test_other_systems_do_not_decide(pairs: Pairs) -> None:
    rows = pairs("codegen", "pass_at_1", GOOD, POOR)
    strangers = [
        row.model_copy(update={"completion": row.completion.model_copy(update={"system": "remote"})})
        for row in rows[:200]
    ]
    assert judge([*rows, *strangers]) == judge(rows)


@pytest.mark.parametrize(
    ("isolation", "outcome"),
    [
        ("strict: seccomp-1a2b3c4d; split 3/3", "pass"),
        ("weak: rlimits; split 3/3", "inconclusive"),
        ("weak", "inconclusive"),
    ],
)
def test_weak_isolation_never_promotes(pairs: Pairs, isolation: str, outcome: str) -> None:
    verdict = judge(pairs("codegen", "pass_at_1", GOOD, POOR, evidence={"isolation": isolation}))
    assert verdict.outcome == outcome
    assert ("weak isolation" in verdict.reason) == (outcome == "inconclusive")


def test_samples_of_one_group_are_no_independent_evidence(
    row: Callable[..., EvalRow], sample: Callable[..., Any]
) -> None:
    rows = [
        row(sample("codegen", number, group="same"), system, {"pass_at_1": value})
        for number in range(200)
        for system, value in (("codegen", 1.0), ("base", 0.0))
    ]
    assert judge(rows).outcome == "inconclusive"


def test_as_good_as_the_promoted_adapter_passes(pairs: Pairs) -> None:
    rows = pairs("codegen", "pass_at_1", GOOD, POOR)
    verdict = judge(rows, promoted(rows))
    assert (verdict.outcome, verdict.against, verdict.margin) == ("pass", "baseline", 0.05)


def test_better_than_base_but_worse_than_the_promoted_is_regressed(pairs: Pairs) -> None:
    best = pairs("codegen", "pass_at_1", [1.0] * 200, POOR)
    verdict = judge(pairs("codegen", "pass_at_1", GOOD, POOR), promoted(best))
    assert (verdict.outcome, verdict.against) == ("regressed", "baseline")


def test_possibly_worse_than_the_margin_does_not_pass(pairs: Pairs) -> None:
    swapped = GOOD[2:] + GOOD[:2]  # the same rate on other samples: a wide interval around 0
    verdict = judge(pairs("codegen", "pass_at_1", GOOD, POOR), promoted(pairs("codegen", "pass_at_1", swapped, POOR)))
    assert (verdict.outcome, verdict.against) == ("inconclusive", "baseline")


@pytest.mark.parametrize(
    "change", [{"key": "other"}, {"scores": {"bleu": {"one": 1.0}}}, {"scores": {"pass_at_1": {"one": 1.0}}}]
)
@pytest.mark.parametrize("place", ["current", "champion"])
def test_what_was_measured_otherwise_is_incomparable(pairs: Pairs, change: dict[str, Any], place: str) -> None:
    incumbents = promoted(pairs("codegen", "pass_at_1", GOOD, POOR))
    entry = incumbents.current.model_copy(update=change | {"adapter_sha256": place})
    verdict = judge(pairs("codegen", "pass_at_1", GOOD, POOR), incumbents.model_copy(update={place: entry}))
    assert verdict.outcome == "incomparable" and "bilora baseline forget" in verdict.reason


def test_worse_than_the_base_is_regressed_whatever_was_promoted(pairs: Pairs) -> None:
    incumbents = promoted(pairs("codegen", "pass_at_1", GOOD, POOR), key="other")
    assert judge(pairs("codegen", "pass_at_1", POOR, GOOD), incumbents).outcome == "regressed"


def test_small_steps_down_end_at_the_champion(pairs: Pairs) -> None:
    best, less, least = ([1.0] * good + [0.0] * (200 - good) for good in (160, 156, 148))
    incumbents = promoted(pairs("codegen", "pass_at_1", less, POOR))
    assert judge(pairs("codegen", "pass_at_1", least, [0.0] * 200), incumbents).outcome != "pass"
    worst_current = promoted(pairs("codegen", "pass_at_1", [0.0] * 200, POOR)).current
    champion = promoted(pairs("codegen", "pass_at_1", best, POOR), adapter_sha256="best").champion
    incumbents = Incumbents(current=worst_current, champion=champion)
    verdict = judge(pairs("codegen", "pass_at_1", least, [0.0] * 200), incumbents)
    assert verdict.against == "champion" and verdict.outcome in ("regressed", "inconclusive")


def test_another_metric_that_got_worse_stops_it_too(row: Callable[..., EvalRow], sample: Callable[..., Any]) -> None:
    def rows(rate: float) -> Rows:
        return [
            row(sample("codegen", n, group=f"g{n}"), system, {"pass_at_1": value, "test_pass_rate": value * rate})
            for n in range(200)
            for system, value in (("codegen", GOOD[n]), ("base", POOR[n]))
        ]

    verdict = judge(rows(0.5), promoted(rows(1.0)))
    assert (verdict.outcome, verdict.against, verdict.metric) == ("regressed", "baseline", "test_pass_rate")
    assert [(check.against, check.metric) for check in verdict.checks] == [
        ("base", "pass_at_1"),
        ("baseline", "pass_at_1"),
        ("baseline", "test_pass_rate"),
    ]


def test_among_many_looks_an_unlucky_one_is_no_regression() -> None:
    unlucky = Check(
        against="baseline", metric="m", low=-0.04, delta=-0.0201, high=-0.0002, margin=0.05, outcome="regressed"
    )
    fine = unlucky.model_copy(update={"low": -0.02, "delta": 0.0, "high": 0.02, "outcome": "pass"})
    assert [check.outcome for check in holm_corrected([unlucky])] == ["regressed"]
    assert {check.outcome for check in holm_corrected([unlucky, *[fine] * 9])} == {"pass"}


def test_an_unscored_sample_does_not_avoid_the_baseline(pairs: Pairs) -> None:
    best = promoted(pairs("codegen", "pass_at_1", [1.0] * 200, POOR))
    verdict = judge(pairs("codegen", "pass_at_1", [None, *GOOD[1:]], POOR), best)
    assert verdict.against == "baseline"


def test_the_promoted_adapter_itself_passes_again(pairs: Pairs) -> None:
    """Compared with itself it would be inconclusive, with too few samples, and a second `dvc repro` would fail."""
    rows = pairs("codegen", "pass_at_1", GOOD[:60], POOR[:60])
    verdict = judge(rows, promoted(rows, adapter_sha256=SHA), min_samples=50)
    assert verdict.outcome == "pass"
    assert "this is the promoted adapter" in verdict.reason


def test_graded_metrics_are_judged_by_the_bootstrap(pairs: Pairs) -> None:
    chance = random.Random(2)
    old = [chance.random() * 0.5 for _ in range(200)]
    new = [score + chance.random() * 0.1 for score in old]
    assert judge(pairs("codegen", "bleu", new, old)).outcome == "pass"


@pytest.mark.parametrize(("loss", "least", "most"), [(0.0, 0.90, 1.0), (0.05, 0.0, 0.06), (0.10, 0.0, 0.0)])
def test_the_margin_passes_equals_and_stops_losses(loss: float, least: float, most: float) -> None:
    """As in studies/gate.py: 500 pairs, 3 % of the answers become right by chance, 3 % and `loss` become wrong."""
    shipped, trials = 0, 80
    for trial in range(trials):
        chance = random.Random(trial)
        new, old = [], []
        for _ in range(500):
            luck = chance.random()
            before = 1.0 if luck > 0.97 - loss else 0.0 if luck < 0.03 else float(chance.random() < 0.6)
            old.append(before)
            new.append(1.0 - before if luck > 0.97 - loss or luck < 0.03 else before)
        shipped += score_difference(new, old, seed=1, draws=1000).low > -0.05
    assert least <= shipped / trials <= most


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["pass", "pass"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["incomparable", "inconclusive"], "incomparable"),
        (["inconclusive", "regressed", "pass"], "regressed"),
        ([], "inconclusive"),
    ],
)
def test_the_worst_outcome_decides(pairs: Pairs, outcomes: list[str], expected: str) -> None:
    verdict = judge(pairs("codegen", "pass_at_1", GOOD, POOR))
    assert overall_outcome(verdict.model_copy(update={"outcome": outcome}) for outcome in outcomes) == expected


def test_nothing_scored_is_our_own_failure(pairs: Pairs) -> None:
    verdict = judge(pairs("codegen", "pass_at_1", [None] * 200, POOR))
    assert verdict.outcome == "inconclusive"
    assert overall_outcome([verdict]) == "infrastructure"


def test_every_outcome_has_its_own_exit_code() -> None:
    assert [EXIT_CODES[name] for name in ("pass", "regressed", "inconclusive", "incomparable", "infrastructure")] == [
        0,
        10,
        11,
        12,
        13,
    ]
