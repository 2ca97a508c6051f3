"""Adapters that clients load by requests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.running_server import KEY, RunningServer, make_engine, serving
from support.sample_adapters import SampleAdapters
from support.server_requests import CHAT, TEXT, send

from bilora.serving.config import ServerConfig
from bilora.storage import adapter_sha256

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, sample_adapters: SampleAdapters) -> Path:
    """A folder with an adapter, an empty folder, and a link to a folder outside."""
    folder = tmp_path_factory.mktemp("outside") / "root"
    folder.mkdir()
    shutil.copytree(sample_adapters.folders["codegen"], folder / "mine")
    shutil.copytree(sample_adapters.folders["docstring"], folder.parent / "other")
    (folder / "empty").mkdir()
    (folder / "link").symlink_to(folder.parent / "other")
    return folder


@pytest.fixture(scope="module")
def loading(sample_adapters: SampleAdapters, root: Path) -> Iterator[RunningServer]:
    """A server that loads adapters from this folder."""
    config = ServerConfig(make_engine(sample_adapters), "models/smoke", "0" * 40, key=KEY, adapter_root=root)
    with serving(config) as server:
        yield server


def test_an_adapter_is_loaded_answers_and_is_unloaded(
    loading: RunningServer, root: Path, sample_adapters: SampleAdapters
) -> None:
    response, answer = send(loading, "POST", LOAD, {"lora_name": "new", "lora_path": "mine"})
    assert (response.status, answer["sha256"]) == (200, adapter_sha256(root / "mine"))
    _, reply = send(loading, "POST", "/v1/chat/completions", {"model": "new", **CHAT})
    assert reply["choices"][0]["message"]["content"] == sample_adapters.answer("codegen", TEXT)
    again, _ = send(loading, "POST", LOAD, {"lora_name": "new", "lora_path": str(root / "mine")})
    replaced, _ = send(loading, "POST", LOAD, {"lora_name": "new", "lora_path": "mine", "load_inplace": True})
    assert (again.status, replaced.status) == (400, 200)
    gone, _ = send(loading, "POST", UNLOAD, {"lora_name": "new"})
    unknown, _ = send(loading, "POST", "/v1/chat/completions", {"model": "new", **CHAT})
    assert (gone.status, unknown.status) == (200, 404)


@pytest.mark.parametrize(
    "path", ["../other", "link", "nowhere", "mine/adapter_config.json", "/etc", "mine/../../other"]
)
def test_nothing_outside_the_folder_is_loaded(loading: RunningServer, path: str) -> None:
    response, answer = send(loading, "POST", LOAD, {"lora_name": "new", "lora_path": path})
    assert (response.status, answer["error"]["param"]) == (404, "lora_path")
    assert "new" not in loading.engine.models()


@pytest.mark.parametrize("name", ["base", "codegen", "", "../x", "a b"])
def test_other_names_are_not_touched(loading: RunningServer, name: str) -> None:
    before = loading.engine.models()
    for path, extra in ((LOAD, {"lora_path": "mine", "load_inplace": True}), (UNLOAD, {})):
        response, _ = send(loading, "POST", path, {"lora_name": name, **extra})
        assert response.status in (400, 404)
    assert loading.engine.models() == before


def test_the_error_for_a_folder_without_a_compatible_adapter_hides_its_path(loading: RunningServer, root: Path) -> None:
    shutil.copytree(root / "mine", root / "broken")
    (root / "broken" / "adapter_model.safetensors").write_bytes(b"none")
    for path, message in (("empty", "has no adapter_config.json and no "), ("broken", "cannot be loaded: broken")):
        response, answer = send(loading, "POST", LOAD, {"lora_name": "new", "lora_path": path})
        assert response.status == 400 and message in answer["error"]["message"]
        assert str(root) not in answer["error"]["message"]


def test_it_needs_the_key_and_is_off_by_default(loading: RunningServer, running: RunningServer) -> None:
    body = {"lora_name": "new", "lora_path": "mine"}
    without_key, _ = send(loading, "POST", LOAD, body, Authorization="")
    off, _ = send(running, "POST", LOAD, body)
    assert (without_key.status, off.status) == (401, 404)
