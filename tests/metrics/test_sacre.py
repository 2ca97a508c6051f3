"""The sacrebleu library's numbers, on our scale."""

from __future__ import annotations

import subprocess
import sys

import pytest
import sacrebleu

from bilora.errors import BadData
from bilora.metrics import SacreMetrics
from bilora.metrics.sacre import corpus_scores
from bilora.protocols import Referees
from bilora.records import Sample, Score

HYPOTHESES = ["Return the sum of two numbers.", "Opens a file for reading", "Close file", ""]
REFERENCES = ["Return the sum of the two numbers.", "Open a file.", "Close file now.", "Close the file."]


def score(answer: str, target: str) -> tuple[Score, ...]:
    sample = Sample.create(task="docstring", prompt="p", target=target, source="s", group="g", licence="MIT")
    referees = Referees(sandbox=None)  # type: ignore[arg-type]
    (row,) = SacreMetrics().score([(sample, answer)], referees, system="base")
    return row


@pytest.mark.parametrize(("answer", "target"), list(zip(HYPOTHESES, REFERENCES, strict=True)))
def test_sentence_scores_are_the_librarys(answer: str, target: str) -> None:
    bleu, chrf = score(answer, target)
    assert bleu.value == pytest.approx(sacrebleu.sentence_bleu(answer, [target]).score / 100)
    assert chrf.value == pytest.approx(sacrebleu.sentence_chrf(answer, [target]).score / 100)


def test_a_perfect_answer_is_one() -> None:
    assert [
        result.value for result in score("Return the sum of all the numbers.", "Return the sum of all the numbers.")
    ] == [
        1.0,
        1.0,
    ]


def test_scores_name_their_signature() -> None:
    for result in score("a", "b"):
        assert f"version:{sacrebleu.__version__}" in result.evidence["signature"]


def test_corpus_scores_are_the_librarys_with_signatures() -> None:
    scores = corpus_scores(HYPOTHESES, REFERENCES)
    assert scores["sacrebleu"][0] == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert scores["chrf"][0] == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    assert scores["sacrebleu"][1].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert scores["chrf"][1].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


@pytest.mark.parametrize("hypotheses", [[], ["a"]])
def test_every_reference_needs_its_answer(hypotheses: list[str]) -> None:
    with pytest.raises(BadData):
        corpus_scores(hypotheses, ["a", "b"][: len(hypotheses) * 2])


def test_importing_the_metrics_does_not_import_the_library() -> None:
    code = "import bilora.metrics, sys; sys.exit('sacrebleu' in sys.modules or 'openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
