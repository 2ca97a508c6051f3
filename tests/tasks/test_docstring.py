from __future__ import annotations

import ast
import gzip
import itertools
import json
import textwrap
from typing import Any

import pytest
from support.shared_data import shared_file

from bilora.python_code.docstrings import documented_parameters
from bilora.records import Drop, Row, Sample
from bilora.tasks.docstring import TASK, read_function, without_docstring
from bilora.tasks.task import parse

CODE = '''
def load_table(path, strict=False):
    """Read a table from a file.

    Args:
        path: where it is stored.
    """


    # keep   this
    rows = open(path).readlines()
    if strict:
        rows.remove("")
    return rows
'''
DOC = "Read a table from a file.\n\n    Args:\n        path: where it is stored.\n    "
PLACE = {"source": "here:1", "group": "g", "licence": "MIT"}


def result(code: str = CODE, docstring: str = DOC) -> Sample | Drop:
    return TASK.sample({"code": code, "docstring": docstring, **PLACE})


def make_sample(code: str = CODE, docstring: str = DOC) -> Sample:
    sample = result(code, docstring)
    assert isinstance(sample, Sample), sample
    return sample


def rule(code: str = CODE, docstring: str = DOC) -> str:
    drop = result(code, docstring)
    assert isinstance(drop, Drop), drop
    return drop.rule


def code_in(sample: Sample) -> str:
    return sample.prompt.partition("```python\n")[2].removesuffix("\n```")


def body(lines: str, head: str = "def load_table(path, strict=False):") -> str:
    return head + "\n" + textwrap.indent(textwrap.dedent(lines).strip("\n"), "    ")


def test_only_the_docstring_is_cut_out() -> None:
    assert code_in(make_sample()) == CODE.strip("\n").replace(f'    """{DOC}"""\n\n\n', "")


def test_code_without_its_docstring_is_unchanged() -> None:
    bare = code_in(make_sample())
    assert code_in(make_sample(code=bare)) == bare


def test_the_target_is_the_summary_on_one_line() -> None:
    assert make_sample(docstring="Read a table\n    from a file.\n\n    More.").target == "Read a table from a file."


@pytest.mark.parametrize("section", ["Args:\n  path: x", ":param path: x", "Parameters\n----------", ">>> f(1)"])
def test_a_section_ends_the_summary(section: str) -> None:
    assert make_sample(docstring=f"Read a table from a file.\n{section}").target == "Read a table from a file."


@pytest.mark.parametrize(
    ("docstring", "target"),
    [
        ("Read a table “quoted” – of the owner’s file…", 'Read a table "quoted" - of the owner\'s file...'),
        ("Read\u00a0a Poincaré table where x ≤ 3.", "Read a Poincaré table where x ≤ 3."),
        ("Read a table from a file.\nKeyword Args:\n    strict: no.", "Read a table from a file."),
        ("Read a table from a file.\nExample::\n\n    load_table(1)", "Read a table from a file."),
        ("Read a table of\n:class:`Table` from a file.", "Read a table of :class:`Table` from a file."),
        ("load_table\n==========\nRead a table from a file.", "Read a table from a file."),
        ("Read a table with <|user|> and {{ role }} in it.", "Read a table with <|user|> and {{ role }} in it."),
    ],
)
def test_the_target_is_prose(docstring: str, target: str) -> None:
    assert make_sample(docstring=docstring).target == target


@pytest.mark.parametrize(
    ("docstring", "remaining"),
    [
        (f'    """{DOC}"""', ""),
        (f'    """{DOC}"""  # noqa: D400', ""),
        (f"    r'''{DOC}'''", ""),
        (f'    """{DOC}"""; rows = 0', "    rows = 0\n"),
        (f'    """Lies™ {DOC}""" ; rows = 0; path = 1', "    rows = 0; path = 1\n"),
    ],
)
def test_what_follows_a_docstring_on_its_line_remains(docstring: str, remaining: str) -> None:
    whole = CODE.replace(f'    """{DOC}"""\n\n\n', f"{docstring}\n")
    assert whole != CODE
    assert code_in(make_sample(code=whole)) == CODE.strip("\n").replace(f'    """{DOC}"""\n\n\n', remaining)


def test_a_docstring_behind_the_colon_is_cut_out_too() -> None:
    parsed = read_function('def f(é): "Read a table."; a = 1; return a')
    assert parsed and without_docstring(*parsed) == "def f(é): a = 1; return a"


@pytest.mark.parametrize(
    "change",
    [
        lambda code: "\ufeff" + code,
        lambda code: code.replace("\n", "\r\n"),
        lambda code: code.replace("\n", "\r"),
        lambda code: code.replace("    ", "\t"),
        lambda code: textwrap.indent(code, "    "),
        lambda code: textwrap.indent(code, "\t"),
        lambda code: f"```python\n{code}\n```",
        lambda code: "\f" + code,
    ],
    ids=["BOM", "CRLF", "CR", "tabs", "indented", "indented by a tab", "fence", "form feed"],
)
def test_code_is_read_as_what_it_is(change: Any) -> None:
    bare = code_in(make_sample(docstring="Read a table from a file."))
    assert code_in(make_sample(code=change(CODE.strip("\n")), docstring="Read a table from a file.")) == bare


def test_a_tab_in_a_string_is_no_indentation() -> None:
    code = CODE.replace('remove("")', 'remove("a\tb")')
    assert 'remove("a\tb")' in code_in(make_sample(code=code))


@pytest.mark.parametrize("head", ["@property", "@cached(1)", "@name.setter"])
def test_a_decorated_method_cut_out_of_its_class_is_dedented(head: str) -> None:
    cut = head + "\n" + textwrap.indent(CODE.strip("\n"), "    ")
    assert code_in(make_sample(code=cut)) == f"{head}\n{code_in(make_sample())}"


@pytest.mark.parametrize("docstring", [None, ["Read", "it"], 3, {"text": "Read it."}, "Read it. \ud83d"])
def test_a_docstring_that_is_no_text_is_a_drop(docstring: object) -> None:
    sample = TASK.sample({"code": CODE, "docstring": docstring, **PLACE})
    assert isinstance(sample, Drop) and "`docstring`" in sample.rule


def test_a_method_cut_out_of_its_class_is_dedented() -> None:
    first, *others = CODE.strip("\n").split("\n")
    cut = "\n".join([first, *(f"    {line}" if line else line for line in others)])
    assert code_in(make_sample(code=cut)) == code_in(make_sample())


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Load it.", "fewer than 4 words"),
        ("word " * 41, "more than 40 words"),
        ("Read the table at http://example.org today.", "URL, markup or doctest"),
        ("Read a <b>table</b> from the file.", "URL, markup or doctest"),
        (".. deprecated:: 3.1 do not read tables", "URL, markup or doctest"),
        (">>> load_table(1)\n2", "URL, markup or doctest"),
        ("Read a table from files.\n\nTODO: more", "unfinished or generated"),
        ("Automatically generated reader of the tables.", "unfinished or generated"),
        ("'`Read a table of files.`'", "wrapped in quotes or marks of code"),
        ("# Read a table of files.", "wrapped in quotes or marks of code"),
        ("Read a \x1b[1mtable\x1b[0m of files.", "control characters"),
        ("Read a table\0 of files.", "control characters"),
        ("See the other reader of tables.", "refers elsewhere"),
        ("Same as read_csv but for tables.", "refers elsewhere"),
        ("Lies eine Tabelle und die Zeilen der Datei.", "not English"),
        ("Lit une table à partir du fichier.", "not English"),
        ("把列表中的 所有 数字 相加", "not English"),
        ("Args:\n    path: the place of the table.", "no summary before the first section"),
        ("Returns: all rows of the table.", "no summary before the first section"),
        ("[0, 1, 2, 3] ((4)) -> {5: 6} == 7 // 8", "not English"),
        ("load_table(path, strict) reads all tables.", "a restated signature"),
        ("Read a table of a file.\n\nArgs:\n    file: a file.", "parameters that the signature lacks"),
        ("Read rows = open(path).readlines() if strict: rows.remove now.", "the code shows the docstring"),
    ],
)
def test_faulty_docstrings_are_dropped(docstring: str, expected: str) -> None:
    assert rule(docstring=docstring) == expected


def test_a_short_summary_must_not_be_in_a_comment() -> None:
    assert rule(code=CODE.replace("keep   this", "read a table from a file")) == "the code shows the docstring"


def test_a_signature_in_words_is_restated() -> None:
    code = CODE.replace("load_table", "load_table_from_file")
    assert rule(code=code, docstring="Load the table from a file.") == "a restated signature"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = 1", "not a Python function"),
        ("def f(:", "not a Python function"),
        ('def f():\n    """Read a table."""', "nothing but a docstring"),
        ('def f(): """Read a table."""; return 1', "a trivial getter"),
        ("class A:\n    pass", "a class, not a function"),
        (f"{CODE}\n\n{CODE}", "more than one function"),
        (f"{CODE}\nprint(load_table(1))", "statements beside the function"),
        (f"import os\n{CODE}", "statements beside the function"),
        (f"@overload\ndef load_table(path: int): ...\n{CODE}", "overloads of a function"),
        (f"@typing.overload\ndef load_table(path: int): ...\n{CODE}", "overloads of a function"),
        (body("x = " + "-" * 999 + "1\ny = x\nreturn y"), "nested too deeply"),
        (body("a = 1\nb = 2\nc = 3", "def test_load(path):"), "a test"),
        (body("a = 1\nb = 2\nc = 3", "def __load__(path):"), "a dunder method"),
        (body("return self._table[0].rows", "def rows(self, path):"), "a trivial getter"),
        (body("a = 1\n\n# a comment\nreturn a + 1"), "a body under 3 lines"),
        (body("\n".join(f"a{n} = {n}" for n in range(500))), "more than 1200 code tokens"),
    ],
)
def test_faulty_functions_are_dropped(code: str, expected: str) -> None:
    assert rule(code=code) == expected


def test_a_parameter_may_hide_in_keywords() -> None:
    code = CODE.replace("strict=False", "**options")
    assert make_sample(code=code.replace("if strict", "if options"), docstring=DOC.replace("path:", "strict:"))


@pytest.mark.parametrize(
    "docstring",
    [
        "Do it.\n\nArgs:\n    a (int): first,\n        more: no name\n    *b: rest\nReturns:\n    c: no",
        "Do it.\n\nParameters\n----------\na, b : int\n    first: no\n\nReturns\n-------\nc : int",
        "Do it.\n\n:param int a: first\n:param b: second\n:returns: c",
    ],
)
def test_documented_parameters_are_found(docstring: str) -> None:
    assert documented_parameters(docstring) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("  Read a\n table. \n\nMore.", "Read a table."),
        ('"""Read a table."""', "Read a table."),
        ('"""\nRead a table.\n\nMore.\n"""', "Read a table."),
        ('"Read a table."', "Read a table."),
        ("`a` or `b`", "`a` or `b`"),
        ("", ""),
    ],
)
def test_the_summary_is_found_in_an_answer(text: str, summary: str) -> None:
    assert TASK.extract(text) == summary


def real_samples(name: str) -> list[tuple[Row, Sample]]:
    with gzip.open(shared_file(name), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in itertools.islice(lines, 0, None, 8)]
    results = [(row, TASK.sample({**row, **PLACE})) for row in rows]
    return [(row, sample) for row, sample in results if isinstance(sample, Sample)]


@pytest.mark.parametrize("name", ["docstrings/permissive-pairs.jsonl.gz", "codexglue/python-valid.jsonl.gz"])
def test_real_rows_give_many_honest_samples(name: str) -> None:
    pairs = real_samples(name)
    assert len(pairs) > 100
    for row, sample in pairs:
        assert TASK.extract(TASK.answer(sample.target)) == sample.target
        tree = parse(code_in(sample))
        function = tree.body[0] if tree else None
        assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        assert ast.get_docstring(function) is None
        assert "".join(sample.target.split()) not in "".join(code_in(sample).split())
        assert function.name == row["func_name"].rpartition(".")[2]


def test_the_cut_agrees_with_codexglue_without_docstrings() -> None:
    def tokens(code: str) -> list[str]:
        return code.split()

    pairs = real_samples("codexglue/python-valid.jsonl.gz")
    assert all(tokens(code_in(sample)) == tokens(row["code_no_docstring"]) for row, sample in pairs)


@pytest.mark.parametrize(("name", "text"), [("name", "load table ."), ("empty", ""), ("constant", None)])
def test_trivial_answers_know_nothing_of_the_target(name: str, text: str | None) -> None:
    trivial_answer: Any = TASK.trivial_answers[name](make_sample())
    assert trivial_answer == text if text is not None else len(trivial_answer.split()) > 4
