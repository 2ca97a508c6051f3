"""Intervals: published examples, known limits, and coverage by simulation."""

from __future__ import annotations

import random
import time

import pytest

from bilora.evaluation.statistics import (
    Z,
    bootstrap_mean,
    paired_difference,
    score_difference,
    score_interval,
    tango,
    wilson,
)


def test_wilson_of_a_textbook_case() -> None:
    # Newcombe (1998), table I: 81 of 263.
    interval = wilson(81, 263)
    assert (interval.low, interval.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_wilson_keeps_doubt_at_the_ends() -> None:
    assert wilson(10, 10).low == pytest.approx(10 / (10 + Z * Z))
    assert wilson(0, 10).high == pytest.approx(Z * Z / (10 + Z * Z))


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="not a proportion"):
        wilson(successes, n)


@pytest.mark.parametrize(
    ("b", "c", "n", "expected"),
    [
        (1, 7, 21, (-0.517, -0.026)),  # Bentur et al. 2009, in Fagerland, Lydersen & Laake (2014)
        (6, 16, 161, (-0.1240, -0.0054)),  # Cavo et al. 2012, in Fagerland, Lydersen & Laake (2017)
    ],
)
def test_tango_gives_the_published_intervals(b: int, c: int, n: int, expected: tuple[float, float]) -> None:
    digits = 5e-4 if n == 21 else 5e-5
    assert tango(b, c, n) == pytest.approx(expected, abs=digits)


@pytest.mark.parametrize("n", [1, 30, 500])
def test_tango_without_discordant_pairs_still_doubts(n: int) -> None:
    bound = Z * Z / (n + Z * Z)
    assert tango(0, 0, n) == pytest.approx((-bound, bound))


def test_tango_mirrors_when_the_systems_swap() -> None:
    for b in range(13):
        for c in range(13 - b):
            low, high = tango(b, c, 12)
            assert tango(c, b, 12) == pytest.approx((-high, -low))
            assert -1 <= low <= (b - c) / 12 <= high <= 1


def test_tango_refuses_inconsistent_counts() -> None:
    with pytest.raises(ValueError, match="inconsistent"):
        tango(6, 5, 10)


def test_bootstrap_is_the_same_for_the_same_seed_only() -> None:
    scores = [chance / 10 for chance in range(10)] * 5
    first = bootstrap_mean(scores, seed=1)
    assert first == bootstrap_mean(scores, seed=1)
    assert first != bootstrap_mean(scores, seed=2)


def test_bootstrap_agrees_with_the_normal_limit() -> None:
    chance = random.Random(3)
    scores = [chance.random() for _ in range(2000)]
    interval = bootstrap_mean(scores, seed=1, draws=4000)
    half = Z * (sum((score - interval.mean) ** 2 for score in scores) / len(scores) ** 2) ** 0.5
    assert (interval.low, interval.high) == pytest.approx((interval.mean - half, interval.mean + half), abs=0.1 * half)


def test_samples_that_rise_and_fall_together_count_as_one() -> None:
    scores = [float(group % 2) for group in range(20) for _ in range(15)]
    labels = [f"g{group}" for group in range(20) for _ in range(15)]
    alone = bootstrap_mean(scores, seed=1)
    together = bootstrap_mean(scores, seed=1, clusters=labels)
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_few_clusters_are_not_called_certain() -> None:
    """With three groups the unstretched percentile bound is the worst group's mean; the truth is wider."""
    chance = random.Random(11)
    missed = 0
    for trial in range(300):
        scores, labels = [], []
        for group in range(4):
            shift = chance.gauss(0, 1)
            scores += [shift + chance.gauss(0, 0.1) for _ in range(5)]
            labels += [str(group)] * 5
        interval = bootstrap_mean(scores, seed=trial, draws=1000, clusters=labels)
        missed += not interval.low <= 0 <= interval.high
    assert missed / 300 <= 0.10


def test_one_cluster_gives_no_interval() -> None:
    with pytest.raises(ValueError, match="two independent clusters"):
        bootstrap_mean([0.1, 0.2], seed=1, clusters=["a", "a"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean([0.5, bad], seed=1)


def test_pairing_needs_equal_lengths() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([1.0, 0.0], [1.0], seed=1)


def test_pairing_removes_the_difficulty_of_the_samples() -> None:
    chance = random.Random(5)
    old = [chance.random() * 0.8 for _ in range(100)]
    new = [score + 0.05 + chance.random() * 0.02 for score in old]
    interval = paired_difference(new, old, seed=1)
    assert interval.low > 0.05
    assert interval.high < 0.07


def test_ten_thousand_draws_of_300_pairs_take_less_than_a_second() -> None:
    started = time.perf_counter()
    paired_difference([0.5, 0.7, 0.1] * 100, [0.4, 0.6, 0.3] * 100, seed=1)
    assert time.perf_counter() - started < 1.0


def test_equal_passes_and_fails_keep_tangos_doubt() -> None:
    same = [1.0, 0.0] * 50
    interval = score_difference(same, same, seed=1)
    assert (interval.low, interval.high) == pytest.approx(tango(0, 0, 100))


def test_all_passed_keeps_wilsons_doubt() -> None:
    interval = score_interval([1.0] * 20, seed=1)
    assert interval is not None
    assert interval.low == pytest.approx(wilson(20, 20).low)


def test_a_single_score_has_no_interval() -> None:
    assert score_interval([1.0], seed=1) is None
