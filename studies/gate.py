"""Error rates of the gate on simulated adapters of known quality.

    python studies/gate.py [--trials 200] [--guard-trials 2000] [--seed 1] [--only-guard]

Each item has a difficulty. A model of quality p passes the easiest share p of the items, but a share `NOISE` of its
answers is drawn at random with pass probability p, so that equal models differ on some items, as real ones do.

The second table shows how often a guard of HumanEval's size, of which the base passes 6 %, trips for an adapter that is
equal or worse, at several levels of noise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from scipy.stats import multinomial

from bilora.evaluation.baseline import baseline_entry
from bilora.evaluation.evidence import GateInput, GateSettings
from bilora.evaluation.gate import gate
from bilora.evaluation.guard_checks import check_guards
from bilora.evaluation.statistics import score_difference, tango
from bilora.records import Completion, Dataset, EvalRow, Sample, Score, guard_dataset
from bilora.results import BaselineEntry, Incumbents, Verdict

NOISE = 0.10
MARGIN = 0.05
BASE, INCUMBENT = 0.30, 0.60
NAIVE_N = 20
STEPS, STEP_DOWN, CHAINS = 20, 0.02, 50
GUARD_N, GUARD_BASE = 164, 0.06


class Simulation:
    """A fixed set of items, and random models that answer them."""

    def __init__(self, n: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._difficulty = self._rng.permutation(n) / n
        self._samples = [
            Sample.create(task="t", prompt=str(i), target="x", source="s", group=str(i), licence="MIT")
            for i in range(n)
        ]

    def answers(self, quality: float, noise: float = NOISE) -> np.ndarray:
        """Return 1 (pass) or 0 (fail) of a new random model on every item."""
        n = len(self._difficulty)
        random_answer = self._rng.random(n) < noise
        return np.where(random_answer, self._rng.random(n) < quality, self._difficulty < quality).astype(float)

    def rows(self, answers: dict[str, np.ndarray], sha: str, dataset: Dataset = "test") -> list[EvalRow]:
        """Return the rows of an evaluation as the gate reads them."""
        return [self._row(sample, system, float(x), sha, dataset) for system, xs in answers.items()
                for sample, x in zip(self._samples, xs, strict=True)]  # fmt: skip

    @staticmethod
    def _row(sample: Sample, system: str, value: float, sha: str, dataset: Dataset) -> EvalRow:
        completion = Completion.model_construct(sample_id=sample.id, system=system, text="", finish="stop")
        score = Score.model_construct(
            sample_id=sample.id, system=system, metric="pass_at_1", value=value, reason="", evidence={}
        )
        return EvalRow.model_construct(
            task="t",
            adapter_sha256=sha,
            dataset=dataset,
            sample=sample,
            completion=completion,
            answer="",
            scores=(score,),
        )


SETTINGS = GateSettings(margin=MARGIN, min_samples=100, seed=1, draws=1000)


def judge(
    simulation: Simulation, new: np.ndarray, base: np.ndarray, incumbents: Incumbents | None, sha: str
) -> tuple[Verdict, BaselineEntry]:
    """Return the gate's verdict on a new model, and the baseline entry of that model."""
    rows = simulation.rows({"t": new, "base": base}, sha)
    verdict = gate(GateInput("t", ["pass_at_1"], rows, sha, "k", incumbents), SETTINGS)
    return verdict, baseline_entry("t", ["pass_at_1"], rows, adapter_sha256=sha, key="k")


def count_outcomes(n: int, change: float, trials: int, seed: int) -> tuple[dict[str, int], int]:
    """Count the gate's outcomes for candidates `change` better than the incumbent, and a naive rule's promotions."""
    outcomes: dict[str, int] = {}
    naive = 0
    for trial in range(trials):
        simulation = Simulation(n, seed * 100_003 + trial)
        base, old, new = (simulation.answers(quality) for quality in (BASE, INCUMBENT, INCUMBENT + change))
        _, entry = judge(simulation, old, base, None, "old")
        verdict, _ = judge(simulation, new, base, Incumbents(current=entry, champion=entry), "new")
        outcomes[verdict.outcome] = outcomes.get(verdict.outcome, 0) + 1
        items = np.random.default_rng(trial).choice(n, NAIVE_N, replace=False)
        naive += bool(new[items].mean() >= old[items].mean())
    return outcomes, naive


def lost_quality(n: int, seed: int) -> list[float]:
    """Return the true quality lost per chain of candidates, each slightly worse than the adapter promoted last."""
    lost = []
    for chain in range(CHAINS):
        simulation = Simulation(n, seed * 200_003 + chain)
        base, quality = simulation.answers(BASE), INCUMBENT
        _, entry = judge(simulation, simulation.answers(quality), base, None, "0")
        incumbents = Incumbents(current=entry, champion=entry)
        for step in range(STEPS):
            candidate = simulation.answers(quality - STEP_DOWN)
            verdict, entry = judge(simulation, candidate, base, incumbents, str(step + 1))
            if verdict.outcome == "pass":
                quality -= STEP_DOWN
                best = max(incumbents.champion, entry, key=lambda candidate: candidate.mean() or 0.0)
                incumbents = Incumbents(current=entry, champion=best)
        lost.append(INCUMBENT - quality)
    return lost


def trip_rate(change: float, noise: float, trials: int, seed: int) -> tuple[float, float]:
    """Return how often a guard trips for an adapter `change` above the base, and on what share of items they differ."""
    trips, differ = 0, 0.0
    simulation = Simulation(GUARD_N, seed)
    passed, failed = (
        simulation.rows({"t": values, "base": values}, "new", guard_dataset("g"))
        for values in (np.ones(GUARD_N), np.zeros(GUARD_N))
    )
    for _ in range(trials):
        base, new = simulation.answers(GUARD_BASE, noise), simulation.answers(GUARD_BASE + change, noise)
        values = np.concatenate([new, base])
        rows = [pass_row if value else fail_row
                for value, pass_row, fail_row in zip(values, passed, failed, strict=True)]  # fmt: skip
        check = check_guards(GateInput("t", ["pass_at_1"], rows, "new", "k", guards={"g": GUARD_N}), SETTINGS)
        trips += check.tripped is not None
        differ += float(np.mean(new != base))
    return trips / trials, differ / trials


def max_false_trip_rate(draws: int = 10_000) -> tuple[float, float]:
    """Return the largest probability that a guard trips for an equal adapter, at any share of differing questions.

    The second value is that share. 1) For each number of questions that only the adapter solves, find the smallest
    number that only the base solves at which the guard trips. 2) Each differing question is solved by either with
    probability one half, so the trip probability is a sum of multinomial probabilities. 3) Return the maximum.
    """
    limits = []
    for fixed in range(GUARD_N // 4):
        broken = fixed
        while tango(fixed, broken, GUARD_N)[1] >= 0 or _upper_bound(fixed, broken, draws) >= 0:
            broken += 1
        limits.append(broken)
    rates = [
        (sum(multinomial.pmf((fixed, broken, GUARD_N - fixed - broken), GUARD_N, (share / 2, share / 2, 1 - share))
             for fixed, limit in enumerate(limits) for broken in range(limit, GUARD_N - fixed + 1)), share)
        for share in np.arange(0.005, 0.255, 0.005)
    ]  # fmt: skip
    return max(rates)


def _upper_bound(fixed: int, broken: int, draws: int) -> float:
    """Return the interval's upper bound for an adapter that fixes and breaks these numbers of questions."""
    same = [0.0] * (GUARD_N - fixed - broken)
    new, old = [1.0] * fixed + [0.0] * broken + same, [0.0] * fixed + [1.0] * broken + same
    return score_difference(new, old, seed=SETTINGS.seed, draws=draws).high


def print_guards(trials: int, seed: int) -> None:
    """Print the table of a guard."""
    print(f"guard of {GUARD_N} questions, the base passes {GUARD_BASE:.0%}, {trials} trials per row, seed {seed}")
    print("| noise | true change | differ | trips |\n|---:|---:|---:|---:|")
    for noise in (NOISE, 0.25, 0.5, 1.0):
        for change in (0.0, -0.03, -0.06):
            trips, differ = trip_rate(change, noise, trials, seed)
            print(f"| {noise:.0%} | {change:+.2f} | {differ:.1%} | {trips:.1%} |", flush=True)
    rate, share = max_false_trip_rate()
    print(f"an equal adapter trips in at most {rate:.2%} of cases, reached where {share:.1%} of the questions differ")


def main(arguments: Sequence[str]) -> None:
    """Print the tables of docs/benchmark.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--guard-trials", type=int, default=2000)
    parser.add_argument("--only-guard", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if not options.only_guard:
        print_incumbents(options)
    print_guards(options.guard_trials, options.seed)


def print_incumbents(options: argparse.Namespace) -> None:
    """Print the table of candidates against a promoted adapter."""
    simulation = Simulation(100_000, options.seed)
    differ = np.mean(simulation.answers(INCUMBENT) != simulation.answers(INCUMBENT))
    print(f"seed {options.seed}, {options.trials} trials per row, margin {MARGIN:g}, incumbent passes {INCUMBENT:.0%};")
    print(f"equal models differ on {differ:.1%} of the items")
    print(f"| n | true change | pass | inconclusive | regressed | naive rule, n = {NAIVE_N} |")
    print("|---:|---:|---:|---:|---:|---:|")
    for n in (300, 500):
        for change in (0.0, -0.02, -0.05, -0.10):
            outcomes, naive = count_outcomes(n, change, options.trials, options.seed)
            shares = [outcomes.get(name, 0) / options.trials for name in ("pass", "inconclusive", "regressed")]
            cells = " | ".join(f"{value:.1%}" for value in shares)
            print(f"| {n} | {change:+.2f} | {cells} | {naive / options.trials:.1%} |", flush=True)
    lost = lost_quality(500, options.seed)
    print(f"{STEPS} successive candidates, each {STEP_DOWN:g} below the promoted one, n = 500, {CHAINS} chains: "
          f"lost {np.mean(lost):.3f} on average, {max(lost):.3f} at most")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
