"""BLEU equals the official evaluator's, bit for bit."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest
from support.fakes import FakeSandbox

from bilora.errors import BadData
from bilora.metrics import SmoothedBleu
from bilora.metrics.bleu import corpus_bleu, sentence_bleu
from bilora.protocols import Referees
from bilora.records import Sample

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "codexglue"


def read(name: str) -> dict[str, str]:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"the parity file {name} is not on this machine")
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = text.decode("utf-8").rstrip("\n").split("\n")
    return dict(line.partition("\t")[::2] for line in lines)


@pytest.mark.parametrize(
    ("hypotheses", "references", "official"),
    [
        ("predictions.txt", "reference.txt", 9.554726113590661),
        ("java-codebert_test_1.output.gz", "java-codebert_test_1.gold.gz", 18.791487411663358),
        ("java-codet5_test_0.output.gz", "java-codebert_test_1.gold.gz", 19.888215074898547),
    ],
)
def test_the_official_score_is_met_bit_for_bit(hypotheses: str, references: str, official: float) -> None:
    assert corpus_bleu(read(hypotheses), read(references)) == official


def test_a_short_answer_by_hand() -> None:
    # unigrams 1/1; 2- to 4-grams (0+1)/(0+1); lengths 1 and 2, so the penalty is 1 - 3/2
    assert sentence_bleu("adds", "adds numbers") == pytest.approx(math.exp(-0.5))


def test_case_and_spaces_do_not_count_but_underscores_part_words() -> None:
    assert sentence_bleu("  Read  read_file.\n", "read read _ file .") == 1.0


def test_an_empty_answer_is_almost_nothing() -> None:
    assert 0 < sentence_bleu("", "returns the sum of two numbers .") < 0.01


def test_every_reference_must_be_answered() -> None:
    with pytest.raises(BadData, match=r"1 of 2 references have no answer \(the first is 'b'\)"):
        corpus_bleu({"a": "x"}, {"a": "x", "b": "y"})


def test_no_reference_is_no_score() -> None:
    with pytest.raises(BadData):
        corpus_bleu({}, {})


def test_the_metric_scores_each_answer_against_its_target() -> None:
    target = Sample.create(task="docstring", prompt="p", target="Return the sum.", source="s", group="g", licence="MIT")
    pairs = [(target, "Return the sum."), (target, "Something else")]
    sandbox = FakeSandbox()
    rows = SmoothedBleu().score(pairs, Referees(sandbox=sandbox), system="base")
    assert sandbox.programs == []
    assert [[score.metric for score in row] for row in rows] == [["bleu"], ["bleu"]]
    assert [row[0].value for row in rows] == [1.0, sentence_bleu("Something else", "Return the sum.")]
