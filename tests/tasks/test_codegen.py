from __future__ import annotations

import json
from typing import Any

import numpy
import pytest
from support.shared_data import shared_file

from bilora.python_code.source import tidy
from bilora.records import Drop, Sample
from bilora.tasks.codegen import TASK

ROW = {
    "text": "Write a function to double a number.",
    "code": "def half(n):\r\n\treturn n / 2\r\n\r\ndef double(n, by=2):\r\n\treturn n * by  \r\n",
    "test_list": ["assert double(2) == 4", "assert double(0) == 0"],
    "test_setup_code": "",
    "source": "here:1",
    "group": "1",
    "licence": "MIT",
}


def make_sample(**changes: Any) -> Sample:
    result = TASK.sample({**ROW, **changes})
    assert isinstance(result, Sample)
    return result


def real_samples() -> list[Sample]:
    lines = shared_file("mbpp/mbpp.jsonl").read_text(encoding="utf-8").splitlines()
    return [make_sample(**row, source=f"mbpp:{row['task_id']}") for row in map(json.loads, lines)]


def test_the_prompt_says_what_which_and_one_test() -> None:
    assert make_sample().prompt == (
        "Write a function to double a number.\n\nSignature: def double(n, by=2):\nMust pass: assert double(2) == 4"
    )


def test_the_target_is_plain_python() -> None:
    assert make_sample().target == "def half(n):\n    return n / 2\n\ndef double(n, by=2):\n    return n * by"


def test_all_tests_are_kept() -> None:
    assert make_sample().tests == ("assert double(2) == 4", "assert double(0) == 0")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"text": None}, "no `text`"),
        ({"code": None}, "no `code`"),
        ({"test_list": None}, "no `test_list`"),
        ({"test_list": ["", ""]}, "no tests"),
        ({"code": ["def double(n): return 2 * n"]}, "`code` is not text"),
        ({"code": "```python\ndef double(n:\n```"}, "not Python"),
        ({"code": "print 'a'"}, "not Python"),
        ({"code": "def double(n): return " + "-" * 999 + "n"}, "nested too deeply"),
        ({"code": "def twice(n): return 2 * n", "entry_point": "double"}, "the code does not define its `entry_point`"),
        ({"code": "double = wrapped(len)"}, "no signature that an answer can keep to"),
        ({"code": "NOTHING = object()\ndef double(n=NOTHING): pass"}, "no signature that an answer can keep to"),
        ({"text": "  "}, "no description"),
        ({"test_list": []}, "no tests"),
        ({"code": "def double(n:"}, "not Python"),
        ({"test_list": ["print(double(1) == 2)"]}, "a test that asserts nothing"),
        ({"test_list": ["assert double(1) == 2", "assert (double(2) == 5, 'five')"]}, "a test that asserts nothing"),
        ({"test_list": ["assert triple(1) == 3"]}, "first test calls no function of the code"),
        ({"test_list": ["assert double("]}, "first test calls no function of the code"),
    ],
)
def test_unusable_rows_are_dropped(changes: dict[str, Any], rule: str) -> None:
    result = TASK.sample({**ROW, **changes})
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
def test_code_is_extracted_from_an_answer(text: str, code: str) -> None:
    assert TASK.extract(text) == code


@pytest.mark.parametrize(
    "test_list",
    [
        "assert double(2) == 4\nassert double(0) == 0",
        "\ufeffassert double(2) == 4\r\nassert double(0) == 0\r\n",
        '["assert double(2) == 4", "assert double(0) == 0"]',
        "['assert double(2) == 4', 'assert double(0) == 0']",
        ("assert double(2) == 4", "assert double(0) == 0"),
        numpy.array(["assert double(2) == 4", "assert double(0) == 0"]),
        ["\ufeffassert double(2) == 4 ", "", "\nassert double(0) == 0\r\n"],
    ],
    ids=["text", "text with BOM", "JSON", "Python", "tuple", "array", "white space"],
)
def test_tests_may_be_written_in_several_ways(test_list: object) -> None:
    assert make_sample(test_list=test_list).tests == make_sample().tests


def test_one_test_in_text_remains_one() -> None:
    tests = make_sample(test_list="n = 2\nassert double(n) == 4").tests
    assert tests == ("n = 2\nassert double(n) == 4",)


@pytest.mark.parametrize(
    "imports", [["import math", "import re"], "import math\nimport re", ("import math", "import re")]
)
def test_imports_of_the_tests_go_before_their_setup(imports: object) -> None:
    assert make_sample(test_imports=imports, test_setup_code="\ufeffx = 1\r\n").setup == "import math\nimport re\nx = 1"


@pytest.mark.parametrize(
    "code",
    [
        f"\ufeff{ROW['code']}",
        f"```python\n{ROW['code']}```",
        f"Here it is:\n\n```\n{ROW['code']}\n```\nThat is all.",
        str(ROW["code"]).replace("\r\n", "\r"),
        str(ROW["code"]).replace("\t", "\f\t"),
    ],
    ids=["BOM", "fence", "fence in prose", "CR", "form feed"],
)
def test_code_is_read_as_what_it_is(code: str) -> None:
    assert make_sample(code=code).target == make_sample().target


def test_a_mark_before_the_description_is_no_part_of_it() -> None:
    assert make_sample(text="\ufeff" + str(ROW["text"])) == make_sample()


def test_a_description_may_be_called_prompt() -> None:
    row = {**ROW, "prompt": ROW["text"]}
    del row["text"]
    assert TASK.sample(row) == make_sample()


@pytest.mark.parametrize(
    "test_list",
    [["def check(candidate):\n    assert candidate(2) == 4"], "def check(candidate):\n    assert candidate(2) == 4"],
)
def test_a_check_function_is_called_and_not_visible(test_list: object) -> None:
    sample = make_sample(test_list=test_list)
    assert sample.tests == ("def check(candidate):\n    assert candidate(2) == 4", "check(double)")
    assert sample.prompt == "Write a function to double a number.\n\nSignature: def double(n, by=2):"
    assert TASK.hide_tests(sample).prompt == sample.prompt


@pytest.mark.parametrize(("entry_point", "name"), [(None, "double"), ("half", "half")])
def test_a_candidate_gets_the_name_of_what_is_tested(entry_point: str | None, name: str) -> None:
    sample = make_sample(test_list=["assert candidate(2) == 4"], entry_point=entry_point)
    assert sample.tests == (f"assert {name}(2) == 4",) and f"Must pass: assert {name}(2) == 4" in sample.prompt


HUMAN_EVAL = {
    "task_id": "HumanEval/500",
    "prompt": (
        "import math\nfrom typing import List\n\n\ndef root(x: float):\n    return math.sqrt(x)\n\n"
        "def roots(xs: List[float], most: int = 3) -> List[float]:\n"
        '    """ Take roots.\n\n    >>> roots([4])\n    [2.0]\n    """\n'
    ),
    "canonical_solution": "    return [root(x) for x in xs][:most]\n",
    "entry_point": "roots",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate([4]) == [root(4)]\n\n",
    "source": "he:500",
    "group": "500",
    "licence": "MIT",
}


def test_a_row_of_human_eval_is_a_sample() -> None:
    sample = TASK.sample(HUMAN_EVAL)
    assert isinstance(sample, Sample), sample
    assert sample.prompt == (
        "Take roots.\n>>> roots([4])\n[2.0]\n\nSignature: def roots(xs: list[float], most: int=3):\n"
        "Given:\ndef root(x: float):\n    return math.sqrt(x)"
    )
    assert sample.target == tidy(str(HUMAN_EVAL["prompt"]) + str(HUMAN_EVAL["canonical_solution"]))
    assert sample.tests == (str(HUMAN_EVAL["test"]).strip(), "check(roots)")
    assert sample.setup == "import math\nfrom typing import List\ndef root(x: float):\n    return math.sqrt(x)"
    space: dict[str, Any] = {}
    exec("\n".join((sample.target, sample.setup, *sample.tests)), space)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"entry_point": "root2"}, "no description"),
        ({"prompt": "def roots(xs):\n"}, "no description"),
        ({"canonical_solution": "    return [\n"}, "no description"),
        ({"test": None}, "no `test`"),
        ({"entry_point": 3}, "`entry_point` is not text"),
    ],
)
def test_a_faulty_row_of_human_eval_is_a_drop(changes: dict[str, Any], rule: str) -> None:
    result = TASK.sample({**HUMAN_EVAL, **changes})
    assert isinstance(result, Drop)
    assert result.rule == rule


@pytest.mark.parametrize(
    "row",
    [
        {"code": "from typing import List\ndef double(n: List[int], by: List[int] = ()): return n"},
        {"code": "BY = 2\ndef double(n, by=BY): return n * by"},
        {"code": "class Number: pass\ndef double(n: Number) -> Number: return n"},
        {"code": "import sys\ndef double(n, most=sys.maxsize): return n"},
        {"code": "double = lambda n: n"},
        {"code": "async def double(n): return n"},
    ],
)
def test_an_answer_that_keeps_to_the_signature_can_be_defined(row: dict[str, Any]) -> None:
    signature = make_sample(**row).prompt.partition("Signature: ")[2].partition("\nMust pass")[0]
    space: dict[str, Any] = {}
    exec(signature + "\n    return n", space)
    assert callable(space["double"])


def test_of_the_real_prompts_one_shows_more_than_a_function() -> None:
    heads = {
        sample.source: sample.prompt.partition("Signature: ")[2].partition("\nMust pass")[0]
        for sample in real_samples()
    }
    assert [source for source, head in heads.items() if "\n" in head] == ["mbpp:601"]
    assert heads["mbpp:601"] == "def max_chain_length(arr, n):\nclass Pair(object):\n    def __init__(self, a, b):"


def test_every_real_task_becomes_a_sample() -> None:
    assert len(real_samples()) == 974


def test_extract_reads_back_every_real_answer() -> None:
    assert all(TASK.extract(TASK.answer(sample.target)) == sample.target for sample in real_samples())


def test_no_carriage_return_remains() -> None:
    assert not any(
        "\r" in sample.prompt + sample.target + sample.setup + "".join(sample.tests) for sample in real_samples()
    )


def test_no_indentation_by_tabs_remains() -> None:
    assert [sample.source for sample in real_samples() if "\n\t" in sample.target] == ["mbpp:669"]  # inside a string


def test_the_headline_is_the_pass_rate() -> None:
    assert TASK.headline == "pass_at_1"


def test_hiding_tests_changes_only_the_prompt() -> None:
    hidden = TASK.hide_tests(make_sample())
    assert hidden.prompt == "Write a function to double a number.\n\nSignature: def double(n, by=2):"
    assert (hidden.tests, hidden.target, hidden.group) == (
        make_sample().tests,
        make_sample().target,
        make_sample().group,
    )
    assert hidden.id != make_sample().id


@pytest.mark.parametrize(("code", "whole"), [("def f(): pass", True), ("def f(", False), ("", False)])
def test_only_python_is_well_formed(code: str, whole: bool) -> None:
    assert TASK.well_formed(code) is whole


@pytest.mark.parametrize(
    ("changes", "rule", "detail"),
    [
        ({"test_setup_code": "double = lambda n, by=2: 4"}, "the setup defines what is tested", "double"),
        ({"test_imports": ["from operator import neg as double"]}, "the setup defines what is tested", "double"),
        ({"test_imports": ["import"]}, "the setup is not Python", "line 1"),
        ({"test_setup_code": "def ("}, "the setup is not Python", "line 1"),
        ({"text": "Double \x1b[1mit\x1b[0m."}, "control characters", "Double"),
        ({"text": "Double\0 it."}, "control characters", "Double"),
    ],
)
def test_a_setup_that_says_nothing_of_an_answer_is_a_drop(changes: dict[str, Any], rule: str, detail: str) -> None:
    result = TASK.sample({**ROW, **changes})
    assert isinstance(result, Drop) and result.rule == rule and detail in result.detail
