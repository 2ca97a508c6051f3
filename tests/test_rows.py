from __future__ import annotations

from typing import Any

import pytest

from bilora.records import Drop
from bilora.rows import Code, Lines, RowForm, Tests, Text, column_names, excerpt, missing_columns, read_row

LABELS = {"source": "s", "group": "g", "licence": "MIT"}


class Question(RowForm):
    text: Text
    code: Code = ""
    setup: Lines = ""
    tests: Tests = ()


class QuestionAndAnswer(RowForm):
    question: Text
    answer: Text


def form(**row: Any) -> Question:
    result = read_row({**LABELS, "text": "t", **row}, Question)
    assert isinstance(result, Question), result
    return result


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("TRAIN", "train"), ("Training", "train"), ("valid", "validation"), (" val ", "validation"),
        ("DEV", "validation"), ("development", "validation"), ("eval", "test"), ("Testing", "test"),
        ("prompt", "prompt"), ("", None), (None, None),
    ],
)  # fmt: skip
def test_common_split_names_are_recognized(name: str | None, split: str | None) -> None:
    assert form(split=name).split == split


@pytest.mark.parametrize("split", ["holdout", "train[:9]", 0, False, ["train"], {"name": "train"}])
def test_an_unknown_split_drops_the_row_and_the_detail_lists_the_known_splits(split: object) -> None:
    result = read_row({**LABELS, "text": "t", "split": split}, Question)
    assert isinstance(result, Drop)
    assert result.rule == "`split` is not a known split" and "known: train, training, validation" in result.detail


@pytest.mark.parametrize(
    ("label", "value", "text"),
    [
        ("group", 7, "7"),
        ("group", 7.0, "7"),
        ("tier", True, "True"),
        ("source", 0.5, "0.5"),
        ("licence", ["MIT", "BSD"], "MIT AND BSD"),
        ("tier", None, ""),
    ],
)
def test_a_label_may_be_a_number(label: str, value: object, text: str) -> None:
    assert getattr(form(**{label: value}), label) == text


@pytest.mark.parametrize("null", [None, float("nan")])
def test_null_counts_as_absent(null: object) -> None:
    assert form(code=null, setup=null, tests=null, split=null, tier=null) == form()
    assert read_row({**LABELS, "text": null}, Question) == Drop(rule="no `text`", detail="`text` is missing or null")


def test_lines_may_be_a_list() -> None:
    assert form(setup=["a = 1", "b = 2"]).setup == form(setup="\ufeffa = 1\r\nb = 2").setup == "a = 1\nb = 2"


def test_labels_are_the_fields_that_a_sample_copies() -> None:
    assert form(group=3, tier="two", split="dev").labels == {
        "source": "s", "group": "3", "licence": "MIT", "tier": "two", "split": "validation",
    }  # fmt: skip


def test_unknown_columns_are_ignored() -> None:
    assert form(other=object()) == form()


def test_the_form_is_chosen_by_the_columns_of_the_row() -> None:
    both: tuple[type[RowForm], ...] = (Question, QuestionAndAnswer)
    assert isinstance(read_row({**LABELS, "question": "q", "answer": "a"}, *both), QuestionAndAnswer)
    assert read_row({**LABELS, "answer": "a"}, *both) == Drop(
        rule="no `question`", detail="`question` is missing or null"
    )
    assert missing_columns({"answer", "other"}, both) == ["question"] and missing_columns({"text"}, both) == []
    assert {"text", "answer", "source", "split"} < column_names(both)


def test_the_excerpt_of_a_value_is_short_and_printable() -> None:
    result = read_row({**LABELS, "text": ["\ud83d" * 999]}, Question)
    assert isinstance(result, Drop)
    assert len(result.detail) < 120 and result.detail.encode()


@pytest.mark.parametrize("text", ['["import math", "x = 1"]', "('import math', 'x = 1')", ["import math", "x = 1"]])
def test_lines_may_be_a_list_written_as_text(text: object) -> None:
    assert form(setup=text).setup == "import math\nx = 1"


@pytest.mark.parametrize(
    "tests", [["assert f(1)", None], ["  ", "assert f(1)"], "('assert f(1)',)", ["assert f(1)", float("nan")]]
)
def test_blank_and_null_tests_are_ignored(tests: object) -> None:
    assert form(tests=tests).tests == ("assert f(1)",)


@pytest.mark.parametrize("value", ["a\x1b[31mb", "\0" * 9, "a\nb\x85", "\u202eabc", "half \ud83d"])
def test_control_characters_of_a_value_are_escaped(value: str) -> None:
    assert excerpt(value).isprintable()
    result = read_row({**LABELS, "text": [value]}, Question)
    assert isinstance(result, Drop) and result.detail.isprintable()
