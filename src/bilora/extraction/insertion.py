"""Insert a docstring into a user's function and leave every other line unchanged.

libcst makes the change, because it handles every form of function body. Unchanged lines are then copied from
the user's text, so that no line end changes. `ast` verifies the result: only the docstring is different.
"""

from __future__ import annotations

import ast
import inspect
import re
import unicodedata
import warnings
from collections.abc import Sequence

import libcst as cst

from bilora.extraction.python import Function, parse
from bilora.extraction.user_function import LINE_END, Insertion, find_function

UNREADABLE = "The docstring could not be inserted without changing the code; add it by hand."
TYPE_COMMENT = re.compile(r"#\s*type:\s*\(")
BLANK = re.compile(r"^[ \t]+$", re.M)
PAGE_BREAK = re.compile(r"^[ \t]*\f[ \t\f]*", re.M)


def insert_docstring(typed: str, sentence: str) -> Insertion:
    """Return the typed program with `sentence` as its function's docstring, replacing any it had."""
    docstring = BLANK.sub("", inspect.cleandoc(LINE_END.sub("\n", sentence)).strip())
    if not docstring:
        return Insertion(typed, "The answer is empty, so there is no docstring to insert.")
    user_function = find_function(typed)
    if isinstance(user_function, str):
        return Insertion(typed, user_function)
    try:
        position = _functions(user_function.tree).index(user_function.function)
        text = _insert(user_function.code, position, docstring)
        changes_program = _changes_program(user_function.code, text, position, docstring)
    except (cst.ParserSyntaxError, cst.CSTValidationError, RecursionError, MemoryError, ValueError):
        return Insertion(typed, UNREADABLE)
    return Insertion(typed, UNREADABLE) if changes_program else Insertion(text)


def _insert(code: str, position: int, docstring: str) -> str:
    # 1) insert the docstring in a copy with \n as line end
    lines, ends = LINE_END.split(code), [*LINE_END.findall(code), ""]
    source = PAGE_BREAK.sub("", "\n".join(lines)).replace("\f", " ")
    changed = cst.parse_module(source).visit(_Inserter(position, docstring)).code
    before, after = source.split("\n"), changed.split("\n")
    # 2) count the unchanged lines before and after it
    head = 0
    while head < min(len(before), len(after)) and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < min(len(before), len(after)) - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    # 3) join the user's lines there with the changed lines between them
    new_end = ends[max(head - 1, 0)] or ends[0] or "\n"
    middle = after[head : len(after) - tail]
    typed = [line + end for line, end in zip(lines, ends, strict=True)]
    last_end = "" if tail == 0 else new_end
    return "".join((*typed[:head], new_end.join(middle) + (last_end if middle else ""), *typed[len(typed) - tail :]))


class _Inserter(cst.CSTTransformer):
    """Inserts a docstring into the function at `position`."""

    def __init__(self, position: int, docstring: str) -> None:
        super().__init__()
        self._position, self._docstring, self._function_count = position, docstring, 0
        self._indents = [""]
        self._chosen: list[str | None] = []  # per enclosing function: its indentation if it gets the docstring
        self._default = ""

    def visit_IndentedBlock(self, node: cst.IndentedBlock) -> None:
        self._indents.append(self._indents[-1] + (node.indent or self._default))

    def leave_IndentedBlock(self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock) -> cst.BaseSuite:
        self._indents.pop()
        return updated_node

    def visit_Module(self, node: cst.Module) -> None:
        self._default = node.default_indent

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self._chosen.append(self._indents[-1] if self._function_count == self._position else None)
        self._function_count += 1

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        outer = self._chosen.pop()
        if outer is None:
            return updated_node
        return updated_node.with_changes(body=self._with_docstring(updated_node.body, outer))

    def _with_docstring(self, body: cst.BaseSuite, outer: str) -> cst.BaseSuite:
        if isinstance(body, cst.SimpleStatementSuite):
            if statements := self._replace_docstring(body.body, outer + self._default):
                return body.with_changes(body=statements)
            line = cst.SimpleStatementLine(body=body.body, trailing_whitespace=body.trailing_whitespace)
            return cst.IndentedBlock(body=[self._line(outer + self._default), line])
        assert isinstance(body, cst.IndentedBlock)
        indent = outer + (body.indent or self._default)
        first, *others = body.body
        if isinstance(first, cst.SimpleStatementLine) and (statements := self._replace_docstring(first.body, indent)):
            return body.with_changes(body=[first.with_changes(body=statements), *others])
        above, leading = _split_type_comment(first)
        docstring = self._line(indent).with_changes(leading_lines=above)
        return body.with_changes(body=[docstring, first.with_changes(leading_lines=leading), *others])

    def _replace_docstring(
        self, statements: Sequence[cst.BaseSmallStatement], indent: str
    ) -> list[cst.BaseSmallStatement] | None:
        """Return the statements with their docstring replaced, or None if they have none."""
        first, *others = statements
        if not isinstance(first, cst.Expr) or not isinstance(first.value, cst.SimpleString | cst.ConcatenatedString):
            return None
        if not isinstance(first.value.evaluated_value, str):
            return None
        return [first.with_changes(value=cst.SimpleString(literal(self._docstring, indent))), *others]

    def _line(self, indent: str) -> cst.SimpleStatementLine:
        return cst.SimpleStatementLine(body=[cst.Expr(cst.SimpleString(literal(self._docstring, indent)))])


def _split_type_comment(first: cst.BaseStatement) -> tuple[list[cst.EmptyLine], list[cst.EmptyLine]]:
    """Split the comments above a body: the function's type comment must stay directly below its `def` line."""
    lines = list(getattr(first, "leading_lines", ()))
    typed = bool(lines) and lines[0].comment is not None and TYPE_COMMENT.match(lines[0].comment.value)
    return (lines[:1], lines[1:]) if typed else ([], lines)


def literal(docstring: str, indent: str) -> str:
    """Return a docstring as a Python literal: triple-quoted, indented, with unsafe characters escaped."""
    lines = docstring.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').split("\n")
    text = f"\n{indent}".join("".join(map(_escaped, line)) for line in lines)
    text = BLANK.sub("", text)
    return f'"""{text[:-1]}\\""""' if text.endswith('"') else f'"""{text}"""'


def _escaped(character: str) -> str:
    """Escape a control character, a lone surrogate, or a format character that changes how source looks."""
    category = unicodedata.category(character)
    if category in ("Cc", "Cs", "Zl", "Zp") or (category == "Cf" and character not in "\u200c\u200d"):
        number = ord(character)
        return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
    return character


def _changes_program(before: str, after: str, position: int, docstring: str) -> bool:
    """Return whether more has changed than the function's docstring, or that is not `docstring`."""
    old, new = _tree(before), _tree(after)
    if old is None or new is None or len(_functions(old)) != len(_functions(new)):
        return True
    if ast.get_docstring(_functions(new)[position]) != docstring:
        return True
    for tree in (old, new):
        function = _functions(tree)[position]
        if ast.get_docstring(function) is not None:
            del function.body[0]
        tree.type_ignores = []  # they contain line numbers, which change
    return ast.dump(old) != ast.dump(new)


def _functions(tree: ast.Module) -> list[Function]:
    """Return all functions in source order, which is also libcst's."""
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    return sorted(functions, key=lambda node: (node.lineno, node.col_offset))


def _tree(code: str) -> ast.Module | None:
    """Return the tree including type comments; without them if they are malformed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code, type_comments=True)
    except SyntaxError:
        return parse(code)
