"""Whether a person's correction reaches its training row whole.

A task's `extract` looks for an answer in what a model wrote, and may leave text out: prose around a code block,
a second block, a docstring's second paragraph. In a model's answer that is what one wants; a person who wrote
something meant it. So a correction is taken only if nothing but its wrapping is lost: fences around code,
thinking before it, quotes around a sentence, and white space around all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bilora.python_code.source import normalized
from bilora.tasks.task import Task

_THINKING = re.compile(r"\A\s*<(think|thinking)>.*?</\1>", re.DOTALL)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)")
_QUOTED = re.compile(r"""[rRuU]?(\"{3}|'{3}|["'`])(.*)\1""", re.DOTALL)


def is_empty(edited: str) -> bool:
    """Whether nothing is left of a correction without its wrapping."""
    return any(not text.strip() for text in _unwrapped(normalized(edited)))


def is_whole(task: Task, edited: str, wanted: str) -> bool:
    """Whether `wanted`, as the task extracted it, says all that the person wrote, and is read back as it is."""
    if task.extract(task.answer(wanted)) != wanted:
        return False
    same = _same_code if task.language else _same_words
    return any(same(text, wanted) for text in _unwrapped(normalized(edited)))


def _same_code(text: str, wanted: str) -> bool:
    return _lines(text) == _lines(wanted)


def _lines(code: str) -> list[str]:
    """Return the lines without the blanks at their ends and without the indentation that all of them share."""
    lines = [line.expandtabs(4).rstrip() for line in code.split("\n")]
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    shared = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    return [line[shared:] for line in lines]


def _same_words(text: str, wanted: str) -> bool:
    quoted = _QUOTED.fullmatch(text.strip())
    return text.split() == wanted.split() or (quoted is not None and quoted[2].split() == wanted.split())


def _unwrapped(edited: str) -> Iterator[str]:
    """Yield what a correction may mean: as it is, without the fence around it, and its blocks if it is only blocks."""
    text = _THINKING.sub("", edited).strip("\n").rstrip()
    yield text
    lines = text.split("\n")
    first, last = _FENCE.fullmatch(lines[0]), _FENCE.fullmatch(lines[-1])
    if first and len(lines) > 1 and last and last[1].startswith(first[1]) and not last[2].strip():
        yield "\n".join(lines[1:-1])
    if (blocks := _blocks(lines)) is not None:
        yield "\n\n".join(blocks)


def _blocks(lines: list[str]) -> list[str] | None:
    """Return the fenced blocks of a text that has nothing else but blank lines; else None."""
    blocks: list[str] = []
    opening, block = "", list[str]()
    for line in lines:
        fence = _FENCE.fullmatch(line)
        if opening and fence and fence[1].startswith(opening) and not fence[2].strip():
            blocks.append("\n".join(block).strip("\n"))
            opening, block = "", []
        elif opening:
            block.append(line)
        elif fence:
            opening = fence[1]
        elif line.strip():
            return None
    return None if opening else [block for block in blocks if block.strip()]
