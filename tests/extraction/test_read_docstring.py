"""The same sentence is extracted from every form of reply that models write."""

from __future__ import annotations

import gzip
import json
from itertools import islice

import pytest
from support.shared_data import shared_file

from bilora.extraction.docstring import extract_sentence, first_paragraph
from bilora.tasks.docstring import summary

SAID = "Collect the names of all open files."
GOOGLE = f'"""{SAID}\n\n    Args:\n        a: unused.\n    """'

REPLIES = {
    "plain": SAID,
    "triple quotes": f'"""{SAID}"""',
    "single triple quotes": f"'''{SAID}'''",
    "raw": f'r"""{SAID}"""',
    "opened only": f'"""{SAID}',
    "with sections": GOOGLE,
    "quoted": f'"{SAID}"',
    "curly quotes": f"\u201c{SAID}\u201d",
    "single curly quotes": f"\u2018{SAID}\u2019",
    "guillemets": f"\u00ab{SAID}\u00bb",
    "backticks": f"`{SAID}`",
    "backticks and quotes": f'`"{SAID}"`',
    "three backticks": f"```{SAID}```",
    "bold": f"**{SAID}**",
    "italic": f"*{SAID}*",
    "fence": f"```\n{SAID}\n```",
    "text fence": f"```text\n{SAID}\n```",
    "tildes": f"~~~\n{SAID}\n~~~",
    "fence, quoted": f'```\n"{SAID}"\n```',
    "fence, prose after": f"```\n{SAID}\n```\nLet me know!",
    "fence, docstring": f"```python\n{GOOGLE}\n```",
    "fence, comment": f"```python\n# {SAID}\n```",
    "lead-in": f"Here is the docstring:\n\n{SAID}",
    "lead-in, next line": f"Here's a concise summary:\n{SAID}",
    "lead-in, same line": f"Here is a one-sentence summary: {SAID}",
    "lead-in, quoted": f'Here is a one-sentence summary: "{SAID}"',
    "lead-in and fence": f"Here is a docstring for it:\n\n```python\n{GOOGLE}\n```",
    "polite": f"Sure! {SAID}",
    "polite lead-in": f"Certainly, here is the summary:\n\n{SAID}",
    "polite, twice": f"Sure!\n\nBelow is the docstring.\n\n{SAID}",
    "label": f"Summary: {SAID}",
    "label, docstring": f"Docstring: {SAID}",
    "label, bold": f"**Summary:** {SAID}",
    "label, its own line": f"**Docstring**\n\n{SAID}",
    "label, heading": f"## Summary\n\n{SAID}",
    "label, sentence": f"The docstring for this function is: {SAID}",
    "assigned": f'docstring = """{SAID}"""',
    "bullet": f"* {SAID}",
    "round bullet": f"\u2022 {SAID}",
    "number": f"1. {SAID}",
    "comment": f"# {SAID}",
    "quotation": f"> {SAID}",
    "thought": f"<think>\nIt loops.\n</think>\n\n{SAID}",
    "thought, opened by the prompt": f"It loops.\n</think>\n{SAID}",
    "thought with a fence": f"<thinking>```\nA wrong one.\n```</thinking>\n\n{SAID}",
    "channels": f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>{SAID}",
    "answer tag": f"<answer>{SAID}</answer>",
    "docstring tag": f"<docstring>\n{SAID}\n</docstring>",
    "token": f"{SAID}<|eot_id|>",
    "token of a sentence": f"{SAID}</s>",
    "next turn": f"{SAID}<|im_end|>\n<|im_start|>user\nAnd this?",
    "byte order mark": f"\ufeff{SAID}",
    "carriage returns": f"{SAID}\r\n\r\nMore.",
    "carriage returns alone": f"{SAID}\rArgs:\r    a: unused",
    "Google section": f"{SAID}\nRaises:\n    OSError: sometimes",
    "NumPy section": f"{SAID}\nOther Parameters\n----------------\na : int",
    "Sphinx section": f"{SAID}\n:param a: unused\n:rtype: list",
    "doctest": f"{SAID}\n>>> f(1)\n[]",
    "second paragraph": f"{SAID}\n\nThis function loops.",
    "two lines": "Collect the names of\n    all open files.",
    "function": f"def f(a):\n    {GOOGLE}\n    return a",
    "async function": f"async def f(a):\n    {GOOGLE}\n    return a",
    "method": f"class A:\n    def f(self):\n        {GOOGLE}\n        return 1",
    "function in a fence": f"Here it is:\n```python\nimport os\n\ndef f(a):\n    {GOOGLE}\n    return a\n```\nI added it.",
    "function, cut off": f"```python\ndef f(a):\n    {GOOGLE}\n    return (a +",
    "function at the interpreter": f'>>> def f(a):\n...     """{SAID}"""\n...     return a',
    "two functions": f'def f(a):\n    """{SAID}"""\n    return a\n\ndef g(b):\n    """Other words."""\n    return b',
    "JSON": json.dumps({"docstring": SAID, "confidence": 1}),
    "JSON in a fence": "```json\n" + json.dumps({"one_sentence_summary": SAID}) + "\n```",
    "JSON list behind a lead-in": "Here is the docstring:\n"
    + json.dumps([{"reasoning": "It loops.", "summary": SAID}]),
    "thought with pipes": f"<|think|>\nIt loops.\n<|/think|>\n{SAID}",
    "thought in capitals": f"<|START_THINKING|>It loops.<|END_THINKING|><|START_RESPONSE|>{SAID}<|END_RESPONSE|>",
    "use after it": f'```python\ndef f(a):\n    """{SAID}"""\n```\n```python\ndef main():\n    """Run it."""\n```',
    "result tag": f"<result>\n{SAID}\n</result>",
    "paragraph tag": f'<p class="x">{SAID}</p><br/>',
    "quotation of two lines": "> Collect the names of\n> all open files.",
    "revised": f"Revised docstring: {SAID}",
    "in one sentence": f"In one sentence: {SAID}",
    "too long": f"TL;DR: {SAID}",
}

PLAIN = (
    "Return the answer: 42 or None.",
    "Note: this is slow.",
    "Return a docstring: the first line.",
    "Convert a to b (see: c).",
    "Strip the <think> block of a text.",
    "<b>Bold</b> text and <i>more</i>",
    'Parse {"text": "a"} from a file.',
    "Remove </s> and <|end|> from tokens.",
    "Use `a` and `b`.",
    '"a" or "b"',
    "Add **options and *values to the call",
    "#1 of the list is returned.",
    "-1 if missing, else 0.",
    "- a -> b - c -> d",
    "Summary of the data, as a dict.",
    "It's the user's choice.",
    "Sure thing.",
    "Put ``` around code.",
    "def of a word.",
    "class of an item is returned",
    "Lit l'entr\u00e9e \u2014 \u00ab tout \u00bb.",
    "",
)


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_the_sentence_is_extracted_from_every_form(reply: str) -> None:
    assert extract_sentence(reply, "f") == SAID


@pytest.mark.parametrize("sentence", PLAIN)
def test_a_reply_that_is_only_a_sentence_is_unchanged(sentence: str) -> None:
    assert extract_sentence(sentence) == sentence


def test_without_a_name_the_last_function_is_chosen() -> None:
    assert extract_sentence(REPLIES["two functions"]) == "Other words."


def test_unclosed_reasoning_is_not_an_answer() -> None:
    assert extract_sentence(f"<think>\n{SAID}") == ""


@pytest.mark.parametrize("name", ["docstrings/permissive-pairs.jsonl.gz", "codexglue/python-valid.jsonl.gz"])
def test_real_sentences_are_unchanged(name: str) -> None:
    with gzip.open(shared_file(name), "rt", encoding="utf-8") as lines:
        sentences = [summary(json.loads(line)["docstring"]) for line in islice(lines, 0, None, 4)]
    changed = [
        sentence
        for sentence in sentences
        if sentence[:2] not in ("* ", "# ") and extract_sentence(sentence) != first_paragraph(sentence)
    ]
    assert len(sentences) > 300 and not changed
