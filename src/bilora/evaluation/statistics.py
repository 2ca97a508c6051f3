"""Confidence intervals and tests. Every interval is 95 %, seeded, and the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, stdtrit  # importing scipy.stats takes a second

from bilora.records import Interval

Z = 1.959963984540054
_CHUNK = 1 << 20  # resampled indices in memory at a time

Floats = NDArray[np.float64]


def wilson(successes: int, n: int) -> Interval:
    """Return the score interval of one proportion (Wilson 1927).

    Raises:
        ValueError: n < 1, or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a proportion")
    share = successes / n
    shrink = 1 + Z * Z / n
    centre = (share + Z * Z / (2 * n)) / shrink
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / shrink
    return Interval(low=max(0.0, centre - half), mean=share, high=min(1.0, centre + half))


def tango(b: int, c: int, n: int) -> tuple[float, float]:
    """Return the score interval of the paired difference of two proportions, (b - c) / n (Tango 1998).

    Unlike the Wald interval it keeps its width when b and c are small: without any discordant pair
    it is ±z² / (n + z²).

    Args:
        b: pairs that only the new system solved.
        c: pairs that only the old system solved.
        n: all pairs.

    Raises:
        ValueError: the counts are inconsistent.
    """
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise ValueError(f"{b} fixed and {c} broken of {n} pairs are inconsistent")

    def statistic(delta: float) -> float:
        # 1) Under the hypothesis that the true difference is `delta`, P(only new) = P(only old) + delta, so there is
        #    one unknown probability. Its maximum-likelihood estimate makes the score, the derivative of the
        #    log-likelihood, zero: it is the larger root of 2n p² + linear p + constant = 0.
        linear = (2 * n - b + c) * delta - b - c
        constant = -c * delta * (1 - delta)
        only_old = (math.sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
        # 2) The variance of b - c under the hypothesis follows from that probability.
        variance = n * (2 * only_old + delta * (1 - delta))
        # 3) The statistic: the observed minus the hypothetical difference, in standard deviations.
        return (b - c - n * delta) / math.sqrt(variance) if variance > 0 else 0.0

    # 4) The statistic decreases with `delta`; the interval contains every `delta` with |statistic| <= z.
    #    At ±1 the variance is 0. Just inside, the statistic tends to ∓ infinity, or the bound is ±1 itself.
    edge = 1 - 1e-12
    low = brentq(lambda delta: statistic(delta) - Z, -edge, edge) if c < n else -1.0
    high = brentq(lambda delta: statistic(delta) + Z, -edge, edge) if b < n else 1.0
    return float(low), float(high)


def bootstrap_mean(
    scores: Sequence[float], *, seed: int, draws: int = 10_000, clusters: Sequence[str] | None = None
) -> Interval:
    """Return the 95 % percentile-bootstrap interval of a mean (Efron & Tibshirani 1993, ch. 13).

    Args:
        scores: shape (n,).
        clusters: one label per score. Whole clusters are drawn, because the scores of one repository
            or composition are correlated. By default each sample is a cluster.

    The interval is stretched by sqrt(k / (k - 1)) · t(k - 1) / z for k clusters: the unstretched
    percentile interval is too narrow for small k (Hesterberg 2015). For k = 300 this is 0.6 %.

    Raises:
        ValueError: lengths differ, a score is not finite, or there are fewer than two clusters.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("scores must be a flat list of finite numbers")
    labels = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    if len(labels) != len(values):
        raise ValueError(f"{len(values)} scores but {len(labels)} cluster labels")
    _, member = np.unique(labels, return_inverse=True)
    sizes: Floats = np.bincount(member).astype(np.float64)
    k = len(sizes)
    if k < 2:
        raise ValueError("an interval needs at least two independent clusters")
    sums: Floats = np.bincount(member, weights=values).astype(np.float64)
    means = _resampled_means(sums, sizes, np.random.default_rng(seed), draws)
    mean = float(values.mean())
    low, high = np.quantile(means, (0.025, 0.975))
    stretch = math.sqrt(k / (k - 1)) * float(stdtrit(k - 1, 0.975)) / Z
    return Interval(
        low=min(mean, mean - stretch * (mean - float(low))),
        mean=mean,
        high=max(mean, mean + stretch * (float(high) - mean)),
    )


def _resampled_means(sums: Floats, sizes: Floats, rng: np.random.Generator, draws: int) -> Floats:
    k = len(sums)
    means = np.empty(draws)
    step = max(1, _CHUNK // k)
    for start in range(0, draws, step):
        stop = min(draws, start + step)
        indices = rng.integers(0, k, size=(stop - start, k))
        means[start:stop] = sums[indices].sum(axis=1) / sizes[indices].sum(axis=1)
    return means


def paired_difference(
    new: Sequence[float],
    old: Sequence[float],
    *,
    seed: int,
    draws: int = 10_000,
    clusters: Sequence[str] | None = None,
) -> Interval:
    """Return the 95 % bootstrap interval of mean(new - old); see `bootstrap_mean`.

    Args:
        new, old: shape (n,); entry i of both is the *same* sample. Pairing removes the variance
            between samples, so the interval is narrower.

    Raises:
        ValueError: lengths differ, a score is not finite, or there are fewer than two clusters.
    """
    if len(new) != len(old):
        raise ValueError(f"{len(new)} new scores cannot be paired with {len(old)} old ones")
    difference = np.asarray(new, dtype=np.float64) - np.asarray(old, dtype=np.float64)
    return bootstrap_mean(difference.tolist(), seed=seed, draws=draws, clusters=clusters)


def holm(p_values: Sequence[float], alpha: float = 0.025) -> list[bool]:
    """Return which hypotheses are rejected at family-wise error rate `alpha` (Holm 1979)."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def p_value_not_worse(difference: Interval) -> float:
    """Return the one-sided p-value of "not worse", computed from a 95 % interval by the normal approximation."""
    spread = (difference.high - difference.low) / (2 * Z)
    if spread == 0:
        return float(difference.mean >= 0)
    return float(ndtr(difference.mean / spread))


def is_binary(scores: Sequence[float]) -> bool:
    """Return whether every score is 0 or 1."""
    return all(score in (0.0, 1.0) for score in scores)


def score_interval(
    scores: Sequence[float], *, seed: int, draws: int = 10_000, clusters: Sequence[str] | None = None
) -> Interval | None:
    """Return the interval of a mean of scores in [0, 1]; None for fewer than two scores.

    For binary scores it is the wider of bootstrap and Wilson: the bootstrap's width is 0
    if all scores are equal, and Wilson ignores clusters. If all scores are in one cluster, each sample is its own.
    """
    if len(scores) < 2:
        return None
    grouped = clusters if clusters is not None and len(set(clusters)) > 1 else None
    bootstrap = bootstrap_mean(scores, seed=seed, draws=draws, clusters=grouped)
    low, high = max(0.0, bootstrap.low), min(1.0, bootstrap.high)
    if is_binary(scores):
        wilson_interval = wilson(round(sum(scores)), len(scores))
        low, high = min(low, wilson_interval.low), max(high, wilson_interval.high)
    return Interval(low=low, mean=bootstrap.mean, high=high)


def score_difference(
    new: Sequence[float],
    old: Sequence[float],
    *,
    seed: int,
    draws: int = 10_000,
    clusters: Sequence[str] | None = None,
) -> Interval:
    """Return the interval of mean(new - old) of scores in [0, 1]; for binary scores the wider of bootstrap and Tango.

    Raises:
        ValueError: see `paired_difference`.
    """
    bootstrap = paired_difference(new, old, seed=seed, draws=draws, clusters=clusters)
    low, high = max(-1.0, bootstrap.low), min(1.0, bootstrap.high)
    if is_binary(new) and is_binary(old):
        fixed = sum(a > b for a, b in zip(new, old, strict=True))
        broken = sum(a < b for a, b in zip(new, old, strict=True))
        tango_low, tango_high = tango(fixed, broken, len(new))
        low, high = min(low, tango_low), max(high, tango_high)
    return Interval(low=low, mean=bootstrap.mean, high=high)
