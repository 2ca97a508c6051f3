"""The guides docs/add-a-*.md, which tests follow to the letter."""

from __future__ import annotations

import re

from support.checkouts import ROOT


def guide_block(guide: str, language: str) -> str:
    """Return a guide's first block in a language; it ends at a fence that stands alone at a line's start."""
    text = (ROOT / "docs" / f"{guide}.md").read_text(encoding="utf-8")
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]
