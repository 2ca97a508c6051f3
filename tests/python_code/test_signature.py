from __future__ import annotations

import ast
import textwrap

import pytest

from bilora.python_code.signature import UnportableSignature, called_name, definitions, prompt_signatures


def signature(code: str, *tests: str) -> str:
    tree = ast.parse(textwrap.dedent(code))
    name = called_name(tree, tests[0])
    assert name is not None
    return prompt_signatures(tree, name, tests)


@pytest.mark.parametrize(
    ("code", "test", "expected"),
    [
        ("def f(a, *b, c=1, **d): pass", "assert f(1)", "def f(a, *b, c=1, **d):"),
        ("def f(a: int, b: 'list[str]' = None) -> int: pass", "assert f(1)", "def f(a: int, b: 'list[str]'=None):"),
        ("async def f(a): pass", "assert asyncio.run(f(1)) == 1", "async def f(a):"),
        ("f = lambda a, b=2: a", "assert f(1)", "def f(a, b=2):"),
        ("f: object = lambda a: a", "assert f(1)", "def f(a):"),
        ("def g(a, b, c=3): pass\nf = g", "assert f(1)", "def f(a, b, c=3):"),
        ("def g(a, b, c=3): pass\nf = functools.partial(g, 1)", "assert f(1)", "def f(b, c=3):"),
        ("def g(a, b=2, c=3): pass\nf = partial(g, 1, 2)", "assert f(1)", "def f(c=3):"),
        ("if True:\n    def f(a): pass\nelse:\n    f = None", "assert f(1)", "def f(a):"),
        ("try:\n    from m import f\nexcept ImportError:\n    def f(a): pass", "assert f(1)", "def f(a):"),
        ("try:\n    import re\n    def f(a): pass\nexcept ImportError:\n    raise", "assert f(1)", "def f(a):"),
        ("try:\n    x = 1\nfinally:\n    def f(a): pass", "assert f(1)", "def f(a):"),
        ("with x:\n    def f(a): pass", "assert f(1)", "def f(a):"),
        ("@functools.lru_cache(None)\ndef f(a): pass", "assert f(1)", "def f(a):"),
        ("def f(a): pass\ndef f(a, b): pass", "assert f(1)", "def f(a, b):"),
        ("def f(a): pass\nif __name__ == '__main__':\n    f = 1", "assert f(1)", "def f(a):"),
        ("def f(a): pass", "assert list(map(f, [1])) == [1]", "def f(a):"),
    ],
)
def test_the_signature_is_that_of_the_called_name(code: str, test: str, expected: str) -> None:
    assert signature(code, test) == expected


@pytest.mark.parametrize(
    ("annotation", "written"),
    [
        ("List[int]", ": list[int]"),
        ("typing.Dict[str, typing.List[int]]", ": dict[str, list[int]]"),
        ("Optional[int]", ": int | None"),
        ("Union[int, List[str], None]", ": int | list[str] | None"),
        ("List[Any]", ": list"),
        ("Tuple[int, ...]", ": tuple[int, ...]"),
        ("'Node'", ": 'Node'"),
        ("Optional['Node']", ""),
        ("Any", ""),
        ("Callable[[int], int]", ""),
        ("Node", ""),
        ("Text", ""),
        ("List[Node]", ": list"),
        ("np.ndarray", ""),
        ("int | Node", ""),
        ("float | None", ": float | None"),
    ],
)
def test_annotations_use_only_builtins_or_are_omitted(annotation: str, written: str) -> None:
    code = f"from typing import *\nclass Node: pass\nclass Text: pass\ndef f(a: {annotation}, *b: {annotation}): pass"
    text = signature(code, "assert f(1)")
    assert text == f"def f(a{written}, *b{written}):"
    exec(text + " pass", {})


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("EPS = 600\ndef f(a, eps=EPS): pass", "def f(a, eps=600):"),
        ("LOW, HIGH = 1, 2\nMOST = [1, 2]\ndef f(a, *, most=MOST): pass", "def f(a, *, most=[1, 2]):"),
        ("EPS = 2\ndef f(a, eps=-EPS * 3): pass", "def f(a, eps=-2 * 3):"),
        ("import math\ndef f(a, eps=math.inf): pass", "import math\ndef f(a, eps=math.inf):"),
        ("from math import inf as most\ndef f(a, eps=most): pass", "from math import inf as most\ndef f(a, eps=most):"),
        ("def f(a, key=lambda x: x): pass", "def f(a, key=lambda x: x):"),
        ("def f(a, kind=int): pass", "def f(a, kind=int):"),
    ],
)
def test_a_default_needs_nothing_that_an_answer_lacks(code: str, expected: str) -> None:
    assert signature(code, "assert f(1)") == expected
    exec(expected + " pass", {})


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def help(x): pass\ndef f(a, key=help): pass", "needs help"),
        ("NOTHING = object()\ndef f(a, b=NOTHING): pass", "needs NOTHING"),
        ("def g(a, b): pass\nf = partial(g, b=1)", "f is partial(g, b=1), whose parameters the code does not show"),
        ("def g(a, b): pass\nf = wrapped(g)", "f is wrapped(g)"),
        ("def f(a, b=unknown): pass", "needs unknown"),
    ],
)
def test_a_signature_that_an_answer_cannot_copy_is_reported(code: str, reason: str) -> None:
    with pytest.raises(UnportableSignature) as caught:
        signature(code, "assert f(1)")
    assert reason in str(caught.value)


STACK = """
from dataclasses import dataclass

@dataclass
class Point:
    x: int
    y: List[int]

class Colour(Enum):
    RED = 1

class Stack(list):
    size = 3
    def __init__(self, items: List[int] = ()):
        self.items = items
    @property
    def top(self):
        return self.items[-1]
    @staticmethod
    def made(n): return Stack()
    async def push(self, x): pass
    def _hidden(self): pass

def move(point, by=1): pass
"""


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (
            "assert Stack().push(1) == [1]",
            """
            class Stack(list):
                size = 3
                def __init__(self, items: list[int]=()):
                @property
                def top(self):
                @staticmethod
                def made(n):
                async def push(self, x):
            """,
        ),
        (
            "assert move(Point(1, 2)).x == 3",
            """
            from dataclasses import dataclass
            def move(point, by=1):
            @dataclass
            class Point:
                x: int
                y: list[int]
            """,
        ),
    ],
)
def test_a_class_is_shown_by_its_methods_and_fields(test: str, expected: str) -> None:
    assert signature(STACK, test) == textwrap.dedent(expected).strip()


def test_a_base_class_that_an_answer_lacks_is_reported() -> None:
    with pytest.raises(UnportableSignature, match="needs Enum"):
        signature(STACK, "assert Colour(1).name == 'RED'")


def test_only_definitions_that_a_test_needs_are_shown() -> None:
    code = "LIMIT = 9\ndef helper(x): pass\ndef f(a): return helper(a)\ndef inverse(a): pass"
    assert signature(code, "assert f(1)", "assert f(inverse(2)) < LIMIT") == "def f(a):\nLIMIT = 9\ndef inverse(a):"


def test_definitions_in_the_setup_are_omitted() -> None:
    tree = ast.parse("class Node: pass\ndef f(a): pass")
    assert prompt_signatures(tree, "f", ["assert f(Node())"], setup=ast.parse("class Node: pass")) == "def f(a):"


@pytest.mark.parametrize("test", ["assert other(1)", "assert f(", "f = 1\nprint(f)", "assert True"])
def test_a_test_that_uses_nothing_of_the_code_names_nothing(test: str) -> None:
    assert called_name(ast.parse("def f(a): pass"), test) is None


def test_nested_definitions_do_not_count() -> None:
    assert list(definitions(ast.parse("def f():\n    def g(): pass\nclass A:\n    def h(self): pass"))) == ["f", "A"]
