"""Find the one function in a typed text, with the line ends as they were typed."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass

from bilora.extraction.python import Function, is_stub, parse
from bilora.extraction.readings import read_program
from bilora.extraction.reply import split_blocks

LINE_END = re.compile(r"\r\n|\r|\n")
NO_FUNCTION = "This text holds no Python function that can be read; type one whole function."
SEVERAL = "This text holds several functions; type the one that the docstring is for."


@dataclass(frozen=True)
class TypedFunction:
    """A program, its tree, and the function in it that the docstring is for."""

    code: str
    tree: ast.Module
    function: Function

    @property
    def source(self) -> str:
        """The function's own lines, decorators included, with \\n as line end."""
        first = min([self.function.lineno, *(decorator.lineno for decorator in self.function.decorator_list)])
        lines = LINE_END.sub("\n", self.code).split("\n")[first - 1 : self.function.end_lineno]
        return textwrap.dedent("\n".join(lines))


@dataclass(frozen=True)
class Insertion:
    """The program with its docstring; or the text as it was, and the `reason` in one sentence."""

    text: str
    reason: str = ""


def find_function(typed: str) -> TypedFunction | str:
    """Return the function of a typed text, be it code, fenced, quoted at an interpreter or amid prose.

    Of overloads and stubs the implementation is meant; functions inside functions do not count.

    Returns:
        The function, or a sentence that says why there is none.
    """
    try:
        return _find(typed)
    except (RecursionError, MemoryError):
        return "This code is nested too deeply to be read; type one plain function."


def _find(typed: str) -> TypedFunction | str:
    plain = typed.replace("\ufeff", "", 1) if typed.lstrip().startswith("\ufeff") else typed
    whole = plain.strip("\r\n")
    tree = parse(whole)
    if tree:
        return _typed_function(whole, tree)
    code = _code(LINE_END.sub("\n", plain))
    if isinstance(code, str):
        return code
    restored = _with_line_ends(code[0], plain)
    return _typed_function(restored, parse(restored) or code[1])


def _code(text: str) -> tuple[str, ast.Module] | str:
    """Return the program of a text that is not one as a whole, or why there is none."""
    blocks = split_blocks(text)
    fenced = [block.text for block in blocks if block.language is not None]
    dedented = textwrap.dedent(text).strip("\n").rstrip()
    if not fenced and (tree := parse(dedented)):
        return dedented, tree
    readings = [read_program(piece) for piece in fenced] or [read_program(text)]
    if not any(fenced):
        readings = [read_program(text)]
    found = [program for program in readings if program and _functions(program.tree.body)]
    if len(found) != 1:
        return SEVERAL if found else NO_FUNCTION
    return found[0].code, found[0].tree


def _typed_function(code: str, tree: ast.Module) -> TypedFunction | str:
    functions = _functions(tree.body)
    written = [function for function in functions if not is_stub(function) and not _is_overload(function)]
    candidates = written or functions
    if len(candidates) != 1:
        return SEVERAL if candidates else NO_FUNCTION
    return TypedFunction(code, tree, candidates[0])


def _functions(statements: list[ast.stmt]) -> list[Function]:
    found: list[Function] = []
    for statement in statements:
        if isinstance(statement, Function):
            found.append(statement)
        else:
            bodies = (getattr(statement, part, []) for part in ("body", "orelse", "handlers", "finalbody", "cases"))
            found += [function for body in bodies for function in _functions(body)]
    return found


def _is_overload(function: Function) -> bool:
    return any(ast.unparse(decorator).rpartition(".")[2] == "overload" for decorator in function.decorator_list)


def _with_line_ends(code: str, typed: str) -> str:
    """Give lines that were typed as they are the line ends that they were typed with."""
    ends: list[str] = LINE_END.findall(typed)
    if not ends or set(ends) == {"\n"}:
        return code
    lines, wanted = LINE_END.split(typed), code.split("\n")
    for start in range(len(lines) - len(wanted) + 1):
        if all(line.endswith(own) for line, own in zip(lines[start:], wanted, strict=False)):
            own_ends = [*ends[start : start + len(wanted) - 1], ""]
            return "".join(line + end for line, end in zip(wanted, own_ends, strict=True))
    return ends[0].join(wanted)
