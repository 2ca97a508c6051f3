"""A bundle is found where `push-adapters` puts it, and the newest one is served."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bilora.cli import page, served, wiring
from bilora.errors import BadData
from bilora.params import Params
from bilora.publishing.bundle import MANIFEST
from bilora.publishing.local_hub import LocalHub
from bilora.publishing.url_hub import UrlHub
from bilora.storage import dump_json, sha256_bytes


@pytest.fixture
def params(adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A working directory with the base and two adapters, and its params."""
    for name in ("models", "params.yaml", "adapters"):
        (tmp_path / name).symlink_to(adapted / name)
    monkeypatch.chdir(tmp_path)
    return wiring.load_params()


def bundle(params: Params, *names: str, note: str = "") -> dict[str, bytes]:
    files = {
        f"{name}/{path.name}": path.read_bytes()
        for name in names
        for path in (wiring.ADAPTERS / name).iterdir()
        if path.is_file()
    }
    files |= {f"base/{path.name}": path.read_bytes() for path in Path(params.base.id).iterdir() if path.is_file()}
    manifest = {
        "base": {"id": params.base.id, "revision": None, "path": "base"},
        "adapters": {name: {} for name in names},
        "files": {name: sha256_bytes(data) for name, data in files.items()},
        "note": note,
    }
    return {**files, MANIFEST: dump_json(manifest).encode()}


def test_the_folder_of_publications_is_the_version_that_is_served(params: Params) -> None:
    first = LocalHub(Path("hub")).publish(bundle(params, "codegen"), message="one")
    found = served.folders(params, "hub")
    assert found == {"codegen": Path(first.location) / "codegen"}
    assert served.folders(params, first.location) == found
    assert set(served.folders(params, "hub/current")) == {"codegen"}


def test_another_publication_changes_the_mark_and_what_is_served(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(page.BUNDLE, "hub")
    hub = LocalHub(Path("hub"))
    hub.publish(bundle(params, "codegen"), message="one")
    before, on_the_page = served.mark(params, "hub"), page._fingerprint(params)
    assert served.mark(params, "hub") == before
    second = hub.publish(bundle(params, "codegen", "docstring"), message="two")
    assert served.mark(params, "hub") != before and page._fingerprint(params) != on_the_page
    assert served.folders(params, "hub") == {n: Path(second.location) / n for n in ("codegen", "docstring")}


def test_readers_that_cannot_follow_links_find_it_too(params: Params) -> None:
    done = LocalHub(Path("hub")).publish(bundle(params, "codegen"), message="one")
    (Path("hub") / "current").unlink()
    assert served.folders(params, "hub") == {"codegen": Path(done.location) / "codegen"}


def test_a_url_is_fetched(params: Params, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    with pytest.raises(BadData, match="nothing was published there"):
        served.folders(params, url)
    UrlHub(url).publish(bundle(params, "docstring"), message="one")
    found = served.folders(params, url)
    assert set(found) == {"docstring"} and (found["docstring"] / "adapter_model.safetensors").is_file()
    with pytest.raises(BadData, match="cannot be written to"):
        served.folders(params, "nothing://bucket")


def test_what_holds_no_bundle_says_what_does(params: Params, tmp_path: Path) -> None:
    Path("hub").mkdir()
    with pytest.raises(BadData, match=r"hub: this is no bundle.*push-adapters"):
        served.folders(params, "hub")
    for odd in ("[]", "{}", '{"adapters": [], "base": {}, "files": {}}'):
        (Path("hub") / MANIFEST).write_text(odd, encoding="utf-8")
        with pytest.raises(BadData, match="this is no bundle"):
            served.folders(params, "hub")
    with pytest.raises(BadData, match="owner/name@commit"):
        served.folders(params, "nowhere@abc")


def test_a_version_that_is_away_is_named(params: Params) -> None:
    done = LocalHub(Path("hub")).publish(bundle(params, "codegen"), message="one")
    shutil.rmtree(done.location)
    with pytest.raises(BadData, match="which it names as served; push again"):
        served.folders(params, "hub")


def test_a_publication_that_fails_leaves_nothing_behind(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bilora.publishing.local_hub._sync", full)
    with pytest.raises(OSError, match="No space"):
        LocalHub(Path("hub")).publish(bundle(params, "codegen"), message="one")
    assert [path for path in Path("hub").rglob("*") if path.is_file() and path.name != ".lock"] == []
