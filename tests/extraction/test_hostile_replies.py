"""Extraction raises no error and is fast, whatever a model writes."""

from __future__ import annotations

import random
import time

import pytest

from bilora.extraction.code import extract_program
from bilora.extraction.docstring import extract_sentence
from bilora.extraction.insertion import insert_docstring
from bilora.extraction.requested import requested_function

LENGTH = 100_000
SECONDS = 5.0
"""Ten times the slowest case on a busy machine; quadratic time would take minutes."""
REPEATED = [
    "`", "``` x ```\n", "```\n", "```python\n", "```python\n\\\"\"\"\n```\n", "```python\n'''\\\n```\n", "~~~\n", "- ```\n",
    "<think>", "</think>\n", "<think></think>", "<|end|>\n", "# <|end|>\n", "# x ```\n", "'''", '"', "\\", " ", "\t\n",
    "(", "[", "x = (\n", 'x = ["""\n', "def f(x:\n", "def f(x): return x\n", "f()\n", "@x\n", ">>> a\n", "> ", "1. ",
    "import a\nThis is some prose here.\n", "```python\ndef f(): return g()\n```\n", "`def f(): return 1` ", "Answer: def f(x):\n",
    "&lt;", "\u201c", "\u00a0", "-x", "not ", "f'{", '{"a":[', "<pre>", "[PYTHON]\n", "Aaaa aaa ",
    "{\n", "[\n", '{"a":\n', "<|think|>", "<p>", "<a></a>", "<br>", "assert f(", "assert f(1)\n", "> > ", "- import a\n", "\\n", "[ANS]",
    "a/", "src/a.py\n", "Sure! ", "Here is: ", "\r", "\0",
]  # fmt: skip
PIECES = [
    "```", "```python\n", "~~~", "\n", "\n\n", "    ", "def f(x):", "\n    return x", "<think>", "</think>", '"""', "'''", "'",
    '"', "#", "@a\n", "(", "[", "{", ")", "]", "}", "<|end|>", "</s>", "\\", "import os\n", "class A:\n", "Here is the docstring:",
    "- ", "1. ", "> ", ">>> ", "... ", "[PYTHON]", "<pre><code>", "</code>", "x = ", "\t", "\r", "\r\n", "\0", "\ud800", "\ufeff",
    "\u00a0", "\u201c", "\u2019", "\x0c", "+", "@@", '{"code": "', "\\n", "f(1)", "assert f(1) == 2", "Answer: ", "**", "Summary: ",
    "<|channel|>final<|message|>", '<details type="reasoning">', "<answer>", "In [1]: ", "Signature: def f(x):\n",
]  # fmt: skip


def read(reply: str) -> list[str]:
    requested = requested_function(reply)
    texts = [
        extract_program(reply),
        extract_program(reply, "f", "def f(x):"),
        extract_program(reply, requested.name, requested.header),
    ]
    return [*texts, extract_sentence(reply), extract_sentence(reply, "f"), insert_docstring(reply, "Say it.").text]


@pytest.mark.parametrize("piece", REPEATED)
def test_a_hundred_thousand_characters_are_read_quickly(piece: str) -> None:
    flood = (piece * LENGTH)[:LENGTH]
    for reply, extract in ((flood, extract_sentence), (f"def f(x):\n    return x\n{flood}", extract_program)):
        start = time.process_time()
        extract(reply, "f")
        assert time.process_time() - start < SECONDS


@pytest.mark.parametrize(
    "deep",
    [
        "\n".join(" " * depth + "if x:" for depth in range(400)),
        "def f(x):\n    return " + "-" * 50_000 + "x",
        "def f(x):\n    return " + "x + " * 20_000 + "x",
        "def f(x):\n    return " + "(" * 10_000,
        "def f(x):\n    if x: pass\n" + "    elif x: pass\n" * 5_000,
    ],
)
def test_nesting_of_any_depth_is_read(deep: str) -> None:
    assert all(isinstance(text, str) for text in read(deep))


@pytest.mark.parametrize("seed", range(4))
def test_no_text_makes_extraction_fail(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(250):
        reply = "".join(draw.choices(PIECES, k=draw.randrange(1, 60)))
        assert all(isinstance(text, str) for text in read(reply))


def test_no_truncated_or_damaged_reply_makes_extraction_fail() -> None:
    whole = (
        "<think>hm\n```python\ndef f(x): ...\n```\n</think>\nSure:\n\n1. This\n   ```python title='a'\n   import os\n   def f(x):\n"
        "       '''Add.\n\n       ```\n       f(1)\n       ```\n       '''\n       return x\n   ```\n```text\n1\n```\nDone.<|end|>"
    )
    draw = random.Random(1)
    for end in range(len(whole)):
        place = draw.randrange(len(whole))
        for reply in (whole[:end], whole[end:], whole[:place] + draw.choice(PIECES) + whole[place + 1 :]):
            assert all(isinstance(text, str) for text in read(reply))
