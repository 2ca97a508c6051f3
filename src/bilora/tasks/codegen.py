"""Write a Python function from its description and one visible test."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from dataclasses import dataclass

from bilora.extraction.code import extract_program
from bilora.extraction.python import Function, is_stub
from bilora.extraction.requested import requested_function
from bilora.metrics.functional import Functional
from bilora.python_code.candidate import candidate_name, defines_check, replace_candidate
from bilora.python_code.signature import UnportableSignature, definitions, imports, prompt_signatures
from bilora.python_code.source import TOO_DEEP, normalized, parse, parse_error, tidy
from bilora.records import Drop, Row, Sample
from bilora.rows import CONTROL, Code, Lines, RowForm, Tests, Text, read_row
from bilora.sandbox.assertions import silent_test
from bilora.tasks.task import Task


@dataclass(frozen=True)
class _Exercise:
    """The common content of all row forms: a description, a reference, and its tests.

    `entry_point` names the tested function, or is empty; `helpers` is code that an answer may use.
    """

    text: str
    code: str
    tests: tuple[str, ...]
    setup: str
    entry_point: str
    helpers: str = ""


class _ExerciseForm(RowForm):
    """Base class of the row forms that this task reads."""

    def exercise(self) -> _Exercise:
        """Return the row as an exercise."""
        raise NotImplementedError


class _Tested(_ExerciseForm):
    """The common columns of MBPP's row forms."""

    code: Code
    test_list: Tests
    test_imports: Lines = ""
    test_setup_code: Lines = ""
    entry_point: Text = ""

    def _exercise(self, text: str) -> _Exercise:
        setup = "\n".join(filter(None, (self.test_imports.strip(), self.test_setup_code.strip())))
        code = self.code
        if "```" in code and parse(code) is None:  # a chat answer with fenced code
            code = _extract(code)
        return _Exercise(" ".join(text.split()), tidy(code), self.test_list, setup, self.entry_point)


class _Mbpp(_Tested):
    """A row of MBPP (Austin et al. 2021)."""

    text: Text

    def exercise(self) -> _Exercise:
        """Return the row as an exercise."""
        return self._exercise(self.text)


class _SanitizedMbpp(_Tested):
    """A row of MBPP's sanitized subset."""

    prompt: Text

    def exercise(self) -> _Exercise:
        """Return the row as an exercise."""
        return self._exercise(self.prompt)


class _HumanEval(_ExerciseForm):
    """A row of HumanEval (Chen et al. 2021): `test` defines `check(candidate)`."""

    prompt: Code
    canonical_solution: Code
    entry_point: Text
    test: Code

    def exercise(self) -> _Exercise:
        """Return the exercise; its text is the docstring, its setup is what the prompt defines before the function."""
        code = tidy(self.prompt + self.canonical_solution)
        tree = parse(code)
        text, preamble = "", []
        for node in tree.body if tree else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == self.entry_point:
                values = (part.value for part in node.body if isinstance(part, ast.Expr))
                strings = (
                    part.value for part in values if isinstance(part, ast.Constant) and isinstance(part.value, str)
                )
                text = inspect.cleandoc(next(strings, ""))  # not ast.get_docstring: in one row an import comes first
                break
            preamble.append(node)
        description = "\n".join(line for line in text.split("\n") if line.strip())
        helpers = [ast.unparse(node) for node in preamble if not isinstance(node, ast.Import | ast.ImportFrom)]
        setup = "\n".join(map(ast.unparse, preamble))
        return _Exercise(description, code, (self.test.strip(),), setup, self.entry_point, helpers="\n".join(helpers))


_FORMS: tuple[type[_ExerciseForm], ...] = (_Mbpp, _SanitizedMbpp, _HumanEval)


def _sample(row: Row) -> Sample | Drop:
    """Return the sample of a row of MBPP, of its sanitized subset, or of HumanEval, or why it is refused."""
    form = read_row(row, *_FORMS)
    if isinstance(form, Drop):
        return form
    exercise = form.exercise()
    text, target = exercise.text, exercise.code
    tree = parse(target)
    if not text:
        return Drop(rule="no description")
    if CONTROL.search(text):
        return Drop(rule="control characters", detail=text)
    if not exercise.tests:
        return Drop(rule="no tests", detail=text)
    if (silent := silent_test(exercise.tests)) is not None:
        return Drop(rule="a test that asserts nothing", detail=silent or text)
    if tree is None:
        reason = parse_error(target)
        return Drop(rule=reason if reason == TOO_DEEP else "not Python", detail=reason)
    if _extract(_answer(target)) != target:
        return Drop(rule="holds a code fence", detail=text)
    name = exercise.entry_point or candidate_name(tree, exercise.tests)
    if not name:
        return Drop(rule="first test calls no function of the code", detail=exercise.tests[0])
    if name not in definitions(tree):
        return Drop(rule="the code does not define its `entry_point`", detail=f"`entry_point` is {name}")
    setup = parse(exercise.setup)
    if setup is None:
        return Drop(rule="the setup is not Python", detail=parse_error(exercise.setup))
    if name in {*definitions(setup), *imports(setup)}:  # the tests would call the setup's function, not the answer's
        return Drop(rule="the setup defines what is tested", detail=f"the setup defines {name}")
    tests = replace_candidate(exercise.tests, name)
    try:
        head = prompt_signatures(tree, name, tests, setup=setup)
    except UnportableSignature as error:
        return Drop(rule="no signature that an answer can keep to", detail=str(error))
    helpers = f"\nGiven:\n{exercise.helpers}" if exercise.helpers else ""
    return Sample.create(
        task=TASK.name,
        prompt=f"{text}\n\nSignature: {head}{helpers}{_visible_test(tests)}",
        target=target,
        tests=tests,
        setup=exercise.setup,
        **form.labels,
    )


def _visible_test(tests: Sequence[str]) -> str:
    """Return the prompt's line with the first test; empty for a `check` function, which contains all tests."""
    return "" if defines_check(tests[0]) else f"\nMust pass: {tests[0]}"


def _hide_tests(sample: Sample) -> Sample:
    """Return the sample with the visible test removed from its prompt."""
    fields = sample.model_dump(exclude={"id", "prompt"})
    return Sample.create(prompt=sample.prompt.removesuffix(_visible_test(sample.tests)), **fields)


def _well_formed(code: str) -> bool:
    """Return whether the answer is a Python program."""
    return bool(code) and parse(code) is not None


def _answer(target: str) -> str:
    """Return the code in a fence, because some tokenizers strip leading white space of a turn."""
    return f"```python\n{target}\n```"


def _extract(text: str, prompt: str = "") -> str:
    """Return the program in a reply: the block that defines the requested function, with the blocks it needs."""
    requested = requested_function(prompt)
    return extract_program(text, requested.name, requested.header)


def _input_problem(typed: str) -> str:
    """Return a sentence if the text is finished code; a stub, or code with a comment, may be a request."""
    tree = None if "#" in typed else parse(normalized(typed).strip())
    functions = [node for node in tree.body if isinstance(node, Function)] if tree else []
    if functions and not any(map(is_stub, functions)):
        return "This is finished code, not a question; describe in words what a function should do."
    return ""


TASK = Task(
    name="codegen",
    title="Write code",
    system="You write Python functions.",
    sample=_sample,
    answer=_answer,
    extract=_extract,
    extract_for_prompt=_extract,
    metrics=(Functional(),),
    example=(
        "Write a function to keep the even numbers of a list and add them up.\n\n"
        "Signature: def sum_even(numbers):\n"
        "Must pass: assert sum_even([1, 2, 4]) == 6"
    ),
    forms=_FORMS,
    well_formed=_well_formed,
    hide_tests=_hide_tests,
    language="python",
    description="Writes a Python function from a sentence, its signature and an assert that it has to pass.",
    input_problem=_input_problem,
)
