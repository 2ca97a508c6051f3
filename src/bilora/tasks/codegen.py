"""Write a Python function from its description and one visible test."""

from __future__ import annotations

import ast

from bilora.extraction import code as replies
from bilora.extraction.asked import asked_function
from bilora.metrics.functional import Functional
from bilora.records import Drop, Row, Sample
from bilora.tasks.task import Task, parse


def tidy(code: str) -> str:
    """Use \\n, four spaces for a tab, no trailing blanks, where that leaves the program as it was."""
    plain = code.replace("\r\n", "\n").replace("\r", "\n").strip("\n").rstrip()
    clean = "\n".join(map(_clean, plain.split("\n")))
    if clean == plain:
        return plain
    before, after = parse(plain), parse(clean)
    return clean if before and after and ast.dump(before) == ast.dump(after) else plain


def _clean(line: str) -> str:
    text = line.lstrip(" \t")
    return (line[: len(line) - len(text)].expandtabs(4) + text).rstrip()


def signature(tree: ast.Module, test: str) -> str | None:
    """Return the `def` line of the function that the test calls, or None."""
    asked = parse(test)
    if asked is None:
        return None
    called = {
        node.func.id for node in ast.walk(asked) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in called:
            return f"def {node.name}({ast.unparse(node.args)}):"
    return None


def sample(row: Row) -> Sample | Drop:
    """Read a row of MBPP's shape: `text` (or `prompt`), `code`, `test_list`, `test_setup_code`."""
    text = " ".join((row["text"] if "text" in row else row["prompt"]).split())
    tests = tuple(test.replace("\r\n", "\n").strip() for test in row["test_list"])
    target = tidy(row["code"])
    tree = parse(target)
    if not text:
        return Drop(rule="no description")
    if not tests:
        return Drop(rule="no tests", detail=text)
    if tree is None:
        return Drop(rule="not Python", detail=text)
    if "```" in target:
        return Drop(rule="holds a code fence", detail=text)
    head = signature(tree, tests[0])
    if head is None:
        return Drop(rule="first test calls no function of the code", detail=tests[0])
    return Sample.create(
        task=TASK.name,
        prompt=f"{text}\n\nSignature: {head}{_shown(tests[0])}",
        target=target,
        tests=tests,
        setup=row.get("test_setup_code", "").replace("\r\n", "\n").strip(),
        source=row["source"],
        group=row["group"],
        licence=row["licence"],
        tier=row.get("tier", ""),
        split=row.get("split"),
    )


def _shown(test: str) -> str:
    return f"\nMust pass: {test}"


def hide_tests(shown: Sample) -> Sample:
    """Ask for the same function without the test that the prompt shows."""
    rest = shown.model_dump(exclude={"id", "prompt"})
    return Sample.create(prompt=shown.prompt.removesuffix(_shown(shown.tests[0])), **rest)


def well_formed(code: str) -> bool:
    """Whether the answer is a Python program at all."""
    return bool(code) and parse(code) is not None


def answer(target: str) -> str:
    """Fence the code: some tokenizers strip white space at the start of a turn."""
    return f"```python\n{target}\n```"


def extract(text: str, prompt: str = "") -> str:
    """Return the program of a reply: the block that defines the asked function, with the blocks it needs."""
    asked = asked_function(prompt)
    return replies.extract(text, asked.name, asked.header)


TASK = Task(
    name="codegen",
    title="Write code",
    system="You write Python functions.",
    sample=sample,
    answer=answer,
    extract=extract,
    extract_asked=extract,
    metrics=(Functional(),),
    example=(
        "Write a function to add up the even numbers of a list.\n\n"
        "Signature: def sum_even(numbers):\n"
        "Must pass: assert sum_even([1, 2, 4]) == 6"
    ),
    well_formed=well_formed,
    hide_tests=hide_tests,
    language="python",
)
