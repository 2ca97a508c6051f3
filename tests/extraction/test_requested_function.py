"""The requested function is found in prompts of every form."""

from __future__ import annotations

import pytest

from bilora.extraction.requested import requested_function
from bilora.tasks.codegen import TASK


@pytest.mark.parametrize(
    ("prompt", "name", "header"),
    [
        (TASK.example, "sum_even", "def sum_even(numbers):"),
        ("Add.\n\nSignature: def add(a, b=2):\nMust pass: assert add(1) == 3", "add", "def add(a, b=2):"),
        ("Add.\r\n\r\nSignature: def add(a):\r\n", "add", "def add(a):"),
        ('def poly(x):\n    return x\n\n\ndef root(x):\n    """Find it."""\n', "root", "def root(x):"),
        (
            "from typing import List\n\ndef f(\n    a: List[int],\n) -> int:\n    ...",
            "f",
            "def f(\n    a: List[int],\n) -> int:",
        ),
        (
            "Sum.\n\nSignature: def total(n):\nclass Node:\n    def __init__(self, v):\n        ...",
            "total",
            "def total(n):",
        ),
        ("Root.\n\nSignature: def root(xs):\nGiven:\ndef poly(xs, x):\n    return 0", "root", "def root(xs):"),
        ("Cap.\n\nSignature: import math\ndef cap(x=math.pi):", "cap", "def cap(x=math.pi):"),
        ("Stack.\n\nSignature: class Stack:\n    def push(self, x):", "Stack", None),
        ("Complete `def area(r)`.", None, None),
        ("`def area(r):` returns what?", "area", "def area(r):"),
        ("Your code must pass\nassert not is_odd(2)", "is_odd", None),
        ("assert sorted(spans([1])) == [1]\nassert spans([]) == []", "spans", None),
        ("Must pass: assert math.isclose(area(1), 3.14)", "area", None),
        ("Must pass: assert abs(mean([1]) - other(1)) < 1e-9", "mean", None),
        ("assert [1] == spans([1])", "spans", None),
        ("Fix the function `area` so that it works.", "area", None),
        ("Write a class called Stack.", "Stack", None),
        ("Implement area(r), please.", "area", None),
        ("Write a function named `flat_map` for lists.", "flat_map", None),
        ("Write a Python function called merge that merges.", "merge", None),
        ("Write a function area(r) for circles.", "area", None),
        ("Write something that sorts.", None, None),
        ("", None, None),
    ],
)
def test_the_requested_function_is_found_in_the_prompt(prompt: str, name: str | None, header: str | None) -> None:
    requested = requested_function(prompt)
    assert (requested.name, requested.header) == (name, header)
