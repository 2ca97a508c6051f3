"""Every path, relative link and command in a Markdown file exists."""

from __future__ import annotations

import re
from pathlib import Path

import typer
from support.checkouts import ROOT

from bilora.cli import app
from bilora.tracking.checkout import committable_files

PATH = re.compile(
    r"(?<![\w./:~-])((?:src|perf|studies|tests|docs|scripts|benchmarking|hf_space|profiles|models|\.github)/[\w./-]*\w)"
)
MODULE = re.compile(r"(?<![\w./:~-])(\w+(?:/\w+)*/\w+\.py)\b")
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(?:#([^)\s]+))?\)|\]\(#([^)\s]+)\)")
NOT_IN_GIT = re.compile(
    r"benchmarking/(results|judge_check)\.json|models/smoke\.zip"
    r"|.*/(?:[A-Z]+|(?:test_)?(?:archive|naming|rft|sqlite))\.py"
)
"""Files that commands write, placeholders, and the examples of the guides docs/add-a-*.md."""
COMMAND = re.compile(r"(?m)(?:^|`|\$ )bilora ([a-z][a-z-]*)(?: ([a-z]+)\b)?")
TARGET = re.compile(r"(?m)(?:^|`)make ([a-z-]+)")


def markdown_files(root: Path) -> list[Path]:
    """Return the Markdown files of a checkout that git does not ignore."""
    return [root / name for name in committable_files(root) if name.endswith(".md")]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives a file's headings."""
    headings = re.findall(r"(?m)^#+ +(.+)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_references(file: Path, root: Path) -> list[str]:
    """Return the paths, links and anchors in a Markdown file that do not exist."""
    text = file.read_text(encoding="utf-8")
    prose = re.sub(r"(?ms)^```.*?^```$", "", text)
    paths = {path for path in PATH.findall(text) if not (root / path).exists()}
    paths |= {
        path
        for path in MODULE.findall(prose)
        if not (root / path).exists() and not (root / "src/bilora" / path).exists()
    }
    broken = [path for path in sorted(paths) if not NOT_IN_GIT.fullmatch(path)]
    for path, path_anchor, local_anchor in LINK.findall(prose):
        anchor = path_anchor or local_anchor
        target = file.parent / path if path else file
        if not target.exists():
            broken.append(path)
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text("utf-8")):
            broken.append(f"{path}#{anchor}")
    return broken


def test_what_markdown_names_exists() -> None:
    broken = {str(file.relative_to(ROOT)): broken_references(file, ROOT) for file in markdown_files(ROOT)}
    assert {file: references for file, references in broken.items() if references} == {}


def test_commands_in_markdown_exist() -> None:
    verbs: dict[str, object] = vars(typer.main.get_command(app))["commands"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    unknown = set()
    for file in markdown_files(ROOT):
        text = file.read_text(encoding="utf-8")
        for verb, second in COMMAND.findall(text):
            command = verbs.get(verb)
            if command is None or (second and second not in getattr(command, "commands", {second})):
                unknown.add((file.name, f"bilora {verb} {second}".strip()))
        for target in TARGET.findall(text):
            if not re.search(rf"(?m)^{target}:", makefile):
                unknown.add((file.name, f"make {target}"))
    assert not unknown
