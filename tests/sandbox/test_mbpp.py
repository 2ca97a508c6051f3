"""The sandbox on real programs: every reference passes, and what does nothing fails."""

from __future__ import annotations

import ast
import json
import warnings
from pathlib import Path

import pytest

from bilora.records import Program
from bilora.sandbox import ProcessSandbox

MBPP = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "mbpp" / "mbpp.jsonl"


@pytest.fixture(scope="module")
def programs() -> list[Program]:
    if not MBPP.is_file():
        pytest.skip("the MBPP file is not on this machine")
    rows = [json.loads(line) for line in MBPP.read_text(encoding="utf-8").splitlines()]
    return [Program(code=row["code"], setup=row["test_setup_code"], tests=tuple(row["test_list"])) for row in rows]


class Emptied(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = [ast.Pass()]
        return node


def emptied_code(code: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\\w" in a plain string is of the references' making
        return ast.unparse(Emptied().visit(ast.parse(code)))


def test_every_reference_passes(programs: list[Program]) -> None:
    with ProcessSandbox(workers=2, cpu_s=30, wall_s=120) as sandbox:
        outcomes = list(sandbox.run_many(programs))
    assert len(outcomes) == 974
    assert [outcome for outcome in outcomes if outcome.status != "passed"] == []


def test_almost_every_test_is_split(programs: list[Program]) -> None:
    with ProcessSandbox(workers=2) as sandbox:
        outcomes = list(sandbox.run_many([program for program in programs if "getsizeof" in program.code]))
    assert {outcome.isolation.rpartition(" ")[2] for outcome in outcomes} == {"0/3"}


def test_functions_that_do_nothing_fail(programs: list[Program]) -> None:
    emptied = [
        program.model_copy(update={"code": emptied_code(program.code)})
        for program in programs[3::10][:100]
        if "is None" not in str(program.tests) and "== None" not in str(program.tests)
    ]
    with ProcessSandbox(workers=2) as sandbox:
        statuses = [outcome.status for outcome in sandbox.run_many(emptied)]
    assert len(statuses) >= 95
    assert set(statuses) == {"failed"}
