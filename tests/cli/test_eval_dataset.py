"""The curated questions that ship with the benchmark: well formed, solvable, and not to be had for free."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bilora.records import Sample
from bilora.sources.exercises.compositions import composition_name, compositions, split_of_composition
from bilora.tasks import load_task

ROOT = Path(__file__).resolve().parents[2]
DATASET = json.loads((ROOT / "benchmarking" / "eval_dataset.json").read_text(encoding="utf-8"))
SAMPLES: list[dict[str, Any]] = DATASET["samples"]
CODEGEN = [row for row in SAMPLES if row["task"] == "codegen"]
DOCSTRING = [row for row in SAMPLES if row["task"] == "docstring"]
SHARED = {"task", "code", "source", "group", "licence"}
LAZY_ANSWERS = ("pass", "return 0", "return -1", "return ''", "return []", "return {}", "return None")
EASY = {"01": "even+running", "02": "vocalic+longest", "03": "split+vowels_each", "04": "high+ranked"}
"""The generated exercises that the easy questions amount to."""

every_codegen = pytest.mark.parametrize("row", CODEGEN, ids=lambda row: row["source"])
every_docstring = pytest.mark.parametrize("row", DOCSTRING, ids=lambda row: row["source"])


def run(code: str, row: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    program = "\n".join([code, row["test_setup_code"], *row["test_list"]])
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=20, check=False
    )


def function(code: str) -> ast.FunctionDef:
    (definition,) = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    return definition


def with_body(code: str, statement: str) -> str:
    tree = ast.parse(code)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            node.body = ast.parse(statement, mode="exec").body
    return ast.unparse(tree)


def test_ten_questions_per_task() -> None:
    assert DATASET["schema"] == 1
    assert (len(CODEGEN), len(DOCSTRING), len(SAMPLES)) == (10, 10, 20)


@every_codegen
def test_codegen_fields(row: dict[str, Any]) -> None:
    assert set(row) == SHARED | {"text", "test_list", "test_setup_code"}
    assert row["licence"] == "MIT"


@every_docstring
def test_docstring_fields(row: dict[str, Any]) -> None:
    assert set(row) == SHARED | {"docstring", "func_name"}
    assert row["licence"] == "MIT"


@pytest.mark.parametrize("field", ["code", "source", "group"])
def test_no_question_is_duplicated(field: str) -> None:
    values = [row[field] for row in SAMPLES]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("row", SAMPLES, ids=lambda row: row["source"])
def test_its_task_accepts_the_row(row: dict[str, Any]) -> None:
    sample = load_task(row["task"]).sample(row)
    assert isinstance(sample, Sample), sample
    assert sample.target not in sample.prompt


@pytest.mark.parametrize(("number", "composition"), EASY.items())
def test_easy_questions_are_compositions_that_nobody_trains_on(number: str, composition: str) -> None:
    assert f"curated:codegen/{number}" in {row["source"] for row in CODEGEN}
    (chain,) = [chain for chain in compositions("two") if composition_name(chain) == composition]
    assert split_of_composition(chain) == "test"


@every_codegen
def test_asserts_compare_a_call_on_literals_with_a_literal(row: dict[str, Any]) -> None:
    assert len(set(row["test_list"])) == len(row["test_list"]) >= 4
    for line in row["test_list"]:
        (statement,) = ast.parse(line).body
        assert isinstance(statement, ast.Assert)
        comparison = statement.test
        assert isinstance(comparison, ast.Compare)
        assert [type(operator) for operator in comparison.ops] == [ast.Eq]
        call = comparison.left
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        assert call.func.id == function(row["code"]).name
        assert not call.keywords
        for literal in (*call.args, comparison.comparators[0]):
            ast.literal_eval(literal)


@every_codegen
def test_reference_passes_its_asserts(row: dict[str, Any]) -> None:
    finished = run(row["code"], row)
    assert finished.returncode == 0, finished.stderr


@every_codegen
def test_no_constant_answer_passes(row: dict[str, Any]) -> None:
    constants = {repr(ast.literal_eval(line.rsplit(" == ", 1)[1])) for line in row["test_list"]}
    for statement in {*LAZY_ANSWERS, *(f"return {constant}" for constant in constants)}:
        finished = run(with_body(row["code"], statement), row)
        assert "AssertionError" in finished.stderr, statement


@every_docstring
def test_docstring_is_the_one_in_the_code(row: dict[str, Any]) -> None:
    definition = function(row["code"])
    assert definition.name == row["func_name"]
    assert ast.get_docstring(definition) == row["docstring"]


@every_docstring
def test_function_has_something_to_describe(row: dict[str, Any]) -> None:
    body = function(row["code"]).body[1:]
    last = body[-1].end_lineno
    assert last is not None
    assert last - body[0].lineno + 1 >= 3


@every_docstring
def test_summary_is_one_sentence_on_one_line(row: dict[str, Any]) -> None:
    summary = row["docstring"].split("\n\n", 1)[0]
    assert "\n" not in summary
    assert summary.endswith(".")
    assert summary[0].isupper()
    assert 4 <= len(summary.split()) <= 30
