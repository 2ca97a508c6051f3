"""Functional correctness: run the answer and its tests in the sandbox."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bilora.protocols import Progress, Referees, no_progress
from bilora.records import Outcome, Program, Sample, Scale, Score

_SCALES: Mapping[str, Scale] = {
    "pass_at_1": Scale(
        label="pass@1", unit=" %", meaning="the share of questions whose answer passes all tests when run"
    ),
    "test_pass_rate": Scale(
        label="tests passed",
        unit=" %",
        meaning="the mean share of tests passed per question; a wrong answer may pass some by chance",
    ),
}


@dataclass(frozen=True)
class OutcomeShare:
    """The share of answers with one sandbox outcome; such an answer counts as 0 in the headline."""

    status: str
    scale: Scale


OUTCOME_SHARES: Mapping[str, OutcomeShare] = {
    "passed_in_process": OutcomeShare(
        "passed-in-process",
        Scale(
            label="passed in the answer's own process only",
            unit=" %",
            meaning="the tests passed, but in a process that the answer could manipulate; counted as failed in pass@1",
        ),
    ),
    "missing_module": OutcomeShare(
        "missing-module",
        Scale(
            label="needed a module that the sandbox lacks",
            unit=" %",
            meaning="the answer imports a module that the sandbox does not allow; counted as failed in pass@1",
        ),
    ),
}
"""Reported beside the headline if answers are run; by metric name in results."""


@dataclass(frozen=True)
class Functional:
    """`pass_at_1`: 1.0 if all tests of the sample pass, else 0.0. `test_pass_rate`: the share of tests that pass.

    Both are unscored if the sandbox failed or the sample has no tests. Both are 0 if tests passed only in a
    process that the answer could manipulate, or if no assert called it.
    """

    @property
    def scales(self) -> Mapping[str, Scale]:
        """The scales of `pass_at_1`, the headline, and `test_pass_rate`."""
        return _SCALES

    @property
    def runs_answers(self) -> bool:
        """True: the sandbox runs every answer."""
        return True

    def score(
        self,
        pairs: Sequence[tuple[Sample, str]],
        referees: Referees,
        *,
        system: str,
        progress: Progress = no_progress,
    ) -> list[tuple[Score, ...]]:
        """Run every answer with its sample's setup and tests, and return the scores."""
        programs = (Program(code=answer, setup=sample.setup, tests=sample.tests) for sample, answer in pairs)
        outcomes = referees.sandbox.run_many(programs, progress=progress)
        return [self._scores(sample, outcome, system) for (sample, _), outcome in zip(pairs, outcomes, strict=True)]

    def _scores(self, sample: Sample, outcome: Outcome, system: str) -> tuple[Score, ...]:
        values: tuple[float | None, ...]
        reason = outcome.detail
        if outcome.status == "infrastructure":
            values = (None, None)
        elif not sample.tests:
            values, reason = (None, None), "the sample has no tests"
        else:
            trusted = outcome.status not in ("passed-in-process", "untested")
            passed = trusted * sum(result is True for result in outcome.results)
            values = (float(outcome.status == "passed"), passed / len(sample.tests))
        evidence = {"status": outcome.status, "isolation": outcome.isolation}
        return tuple(
            Score(sample_id=sample.id, system=system, metric=name, value=value, reason=reason, evidence=evidence)
            for name, value in zip(self.scales, values, strict=True)
        )


def pass_at_k_scale(k: int) -> Scale:
    """Return the display scale of pass@k."""
    return Scale(
        label=f"pass@{k}",
        unit=" %",
        meaning=f"the probability that at least one of {k} sampled answers passes all tests",
    )


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the probability that at least one of `k` answers is right, drawn from `n` of which `c` are right.

    Raises:
        ValueError: not 0 <= c <= n, or not 1 <= k <= n.

    Source: Chen et al. (2021), Evaluating Large Language Models Trained on Code, eq. 1.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)
