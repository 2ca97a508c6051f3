"""Pin the hub revisions of params.yaml to commits; comments and formatting stay.

The file is read as plain YAML, because loading it as params refuses unpinned revisions.
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
class UnpinnedRevision:
    """A hub repository that is not pinned to a commit.

    Attributes:
        key: its entry in the file, such as `tasks.docstring.source`.
        kind: the type of the repository.
        id: its id on the hub.
        revision: the branch or tag in the entry; None if there is none.
        span: start and end of the text to replace, in characters.
        template: the new text, with `{}` for the commit.
    """

    key: str
    kind: RepositoryKind
    id: str
    revision: str | None
    span: tuple[int, int]
    template: str


def unpinned_revisions(path: Path) -> tuple[str, list[UnpinnedRevision]]:
    """Return the text of a params file without a byte order mark, and its unpinned revisions in order.

    The base and the sources are checked if their kind has an `id` and a `revision`.

    Raises:
        ParamsError: the file does not exist, is not YAML, or repeats a key.
    """
    text, root = compose_yaml(path)
    revisions: dict[int, UnpinnedRevision] = {}  # by position, since an alias repeats a node
    for key, kind, node in _entries(root):
        if revision := _unpinned_revision(text, key, kind, node):
            revisions.setdefault(revision.span[0], revision)
    return text, sorted(revisions.values(), key=lambda revision: revision.span)


def with_commits(text: str, revisions: Sequence[UnpinnedRevision], commits: Sequence[str]) -> str:
    """Return the text with each unpinned revision replaced by its commit."""
    for revision, commit in sorted(zip(revisions, commits, strict=True), key=lambda pair: pair[0].span, reverse=True):
        start, end = revision.span
        text = text[:start] + revision.template.format(commit) + text[end:]
    return text


def _entries(root: yaml.Node | None) -> Iterator[tuple[str, RepositoryKind, yaml.MappingNode]]:
    """Yield the base and the sources that name a hub repository: key, repository type and node."""
    document = _mapping(root)
    tasks = _mapping(document.get("tasks"))
    yield from _entry("base", "model", BASE_KINDS, "BASE", document.get("base"))
    for name, task in tasks.items():
        yield from _entry(f"tasks.{name}.source", "dataset", SOURCE_KINDS, "SOURCE", _mapping(task).get("source"))


def _entry(
    key: str, repository: RepositoryKind, package: str, constant: str, node: yaml.Node | None
) -> Iterator[tuple[str, RepositoryKind, yaml.MappingNode]]:
    entry = _mapping(node)
    kind = _text(entry.get("kind"))
    if not isinstance(node, yaml.MappingNode) or kind not in kind_names(package) or not _text(entry.get("id")):
        return
    if {"id", "revision"} <= load_kind(package, kind, constant).settings.model_fields.keys():
        yield key, repository, node


def _unpinned_revision(text: str, key: str, kind: RepositoryKind, node: yaml.MappingNode) -> UnpinnedRevision | None:
    """Return how to pin an entry, or None if it is pinned; a missing revision is inserted after the id."""
    entry = _mapping(node)
    repository, revision = entry["id"], entry.get("revision")
    if revision is None:
        return UnpinnedRevision(key, kind, _text(repository), None, *_insertion(text, node, repository))
    if isinstance(revision, yaml.ScalarNode) and revision.tag.endswith(":str") and is_commit(revision.value):
        return None
    start = revision.start_mark.index
    end = start + len(text[start : revision.end_mark.index].rstrip())
    template = '"{}"' if end > start else ' "{}"'  # null may be written as nothing
    return UnpinnedRevision(key, kind, _text(repository), _text(revision) or None, (start, end), template)


def _insertion(text: str, node: yaml.MappingNode, repository: yaml.Node) -> tuple[tuple[int, int], str]:
    """Return position and template of a revision after the id: on a separate line, unless the entry is in braces."""
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
    """Return the text of a scalar; empty if there is no scalar or it is null."""
    return str(node.value) if isinstance(node, yaml.ScalarNode) and not node.tag.endswith(":null") else ""
