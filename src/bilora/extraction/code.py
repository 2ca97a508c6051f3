"""Extract the program from a model's reply.

The answer is the last code block that implements the requested name, with the definitions that it needs from
other blocks. Without a name it is the last block that defines a function or class. The whole block belongs to
the answer, including a wrong assert or a call of `input()` at its end.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable

from bilora.extraction.python import (
    Function,
    bindings,
    defines_code,
    has_stray_marks,
    implements,
    is_placeholder,
    is_stub,
    needed_names,
    parse,
    returns,
)
from bilora.extraction.readings import BINDING, MAX_REPAIRED, ParsedCode, pieces, read_program, trimmed, without_tail
from bilora.extraction.reply import PYTHON, Block, clean, split_blocks
from bilora.python_code.source import normalized

MAX_PIECES = 300


def extract_program(text: str, name: str | None = None, header: str | None = None) -> str:
    """Return the program of a reply.

    Args:
        text: raw reply of the model.
        name: function that the prompt requests, if known.
        header: its `def` line, for an answer that is only a function body.

    Returns:
        The program to run. If nothing in the reply parses and defines a name: its first code block, or the
        answer's text.
    """
    try:
        return _extract(text, name, header)
    except (RecursionError, MemoryError):  # nested too deeply for the interpreter, so not a program
        return text.strip("\n").rstrip()


def _extract(text: str, name: str | None, header: str | None) -> str:
    for whole in (trimmed(normalized(text)), _only_block(text)):
        tree = parse(whole)
        if tree and not has_stray_marks(tree) and (name in bindings(tree.body) if name else defines_code(tree)):
            return whole
    answer = clean(text)
    blocks = split_blocks(answer)
    programs = _programs(blocks)
    chosen = _choose(programs, name)
    if chosen is None and len(blocks) > 1 and (program := read_program(answer)):  # the fences are in its strings
        programs = [program]
        chosen = _choose(programs, name)
    if chosen is None and header and (completed := _complete_body(blocks, answer, header)):
        return completed
    if chosen is None:
        chosen = _choose(programs, None)
    if chosen is not None:
        return _with_dependencies(programs, chosen)
    fenced = sorted((block for block in blocks if block.language is not None), key=lambda block: not block.is_python)
    texts = [block.text for block in fenced if block.text.strip()]
    return trimmed(without_tail(texts[0] if texts else "" if fenced else answer))


def _only_block(text: str) -> str:
    """Return the code of a reply that is a single code block, whatever its strings contain; else ""."""
    first, _, following = normalized(text).strip().partition("\n")
    code, _, last = following.rpartition("\n")
    language = first.lstrip("`").strip()
    closed = last == first[: len(first) - len(first.lstrip("`"))]
    return trimmed(code) if first[:3] == "```" == last[:3] and closed and PYTHON.fullmatch(language or "py") else ""


def _programs(blocks: list[Block]) -> list[ParsedCode]:
    candidates = [(piece, rank) for block in blocks for piece, rank in pieces(block) if BINDING.search(piece)]
    return [program for piece, rank in candidates[-MAX_PIECES:] if (program := read_program(piece, rank))]


def _choose(programs: list[ParsedCode], name: str | None) -> ParsedCode | None:
    """Return the last program of the best rank that implements the name, or else that defines it."""

    def defines(program: ParsedCode) -> bool:
        return name in bindings(program.tree.body) if name else defines_code(program.tree)

    def implements_name(program: ParsedCode) -> bool:
        return implements(program.tree, name) if name else _has_body(program.tree)

    matches: Callable[[ParsedCode], bool]
    for matches in (implements_name, defines):
        for rank in sorted({program.rank for program in programs}):
            matching = [program for program in programs if program.rank == rank and matches(program)]
            if matching:
                return matching[-1] if name else _outermost(matching)
    return None


def _outermost(programs: list[ParsedCode]) -> ParsedCode:
    """Return the last program that no other program needs: a helper may come after its caller."""
    if len(programs) == 1:
        return programs[0]
    called = [needed_names(program.code) for program in programs]
    for number in reversed(range(len(programs))):
        bound = bindings(programs[number].tree.body)
        if not any(bound & names for other, names in enumerate(called) if other != number):
            return programs[number]
    return programs[-1]


def _has_body(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.ClassDef) or (isinstance(node, Function) and not is_stub(node)) for node in ast.walk(tree)
    )


def _with_dependencies(programs: list[ParsedCode], chosen: ParsedCode) -> str:
    """Return a program preceded by the definitions of other programs that it needs, directly or indirectly."""
    missing = needed_names(chosen.code)
    if not missing:
        return chosen.code
    others = sorted((program for program in programs if program is not chosen), key=lambda program: -program.rank)
    definitions = _definitions(others)
    dependencies: dict[tuple[int, int], str] = {}
    pending = sorted(missing)
    while pending:
        for number, index in definitions.pop(pending.pop(), ()):
            if (number, index) not in dependencies:
                source = _source(others[number].code, others[number].tree.body[index])
                dependencies[number, index] = source
                pending += sorted(needed_names(source))
    code = chosen.code
    future = [node for node in chosen.tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    if future and dependencies:  # `__future__` imports must come first
        lines = code.split("\n")
        last = future[-1].end_lineno or future[-1].lineno
        dependencies[-1, 0], code = "\n".join(lines[:last]), "\n".join(lines[last:])
    return "\n".join((*(dependencies[key] for key in sorted(dependencies)), code))


def _definitions(programs: list[ParsedCode]) -> dict[str, list[tuple[int, int]]]:
    """Return where each name is bound: the number of the last program that binds it, and statement indices."""
    definitions: dict[str, list[tuple[int, int]]] = {}
    for number, program in enumerate(programs):
        for index, node in enumerate(program.tree.body):
            for name in bindings([node]):
                placeholder = is_placeholder(node)
                if name in definitions and (definitions[name][0][0] == number or placeholder):
                    definitions[name] += [] if placeholder else [(number, index)]
                else:
                    definitions[name] = [(number, index)]
    return definitions


def _source(code: str, node: ast.stmt) -> str:
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    lines = code.split("\n")[first - 1 : node.end_lineno]
    return "\n".join(lines) if node.col_offset == 0 else ast.unparse(node)


def _complete_body(blocks: list[Block], answer: str, header: str) -> str | None:
    """Return the requested `def` line and an answer that is only a function body; None if it is not one."""
    texts = [block.text for block in reversed(blocks) if block.language is not None and block.is_python] or [answer]
    for text in texts:
        if len(text) > MAX_REPAIRED:
            continue
        body = without_tail(trimmed(text))
        for indented in (textwrap.indent(textwrap.dedent(body), "    "), f"    {body.lstrip()}"):
            tree = parse(f"{header}\n{indented}")
            if tree and len(tree.body) == 1 and isinstance(tree.body[0], Function) and returns(tree.body[0]):
                return f"{header}\n{indented}"
    return None
