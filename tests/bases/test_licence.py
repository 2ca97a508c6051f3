"""A base's licence is what its own files name."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants
from support.gguf_files import tiny_gguf
from support.loopback_hub import TOKEN, Hub

from bilora.bases.base import open_base
from bilora.bases.kinds.folder import FolderBase, FolderSettings
from bilora.bases.kinds.hub import HubBase
from bilora.bases.licence import model_card_licence
from bilora.errors import Unreachable
from bilora.hub.client import connect
from bilora.hub.repository import Repository


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n# A\n", "mit"),
        ("---\r\nlicense: MIT\r\n---\r\n", "MIT"),
        ("---\nlicense: other\nlicense_name: model-terms\n---\n", "model-terms"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit AND apache-2.0"),
        ("---\ntags: [a]\n---\n", "unknown"),
        ("---\nlicense: {\n---\n", "unknown"),
        ("---\n- license\n---\n", "unknown"),
        ("# A\n\n---\nlicense: mit\n---\n", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_model_cards_licence_is_read_from_its_front_matter(tmp_path: Path, card: str, licence: str) -> None:
    (tmp_path / "README.md").write_bytes(card.encode())
    assert model_card_licence(tmp_path / "README.md") == licence
    assert FolderBase.at(tmp_path).licence() == licence


def test_a_folder_without_a_card_has_an_unknown_licence(tmp_path: Path) -> None:
    assert FolderBase.at(tmp_path).licence() == "unknown"


@pytest.mark.parametrize(("named", "licence"), [("apache-2.0", "apache-2.0"), (None, "unknown")])
def test_a_gguf_files_licence_is_in_its_metadata(tmp_path: Path, named: str | None, licence: str) -> None:
    tiny_gguf(tmp_path / "tiny.gguf", general__license=named)
    assert open_base(FolderSettings(kind="folder", path="tiny.gguf"), tmp_path).licence() == licence


def test_a_model_of_the_hub_is_asked_for_its_card(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = Repository(connect(TOKEN, endpoint=hub.url), "owner/base")
    repository.replace({"README.md": b"---\nlicense: apache-2.0\n---\n"}, message="m")
    with_card = repository.head()
    repository.replace({"config.json": b"{}"}, message="m")
    for revision, licence in ((with_card, "apache-2.0"), (repository.head(), "unknown")):
        assert HubBase(id="owner/base", hub="owner/base", revision=revision).licence() == licence
    with pytest.raises(Unreachable, match="could not be loaded"):
        HubBase(id="owner/base", hub="owner/base", revision="0" * 40).licence()
