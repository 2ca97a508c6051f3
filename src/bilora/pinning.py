"""Pinning params.yaml: the hub repositories whose revision is no commit, and the text with their commits.

Only the values of those revisions change; comments and formatting are kept. The file is read as YAML alone, because
params with an open revision are refused as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from bilora.plugins import BASE_KINDS, SOURCE_KINDS, is_commit, kind_names, load_kind
from bilora.yaml_settings import compose_yaml

RepositoryKind = Literal["model", "dataset"]


@dataclass(frozen=True)
class OpenRevision:
    """A hub repository that is not pinned to a commit.

    Attributes:
        place: of its entry in the file, such as `tasks.docstring.source`.
        kind: what the repository is.
        id: its id on the hub.
        revision: the branch or tag that the entry names; None if it names none.
        span: where the text changes, as positions of characters.
        template: the new text, with `{}` for the commit.
    """

    place: str
    kind: RepositoryKind
    id: str
    revision: str | None
    span: tuple[int, int]
    template: str


def open_revisions(path: Path) -> tuple[str, list[OpenRevision]]:
    """Return the text of a params file without a byte order mark, and its open revisions in their order.

    The base and every source count whose kind has an `id` and a `revision`.

    Raises:
        ParamsError: it is absent or no YAML, or repeats a key.
    """
    text, root = compose_yaml(path)
    found: dict[int, OpenRevision] = {}  # by place in the text, since an alias repeats a node
    for place, kind, node in _entries(root):
        if one := _open_revision(text, place, kind, node):
            found.setdefault(one.span[0], one)
    return text, sorted(found.values(), key=lambda one: one.span)


def with_commits(text: str, revisions: Sequence[OpenRevision], commits: Sequence[str]) -> str:
    """Return the text with a commit in place of each open revision."""
    for revision, commit in sorted(zip(revisions, commits, strict=True), key=lambda pair: pair[0].span, reverse=True):
        start, end = revision.span
        text = text[:start] + revision.template.format(commit) + text[end:]
    return text


def _entries(root: yaml.Node | None) -> Iterator[tuple[str, RepositoryKind, yaml.MappingNode]]:
    """Yield the entries of the base and of the sources that name a repository of the hub."""
    document = _mapping(root)
    tasks = _mapping(document.get("tasks"))
    yield from _entry("base", "model", BASE_KINDS, "BASE", document.get("base"))
    for name, task in tasks.items():
        yield from _entry(f"tasks.{name}.source", "dataset", SOURCE_KINDS, "SOURCE", _mapping(task).get("source"))


def _entry(
    place: str, repository: RepositoryKind, package: str, constant: str, node: yaml.Node | None
) -> Iterator[tuple[str, RepositoryKind, yaml.MappingNode]]:
    entry = _mapping(node)
    kind = _text(entry.get("kind"))
    if not isinstance(node, yaml.MappingNode) or kind not in kind_names(package) or not _text(entry.get("id")):
        return
    if {"id", "revision"} <= load_kind(package, kind, constant).settings.model_fields.keys():
        yield place, repository, node


def _open_revision(text: str, place: str, kind: RepositoryKind, node: yaml.MappingNode) -> OpenRevision | None:
    """Return the entry's revision unless it is a commit; if there is none, it is inserted after the id."""
    entry = _mapping(node)
    repository, revision = entry["id"], entry.get("revision")
    if revision is None:
        return OpenRevision(place, kind, _text(repository), None, *_insertion(text, node, repository))
    if isinstance(revision, yaml.ScalarNode) and revision.tag.endswith(":str") and is_commit(revision.value):
        return None
    start = revision.start_mark.index
    end = start + len(text[start : revision.end_mark.index].rstrip())
    template = '"{}"' if end > start else ' "{}"'  # a null may be no character at all
    return OpenRevision(place, kind, _text(repository), _text(revision) or None, (start, end), template)


def _insertion(text: str, node: yaml.MappingNode, repository: yaml.Node) -> tuple[tuple[int, int], str]:
    """Return where and how a revision is written behind the id: in a line of its own, unless braces hold the entry."""
    end = repository.end_mark.index
    if node.flow_style:
        return (end, end), ', revision: "{}"'
    line = text[end:].partition("\n")[0].removesuffix("\r")  # a comment may follow
    end += len(line)
    newline = "\r\n" if text.startswith("\r\n", end) else "\n"
    indent = next(key.start_mark.column for key, value in node.value if value is repository)
    return (end, end), f'{newline}{" " * indent}revision: "{{}}"'


def _mapping(node: yaml.Node | None) -> dict[str, yaml.Node]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {key.value: value for key, value in pairs if isinstance(key, yaml.ScalarNode)}


def _text(node: yaml.Node | None) -> str:
    """Return the text of a scalar; empty if there is none, or it is null."""
    return str(node.value) if isinstance(node, yaml.ScalarNode) and not node.tag.endswith(":null") else ""
