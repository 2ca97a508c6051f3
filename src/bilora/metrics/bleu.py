"""Smoothed sentence BLEU-4, identical to the metric of CodeXGLUE's code-to-text task."""

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
"""Words, and every other character as its own token. The official program splits by `[\\w]+|[^\\s\\w]` and then by
the rules of NIST's mteval-v11a; after the first split, the second affects only underscores."""


@dataclass(frozen=True)
class SmoothedBleu:
    """`bleu`: sentence BLEU against `sample.target`, in [0, 1]; its mean times 100 is CodeXGLUE's score."""

    @property
    def scales(self) -> Mapping[str, Scale]:
        """The scale of `bleu`."""
        meaning = (
            "the overlap in words and word sequences with the one reference, from 0 to 100; a good answer in other "
            "words scores low"
        )
        return {"bleu": Scale(label="BLEU", meaning=meaning)}

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
        """Return the score of every answer against its sample's target."""
        rows: list[tuple[Score, ...]] = []
        for sample, answer in pairs:
            value = sentence_bleu(answer, sample.target)
            rows.append((Score(sample_id=sample.id, system=system, metric="bleu", value=value),))
            progress(1)
        return rows


def sentence_bleu(hypothesis: str, reference: str) -> float:
    """Return the smoothed BLEU-4 of one answer against one reference, in [0, 1].

    Counts of 2- to 4-grams are increased by one (Lin & Och 2004), and so are both lengths in the
    brevity penalty, so an empty answer scores slightly above zero.
    """
    tokens, reference_tokens = _tokens(hypothesis), _tokens(reference)
    total = 0.0
    for size in range(1, _ORDER + 1):
        grams = _grams(tokens, size)
        correct = (grams & _grams(reference_tokens, size)).total()
        extra = int(size > 1)
        total += math.log(correct + extra + _TINY) - math.log(grams.total() + extra + _TINY)
    brevity = min(0, 1 - (len(reference_tokens) + 1) / (len(tokens) + 1))
    return math.exp(total / _ORDER + brevity)


def corpus_bleu(hypotheses: Mapping[str, str], references: Mapping[str, str]) -> float:
    """Return CodeXGLUE's score, 0 to 100: the arithmetic mean of `sentence_bleu` over all references.

    Raises:
        BadData: there is no reference, or one has no hypothesis. (The official program ignores
            references without an answer, so missing answers would raise the score.)
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
    return Counter(tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1))
