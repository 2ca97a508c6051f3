"""Identify the model in a folder by the files that determine its output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bilora.errors import BadData
from bilora.storage import sha256_json, sha256_tree

_NO_MODEL = "there is no model here; `base` in params.yaml must name a folder with a config.json and safetensors."
_MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", "merges.txt", "vocab.txt")
"""Endings of the names of model files: those that determine a base's output (weights, config, tokenizer, templates)."""


def model_folder(folder: Path, id: str) -> Path:
    """Return the folder of the base `id` after checking that it has a model.

    Raises:
        BadData: it has none.
    """
    if not (folder / "config.json").is_file():
        raise BadData(id, _NO_MODEL)
    return folder


def model_file_hashes(folder: Path, id: str) -> dict[str, str]:
    """Return the SHA-256 of each model file in the folder of the base `id`.

    Raises:
        BadData: the folder has no model.
    """
    return _only_model_files(sha256_tree(model_folder(folder, id)))


def folder_revision(digests: Mapping[str, str]) -> str:
    """Return the revision of a model folder: a hash of the SHA-256 of its model files."""
    return sha256_json(_only_model_files(digests))[:40]


def base_identity(revision: str | None, digests: Mapping[str, str]) -> str:
    """Return the identity of a base that is not converted: its commit, else the hash of its files."""
    return revision or folder_revision(digests)


def changed_files(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Return the names of the model files whose SHA-256 differ, separated by commas."""
    return ", ".join(sorted(dict(_only_model_files(before).items() ^ _only_model_files(after).items())))


def _only_model_files(digests: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in digests.items() if name.endswith(_MODEL_FILES)}
