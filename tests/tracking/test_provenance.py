"""A run record names the commit and the changes of its checkout, whatever the current directory is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bilora.tracking.provenance import commit, dirty_diff_sha256


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit and one file."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "file").write_text("one")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_commit_and_changes_are_those_of_the_checkout_and_not_of_the_current_directory(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert len(commit(repository)) == 40
    assert dirty_diff_sha256(repository) == ""
    (repository / "file").write_text("two")
    assert len(dirty_diff_sha256(repository)) == 64
    assert (commit(elsewhere), dirty_diff_sha256(elsewhere)) == ("unknown", "")
