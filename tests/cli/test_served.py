"""The latest bundle is found in the folder of `push-adapters`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bilora.cli import page
from bilora.errors import BadData
from bilora.publishing.bundle import MANIFEST
from bilora.publishing.local_hub import LocalHub
from bilora.publishing.url_hub import UrlHub
from bilora.storage import dump_json, sha256_bytes
from bilora.workspace import Workspace


@pytest.fixture
def workspace(adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A working directory with the base and two adapters."""
    for name in ("models", "params.yaml", "adapters"):
        (tmp_path / name).symlink_to(adapted / name)
    monkeypatch.chdir(tmp_path)
    return Workspace(Path())


def bundle(workspace: Workspace, *names: str, note: str = "") -> dict[str, bytes]:
    base = workspace.base()
    files = {
        f"{name}/{path.name}": path.read_bytes()
        for name in names
        for path in workspace.adapter(name).iterdir()
        if path.is_file()
    }
    files |= {f"base/{path.name}": path.read_bytes() for path in base.folder().iterdir() if path.is_file()}
    manifest = {
        "schema": 1,
        "base": {"id": base.id, "revision": None, "path": "base"},
        "adapters": {name: {"path": name, "sha256": "0" * 64, "verdict": None} for name in names},
        "files": {name: sha256_bytes(data) for name, data in files.items()},
        "note": note,
    }
    return {**files, MANIFEST: dump_json(manifest).encode()}


def test_the_published_folder_resolves_to_the_latest_version(workspace: Workspace) -> None:
    first = LocalHub(Path("hub")).publish(bundle(workspace, "codegen"), message="one")
    folders = workspace.bundle("hub")
    assert folders == {"codegen": Path(first.location) / "codegen"}
    assert workspace.bundle(first.location) == folders
    assert set(workspace.bundle("hub/current")) == {"codegen"}


def test_a_new_publication_changes_the_stamp_and_the_served_version(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(page.BUNDLE_VARIABLE, "hub")
    hub = LocalHub(Path("hub"))
    hub.publish(bundle(workspace, "codegen"), message="one")
    before, on_the_page = workspace.adapters_version("hub"), page._fingerprint(workspace)
    assert workspace.adapters_version("hub") == before
    second = hub.publish(bundle(workspace, "codegen", "docstring"), message="two")
    assert workspace.adapters_version("hub") != before and page._fingerprint(workspace) != on_the_page
    assert workspace.bundle("hub") == {n: Path(second.location) / n for n in ("codegen", "docstring")}


def test_the_latest_version_is_found_without_following_links(workspace: Workspace) -> None:
    done = LocalHub(Path("hub")).publish(bundle(workspace, "codegen"), message="one")
    (Path("hub") / "current").unlink()
    assert workspace.bundle("hub") == {"codegen": Path(done.location) / "codegen"}


def test_a_url_is_fetched(workspace: Workspace, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    with pytest.raises(BadData, match="nothing is published at this URL"):
        workspace.bundle(url)
    UrlHub(url).publish(bundle(workspace, "docstring"), message="one")
    folders = workspace.bundle(url)
    assert set(folders) == {"docstring"} and (folders["docstring"] / "adapter_model.safetensors").is_file()
    with pytest.raises(BadData, match="cannot be written to"):
        workspace.bundle("nothing://bucket")


def test_a_folder_without_a_bundle_is_refused_with_advice(workspace: Workspace, tmp_path: Path) -> None:
    Path("hub").mkdir()
    with pytest.raises(BadData, match=r"hub: is not a bundle.*push-adapters"):
        workspace.bundle("hub")
    for odd in ("[]", "{}", '{"adapters": [], "base": {}, "files": {}}'):
        (Path("hub") / MANIFEST).write_text(odd, encoding="utf-8")
        with pytest.raises(BadData, match="is not a bundle"):
            workspace.bundle("hub")
    with pytest.raises(BadData, match="owner/name@commit"):
        workspace.bundle("nowhere@abc")


def test_a_missing_version_is_reported(workspace: Workspace) -> None:
    done = LocalHub(Path("hub")).publish(bundle(workspace, "codegen"), message="one")
    shutil.rmtree(done.location)
    with pytest.raises(BadData, match="does not exist; push again"):
        workspace.bundle("hub")


def test_a_publication_that_fails_leaves_nothing_behind(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bilora.publishing.local_hub.sync_folder", full)
    with pytest.raises(OSError, match="No space"):
        LocalHub(Path("hub")).publish(bundle(workspace, "codegen"), message="one")
    assert [path for path in Path("hub").rglob("*") if path.is_file() and path.name != ".lock"] == []
