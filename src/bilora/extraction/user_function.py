"""Find the function in a user's text, with the text's line ends."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass

from bilora.extraction.python import Function, is_stub, parse
from bilora.extraction.readings import read_program
from bilora.extraction.reply import split_blocks

LINE_END = re.compile(r"\r\n|\r|\n")
NO_FUNCTION = "This text contains no complete Python function; type one whole function."
SEVERAL_FUNCTIONS = "This text contains several functions; type only the one that needs a docstring."


@dataclass(frozen=True)
class UserFunction:
    """A user's program, its tree, and the function that gets the docstring."""

    code: str
    tree: ast.Module
    function: Function

    @property
    def source(self) -> str:
        """The function's lines, including decorators, with \\n as line end."""
        first = min([self.function.lineno, *(decorator.lineno for decorator in self.function.decorator_list)])
        lines = LINE_END.sub("\n", self.code).split("\n")[first - 1 : self.function.end_lineno]
        return textwrap.dedent("\n".join(lines))


@dataclass(frozen=True)
class Insertion:
    """The program with its docstring; or the unchanged text and the `reason` in one sentence."""

    text: str
    reason: str = ""


def find_function(typed: str) -> UserFunction | str:
    """Return the function of a user's text: code, a code block, an interpreter session or code within prose.

    Overloads, stubs and nested functions are ignored.

    Returns:
        The function, or a sentence that says why there is none.
    """
    try:
        return _find(typed)
    except (RecursionError, MemoryError):
        return "This code is nested too deeply to be parsed; type one simple function."


def _find(typed: str) -> UserFunction | str:
    without_bom = typed.replace("\ufeff", "", 1) if typed.lstrip().startswith("\ufeff") else typed
    whole = without_bom.strip("\r\n")
    tree = parse(whole)
    if tree:
        return _typed_function(whole, tree)
    code = _program_within(LINE_END.sub("\n", without_bom))
    if isinstance(code, str):
        return code
    restored = _with_line_ends(code[0], without_bom)
    return _typed_function(restored, parse(restored) or code[1])


def _program_within(text: str) -> tuple[str, ast.Module] | str:
    """Return the program within a text that is not Python as a whole, or why there is none."""
    blocks = split_blocks(text)
    fenced = [block.text for block in blocks if block.language is not None]
    dedented = textwrap.dedent(text).strip("\n").rstrip()
    if not fenced and (tree := parse(dedented)):
        return dedented, tree
    readings = [read_program(piece) for piece in fenced] or [read_program(text)]
    if not any(fenced):
        readings = [read_program(text)]
    programs = [program for program in readings if program and _functions(program.tree.body)]
    if len(programs) != 1:
        return SEVERAL_FUNCTIONS if programs else NO_FUNCTION
    return programs[0].code, programs[0].tree


def _typed_function(code: str, tree: ast.Module) -> UserFunction | str:
    functions = _functions(tree.body)
    written = [function for function in functions if not is_stub(function) and not _is_overload(function)]
    candidates = written or functions
    if len(candidates) != 1:
        return SEVERAL_FUNCTIONS if candidates else NO_FUNCTION
    return UserFunction(code, tree, candidates[0])


def _functions(statements: list[ast.stmt]) -> list[Function]:
    functions: list[Function] = []
    for statement in statements:
        if isinstance(statement, Function):
            functions.append(statement)
        else:
            bodies = (getattr(statement, part, []) for part in ("body", "orelse", "handlers", "finalbody", "cases"))
            functions += [function for body in bodies for function in _functions(body)]
    return functions


def _is_overload(function: Function) -> bool:
    return any(ast.unparse(decorator).rpartition(".")[2] == "overload" for decorator in function.decorator_list)


def _with_line_ends(code: str, typed: str) -> str:
    """Return code with the line ends of the typed text: those of the matching lines, else its first line end."""
    ends: list[str] = LINE_END.findall(typed)
    if not ends or set(ends) == {"\n"}:
        return code
    lines, code_lines = LINE_END.split(typed), code.split("\n")
    for start in range(len(lines) - len(code_lines) + 1):
        if all(line.endswith(code_line) for line, code_line in zip(lines[start:], code_lines, strict=False)):
            code_ends = [*ends[start : start + len(code_lines) - 1], ""]
            return "".join(line + end for line, end in zip(code_lines, code_ends, strict=True))
    return ends[0].join(code_lines)
