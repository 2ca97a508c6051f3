"""Read the program out of a model's reply.

The asked name decides: of several blocks the last that implements it is the answer, together with
what it needs of the others. Without a name it is the last block that defines anything. What is in
that block belongs to the answer, also a wrong assert or a call of `input()` at its end.
"""

from __future__ import annotations

import ast
import bisect
import html
import itertools
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bilora.extraction import statements
from bilora.extraction.python import (
    LITERAL,
    Function,
    bindings,
    defines_code,
    free_names,
    has_stray_marks,
    implements,
    is_stub,
    only_announces,
    outside_literals,
    parse,
    returns,
)
from bilora.extraction.reply import PYTHON, SPECIAL, Block, clean, split

CONTAINER = re.compile(
    r"</?(?:pre|code|python|answer|solution|final_answer|response)\b[^<>\n]{0,80}>"
    r"|(?<![\w\])])\[/?(?:PYTHON|CODE|BEGIN|DONE|END|ANSWER|SOLUTION)\]"
    r"|\\(?:begin|end)\{(?:lstlisting|verbatim|minted|code|python)\}(?:\[[^\]\n]{0,80}\]|\{\w{0,20}\})*"
    r"|<\|(?:begin|end)_of_solution\|>",
    re.I,
)
INLINE = re.compile(r"(?<!`)(`{1,3})(?!`)([^`\n]+)\1(?!`)")
TAIL = re.compile(rf"(?<![ \t])[ \t]*(?:`{{3,}}|~{{3,}}|{SPECIAL}|{CONTAINER.pattern})[ \t]*$", re.M | re.I)
PROMPT = re.compile(r"[ \t]*(?:>>>|\.\.\.)(?: |$)")
IPYTHON = re.compile(r"[ \t]*(?:In \[\d*\]:|\.\.\.:)(?: |$)")
NUMBERED = re.compile(r"[ \t]*\d{1,5}(?:[ \t]*[|:.)]|(?=[ \t]))(?: |$)?")
TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("\u00a0\u202f\u2007\u2003\u2002\u2009\u3000", " "),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"'),
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'"),
    }
)
CODE_KEYS = ("code", "solution", "answer", "program", "python", "function", "content", "completion", "response")
BINDING = re.compile(r"=|\b(?:def|class|import|for|as)\b")
MAX_INLINE = 50
MAX_PIECES = 300
MAX_REPAIRED = 20_000
"""A longer text is read as it is: repairs are for what people and models write, not for floods."""


@dataclass(frozen=True)
class Program:
    """A block's code that parses. The lower its `rank`, the likelier it is the answer."""

    code: str
    tree: ast.Module
    rank: int = 0


def extract(text: str, name: str | None = None, header: str | None = None) -> str:
    """Return the program of a reply.

    Args:
        text: the reply as the model wrote it.
        name: the function that was asked for, if known.
        header: its `def` line, for an answer that is a body alone.

    Returns:
        What is to be run. Where nothing in the reply is a program that defines something: its first
        code block as it is, or the answer's text.
    """
    try:
        return _extract(text, name, header)
    except (RecursionError, MemoryError):  # a text nested beyond what the interpreter bears is no program
        return text.strip("\n").rstrip()


def _extract(text: str, name: str | None, header: str | None) -> str:
    for whole in (_trimmed(text.replace("\r\n", "\n").replace("\r", "\n")), _only_block(text)):
        tree = parse(whole)
        if tree and not has_stray_marks(tree) and (name in bindings(tree.body) if name else defines_code(tree)):
            return whole
    answer = clean(text)
    blocks = split(answer)
    programs = _programs(blocks)
    chosen = _chosen(programs, name)
    if chosen is None and len(blocks) > 1 and (whole := read_program(answer)):  # its strings hold the fences
        programs = [whole]
        chosen = _chosen(programs, name)
    if chosen is None and header and (completed := _completed(blocks, answer, header)):
        return completed
    if chosen is None:
        chosen = _chosen(programs, None)
    if chosen is not None:
        return _with_needed(programs, chosen)
    fenced = sorted((block for block in blocks if block.language is not None), key=lambda block: not block.is_python)
    written = [block.text for block in fenced if block.text.strip()]
    return _trimmed(_cut(written[0] if written else "" if fenced else answer))


def _trimmed(code: str) -> str:
    return code.strip("\n").rstrip()


def _only_block(text: str) -> str:
    """Return the code of a reply that is one code block and nothing else, whatever its strings hold."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    first, _, rest = plain.partition("\n")
    code, _, last = rest.rpartition("\n")
    language = first.lstrip("`").strip()
    closed = last == first[: len(first) - len(first.lstrip("`"))]
    return _trimmed(code) if first[:3] == "```" == last[:3] and closed and PYTHON.fullmatch(language or "py") else ""


def _programs(blocks: list[Block]) -> list[Program]:
    pieces = [(piece, rank) for block in blocks for piece, rank in _pieces(block) if BINDING.search(piece)]
    return [program for piece, rank in pieces[-MAX_PIECES:] if (program := read_program(piece, rank))]


def read_program(text: str, rank: int = 0) -> Program | None:
    """Return the first reading of a text that parses and binds a name."""
    for number, (code, cost) in enumerate(_readings(text)):
        tree = parse(code)
        if tree and not has_stray_marks(tree):
            if bindings(tree.body):
                return Program(code, tree, rank + cost)
            if number == 0 and not code.startswith("{"):
                return None
    return None


def _pieces(block: Block) -> list[tuple[str, int]]:
    """Return a block's texts with their ranks: prose is split at the marks that other formats have for fences."""
    if block.language is not None:
        return [(block.text, 0 if block.is_python else 1)]
    inline = [code[2] for code in itertools.islice(INLINE.finditer(block.text), MAX_INLINE) if "def " in code[2]]
    code = [re.sub(rf"^\s*(?:{PYTHON.pattern})\s+", "", each, flags=re.I) for each in inline]
    return [*((each, 1) for each in code), *((piece, 0) for piece in CONTAINER.split(block.text) if piece.strip())]


def _readings(text: str) -> Iterator[tuple[str, int]]:
    """Yield readings of a text, the most literal first, and by how much each lowers its rank."""
    code = _trimmed(text)
    first, _, rest = code.partition("\n")
    if rest and PYTHON.fullmatch(first.strip()):
        code = _trimmed(rest)
    yield code, 0
    if len(code) > MAX_REPAIRED:
        yield statements.select(code), 0
        return
    for change in (_cut, _dedented, _plain_characters):
        changed = change(code)
        if changed != code:
            code = changed
            yield code, 0
    for other in (_from_json, _without_prompts, _without_numbers, _unescaped):
        if (read := other(code)) is not None:
            yield from ((reading, 0) for reading in (read, _dedented(read), statements.select(read)))
    if (added := _added(code)) is not None:
        yield _dedented(added), 2
    yield statements.select(code), 0


def _cut(code: str) -> str:
    """Cut at a closing mark behind code on the same line."""
    literals = [literal.span() for literal in LITERAL.finditer(code)]
    for mark in TAIL.finditer(code):
        place = bisect.bisect(literals, (mark.start(), len(code))) - 1
        if place < 0 or literals[place][1] <= mark.start() or mark.end() == len(code):
            return _trimmed(code[: mark.start()])
    return code


def _dedented(code: str) -> str:
    lines = code.split("\n")
    if all(line.lstrip(" \t").startswith(">") and not PROMPT.match(line) for line in lines if line.strip()):
        code = "\n".join(re.sub(r"^[ \t]*> ?", "", line) for line in lines)
    return textwrap.dedent(code)


def _plain_characters(code: str) -> str:
    """Put plain spaces and quotes for typographic ones, but not within strings and comments."""
    blank = "\n".join(_plain_indent(line) for line in code.split("\n"))
    return outside_literals(lambda part: part.translate(TYPOGRAPHY), blank)


def _plain_indent(line: str) -> str:
    text = line.lstrip()
    return line[: len(line) - len(text)].translate(TYPOGRAPHY) + text


def _from_json(code: str) -> str | None:
    if code[:1] != "{" or code[-1:] != "}":
        return None
    try:
        value = json.loads(code, strict=False)
    except (ValueError, RecursionError):
        return None
    found = [value[key] for key in CODE_KEYS if isinstance(value.get(key), str)]
    if not found:
        return None
    blocks = [block.text for block in split(found[0]) if block.language is not None]
    return _trimmed(blocks[-1] if blocks else found[0])


def _without_prompts(code: str) -> str | None:
    return _behind(PROMPT, code) or _behind(IPYTHON, code)


def _behind(prompt: re.Pattern[str], code: str) -> str | None:
    """Return what was typed at an interpreter's prompts; other lines are its output."""
    typed = [line[found.end() :] for line in code.split("\n") if (found := prompt.match(line))]
    return "\n".join(typed) if typed else None


def _without_numbers(code: str) -> str | None:
    lines = [line for line in code.split("\n") if line.strip()]
    if len(lines) < 2 or not all(map(NUMBERED.match, lines)):
        return None
    return textwrap.dedent("\n".join(NUMBERED.sub("", line, count=1) for line in lines))


def _unescaped(code: str) -> str | None:
    return html.unescape(code) if re.search(r"&(?:lt|gt|amp|quot|#\d+|#x[0-9a-f]+|nbsp);", code, re.I) else None


def _added(code: str) -> str | None:
    """Return the new side of a diff."""
    lines = [line for line in code.split("\n") if not re.match(r"(?:\+\+\+ |--- |@@|diff --git |index [0-9a-f])", line)]
    if not any(line.startswith("+") for line in lines):
        return None
    return "\n".join(line[1:] for line in lines if line[:1] in ("+", " "))


def _chosen(programs: list[Program], name: str | None) -> Program | None:
    """Return the last program that implements the name, else that defines it, of the best rank that has one."""

    def defines(program: Program) -> bool:
        return name in bindings(program.tree.body) if name else defines_code(program.tree)

    def does(program: Program) -> bool:
        return implements(program.tree, name) if name else _has_body(program.tree)

    fits: Callable[[Program], bool]
    for fits in (does, defines):
        for rank in sorted({program.rank for program in programs}):
            found = [program for program in programs if program.rank == rank and fits(program)]
            if found:
                return found[-1] if name else _outermost(found)
    return None


def _outermost(programs: list[Program]) -> Program:
    """Return the last program that no other one needs: a helper may come after what calls it."""
    if len(programs) == 1:
        return programs[0]
    called = [free_names(program.code) for program in programs]
    for number in reversed(range(len(programs))):
        bound = bindings(programs[number].tree.body)
        if not any(bound & names for other, names in enumerate(called) if other != number):
            return programs[number]
    return programs[-1]


def _has_body(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.ClassDef) or (isinstance(node, Function) and not is_stub(node)) for node in ast.walk(tree)
    )


def _with_needed(programs: list[Program], chosen: Program) -> str:
    """Put before a program the definitions that it needs of the other ones, and those that these need."""
    missing = free_names(chosen.code)
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
                pending += sorted(free_names(source))
    code = chosen.code
    future = [node for node in chosen.tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    if future and needed:  # these imports have to come first
        lines = code.split("\n")
        last = future[-1].end_lineno or future[-1].lineno
        needed[-1, 0], code = "\n".join(lines[:last]), "\n".join(lines[last:])
    return "\n".join((*(needed[place] for place in sorted(needed)), code))


def _definitions(programs: list[Program]) -> dict[str, list[tuple[int, int]]]:
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
    """Put the asked `def` line before an answer that is a function's body alone."""
    texts = [block.text for block in reversed(blocks) if block.language is not None and block.is_python] or [answer]
    for text in texts:
        if len(text) > MAX_REPAIRED:
            continue
        body = _cut(_trimmed(text))
        for indented in (textwrap.indent(textwrap.dedent(body), "    "), f"    {body.lstrip()}"):
            tree = parse(f"{header}\n{indented}")
            if tree and len(tree.body) == 1 and isinstance(tree.body[0], Function) and returns(tree.body[0]):
                return f"{header}\n{indented}"
    return None
