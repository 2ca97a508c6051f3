"""Error rates of the gate: simulated adapters of known quality, judged by the real gate.

    python studies/gate.py [--trials 200] [--guard-trials 2000] [--seed 1] [--only-guard]

Each item has a difficulty. A model of quality p passes the easiest share p of the items, except that a share `LUCK`
of its answers is drawn again with probability p; so equal models differ on some items, as real ones do.

The second table is of a guard of HumanEval's size, which the base passes at 6 %: how often it trips for an adapter that
is equal, or worse, and shares more or less of the base's luck.
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

LUCK = 0.10
MARGIN = 0.05
BASE, INCUMBENT = 0.30, 0.60
NAIVE_N = 20
STEPS, STEP_DOWN, CHAINS = 20, 0.02, 50
GUARD_N, GUARD_BASE = 164, 0.06


class World:
    """A fixed set of items, and models that answer them."""

    def __init__(self, n: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._difficulty = self._rng.permutation(n) / n
        self._samples = [
            Sample.create(task="t", prompt=str(i), target="x", source="s", group=str(i), licence="MIT")
            for i in range(n)
        ]

    def answers(self, quality: float, luck: float = LUCK) -> np.ndarray:
        """Draw pass or fail of one new model on every item."""
        n = len(self._difficulty)
        lucky = self._rng.random(n) < luck
        return np.where(lucky, self._rng.random(n) < quality, self._difficulty < quality).astype(float)

    def rows(self, answers: dict[str, np.ndarray], sha: str, dataset: Dataset = "test") -> list[EvalRow]:
        """Return the rows of an evaluation as the gate reads them."""
        return [self._row(sample, system, float(x), sha, dataset) for system, xs in answers.items()
                for sample, x in zip(self._samples, xs, strict=True)]  # fmt: skip

    @staticmethod
    def _row(sample: Sample, system: str, value: float, sha: str, dataset: Dataset) -> EvalRow:
        made = Completion.model_construct(sample_id=sample.id, system=system, text="", finish="stop")
        score = Score.model_construct(
            sample_id=sample.id, system=system, metric="pass_at_1", value=value, reason="", evidence={}
        )
        return EvalRow.model_construct(
            task="t", adapter_sha256=sha, dataset=dataset, sample=sample, completion=made, answer="", scores=(score,)
        )


SETTINGS = GateSettings(margin=MARGIN, min_samples=100, seed=1, draws=1000)


def judged(
    world: World, new: np.ndarray, base: np.ndarray, incumbents: Incumbents | None, sha: str
) -> tuple[Verdict, BaselineEntry]:
    """Return the gate's verdict on a new model, and the baseline entry of that model."""
    rows = world.rows({"t": new, "base": base}, sha)
    verdict = gate(GateInput("t", ["pass_at_1"], rows, sha, "k", incumbents), SETTINGS)
    return verdict, baseline_entry("t", ["pass_at_1"], rows, adapter_sha256=sha, key="k")


def single(n: int, change: float, trials: int, seed: int) -> tuple[dict[str, int], int]:
    """Count the outcomes of candidates that are `change` better than the incumbent, and a naive rule's promotions."""
    outcomes: dict[str, int] = {}
    naive = 0
    for trial in range(trials):
        world = World(n, seed * 100_003 + trial)
        base, old, new = (world.answers(quality) for quality in (BASE, INCUMBENT, INCUMBENT + change))
        _, entry = judged(world, old, base, None, "old")
        verdict, _ = judged(world, new, base, Incumbents(current=entry, champion=entry), "new")
        outcomes[verdict.outcome] = outcomes.get(verdict.outcome, 0) + 1
        few = np.random.default_rng(trial).choice(n, NAIVE_N, replace=False)
        naive += bool(new[few].mean() >= old[few].mean())
    return outcomes, naive


def creep(n: int, seed: int) -> list[float]:
    """Return the true quality lost per chain of candidates, each slightly worse than the adapter promoted last."""
    lost = []
    for chain in range(CHAINS):
        world = World(n, seed * 200_003 + chain)
        base, quality = world.answers(BASE), INCUMBENT
        _, entry = judged(world, world.answers(quality), base, None, "0")
        incumbents = Incumbents(current=entry, champion=entry)
        for step in range(STEPS):
            verdict, entry = judged(world, world.answers(quality - STEP_DOWN), base, incumbents, str(step + 1))
            if verdict.outcome == "pass":
                quality -= STEP_DOWN
                best = max(incumbents.champion, entry, key=lambda one: one.mean() or 0.0)
                incumbents = Incumbents(current=entry, champion=best)
        lost.append(INCUMBENT - quality)
    return lost


def tripped(change: float, luck: float, trials: int, seed: int) -> tuple[float, float]:
    """Return how often a guard trips for an adapter that is `change` above the base, and how often they differ."""
    trips, differ = 0, 0.0
    world = World(GUARD_N, seed)
    passed, failed = (
        world.rows({"t": same, "base": same}, "new", guard_dataset("g"))
        for same in (np.ones(GUARD_N), np.zeros(GUARD_N))
    )
    for _ in range(trials):
        base, new = world.answers(GUARD_BASE, luck), world.answers(GUARD_BASE + change, luck)
        values = np.concatenate([new, base])
        rows = [one if value else other for value, one, other in zip(values, passed, failed, strict=True)]
        found = check_guards(GateInput("t", ["pass_at_1"], rows, "new", "k", guards={"g": GUARD_N}), SETTINGS)
        trips += found.tripped is not None
        differ += float(np.mean(new != base))
    return trips / trials, differ / trials


def equal_trips(draws: int = 10_000) -> tuple[float, float]:
    """Return the largest chance that a guard trips for an equal adapter, and the share of questions that then differ.

    Of the questions that differ, each is the base's with probability one half. For each number that only the adapter
    solves, the gate's interval gives the fewest that only the base solves at which the guard trips.
    """
    fewest = []
    for fixed in range(GUARD_N // 4):
        broken = fixed
        while tango(fixed, broken, GUARD_N)[1] >= 0 or _high(fixed, broken, draws) >= 0:
            broken += 1
        fewest.append(broken)
    chances = [
        (sum(multinomial.pmf((fixed, broken, GUARD_N - fixed - broken), GUARD_N, (share / 2, share / 2, 1 - share))
             for fixed, least in enumerate(fewest) for broken in range(least, GUARD_N - fixed + 1)), share)
        for share in np.arange(0.005, 0.255, 0.005)
    ]  # fmt: skip
    return max(chances)


def _high(fixed: int, broken: int, draws: int) -> float:
    """Return the upper bound of the difference of two systems that differ on these numbers of questions."""
    same = [0.0] * (GUARD_N - fixed - broken)
    new, old = [1.0] * fixed + [0.0] * broken + same, [0.0] * fixed + [1.0] * broken + same
    return score_difference(new, old, seed=SETTINGS.seed, draws=draws).high


def print_guards(trials: int, seed: int) -> None:
    """Print the table of a guard."""
    print(f"guard of {GUARD_N} questions, the base passes {GUARD_BASE:.0%}, {trials} trials per row, seed {seed}")
    print("| drawn again | true change | differ | trips |\n|---:|---:|---:|---:|")
    for luck in (LUCK, 0.25, 0.5, 1.0):
        for change in (0.0, -0.03, -0.06):
            trips, differ = tripped(change, luck, trials, seed)
            print(f"| {luck:.0%} | {change:+.2f} | {differ:.1%} | {trips:.1%} |", flush=True)
    chance, share = equal_trips()
    print(f"an equal adapter trips in at most {chance:.2%} of cases, where {share:.1%} of the questions differ")


def main(arguments: Sequence[str]) -> None:
    """Print the tables of docs/benchmark.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--guard-trials", type=int, default=2000)
    parser.add_argument("--only-guard", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    if not chosen.only_guard:
        print_incumbents(chosen)
    print_guards(chosen.guard_trials, chosen.seed)


def print_incumbents(chosen: argparse.Namespace) -> None:
    """Print the table of candidates against a promoted adapter."""
    world = World(100_000, chosen.seed)
    differ = np.mean(world.answers(INCUMBENT) != world.answers(INCUMBENT))
    print(f"seed {chosen.seed}, {chosen.trials} trials per row, margin {MARGIN:g}, incumbent passes {INCUMBENT:.0%};")
    print(f"equal models differ on {differ:.1%} of the items")
    print(f"| n | true change | pass | inconclusive | regressed | naive rule, n = {NAIVE_N} |")
    print("|---:|---:|---:|---:|---:|---:|")
    for n in (300, 500):
        for change in (0.0, -0.02, -0.05, -0.10):
            outcomes, naive = single(n, change, chosen.trials, chosen.seed)
            share = {name: outcomes.get(name, 0) / chosen.trials for name in ("pass", "inconclusive", "regressed")}
            cells = " | ".join(f"{value:.1%}" for value in share.values())
            print(f"| {n} | {change:+.2f} | {cells} | {naive / chosen.trials:.1%} |", flush=True)
    lost = creep(500, chosen.seed)
    print(f"{STEPS} successive candidates, each {STEP_DOWN:g} below the promoted one, n = 500, {CHAINS} chains: "
          f"lost {np.mean(lost):.3f} on average, {max(lost):.3f} at most")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
