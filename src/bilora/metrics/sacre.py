"""BLEU and chrF by the sacrebleu library, with its signatures, which make scores comparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilora.errors import BadData
from bilora.protocols import Progress, Referees, no_progress
from bilora.records import Sample, Scale, Score

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric


@dataclass(frozen=True)
class SacreMetrics:
    """`sacrebleu` and `chrf` of each answer against `sample.target`, scaled to [0, 1].

    Sentence BLEU uses the effective n-gram order, since few docstrings share four-grams with the answer.
    """

    @property
    def scales(self) -> Mapping[str, Scale]:
        """The scales of both metrics."""
        return {
            "sacrebleu": Scale(
                label="sacreBLEU", meaning="BLEU by the sacrebleu library; not comparable with the metric BLEU here"
            ),
            "chrf": Scale(
                label="chrF", meaning="like BLEU, but on characters, so inflected forms of a word score partly"
            ),
        }

    @property
    def runs_answers(self) -> bool:
        """False: the answers are text."""
        return False

    def score(
        self,
        pairs: Sequence[tuple[Sample, str]],
        referees: Referees,
        *,
        system: str,
        progress: Progress = no_progress,
    ) -> list[tuple[Score, ...]]:
        """Return the scores of every answer against its sample's target."""
        scorers = _scorers(effective_order=True)
        rows: list[tuple[Score, ...]] = []
        for sample, answer in pairs:
            row = []
            for name in self.scales:
                result = scorers[name].sentence_score(answer, [sample.target])
                evidence = {"signature": str(scorers[name].get_signature())}
                value = min(1.0, max(0.0, result.score / 100))  # rounding may leave 100.00000000000004
                row.append(Score(sample_id=sample.id, system=system, metric=name, value=value, evidence=evidence))
            rows.append(tuple(row))
            progress(1)
        return rows


def corpus_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, tuple[float, str]]:
    """Return corpus BLEU and chrF, 0 to 100, each with its signature.

    Args:
        hypotheses, references: equally long; item i of both belongs together.

    Raises:
        BadData: the lengths differ, or there are no rows.
    """
    if len(hypotheses) != len(references) or not references:
        raise BadData(
            "hypotheses",
            f"{len(hypotheses)} answers for {len(references)} references; provide one answer per reference.",
        )
    scores = {}
    for name, scorer in _scorers(effective_order=False).items():
        result = scorer.corpus_score(list(hypotheses), [list(references)])
        scores[name] = (float(result.score), str(scorer.get_signature()))
    return scores


def _scorers(*, effective_order: bool) -> dict[str, Metric]:
    from sacrebleu.metrics.bleu import BLEU  # a slow import, and few commands score
    from sacrebleu.metrics.chrf import CHRF

    return {"sacrebleu": BLEU(effective_order=effective_order), "chrf": CHRF()}
