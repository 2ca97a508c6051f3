"""Say in one sentence what a Python function does.

A training row must not show its answer: the docstring is cut out of the code, and a row in which
eight words of it survive elsewhere is refused. The other rules keep out what teaches nothing.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator

from bilora.english import is_english
from bilora.extraction.docstring import extract_sentence, first_paragraph
from bilora.extraction.python import Function
from bilora.extraction.requested import requested_function
from bilora.extraction.typed import Insertion, find_function
from bilora.metrics.bleu import SmoothedBleu
from bilora.metrics.sacre import SacreMetrics
from bilora.python_code.docstrings import documented, plain_signs, summary_text
from bilora.python_code.source import TOO_DEEP, normalized, parse, parse_error, tidy
from bilora.records import Drop, Row, Sample
from bilora.rows import CONTROL, Code, RowForm, Text, read_row
from bilora.tasks.task import Task

_MIN_WORDS, _MAX_WORDS = 4, 40
_MIN_BODY_LINES = 3
_MAX_CODE_TOKENS = 1200
_LEAK_WORDS = 8

_WORD = re.compile(r"\w+")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_NAME_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_CODE_FENCE = re.compile(r"```(?:python)?\n(.*?)\n?```", re.DOTALL)
_URL = re.compile(r"https?://|www\.|ftp://")
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|^\.\. |::\s*$|>>>")
_UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|TBD)\b|(?i:auto-?generated|automatically generated|do not edit)")
_REFERENCE = re.compile(
    r"(see(?! (if|whether|how))|refer to|same as|alias (of|for)|inherited|overrid(es|den)|docstring)\b", re.I
)
_LITTLE = {"a", "an", "the", "this", "that", "of", "to", "for", "given", "and", "is", "it"}


def _words(text: str) -> list[str]:
    """Lower-case words and numbers of a text."""
    return _WORD.findall(text.lower())


def _name_words(name: str) -> list[str]:
    """Split `snake_case` or `camelCase` into lower-case words."""
    return [part.lower() for part in _NAME_PART.findall(name)]


def summary(docstring: str) -> str:
    """Return what comes before the first blank line or section, on one line."""
    return first_paragraph(summary_text(docstring))


def read_function(code: str) -> tuple[str, Function] | None:
    """Dedent and parse a function, also one whose first line was cut out without its indentation."""
    plain = _dedented(code)
    function = _function(plain)
    if function is None:
        return None
    extra = function.body[0].col_offset - 4
    if extra > 0 and function.body[0].lineno > function.lineno:
        straight = textwrap.dedent(" " * extra + plain)
        again = None if straight.startswith(" ") else _function(straight)
        if again:
            return straight, again
    return plain, function


def _dedented(code: str) -> str:
    """Return code that begins at the left: of a chat's answer the code, of a cut-out decorated method all lines."""
    fenced = _CODE_FENCE.search(code) if parse(textwrap.dedent(normalized(code))) is None else None
    text = tidy(textwrap.dedent(normalized(fenced[1] if fenced else code)).strip("\n"))
    if text.startswith("@") and parse(text) is None:
        first, _, others = text.partition("\n")
        return f"{first}\n{textwrap.dedent(others)}"
    return text


def without_docstring(code: str, function: Function) -> str | None:
    """Cut the docstring out and leave all else as it is; None if nothing else remains."""
    first, *others = function.body
    if not _is_text(first):
        return code
    if not others:
        return None
    lines = code.split("\n")
    end = first.end_lineno or first.lineno
    if others[0].lineno <= end:  # a statement follows on the docstring's last line
        before = lines[first.lineno - 1].encode()[: first.col_offset]
        behind = lines[end - 1].encode()[others[0].col_offset :]
        return "\n".join((*lines[: first.lineno - 1], (before + behind).decode(), *lines[end:]))
    while not lines[end].strip():
        end += 1
    head = lines[first.lineno - 1].encode()[: first.col_offset].decode()
    kept = [head.rstrip()] if head.strip() else []  # the docstring stood behind the colon
    return "\n".join((*lines[: first.lineno - 1], *kept, *lines[end:]))


class _Documented(RowForm):
    """A function, with or without its docstring in it, and the docstring."""

    code: Code
    docstring: Text


def _sample(row: Row) -> Sample | Drop:
    """Read a function and its docstring."""
    form = read_row(row, _Documented)
    if isinstance(form, Drop):
        return form
    docstring = plain_signs(form.docstring)
    target = summary(docstring)
    rule = _faulty_text(docstring, target)
    if rule:
        return Drop(rule=rule, detail=target)
    found = read_function(form.code)
    if found is None:
        return _no_function(form.code, target)
    code, function = found
    bare = without_docstring(code, function)
    if bare is None:
        return Drop(rule="nothing but a docstring", detail=target)
    bare = tidy(bare)  # again, since tabs in the docstring keep all others
    rule = _faulty_code(function, bare) or _mismatch(function, bare, docstring, target)
    if rule:
        return Drop(rule=rule, detail=target)
    return Sample.create(task=TASK.name, prompt=question(bare), target=target, **form.labels)


def _no_function(code: str, target: str) -> Drop:
    """Say why code is not the one function that a row is about."""
    text = _dedented(code)
    tree = parse(text)
    if tree is None:
        reason = parse_error(text)
        return Drop(rule=TOO_DEEP if reason == TOO_DEEP else "not a Python function", detail=reason)
    functions = [node for node in tree.body if isinstance(node, Function)]
    if any("overload" in ast.unparse(decorator) for node in functions for decorator in node.decorator_list):
        return Drop(rule="overloads of a function", detail=target)
    if functions:
        too_much = "more than one function" if len(functions) > 1 else "statements beside the function"
        return Drop(rule=too_much, detail=f"{len(tree.body)} statements: {target}")
    rule = "a class, not a function" if any(isinstance(node, ast.ClassDef) for node in tree.body) else None
    return Drop(rule=rule or "not a Python function", detail=target)


def question(code: str) -> str:
    """Write the prompt for a function without docstring."""
    return f"Summarize in one sentence what this function does.\n```python\n{code}\n```"


def _make_prompt(typed: str) -> str:
    """Return the prompt for a typed function, without its docstring; for other text, the text."""
    found = find_function(typed)
    code = None if isinstance(found, str) else read_function(found.source)
    if code is None:
        return typed.strip()
    bare = without_docstring(*code) or _without_first_statement(code[1])
    return question(bare) if bare else typed.strip()


def _input_problem(typed: str) -> str:
    """Say why a text holds no function to explain."""
    found = find_function(typed)
    return found if isinstance(found, str) else ""


def _without_first_statement(function: Function) -> str | None:
    """Write a function without its docstring, which shares a line with other statements."""
    function.body = function.body[1:]
    return ast.unparse(function) if function.body else None


def _insert_answer(typed: str, summary: str) -> Insertion:
    """Put `summary` into the typed function as its docstring, or say why it cannot be."""
    from bilora.extraction.insertion import insert_docstring  # libcst is slow to import and serves pages alone

    return insert_docstring(typed, summary)


def _function(code: str) -> Function | None:
    tree = parse(code)
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], Function):
        return None
    return tree.body[0]


def _faulty_text(docstring: str, target: str) -> str | None:
    """Name the rule that a docstring breaks by itself."""
    said = _words(target)
    if _URL.search(target) or _MARKUP.search(target) or (not target and ">>>" in docstring):
        return "URL, markup or doctest"
    if docstring.strip() and not target:
        return "no summary before the first section"
    if CONTROL.search(target):
        return "control characters"
    if _extract(_answer(target)) != target:
        return "wrapped in quotes or marks of code"
    if _UNFINISHED.search(docstring):
        return "unfinished or generated"
    if _REFERENCE.match(target):
        return "refers elsewhere"
    if len(said) < _MIN_WORDS:
        return f"fewer than {_MIN_WORDS} words"
    if len(said) > _MAX_WORDS:
        return f"more than {_MAX_WORDS} words"
    return None if is_english(target) else "not English"


def _faulty_code(function: Function, bare: str) -> str | None:
    """Name the rule that a function breaks by itself."""
    name = function.name
    if name.startswith("test") or name.endswith("_test") or name in ("setUp", "tearDown"):
        return "a test"
    if name.startswith("__") and name.endswith("__"):
        return "a dunder method"
    body = [node for node in function.body if not _is_text(node)]
    if len(body) == 1 and isinstance(body[0], ast.Return) and _is_plain(body[0].value):
        return "a trivial getter"
    header = function.body[0].lineno - 1
    own = [line for line in bare.split("\n")[header:] if line.strip() and not line.strip().startswith("#")]
    if len(own) < _MIN_BODY_LINES:
        return f"a body under {_MIN_BODY_LINES} lines"
    if len(_TOKEN.findall(bare)) > _MAX_CODE_TOKENS:
        return f"more than {_MAX_CODE_TOKENS} code tokens"
    return None


def _mismatch(function: Function, bare: str, docstring: str, target: str) -> str | None:
    """Name the rule that docstring and code break together."""
    said = [word for word in _words(target) if word not in _LITTLE]
    named = [word for word in _name_words(function.name) if word not in _LITTLE]
    if target.startswith(f"{function.name}(") or said == named:
        return "a restated signature"
    arguments = function.args
    known = {argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    known.update(extra.arg for extra in (arguments.vararg, arguments.kwarg) if extra)
    if arguments.kwarg is None and not known.issuperset(documented(docstring)):
        return "parameters that the signature lacks"
    shown = set(_ngrams(_words(bare), _LEAK_WORDS))
    whole = _words(target)
    if any(gram in shown for gram in _ngrams(_words(docstring), _LEAK_WORDS)) or (
        len(whole) < _LEAK_WORDS and tuple(whole) in _ngrams(_words(bare), len(whole))
    ):
        return "the code shows the docstring"
    return None


def _ngrams(sequence: list[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(sequence[start:] for start in range(n)), strict=False)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_plain(value: ast.expr | None) -> bool:
    """Whether an expression only reads: a constant, a name, or attributes and items of a name."""
    while isinstance(value, ast.Attribute | ast.Subscript):
        value = value.value
    return value is None or isinstance(value, ast.Constant | ast.Name)


def _answer(target: str) -> str:
    """Return the sentence itself."""
    return target


def _extract(text: str, prompt: str = "") -> str:
    """Return the sentence that a reply gives; of a reply with several functions, the one that the prompt shows."""
    return extract_sentence(text, requested_function(prompt).name)


def _name_of(sample: Sample) -> str:
    found = re.search(r"def (\w+)", sample.prompt)
    return " ".join((*_name_words(found[1]), ".")) if found else ""


TASK = Task(
    name="docstring",
    title="Explain code",
    system="You explain Python functions.",
    sample=_sample,
    answer=_answer,
    extract=_extract,
    extract_for_prompt=_extract,
    metrics=(SmoothedBleu(), SacreMetrics()),
    example="def area(radius):\n    if radius < 0:\n        raise ValueError(radius)\n    return 3.14159 * radius**2",
    trivial_answers={
        "name": _name_of,
        "constant": lambda _: "Return the value of the given object as a new instance .",
        "empty": lambda _: "",
    },
    make_prompt=_make_prompt,
    insert_answer=_insert_answer,
    forms=(_Documented,),
    description="Says in one sentence what a Python function does, and puts it into the function as its docstring.",
    input_problem=_input_problem,
)
