"""Fixtures for tests of several packages: the smoke base, its adapters, and a workspace after one pipeline run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.checkouts import ROOT, shell_in, smoke_checkout
from support.fake_openai_server import Server, serving
from support.loopback_hub import Hub, serving_hub
from support.sample_adapters import SampleAdapters, make_sample_adapters
from support.shared_data import shared_file


def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers of `-n auto`: one more than cores, because many tests wait for processes."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout on the smoke profile after evaluation and gate. Tests must not change it."""
    folder = smoke_checkout(tmp_path_factory.mktemp("loop") / "checkout")
    shell_in(folder)("dvc", "repro", "evaluate")
    shell_in(folder)("bilora", "benchmark", check=False)
    return folder


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout on the smoke profile with random adapters. Tests must not change it."""
    from support.random_adapters import write_random_adapter

    from bilora.bases.kinds.folder import FolderBase

    folder = smoke_checkout(tmp_path_factory.mktemp("adapted") / "checkout")
    with contextlib.chdir(folder):  # params.yaml names the base by a relative path
        for seed, (name, targets) in enumerate({"codegen": "qkv_proj", "docstring": "down_proj"}.items()):
            write_random_adapter(Path("adapters") / name, FolderBase.at("models/smoke"), [targets], seed=seed)
    return folder


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment without proxies, so that requests to loopback stay on this machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server(no_proxy: None) -> Iterator[Server]:
    """A fake OpenAI-compatible server for engines and judges."""
    with serving() as state:
        yield state


@pytest.fixture
def hub(no_proxy: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A loopback hub for huggingface_hub, which retries without pauses."""
    import huggingface_hub.utils._http as transport
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(transport, "time", SimpleNamespace(sleep=lambda seconds: None))
    with serving_hub() as state:
        yield state
        close_session()


@pytest.fixture(scope="session")
def smoke_loaded() -> Any:
    """The smoke base in memory."""
    from bilora.bases.kinds.folder import FolderBase

    return FolderBase.at(ROOT / "models" / "smoke").load(training=False)


@pytest.fixture(scope="session")
def phi3(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Phi-3's own tokenizer."""
    from bilora.bases.kinds.folder import FolderBase

    folder = tmp_path_factory.mktemp("phi3")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(shared_file(f"phi3-tokenizer/{name}").read_bytes())
    (folder / "config.json").write_text('{"model_type": "phi3"}', encoding="utf-8")
    return FolderBase.at(folder).tokenizer()


@pytest.fixture(scope="session")
def sample_adapters(tmp_path_factory: pytest.TempPathFactory) -> SampleAdapters:
    """Three small adapters of the smoke base, and the reference answers of each."""
    return make_sample_adapters(tmp_path_factory.mktemp("sample_adapters"))
