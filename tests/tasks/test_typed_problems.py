"""Which typed texts a task accepts, and what it answers to the others."""

from __future__ import annotations

import pytest

from bilora.extraction.user_function import NO_FUNCTION, SEVERAL_FUNCTIONS
from bilora.tasks import known_tasks, load_task

FINISHED = "This is finished code, not a question; describe in words what a function should do."
FUNCTION = "def double(x):\n    return 2 * x"


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("Double a number.", ""),
        ("sort", ""),
        ("Double a number.\nSignature: def double(x):\nMust pass: assert double(1) == 2", ""),
        (FUNCTION, FINISHED),
        (f"\r\n{FUNCTION}\r\n\r\nassert double(1) == 2", FINISHED),
        (f"# make this faster\n{FUNCTION}", ""),
        ('def double(x):\n    """Double a number."""', ""),
        (f"{FUNCTION}\n\ndef halve(x):\n    ...", ""),
        ("def double(x):", ""),
    ],
)
def test_finished_code_is_no_question_for_code(typed: str, problem: str) -> None:
    assert load_task("codegen").input_problem(typed) == problem


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        (FUNCTION, ""),
        (f"Please explain\n```python\n{FUNCTION}\n```", ""),
        ("What does this do?", NO_FUNCTION),
        ("total = 1 + 1", NO_FUNCTION),
        ("def double(x)\n    return", NO_FUNCTION),
        (f"{FUNCTION}\n\n{FUNCTION.replace('double', 'twice')}", SEVERAL_FUNCTIONS),
    ],
)
def test_prose_is_no_function(typed: str, problem: str) -> None:
    assert load_task("docstring").input_problem(typed) == problem


@pytest.mark.parametrize("name", known_tasks())
def test_a_task_takes_its_own_example_and_describes_itself(name: str) -> None:
    task = load_task(name)
    assert task.input_problem(task.example) == "" and task.description.endswith(".")
