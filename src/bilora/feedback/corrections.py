"""Check that extracting a user's correction loses none of its text.

A task's `extract` finds the answer in a completion and drops other text: prose around a code block, a second block, a
docstring's second paragraph. A user who wrote such text meant it. A correction is therefore accepted only if `extract`
drops nothing but its wrapping: fences around code, thinking before it, quotes around a sentence, and white space.
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
    """Return whether a correction is empty without its wrapping."""
    return any(not text.strip() for text in _unwrapped(normalized(edited)))


def is_complete(task: Task, edited: str, extracted: str) -> bool:
    """Return whether `extracted` has all text of the correction, and extracting it again does not change it."""
    if task.extract(task.answer(extracted)) != extracted:
        return False
    same = _same_code if task.language else _same_words
    return any(same(text, extracted) for text in _unwrapped(normalized(edited)))


def _same_code(text: str, extracted: str) -> bool:
    return _dedented_lines(text) == _dedented_lines(extracted)


def _dedented_lines(code: str) -> list[str]:
    """Return the lines without trailing white space, blank lines at both ends and common indentation."""
    lines = [line.expandtabs(4).rstrip() for line in code.split("\n")]
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    indentation = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    return [line[indentation:] for line in lines]


def _same_words(text: str, extracted: str) -> bool:
    quoted = _QUOTED.fullmatch(text.strip())
    return text.split() == extracted.split() or (quoted is not None and quoted[2].split() == extracted.split())


def _unwrapped(edited: str) -> Iterator[str]:
    """Yield the readings of a correction: unchanged, without its outer fence, and the contents of its blocks."""
    text = _THINKING.sub("", edited).strip("\n").rstrip()
    yield text
    lines = text.split("\n")
    first, last = _FENCE.fullmatch(lines[0]), _FENCE.fullmatch(lines[-1])
    if first and len(lines) > 1 and last and last[1].startswith(first[1]) and not last[2].strip():
        yield "\n".join(lines[1:-1])
    if (blocks := _blocks(lines)) is not None:
        yield "\n\n".join(blocks)


def _blocks(lines: list[str]) -> list[str] | None:
    """Return the contents of the fenced blocks; None if there is other text outside them."""
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
