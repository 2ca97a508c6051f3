"""The small typed operations of generated exercises, read from operations.toml.

An operation is data. Its form determines its task text (instruction or noun phrase) and code (expression or loop).
"""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from importlib.resources import files
from typing import Literal

from bilora.records import Record

ValueType = Literal["numbers", "words", "text", "counts", "n", "flag"]
"""Types of values: list[int], list[str], str, dict[str, int], int and bool."""


class Operation(Record):
    """One step from a value of type `takes` to one of type `gives`.

    `code` depends on the form: for map the new element from `v`, for filter the condition on `v`, for fold the
    statement that updates `result` by `v`, for expression the whole expression in `{x}`. A fold also has an
    `expression` and the initial value `start`. `{k}` is replaced by a small constant.

    `instructions` are phrasings of the step as a command; `noun` describes its result as a property of `{x}`.
    """

    name: str
    takes: ValueType
    gives: ValueType
    form: Literal["map", "filter", "fold", "expression"]
    code: str
    expression: str = ""
    start: str = ""
    instructions: tuple[str, ...]
    noun: str

    def with_constant(self, k: int) -> Operation:
        """Return the operation with `k` as its constant, if it has one."""
        if "{k}" not in self.code + self.expression:
            return self
        return self.model_copy(
            update={
                "code": self.code.replace("{k}", str(k)),
                "expression": self.expression.replace("{k}", str(k)),
                "instructions": tuple(text.replace("{k}", str(k)) for text in self.instructions),
                "noun": self.noun.replace("{k}", str(k)),
            }
        )

    def as_expression(self, x: str) -> str:
        """Return the operation on expression `x` as one expression."""
        if isinstance(ast.parse(x, mode="eval").body, ast.BinOp | ast.UnaryOp | ast.Compare | ast.BoolOp):
            x = f"({x})"
        match self.form:
            case "map":
                return f"[{self.code} for v in {x}]"
            case "filter":
                return f"[v for v in {x} if {self.code}]"
            case "fold":
                return self.expression.replace("{x}", x)
            case "expression":
                return self.code.replace("{x}", x)

    def as_loop(self, x: str, out: str) -> list[str]:
        """Return the operation on `x` as statements that assign the value to `out`."""
        match self.form:
            case "map":
                return [f"{out} = []", f"for v in {x}:", f"    {out}.append({self.code})"]
            case "filter":
                return [f"{out} = []", f"for v in {x}:", f"    if {self.code}:", f"        {out}.append(v)"]
            case "fold":
                body = [f"    {line}" for line in self.code.replace("result", out).splitlines()]
                return [f"{out} = {self.start}", f"for v in {x}:", *body]
            case "expression":
                return [f"{out} = {self.as_expression(x)}"]


class TypeWords(Record):
    """The words for a type in a task text."""

    noun: str


class Vocabulary(Record):
    """The content of operations.toml."""

    input_words: tuple[str, ...]
    types: dict[ValueType, TypeWords]
    operations: tuple[Operation, ...]


@cache
def exercise_vocabulary() -> Vocabulary:
    """Return the content of operations.toml, read once."""
    text = (files(__package__) / "operations.toml").read_text(encoding="utf-8")
    return Vocabulary.model_validate(tomllib.loads(text))


def all_operations() -> tuple[Operation, ...]:
    """Return every operation in file order."""
    return exercise_vocabulary().operations
