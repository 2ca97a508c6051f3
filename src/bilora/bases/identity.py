"""What identifies the model in a folder: the files that decide how it answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bilora.errors import BadData
from bilora.storage import sha256_json, sha256_tree

_NO_MODEL = "there is no model here; `base` in params.yaml must name a folder with a config.json and safetensors."
DECISIVE_FILES = (".safetensors", ".json", ".jinja", ".model", "merges.txt", "vocab.txt")
"""Endings of the files that decide how a base answers: its weights, configuration, tokenizer and templates."""


def model_folder(folder: Path, id: str) -> Path:
    """Return the folder of the base `id` if there is a model in it.

    Raises:
        BadData: there is none.
    """
    if not (folder / "config.json").is_file():
        raise BadData(id, _NO_MODEL)
    return folder


def decisive_files(folder: Path, id: str) -> dict[str, str]:
    """Return the SHA-256 of each file in a model folder that decides how the base `id` answers.

    Raises:
        BadData: there is no model in the folder.
    """
    return _decisive(sha256_tree(model_folder(folder, id)))


def folder_revision(digests: Mapping[str, str]) -> str:
    """Return the revision of a model folder: a hash of the SHA-256 of those files that decide how the base answers."""
    return sha256_json(_decisive(digests))[:40]


def pinned_by(revision: str | None, digests: Mapping[str, str]) -> str:
    """Return the identity of a base that is used as it is: its commit, else the hash of its files."""
    return revision or folder_revision(digests)


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return the names of the files that decide how a base answers and whose SHA-256 differs, for a person."""
    return ", ".join(sorted(dict(_decisive(before).items() ^ _decisive(now).items())))


def _decisive(digests: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in digests.items() if name.endswith(DECISIVE_FILES)}
