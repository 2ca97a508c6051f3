"""Smoothed BLEU-4 of a sentence, number for number as CodeXGLUE's code-to-text task counts it."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bilora.errors import BadData
from bilora.protocols import Progress, Referees, no_progress
from bilora.records import Sample, Scale, Score

_ORDER = 4
_TINY = sys.float_info.min
_TOKEN = re.compile(r"[^\W_]+|\S")
"""Words, and every other sign by itself. The official program splits by `[\\w]+|[^\\s\\w]` and then by the
rules of NIST's mteval-v11a; after the first, all that the second still finds to split is underscores."""


@dataclass(frozen=True)
class SmoothedBleu:
    """`bleu`: sentence score against `sample.target`, in [0, 1]; its mean times 100 is CodeXGLUE's figure."""

    @property
    def scales(self) -> Mapping[str, Scale]:
        """One number."""
        meaning = (
            "how many words and sequences of words the answer shares with the one reference, from 0 to 100; a good "
            "answer in other words scores low"
        )
        return {"bleu": Scale(label="BLEU", meaning=meaning)}

    @property
    def runs_answers(self) -> bool:
        """Answers are only read."""
        return False

    def score(
        self,
        pairs: Sequence[tuple[Sample, str]],
        referees: Referees,
        *,
        system: str,
        progress: Progress = no_progress,
    ) -> list[tuple[Score, ...]]:
        """Score every answer against its sample's target."""
        rows: list[tuple[Score, ...]] = []
        for sample, answer in pairs:
            value = sentence_bleu(answer, sample.target)
            rows.append((Score(sample_id=sample.id, system=system, metric="bleu", value=value),))
            progress(1)
        return rows


def sentence_bleu(hypothesis: str, reference: str) -> float:
    """Smoothed BLEU-4 of one answer against one reference, in [0, 1].

    Counts of 2- to 4-grams are raised by one (Lin & Och 2004), and the brevity penalty takes both
    lengths one longer, so an empty answer is not quite zero.
    """
    found, wanted = _tokens(hypothesis), _tokens(reference)
    total = 0.0
    for size in range(1, _ORDER + 1):
        grams = _grams(found, size)
        correct = (grams & _grams(wanted, size)).total()
        extra = int(size > 1)
        total += math.log(correct + extra + _TINY) - math.log(grams.total() + extra + _TINY)
    brevity = min(0, 1 - (len(wanted) + 1) / (len(found) + 1))
    return math.exp(total / _ORDER + brevity)


def corpus_bleu(hypotheses: Mapping[str, str], references: Mapping[str, str]) -> float:
    """CodeXGLUE's score, 0 to 100: the plain mean over all references, which must all be answered.

    Raises:
        BadData: there is no reference, or one has no hypothesis. (The official program leaves
            unanswered ones out of the mean, so silence would raise a score.)
    """
    missing = [key for key in references if key not in hypotheses]
    if missing or not references:
        raise BadData(
            "hypotheses",
            f"{len(missing)} of {len(references)} references have no answer"
            f"{f' (the first is {missing[0]!r})' if missing else ''}; answer every one.",
        )
    total = 0.0
    for key, reference in references.items():
        total += sentence_bleu(hypotheses[key], reference)
    return total * 100.0 / len(references)


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text.lower())


def _grams(tokens: list[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1))
