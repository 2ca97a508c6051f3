"""Sphinx's settings. `make docs` builds the pages; the sources are plain Markdown, which GitHub shows as well."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs", "README.md", "CONTRIBUTING.md")
LISTS = ("docs/index", "docs/adr/README")
"""Pages that list other pages; Sphinx's menu has the same sections and order."""

project = "BiLoRA"
extensions = ["myst_parser"]
root_doc = "docs/index"
# The sources are the whole checkout, so that links between the README and docs/ are links on the site too, and links to
# other files become downloads.
exclude_patterns = [path.name for path in ROOT.iterdir() if path.name not in PAGES]
html_theme = "furo"
html_title = "BiLoRA"
html_extra_path = ["site"]
smartquotes = False  # docstrings have code in prose
html_copy_source = False
myst_heading_anchors = 4
highlight_language = "text"  # commands, in fences without a language
linkcheck_ignore = [r"http://(localhost|127\.0\.0\.1|HOST)"]


def add_menu(app: Sphinx, page: str, source: list[str]) -> None:
    """Add the menu to a list of pages: one toctree per section, with the pages that the section's items link to."""
    if page not in LISTS:
        return
    for section in source[0].split("\n## ")[1:]:
        caption, _, items = section.partition("\n")
        pages = [link.replace("../", "/") for link in re.findall(r"^- \[.+?\]\((.+?)\.md\)", items, re.MULTILINE)]
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the menu to Sphinx."""
    app.connect("source-read", add_menu)
    return {"parallel_read_safe": True}
