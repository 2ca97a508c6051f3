from __future__ import annotations

import json
from typing import Any

import pytest
from real_data import real_file

from bilora.records import Drop, Sample
from bilora.tasks.codegen import TASK, extract, hide_tests, sample, tidy

ROW = {
    "text": "Write a function to double a number.",
    "code": "def half(n):\r\n\treturn n / 2\r\n\r\ndef double(n, by=2):\r\n\treturn n * by  \r\n",
    "test_list": ["assert double(2) == 4", "assert double(0) == 0"],
    "test_setup_code": "",
    "source": "here:1",
    "group": "1",
    "licence": "MIT",
}


def made(**changes: Any) -> Sample:
    result = sample({**ROW, **changes})
    assert isinstance(result, Sample)
    return result


def real_samples() -> list[Sample]:
    lines = real_file("mbpp/mbpp.jsonl").read_text(encoding="utf-8").splitlines()
    return [made(**row, source=f"mbpp:{row['task_id']}") for row in map(json.loads, lines)]


def test_the_prompt_says_what_which_and_one_test() -> None:
    assert made().prompt == (
        "Write a function to double a number.\n\nSignature: def double(n, by=2):\nMust pass: assert double(2) == 4"
    )


def test_the_target_is_plain_python() -> None:
    assert made().target == "def half(n):\n    return n / 2\n\ndef double(n, by=2):\n    return n * by"


def test_all_tests_are_kept() -> None:
    assert made().tests == ("assert double(2) == 4", "assert double(0) == 0")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"text": "  "}, "no description"),
        ({"test_list": []}, "no tests"),
        ({"code": "def double(n:"}, "not Python"),
        ({"code": "def double(n):\n    return '```'"}, "holds a code fence"),
        ({"test_list": ["assert triple(1) == 3"]}, "first test calls no function of the code"),
        ({"test_list": ["assert double("]}, "first test calls no function of the code"),
    ],
)
def test_what_cannot_be_asked_is_dropped(changes: dict[str, Any], rule: str) -> None:
    result = sample({**ROW, **changes})
    assert isinstance(result, Drop)
    assert result.rule == rule


@pytest.mark.parametrize(
    "code",
    [
        "x = '''a\n\tb'''",  # a tab in a string is content
        "x = '''a  \nb'''",
    ],
)
def test_tidying_never_changes_the_program(code: str) -> None:
    assert tidy(code) == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("Here:\n```\nx = 1\n```\nand\n```\ny = 2\n```", "x = 1"),
        ("```py\nx = 1", "x = 1"),
        ("```python\nx = 1```", "x = 1"),
        ("```python\n    x = 1\n```", "    x = 1"),
        ("```python\n```", ""),
        ("\nx = 1\n", "x = 1"),
        ("", ""),
    ],
)
def test_code_is_found_in_an_answer(text: str, code: str) -> None:
    assert extract(text) == code


def test_every_real_task_becomes_a_sample() -> None:
    assert len(real_samples()) == 974


def test_extract_reads_back_every_real_answer() -> None:
    assert all(TASK.extract(TASK.answer(one.target)) == one.target for one in real_samples())


def test_no_carriage_return_is_left() -> None:
    assert not any("\r" in one.prompt + one.target + one.setup + "".join(one.tests) for one in real_samples())


def test_no_indentation_by_tabs_is_left() -> None:
    assert [one.source for one in real_samples() if "\n\t" in one.target] == ["mbpp:669"]  # inside a string


def test_the_headline_is_the_pass_rate() -> None:
    assert TASK.headline == "pass_at_1"


def test_hiding_tests_takes_them_from_the_prompt_alone() -> None:
    hidden = hide_tests(made())
    assert hidden.prompt == "Write a function to double a number.\n\nSignature: def double(n, by=2):"
    assert (hidden.tests, hidden.target, hidden.group) == (made().tests, made().target, made().group)
    assert hidden.id != made().id


@pytest.mark.parametrize(("code", "whole"), [("def f(): pass", True), ("def f(", False), ("", False)])
def test_only_python_is_well_formed(code: str, whole: bool) -> None:
    assert TASK.well_formed(code) is whole
