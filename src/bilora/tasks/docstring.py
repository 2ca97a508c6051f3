"""Describe in one sentence what a Python function does.

A training prompt must not contain its answer: the docstring is removed from the code, and a row whose code
contains eight consecutive words of it elsewhere is refused. The other rules drop rows that teach nothing.
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
from bilora.extraction.user_function import Insertion, find_function
from bilora.metrics.bleu import SmoothedBleu
from bilora.metrics.sacre import SacreMetrics
from bilora.python_code.docstrings import ascii_punctuation, documented_parameters, summary_text
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
_STOP_WORDS = {"a", "an", "the", "this", "that", "of", "to", "for", "given", "and", "is", "it"}


def _words(text: str) -> list[str]:
    """Return the lower-case words and numbers of a text."""
    return _WORD.findall(text.lower())


def _name_words(name: str) -> list[str]:
    """Return the lower-case words of a `snake_case` or `camelCase` name."""
    return [part.lower() for part in _NAME_PART.findall(name)]


def summary(docstring: str) -> str:
    """Return the text before the first blank line or section, on one line."""
    return first_paragraph(summary_text(docstring))


def read_function(code: str) -> tuple[str, Function] | None:
    """Return a function dedented and parsed, even if only its first line lost the indentation; None for other code."""
    dedented = _dedented(code)
    function = _function(dedented)
    if function is None:
        return None
    extra = function.body[0].col_offset - 4
    if extra > 0 and function.body[0].lineno > function.lineno:
        realigned = textwrap.dedent(" " * extra + dedented)
        realigned_function = None if realigned.startswith(" ") else _function(realigned)
        if realigned_function:
            return realigned, realigned_function
    return dedented, function


def _dedented(code: str) -> str:
    """Return code without common indentation: of a chat answer its code block, of a decorated method all lines."""
    fenced = _CODE_FENCE.search(code) if parse(textwrap.dedent(normalized(code))) is None else None
    text = tidy(textwrap.dedent(normalized(fenced[1] if fenced else code)).strip("\n"))
    if text.startswith("@") and parse(text) is None:
        first, _, others = text.partition("\n")
        return f"{first}\n{textwrap.dedent(others)}"
    return text


def without_docstring(code: str, function: Function) -> str | None:
    """Return the code without its docstring, otherwise unchanged; None if the body has nothing else."""
    first, *others = function.body
    if not _is_text(first):
        return code
    if not others:
        return None
    lines = code.split("\n")
    end = first.end_lineno or first.lineno
    if others[0].lineno <= end:  # a statement follows on the docstring's last line
        prefix = lines[first.lineno - 1].encode()[: first.col_offset]
        suffix = lines[end - 1].encode()[others[0].col_offset :]
        return "\n".join((*lines[: first.lineno - 1], (prefix + suffix).decode(), *lines[end:]))
    while not lines[end].strip():
        end += 1
    head = lines[first.lineno - 1].encode()[: first.col_offset].decode()
    header = [head.rstrip()] if head.strip() else []  # the docstring was on the line of the colon
    return "\n".join((*lines[: first.lineno - 1], *header, *lines[end:]))


class _DocumentedFunction(RowForm):
    """A function, whose code may contain the docstring, and the docstring."""

    code: Code
    docstring: Text


def _sample(row: Row) -> Sample | Drop:
    """Return the sample of a row with a function and its docstring, or why it is refused."""
    form = read_row(row, _DocumentedFunction)
    if isinstance(form, Drop):
        return form
    docstring = ascii_punctuation(form.docstring)
    target = summary(docstring)
    rule = _faulty_text(docstring, target)
    if rule:
        return Drop(rule=rule, detail=target)
    parsed = read_function(form.code)
    if parsed is None:
        return _no_function(form.code, target)
    code, function = parsed
    stripped = without_docstring(code, function)
    if stripped is None:
        return Drop(rule="nothing but a docstring", detail=target)
    stripped = tidy(stripped)  # a second time: tabs in the docstring prevented the replacement of all others
    rule = _faulty_code(function, stripped) or _mismatch(function, stripped, docstring, target)
    if rule:
        return Drop(rule=rule, detail=target)
    return Sample.create(task=TASK.name, prompt=question(stripped), target=target, **form.labels)


def _no_function(code: str, target: str) -> Drop:
    """Return the reason why a row's code is not exactly one function."""
    text = _dedented(code)
    tree = parse(text)
    if tree is None:
        reason = parse_error(text)
        return Drop(rule=TOO_DEEP if reason == TOO_DEEP else "not a Python function", detail=reason)
    functions = [node for node in tree.body if isinstance(node, Function)]
    if any("overload" in ast.unparse(decorator) for node in functions for decorator in node.decorator_list):
        return Drop(rule="overloads of a function", detail=target)
    if functions:
        rule = "more than one function" if len(functions) > 1 else "statements beside the function"
        return Drop(rule=rule, detail=f"{len(tree.body)} statements: {target}")
    is_class = any(isinstance(node, ast.ClassDef) for node in tree.body)
    return Drop(rule="a class, not a function" if is_class else "not a Python function", detail=target)


def question(code: str) -> str:
    """Return the prompt for a function without docstring."""
    return f"Summarize in one sentence what this function does.\n```python\n{code}\n```"


def _make_prompt(typed: str) -> str:
    """Return the prompt for a typed function, without its docstring; any other text unchanged."""
    match = find_function(typed)
    parsed = None if isinstance(match, str) else read_function(match.source)
    if parsed is None:
        return typed.strip()
    stripped = without_docstring(*parsed) or _without_first_statement(parsed[1])
    return question(stripped) if stripped else typed.strip()


def _input_problem(typed: str) -> str:
    """Return why a text contains no function to explain; empty if it does."""
    match = find_function(typed)
    return match if isinstance(match, str) else ""


def _without_first_statement(function: Function) -> str | None:
    """Return a function without its docstring, which shares a line with other statements; None if nothing remains."""
    function.body = function.body[1:]
    return ast.unparse(function) if function.body else None


def _insert_answer(typed: str, summary: str) -> Insertion:
    """Return the typed function with `summary` as its docstring, or the reason why that is impossible."""
    from bilora.extraction.insertion import insert_docstring  # libcst is a slow import, and only pages need it

    return insert_docstring(typed, summary)


def _function(code: str) -> Function | None:
    tree = parse(code)
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], Function):
        return None
    return tree.body[0]


def _faulty_text(docstring: str, target: str) -> str | None:
    """Return the rule that a docstring breaks by itself; None if there is none."""
    words = _words(target)
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
    if len(words) < _MIN_WORDS:
        return f"fewer than {_MIN_WORDS} words"
    if len(words) > _MAX_WORDS:
        return f"more than {_MAX_WORDS} words"
    return None if is_english(target) else "not English"


def _faulty_code(function: Function, code: str) -> str | None:
    """Return the rule that a function breaks by itself; None if there is none."""
    name = function.name
    if name.startswith("test") or name.endswith("_test") or name in ("setUp", "tearDown"):
        return "a test"
    if name.startswith("__") and name.endswith("__"):
        return "a dunder method"
    body = [node for node in function.body if not _is_text(node)]
    if len(body) == 1 and isinstance(body[0], ast.Return) and _is_simple(body[0].value):
        return "a trivial getter"
    header = function.body[0].lineno - 1
    statements = [line for line in code.split("\n")[header:] if line.strip() and not line.strip().startswith("#")]
    if len(statements) < _MIN_BODY_LINES:
        return f"a body under {_MIN_BODY_LINES} lines"
    if len(_TOKEN.findall(code)) > _MAX_CODE_TOKENS:
        return f"more than {_MAX_CODE_TOKENS} code tokens"
    return None


def _mismatch(function: Function, code: str, docstring: str, target: str) -> str | None:
    """Return the rule that docstring and code break together; None if there is none."""
    target_words = [word for word in _words(target) if word not in _STOP_WORDS]
    name_words = [word for word in _name_words(function.name) if word not in _STOP_WORDS]
    if target.startswith(f"{function.name}(") or target_words == name_words:
        return "a restated signature"
    arguments = function.args
    parameters = {argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    parameters.update(extra.arg for extra in (arguments.vararg, arguments.kwarg) if extra)
    if arguments.kwarg is None and not parameters.issuperset(documented_parameters(docstring)):
        return "parameters that the signature lacks"
    code_ngrams = set(_ngrams(_words(code), _LEAK_WORDS))
    all_words = _words(target)
    if any(ngram in code_ngrams for ngram in _ngrams(_words(docstring), _LEAK_WORDS)) or (
        len(all_words) < _LEAK_WORDS and tuple(all_words) in _ngrams(_words(code), len(all_words))
    ):
        return "the code shows the docstring"
    return None


def _ngrams(sequence: list[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(sequence[start:] for start in range(n)), strict=False)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_simple(value: ast.expr | None) -> bool:
    """Return whether an expression is a constant, a name, or an attribute or item of a name."""
    while isinstance(value, ast.Attribute | ast.Subscript):
        value = value.value
    return value is None or isinstance(value, ast.Constant | ast.Name)


def _answer(target: str) -> str:
    """Return the sentence unchanged."""
    return target


def _extract(text: str, prompt: str = "") -> str:
    """Return the sentence in a reply; if it contains several functions, the one for the prompt's function."""
    return extract_sentence(text, requested_function(prompt).name)


def _split_name(sample: Sample) -> str:
    match = re.search(r"def (\w+)", sample.prompt)
    return " ".join((*_name_words(match[1]), ".")) if match else ""


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
        "name": _split_name,
        "constant": lambda _: "Return the value of the given object as a new instance .",
        "empty": lambda _: "",
    },
    make_prompt=_make_prompt,
    insert_answer=_insert_answer,
    forms=(_DocumentedFunction,),
    description="Describes in one sentence what a Python function does, and inserts it as the function's docstring.",
    input_problem=_input_problem,
)
