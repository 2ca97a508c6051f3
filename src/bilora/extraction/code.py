"""Read the program out of a model's reply.

The requested name decides: of several blocks the last that implements it is the answer, together with
what it needs of the others. Without a name it is the last block that defines anything. What is in
that block belongs to the answer, also a wrong assert or a call of `input()` at its end.
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
    is_stub,
    needed_names,
    only_announces,
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
        text: the reply as the model wrote it.
        name: the function that the prompt requests, if known.
        header: its `def` line, for an answer that is a body alone.

    Returns:
        What is to be run. Where nothing in the reply is a program that defines something: its first
        code block as it is, or the answer's text.
    """
    try:
        return _program(text, name, header)
    except (RecursionError, MemoryError):  # a text nested beyond what the interpreter bears is no program
        return text.strip("\n").rstrip()


def _program(text: str, name: str | None, header: str | None) -> str:
    for whole in (trimmed(normalized(text)), _only_block(text)):
        tree = parse(whole)
        if tree and not has_stray_marks(tree) and (name in bindings(tree.body) if name else defines_code(tree)):
            return whole
    answer = clean(text)
    blocks = split_blocks(answer)
    programs = _programs(blocks)
    chosen = _chosen(programs, name)
    if chosen is None and len(blocks) > 1 and (program := read_program(answer)):  # its strings hold the fences
        programs = [program]
        chosen = _chosen(programs, name)
    if chosen is None and header and (completed := _completed(blocks, answer, header)):
        return completed
    if chosen is None:
        chosen = _chosen(programs, None)
    if chosen is not None:
        return _with_needed(programs, chosen)
    fenced = sorted((block for block in blocks if block.language is not None), key=lambda block: not block.is_python)
    written = [block.text for block in fenced if block.text.strip()]
    return trimmed(without_tail(written[0] if written else "" if fenced else answer))


def _only_block(text: str) -> str:
    """Return the code of a reply that is one code block and nothing else, whatever its strings hold."""
    first, _, rest = normalized(text).strip().partition("\n")
    code, _, last = rest.rpartition("\n")
    language = first.lstrip("`").strip()
    closed = last == first[: len(first) - len(first.lstrip("`"))]
    return trimmed(code) if first[:3] == "```" == last[:3] and closed and PYTHON.fullmatch(language or "py") else ""


def _programs(blocks: list[Block]) -> list[ParsedCode]:
    promising = [(piece, rank) for block in blocks for piece, rank in pieces(block) if BINDING.search(piece)]
    return [program for piece, rank in promising[-MAX_PIECES:] if (program := read_program(piece, rank))]


def _chosen(programs: list[ParsedCode], name: str | None) -> ParsedCode | None:
    """Return the last program that implements the name, else that defines it, of the best rank that has one."""

    def defines(program: ParsedCode) -> bool:
        return name in bindings(program.tree.body) if name else defines_code(program.tree)

    def does(program: ParsedCode) -> bool:
        return implements(program.tree, name) if name else _has_body(program.tree)

    fits: Callable[[ParsedCode], bool]
    for fits in (does, defines):
        for rank in sorted({program.rank for program in programs}):
            found = [program for program in programs if program.rank == rank and fits(program)]
            if found:
                return found[-1] if name else _outermost(found)
    return None


def _outermost(programs: list[ParsedCode]) -> ParsedCode:
    """Return the last program that no other one needs: a helper may come after what calls it."""
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


def _with_needed(programs: list[ParsedCode], chosen: ParsedCode) -> str:
    """Put before a program the definitions that it needs of the other ones, and those that these need."""
    missing = needed_names(chosen.code)
    if not missing:
        return chosen.code
    others = sorted((program for program in programs if program is not chosen), key=lambda program: -program.rank)
    known = _definitions(others)
    needed: dict[tuple[int, int], str] = {}
    pending = sorted(missing)
    while pending:
        for number, place in known.pop(pending.pop(), ()):
            if (number, place) not in needed:
                source = _source(others[number].code, others[number].tree.body[place])
                needed[number, place] = source
                pending += sorted(needed_names(source))
    code = chosen.code
    future = [node for node in chosen.tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    if future and needed:  # these imports have to come first
        lines = code.split("\n")
        last = future[-1].end_lineno or future[-1].lineno
        needed[-1, 0], code = "\n".join(lines[:last]), "\n".join(lines[last:])
    return "\n".join((*(needed[place] for place in sorted(needed)), code))


def _definitions(programs: list[ParsedCode]) -> dict[str, list[tuple[int, int]]]:
    """Return where each name is bound: in the last program that binds it, at which of its statements."""
    known: dict[str, list[tuple[int, int]]] = {}
    for number, program in enumerate(programs):
        for place, node in enumerate(program.tree.body):
            for name in bindings([node]):
                announced = only_announces(node)
                if name in known and (known[name][0][0] == number or announced):
                    known[name] += [] if announced else [(number, place)]
                else:
                    known[name] = [(number, place)]
    return known


def _source(code: str, node: ast.stmt) -> str:
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    lines = code.split("\n")[first - 1 : node.end_lineno]
    return "\n".join(lines) if node.col_offset == 0 else ast.unparse(node)


def _completed(blocks: list[Block], answer: str, header: str) -> str | None:
    """Put the requested `def` line before an answer that is a function's body alone."""
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
