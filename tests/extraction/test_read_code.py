"""The same function is extracted from every form of reply that models write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bilora.extraction.code import extract_program
from bilora.extraction.python import parse

CODE = "def total(xs, k=1):\n    s = 0\n    for x in xs:\n        s += x * k\n    return s"
DRAFT = "def total(xs, k=1):\n    return 0"
SHORT = "def total(xs, k=1):\n    return sum(x * k for x in xs)"
HEADER = "def total(xs, k=1):"


def indented(code: str, margin: str) -> str:
    return "\n".join(margin + line if line else line for line in code.split("\n"))


FENCES = {
    "python": f"```python\n{CODE}\n```",
    "py": f"```py\n{CODE}\n```",
    "python3": f"```python3\n{CODE}\n```",
    "capital and title": f'```Python title="total.py" linenums="1"\n{CODE}\n```',
    "space before the language": f"``` py\n{CODE}\n```",
    "attributes": f"```{{.python .numberLines}}\n{CODE}\n```",
    "file name": f"```python:src/total.py\n{CODE}\n```",
    "no language": f"```\n{CODE}\n```",
    "tildes": f"~~~~~ py3\n{CODE}\n~~~~~",
    "tildes beside backticks": f"```python\n{CODE}\n```\n~~~\n6\n~~~",
    "six backticks": f"``````Python\n{CODE}\n``````",
    "never closed": f"```python\n{CODE}",
    "never closed, prose after": f"```python\n{CODE}\n\nThis works because we add.",
    "never closed, next one opens": f"```python\n{DRAFT}\n\nHmm, wrong. Better:\n\n```python\n{CODE}\n```",
    "closed only": f"{CODE}\n```",
    "closed only, prose after": f"{CODE}\n```\nThis function multiplies and adds.",
    "closed only, example after": f"{CODE}\n```\nExample:\n```python\nassert total([1]) == 3\n```",
    "closed at the end of a line": f"```python\n{CODE}```\nIt adds.\n```\n6\n```",
    "prose behind the closing fence": f"```python\n{CODE}\n``` This adds.",
    "code behind the opening fence": "```python def total(xs, k=1):\n    return sum(x * k for x in xs)\n```",
    "one line": "```def total(xs, k=1): return sum(x * k for x in xs)```",
    "one line with language": "```py def total(xs, k=1): return sum(x * k for x in xs)```",
    "language on the next line": f"```\npython3\n{CODE}\n```",
    "empty block first": f"```\n```\n```py\n{CODE}\n```",
    "list item": f"1. First:\n\n    ```python\n{indented(CODE, '    ')}\n    ```\n2. Done",
    "list mark on the fence's line": f"- ```python\n{indented(CODE, '  ')}\n  ```",
    "tabs before a list's block": f"1.\tFirst\n\t```python\n{indented(CODE, chr(9))}\n\t```",
    "indented fence, flush code": f"   ```python\n{CODE}\n   ```",
    "quotation": "> Here:\n> ```python\n" + "\n".join(f"> {line}" for line in CODE.split("\n")) + "\n> ```",
    "in a Markdown block": f"````markdown\n# Title\n```python\n{CODE}\n```\n````",
    "in a Markdown block of equal fences": f"```md\nHi\n```python\n{CODE}\n```\n```",
    "fences in the docstring": (
        "```python\ndef total(xs, k=1):\n    '''Add.\n\n```python\ntotal([1])\n```\n\n~~~\nx\n~~~\n\n```\ntotal([2])\n```\n"
        "    '''\n    return sum(x * k for x in xs)\n```\nUsage:\n```python\nprint(total([1]))\n```"
    ),
    "fences in the docstring, none outside": (
        'Here:\n\ndef total(xs, k=1):\n    """Add.\n\n```python\ntotal([1])\n```\n    """\n'
        "    return sum(x * k for x in xs)\n\nBye."
    ),
    "fence in a string": f'```python\nT = """\n```\n"""\n{CODE}\n```',
    "backticks in comments": "```python\ndef total(xs, k=1):\n    # ends in ```\n    return sum(x * k for x in xs)  # ```\n```",
    "triple backticks in a sentence": f"Use ```total``` like so:\n```python\n{CODE}\n```",
    "spans before code without fence": f"I use ```for x in xs``` and `sum`.\n\n{CODE}\n\nDone with ```total```.",
    "carriage returns and newlines": f"```python\n{CODE}\n```".replace("\n", "\r\n"),
    "carriage returns alone": f"```python\n{CODE}\n```".replace("\n", "\r"),
}
BLOCKS = {
    "shell first": f"Install nothing:\n```sh\npip list\n```\nThen:\n```python\n{CODE}\n```",
    "console and output around": f"```console\n$ python total.py\n```\n```python\n{CODE}\n```\n```text\n6\n```",
    "output without language after": f"```python\n{CODE}\n```\nOutput:\n```\n6\n```",
    "another language": f"```javascript\nfunction total(xs) {{}}\n```\n```python\n{CODE}\n```",
    "example first": f"Since\n```python\nassert total([1]) == 1\n```\nwe write\n```python\n{CODE}\n```",
    "example last": f"```python\n{CODE}\n```\nTest:\n```python\nfrom mod import total\nassert total([1]) == 2\n```",
    "signature first": f"Given\n```python\n{HEADER}\n```\nwe write\n```python\n{CODE}\n```",
    "stub first": f"```python\n{HEADER}\n    '''Doc.'''\n    ...\n```\n```python\n{CODE}\n```",
    "stub last": f"```python\n{CODE}\n```\nSignature:\n```python\n{HEADER} ...\n```",
    "unwritten last": f"```python\n{CODE}\n```\n```python\n{HEADER}\n    raise NotImplementedError('x')\n```",
    "corrected": f"```python\n{DRAFT}\n```\nWait, that is wrong:\n```python\n{CODE}\n```",
    "corrected twice": f"```python\n{DRAFT}\n```\n```python\n{DRAFT}\n```\n```python\n{CODE}\n```",
    "corrected without fence": f"```python\n{DRAFT}\n```\nWait, it should be:\n\n{CODE}",
    "class first": f"```python\nclass Solution:\n    def total(self, xs): return 0\n```\nor\n```python\n{CODE}\n```",
    "diff before": f"```diff\n-    return 0\n+    return s\n```\n```python\n{CODE}\n```",
    "diff after": f"```python\n{CODE}\n```\nLater:\n```diff\n-{HEADER}\n+{HEADER}\n+    return 0\n```",
    "imports apart": (
        "```python\nfrom functools import reduce\n```\n\nThen\n\n```python\ndef total(xs, k=1):\n"
        "    return reduce(lambda a, b: a + b * k, xs, 0)\n```"
    ),
    "helper before": f"```python\ndef h(x, k):\n    return x * k\n```\n```python\n{SHORT.replace('x * k', 'h(x, k)')}\n```",
    "helper after": (
        f"```python\n{HEADER}\n    return helper(xs, k)\n```\nwith\n```python\nimport math\n\ndef helper(xs, k):\n"
        "    return math.fsum(x * k for x in xs)\n```"
    ),
    "constant, class and function": (
        "```python\nK = 1\n```\n```python\nclass Sum:\n    def __init__(self): self.v = 0\n    def add(self, x): self.v += x * K\n"
        f"```\n```python\n{HEADER}\n    a = Sum()\n    for x in xs: a.add(x * k)\n    return a.v\n```"
    ),
    "helper beside a failing draft": (
        f"```python\ndef h(x, k): return x * k\n{HEADER} return 1/0\nassert total([1]) == 1\n```\nBetter:\n"
        f"```python\n{SHORT.replace('x * k', 'h(x, k)')}\n```"
    ),
    "helper before imports of the future": (
        "```python\ndef h(x, k):\n    return x * k\n```\n```python\nfrom __future__ import annotations\n\n"
        f"{SHORT.replace('x * k', 'h(x, k)')}\n```"
    ),
    "what a call of it gave, last": f"```python\n{CODE}\n```\n```python\ntotal = total([1, 2])\nprint(total)\n```",
    "a loop over its name, last": f"```python\n{CODE}\n```\n```python\nfor total in [1]:\n    pass\n```",
    "test function last": f"```python\n{CODE}\n```\n```python\ndef test_total():\n    assert total([1]) == 5\n```",
    "lambda": "```python\ntotal = lambda xs, k=1: sum(x * k for x in xs)\n```",
    "another name for it": f"```python\n{SHORT.replace('total', 'add_all')}\n\ntotal = add_all\n```",
    "main guard": f'```python\n{CODE}\n\nif __name__ == "__main__":\n    print(total([1]))\n```',
    "prints": f"```python\n{CODE}\n\nprint(total([1]))\n```",
}
THOUGHTS = {
    "draft": f"<think>\nMaybe\n```python\n{DRAFT}\n```\nno.\n</think>\n\n```python\n{CODE}\n```",
    "draft after the answer": f"```python\n{CODE}\n```\n<think>\nOr\n```python\n{DRAFT}\n```\n</think>",
    "empty": f"<think>\n\n</think>\n\n{CODE}",
    "thinking": f"<thinking>\n```python\n{DRAFT}\n```\n</thinking>\n{CODE}",
    "opened by the prompt": f"Let me see\n```python\n{DRAFT}\n```\nok\n</think>\n```python\n{CODE}\n```",
    "opened by the prompt, open fence": f"Let me see\n```python\n{DRAFT}\n</think>\n```python\n{CODE}\n```",
    "two": f"<think>a</think>\n<think>\n```\n{DRAFT}\n```\n</think>\n{CODE}",
    "nested": f"<think>a <think>b</think> c\n```python\n{DRAFT}\n```\n</think>\n\n```python\n{CODE}\n```",
    "brackets": f"[THINK]{DRAFT}[/THINK]{CODE}",
    "triangles": f"\u25c1think\u25b7{DRAFT}\u25c1/think\u25b7\n{CODE}",
    "channels": (
        f"<|channel|>analysis<|message|>```python\n{DRAFT}\n```<|end|><|start|>assistant<|channel|>final<|message|>"
        f"```python\n{CODE}\n```<|return|>"
    ),
    "thought and solution": (
        f"<|begin_of_thought|>\n```python\n{DRAFT}\n```\n<|end_of_thought|>\n<|begin_of_solution|>\n{CODE}\n<|end_of_solution|>"
    ),
    "reasoning and answer": f"<reasoning>{DRAFT}</reasoning>\n<answer>\n{CODE}\n</answer>",
    "details": f'<details type="reasoning" done="true">\n```python\n{DRAFT}\n```\n</details>\n```python\n{CODE}\n```',
    "pipes": f"<|think|>\n```python\n{DRAFT}\n```\n<|/think|>\n```python\n{CODE}\n```",
    "pipes around reasoning": f"<|reasoning|>{DRAFT}<|/reasoning|>\n{CODE}",
    "capitals and pipes": (
        f"<|START_THINKING|>\n```python\n{DRAFT}\n```\n<|END_THINKING|>\n<|START_RESPONSE|>\n{CODE}\n<|END_RESPONSE|>"
    ),
    "after the answer, with pipes": f"```python\n{CODE}\n```\n<|START_THINKING|>\n```python\n{DRAFT}\n```\n<|END_THINKING|>",
    "pipes in a string": (
        "```python\ndef total(xs, k=1):\n    marks = '<|think|>', '<|/think|>'\n    return sum(x * k for x in xs)\n```\n<|think|> it."
    ),
    "spoken of in a string": (
        "```python\nimport re\ndef total(xs, k=1):\n    re.sub(r'<think>.*?</think>', '', 'a')\n"
        "    return sum(x * k for x in xs)\n```\nThis strips <think> tags."
    ),
}
TOKENS = {
    "end of a text": f"{CODE}<|end|>",
    "end of a sentence": f"{CODE}</s>",
    "end behind a block": f"```python\n{CODE}\n```<\uff5cend\u2581of\u2581sentence\uff5c>",
    "end in a block": f"```python\n{CODE}<|endoftext|>",
    "next turn": f"```python\n{CODE}\n```<|im_end|>\n<|im_start|>user\nNow:\n```python\n{DRAFT}\n```",
    "header": f"<|start_header_id|>assistant<|end_header_id|>\n\n```python\n{CODE}\n```<|eot_id|>",
    "in strings": (
        '```python\ndef total(xs, k=1):\n    t = \'<|im_end|>\'\n    u = """\n<|im_start|>user\nhi<|im_end|>\n"""\n'
        "    return sum(x * k for x in xs)\n```\nok"
    ),
}
PROSE = {
    "before": f"Here is the function:\n\n{CODE}",
    "after": f"{CODE}\n\nThis function adds.",
    "between": (
        "First a helper:\n\ndef h(x, k):\n    return x * k\n\nNow the function itself:\n\n"
        f"{SHORT.replace('x * k', 'h(x, k)')}\n\nIt is O(n)."
    ),
    "between import and function": (f"import math\n\nWe use fsum here.\n\n{SHORT.replace('sum', 'math.fsum')}"),
    "around decorators": (
        "Sure!\n\nfrom functools import wraps\n\ndef deco(f):\n    @wraps(f)\n    def g(*a):\n        return f(*a)\n"
        f"    return g\n\n@deco\n{SHORT}\n\nHope this helps."
    ),
    "around brackets": "Here:\ndef total(\n    xs,\n    k=1,\n):\n    return sum(\n        x * k\n        for x in xs\n    )\nDone.",
    "headings": f"## Final answer\n\n{CODE}\n\n## Complexity\n\n- O(n) time\n- O(1) space",
    "bullets": f"{CODE}\n\n- It loops.\n- It adds.\n* done\n1. one",
    "sentences that begin like code": (
        "With this approach, we add.\nFor example (see below):\nfrom the list we take each.\n\n"
        f"{CODE}\n\nfor each item we multiply and add.\nif the list is empty it returns 0.\nimport it from your module."
    ),
    "indented code": f"The code:\n\n{indented(CODE, '    ')}\n\nThat is it.",
    "usage after": f"{CODE}\n\nExample usage:\ntotal([1, 2, 3])  # 6\n\nOutput:\n6",
    "doctest after": f"{CODE}\n\n>>> total([1])\n1",
    "formula before": f"$$s=\\sum x$$\n\n{CODE}\n\n\\boxed{{total}}",
    "label": f"Solution: {CODE}",
    "sentence on its line": f"Sure, I can help. {CODE}",
    "list item without a fence": "- " + CODE.replace("\n", "\n  "),
    "imports that are tried": (
        "Here:\n\ntry: import nothing_like_it\nexcept ImportError: import math\n\n"
        f"{SHORT.replace('sum', 'math.fsum')}\n\nDone."
    ),
    "quotation without a fence": "Answer:\n\n" + indented(CODE, "> ") + "\n\nEnd.",
    "wrong one quoted": f"{CODE}\n\ninstead of\n\n" + indented(DRAFT, "> ") + "\n",
    "quotation in a quotation": "> > ```python\n" + indented(CODE, "> > ") + "\n> > ```",
    "tags in the docstring": (
        "Here:\n\ndef total(xs, k=1):\n    '''Add <code>xs</code>.\n    <pre>\n    x\n    </pre>\n    '''\n"
        "    return sum(x * k for x in xs)\n\nBye."
    ),
    "bold label": f"**Answer:** {CODE}",
}
WRAPPERS = {
    "PYTHON": f"[PYTHON]\n{CODE}\n[/PYTHON]",
    "BEGIN and DONE": f"[BEGIN]\n{CODE}\n[DONE]",
    "CODE": f"[CODE]\n{CODE}\n[/CODE]\nbye",
    "pre and code": f'<pre><code class="language-python">{CODE}\n</code></pre>',
    "pre": f"<p>Here</p>\n<pre>\n{CODE}\n</pre>",
    "entities": f"<pre><code>{HEADER}\n    if 1 &lt; 2 and k &gt; 0:\n        return sum(x * k for x in xs)\n</code></pre>",
    "LaTeX": f"\\begin{{lstlisting}}[language=Python]\n{CODE}\n\\end{{lstlisting}}",
    "JSON": '{"code": "def total(xs, k=1):\\n    return sum(x * k for x in xs)"}',
    "JSON in a block": '```json\n{"solution": "def total(xs, k=1):\\n    return sum(x * k for x in xs)"}\n```',
    "a block in JSON": '{"answer": "```python\\ndef total(xs, k=1):\\n    return sum(x * k for x in xs)\\n```", "n": 1}',
    "JSON with a list of lines": json.dumps({"cells": [{"source": [f"{line}\n" for line in CODE.split("\n")]}]}),
    "JSON within JSON": json.dumps({"name": "write", "arguments": {"file": "total.py", "code": CODE}}),
    "JSON list": json.dumps([{"python_code": CODE}]),
    "JSON in prose": f"Here:\n{json.dumps({'thought': DRAFT, 'code': CODE})}\nDone.",
    "JSON in a tag": f"<tool_call>\n{json.dumps({'arguments': {'code': CODE}})}\n</tool_call>",
    "one string": repr(CODE),
    "string with three quotes": f"'''\n{CODE}\n'''",
    "escaped line ends": CODE.replace("\n", "\\n"),
    "line breaks": "<pre>" + CODE.replace("\n", "<br>") + "</pre>",
    "coloured": f'<pre><span class="k">def</span> <span>total</span>(xs, k=1):{CODE.removeprefix(HEADER)}\n</pre>',
    "result tag": f"<result>{CODE}</result>",
    "ANS": f"[ANS]{CODE}[/ANS]",
    "file name in the block": f"```python\nsrc/total.py\n{CODE}\n```",
    "file name first": f"total.py\n{CODE}",
    "empty cell number": "In [ ]: def total(xs, k=1):\n   ...:     return sum(x * k for x in xs)",
    "lettered line numbers": "\n".join(f"L{n}: {line}" for n, line in enumerate(CODE.split("\n"), 1)),
    "full width": f"```python\n{CODE.replace('(', chr(0xFF08)).replace(':', chr(0xFF1A)).replace(',', chr(0xFF0C))}\n```",
    "minus sign": f"```python\n{CODE.replace('s = 0', 's = 1 ' + chr(0x2212) + ' 1')}\n```",
    "interpreter": ">>> import math\n>>> def total(xs, k=1):\n...     return math.fsum(x * k for x in xs)\n... \n>>> total([1])\n1.0\n",
    "interpreter in a block": "```pycon\n>>> def total(xs, k=1):\n...     return sum(x * k for x in xs)\n>>> total([1])\n1\n```",
    "IPython": "In [1]: def total(xs, k=1):\n   ...:     return sum(x * k for x in xs)\n   ...: \n\nIn [2]: total([1])\nOut[2]: 1",
    "line numbers": "```\n" + "\n".join(f"{n:3} {line}" for n, line in enumerate(CODE.split("\n"), 1)) + "\n```",
    "diff": "```diff\n" + "\n".join(f"+{line}" for line in CODE.split("\n")) + "\n```",
    "diff with context": f"```diff\n--- a\n+++ b\n@@ -1,2 +1,2 @@\n {HEADER}\n-    return 0\n+    return sum(x * k for x in xs)\n```",
    "indentation": indented(CODE, "\t"),
    "byte order mark": f"\ufeff```python\n{CODE}\n```",
    "zero-width space": f"\u200b{CODE}",
    "non-breaking spaces": "```python\n" + CODE.replace(" ", "\u00a0") + "\n```",
    "wide spaces": CODE.replace("    ", "\u2003\u2003"),
    "typographic quotes": CODE.replace("s = 0", "s = len(\u2018\u2019)"),
}
ALL = {
    f"{kind}: {name}": reply
    for kind, table in {
        "fence": FENCES, "blocks": BLOCKS, "thought": THOUGHTS, "token": TOKENS, "prose": PROSE, "wrapper": WRAPPERS,
    }.items()
    for name, reply in table.items()
}  # fmt: skip
BODIES = {
    "block": "```python\n    return sum(x * k for x in xs)\n```",
    "flush": "s = 0\nfor x in xs:\n    s += x * k\nreturn s",
    "first line flush": "s = 0\n    for x in xs:\n        s += x * k\n    return s",
    "prose around": "The body is:\n```python\nreturn sum(x * k for x in xs)\n```",
}


def works(code: str) -> bool:
    space: dict[str, Any] = {"__name__": "answer"}
    exec(code, space)
    return bool(space["total"]([1, 2, 3]) == 6 and space["total"]([1, 2], 3) == 9)


@pytest.mark.parametrize("reply", ALL.values(), ids=ALL)
def test_the_requested_function_is_extracted_from_every_form(reply: str) -> None:
    assert works(extract_program(reply, "total", HEADER))


@pytest.mark.parametrize("reply", ALL.values(), ids=ALL)
def test_it_is_extracted_without_its_name(reply: str) -> None:
    assert works(extract_program(reply))


@pytest.mark.parametrize("reply", BODIES.values(), ids=BODIES)
def test_a_function_body_gets_the_requested_signature(reply: str) -> None:
    assert works(extract_program(reply, "total", HEADER))
    assert "def" not in extract_program(reply)


def test_a_body_does_not_replace_the_function() -> None:
    assert extract_program(f"```python\n{CODE}\n```\nor\n```python\n    return sum(xs)\n```", "total", HEADER) == CODE


def test_another_function_does_not_get_the_requested_signature() -> None:
    assert extract_program("def other(x):\n    return x", "total", HEADER) == "def other(x):\n    return x"


@pytest.mark.parametrize(
    "reply", [f"<think>\n```python\n{CODE}\n```", f"<thinking>{CODE}", f"```python\n{CODE}\n```\n</think>\n"]
)
def test_code_in_reasoning_is_not_an_answer(reply: str) -> None:
    assert extract_program(reply, "total", HEADER) == ""


@pytest.mark.parametrize("end", ["assert total([1]) == 3", "n = int(input())", "print(total(", "total([1]) +"])
def test_the_end_of_the_block_belongs_to_the_answer(end: str) -> None:
    assert extract_program(f"```python\n{CODE}\n\n{end}\n```", "total") == f"{CODE}\n\n{end}"


def test_a_broken_definition_is_included() -> None:
    broken = f"def helper(x:\n    return x\n\n{CODE}"
    assert parse(extract_program(f"Here:\n\n{broken}", "total")) is None


@pytest.mark.parametrize(
    "program",
    [
        'def total(xs):\n    """Add.\n\n    ```\n    total([1])\n    ```\n    """\n    return sum(xs)',
        "def total(xs):\n    return sum(xs)\n\nHELP = '''\n```python\ntotal([1])\n```\n'''",
        "def total(xs):\n    r'''Add.\n```\n'''\n    return sum(xs)\n\nprint(1)",
    ],
)
@pytest.mark.parametrize("around", ["```python\n{}\n```", "Here:\n```\n{}\n```\nDone.", "```py\n{}\n```\n```\n1\n```"])
def test_a_fence_in_a_string_does_not_end_the_block(program: str, around: str) -> None:
    assert extract_program(around.format(program), "total") == program


def test_the_name_decides_between_two_functions() -> None:
    other = "def mean(xs):\n    return sum(xs) / len(xs)"
    reply = f"```python\n{CODE}\n```\nand, by the way,\n```python\n{other}\n```"
    assert extract_program(reply, "total") == CODE
    assert extract_program(reply) == extract_program(reply, "mean") == other


def test_a_method_is_not_the_requested_function() -> None:
    with pytest.raises(KeyError, match="total"):
        works(
            extract_program(
                "```python\nclass Solution:\n    def total(self, xs, k=1):\n        return sum(xs)\n```", "total"
            )
        )


def test_a_complete_program_is_unchanged() -> None:
    program = "import os\n\n\n# why\ndef total(xs):\n    return sum(xs)  # <|end|>\n\nprint('```')"
    assert extract_program(program, "total") == program
    assert extract_program(f"```python\n{program}\n```", "total") == program
