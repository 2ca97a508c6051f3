"""A repository's files at one commit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import constants
from support.loopback_hub import Hub, Repo

from bilora.errors import BadData, Unreachable
from bilora.hub.snapshot import pinned_snapshot
from bilora.storage import ADAPTER_FILES

FILES = {f"mine/{name}": name.encode() for name in ADAPTER_FILES} | {"README.md": b"# Card"}


@pytest.fixture
def commit(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A commit of the repository owner/name, after which came another."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = hub.repos["models/owner/name"] = Repo("models", "owner/name", False, [])
    hub.lfs |= {hashlib.sha256(data).hexdigest(): data for data in FILES.values()}
    first = hub.commit(repo, FILES, "first")
    hub.commit(repo, {"mine/adapter_config.json": b"changed"}, "second")
    return first


def test_it_has_the_files_of_that_commit(commit: str) -> None:
    folder = pinned_snapshot(f"owner/name@{commit}")
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES


def test_only_files_that_match_the_patterns_are_downloaded(commit: str) -> None:
    folder = pinned_snapshot(f"owner/name@{commit}", patterns=[f"*{name}" for name in ADAPTER_FILES])
    assert {path.name for path in folder.rglob("*") if path.is_file()} == set(ADAPTER_FILES)


@pytest.mark.parametrize("hub_id", ["owner/name", "owner/name@main", "owner/name@abc", "../name@" + "0" * 40 + "/.."])
def test_an_id_without_a_full_commit_is_rejected(hub_id: str) -> None:
    with pytest.raises(BadData, match="needs a pinned commit"):
        pinned_snapshot(hub_id)


def test_a_commit_that_is_not_there_is_named(commit: str) -> None:
    with pytest.raises(Unreachable, match="owner/name@0000"):
        pinned_snapshot("owner/name@" + "0" * 40)
