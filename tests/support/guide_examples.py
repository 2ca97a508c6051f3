"""The pages of docs/, which tests follow to the letter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from support.checkouts import ROOT

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: the line before it, its language, and its text."""

    before: str
    language: str
    text: str


def markdown_blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a page; each ends at the first line that is a closing fence."""
    text = path.read_text(encoding="utf-8")
    return [Block((text[: match.start()].splitlines() or [""])[-1], *match.groups()) for match in _BLOCK.finditer(text)]


def guide_blocks(guide: str) -> list[Block]:
    """Return the fenced blocks of docs/GUIDE.md."""
    return markdown_blocks(ROOT / "docs" / f"{guide}.md")


def guide_block(guide: str, language: str) -> str:
    """Return a guide's first block in a language."""
    return next(block.text for block in guide_blocks(guide) if block.language == language)
