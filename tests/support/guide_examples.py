"""The examples of the guides docs/add-a-*.md, which tests run as they are."""

from __future__ import annotations

import re

from support.checkouts import ROOT


def guide_block(guide: str, language: str) -> str:
    """Return a guide's first code block in a language; it ends at the first line that is a closing fence."""
    text = (ROOT / "docs" / f"{guide}.md").read_text(encoding="utf-8")
    block = re.search(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert block is not None
    return block[1]
