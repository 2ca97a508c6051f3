"""The folder hub switches atomically between complete versions."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bilora.errors import BadData
from bilora.publishing.local_hub import LocalHub
from bilora.storage import read_json, sha256_bytes, sha256_tree

A = {"manifest.json": b"A", "codegen/adapter.bin": b"aaa"}
B = {"manifest.json": b"B", "codegen/adapter.bin": b"bbb", "docstring/adapter.bin": b"b"}


def served(root: Path) -> dict[str, bytes]:
    current = root / "current"
    return {name: (current / name).read_bytes() for name in sha256_tree(current)}


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.name != ".lock"
    }


def test_nothing_is_published_at_first(tmp_path: Path) -> None:
    assert LocalHub(tmp_path / "hub").digest() is None


def test_the_published_version_is_current(tmp_path: Path) -> None:
    hub = LocalHub(tmp_path)
    location = hub.publish(A, message="first").location
    assert served(tmp_path) == A
    assert hub.digest() == sha256_bytes(b"A")
    assert Path(location).resolve() == (tmp_path / "current").resolve()
    assert read_json(tmp_path / "current.json")["digest"] == hub.digest()


def test_equal_bytes_again_touch_nothing(tmp_path: Path) -> None:
    hub = LocalHub(tmp_path)
    hub.publish(A, message="first")
    before = snapshot(tmp_path)
    hub.publish(A, message="again")
    assert snapshot(tmp_path) == before


def test_a_rollback_restores_the_old_bytes(tmp_path: Path) -> None:
    hub = LocalHub(tmp_path)
    for files in (A, B, A):
        hub.publish(files, message="")
        assert served(tmp_path) == files
    assert read_json(tmp_path / "current.json")["digest"] == sha256_bytes(b"A")


def test_a_damaged_version_is_mended_by_publishing_it_again(tmp_path: Path) -> None:
    hub = LocalHub(tmp_path)
    location = Path(hub.publish(A, message="").location)
    (location / "codegen/adapter.bin").write_bytes(b"bad")
    (location / "stray.txt").write_bytes(b"?")
    hub.publish(A, message="")
    assert served(tmp_path) == A


def test_the_link_is_relative_so_the_folder_can_move(tmp_path: Path) -> None:
    LocalHub(tmp_path / "old").publish(A, message="")
    (tmp_path / "old").rename(tmp_path / "new")
    assert served(tmp_path / "new") == A


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", "a\\b"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadData, match="which is not inside it"):
        LocalHub(tmp_path / "hub").publish({**A, name: b""}, message="")
    assert not (tmp_path / "hub").exists()


def test_a_bundle_needs_its_manifest(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"manifest\.json"):
        LocalHub(tmp_path).publish({"x": b""}, message="")


def test_a_folder_in_the_links_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with pytest.raises(BadData, match="is a folder instead of a link"):
        LocalHub(tmp_path).publish(A, message="")


FORKING = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
"""The child processes below run only Python and exit immediately."""


def publish_until_killed(root: Path, files: dict[str, bytes], step: int) -> int:
    """Publish in a child that dies at its change number `step` on disk; return its exit code."""
    remaining = step

    def deadly(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal remaining
        changes = event in ("os.rename", "os.symlink", "os.mkdir", "os.chmod", "os.remove")
        creates = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_CREAT | os.O_WRONLY)
        if (changes or creates) and str(root) in f"{arguments[0]}{arguments[1]}":
            remaining -= 1
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            sys.addaudithook(deadly)
            LocalHub(root).publish(files, message="")
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@FORKING
def test_killed_at_any_moment_the_old_or_the_new_version_is_complete(tmp_path: Path) -> None:
    states = []
    for step in itertools.count(1):
        root = tmp_path / str(step)
        hub = LocalHub(root)
        hub.publish(A, message="")
        code = publish_until_killed(root, B, step)
        assert code in (-signal.SIGKILL, 0)
        states.append(served(root))
        assert states[-1] in (A, B)
        hub.publish(B, message="")  # the next publish finishes the work
        assert served(root) == B
        assert read_json(root / "current.json")["digest"] == sha256_bytes(b"B")
        versions = sorted(path.name for path in (root / "versions").iterdir())
        assert versions == sorted([sha256_bytes(b"A"), sha256_bytes(b"B")])
        if code == 0:
            break
    assert len(states) > 12
    assert states == sorted(states, key=lambda files: files == B)
    assert states[0] == A
    assert states[-1] == B


def test_a_real_bundle_can_be_published(tmp_path: Path, inputs: Any) -> None:
    hub = LocalHub(tmp_path / "hub")
    hub.publish(inputs.files, message="")
    assert served(tmp_path / "hub") == inputs.files


@FORKING
def test_two_publishers_leave_one_complete_version(tmp_path: Path, make_inputs: Callable[..., Any]) -> None:
    bundles = [make_inputs(fill).files for fill in (1, 2)]
    children = []
    for files in bundles:
        child = os.fork()
        if child == 0:
            try:
                for _ in range(10):
                    LocalHub(tmp_path / "hub").publish(files, message="")
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert all(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 for child in children)
    assert served(tmp_path / "hub") in bundles
