"""Write a chain of operations as Python code, in several styles that must compute the same value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

from bilora.sources.exercises.operations import Operation

Style = Literal["steps", "loops", "nested", "helper"]
"""Code style of an exercise: one step per line, loops, one nested expression, or a function for the first step."""
CODE_STYLES: tuple[Style, ...] = get_args(Style)
MAX_EXPRESSION_CHARS = 90


def write_program(chain: Sequence[Operation], style: Style, name: str, parameter: str) -> str:
    """Return the chain as a function `name(parameter)`, preceded by its imports.

    A nested expression that is too long is written as steps.
    """
    match style:
        case "nested":
            expression = _nested(chain, parameter)
            if len(expression) > MAX_EXPRESSION_CHARS:
                return write_program(chain, "steps", name, parameter)
            lines = _function(name, parameter, [f"return {expression}"])
        case "steps":
            *steps, value = _steps(chain, parameter)
            lines = _function(name, parameter, [*(f"result = {step}" for step in steps), f"return {value}"])
        case "loops":
            lines = _function(name, parameter, [*_loops(chain, parameter), "return result"])
        case "helper":
            first, *others = chain
            helper = _function(first.name, parameter, [*first.as_loop(parameter, "result"), "return result"])
            body = [f"result = {first.name}({parameter})"]
            body += [f"result = {operation.as_expression('result')}" for operation in others]
            lines = [*helper, "", *_function(name, parameter, [*body, "return result"])]
    text = "\n".join(lines)
    imports = [f"import {module}" for module in ("itertools", "math") if re.search(rf"\b{module}\.", text)]
    return "\n".join([*imports, *([""] if imports else []), text])


def _function(name: str, parameter: str, body: list[str]) -> list[str]:
    return [f"def {name}({parameter}):", *(f"    {line}" for line in body)]


def _nested(chain: Sequence[Operation], expression: str) -> str:
    for operation in chain:
        expression = operation.as_expression(expression)
    return expression


def _steps(chain: Sequence[Operation], parameter: str) -> list[str]:
    """Return one expression per operation; all but the first use `result`, the previous value."""
    return [operation.as_expression("result" if number else parameter) for number, operation in enumerate(chain)]


def _loops(chain: Sequence[Operation], value: str) -> list[str]:
    lines: list[str] = []
    for number, operation in enumerate(chain, 1):
        out = "result" if number == len(chain) else f"part{number}"
        lines += operation.as_loop(value, out)
        value = out
    return lines
