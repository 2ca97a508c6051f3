"""The kinds of bases: ids, identity, bundled files, downloads, and errors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from support.checkouts import ROOT

from bilora.bases import base as module
from bilora.bases.base import Base, open_base
from bilora.bases.kinds.folder import FolderBase, FolderSettings
from bilora.bases.kinds.hub import HubBase, HubSettings
from bilora.errors import BadData, BiloraError, Unreachable
from bilora.inference.torch import cpu_tuning
from bilora.inference.torch.loading import load_for_inference

SMOKE = FolderBase.at(ROOT / "models" / "smoke")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def folder(path: str, root: Path, **settings: Any) -> Base:
    return open_base(FolderSettings(kind="folder", path=path, **settings), root)


def hub(**settings: Any) -> Base:
    return open_base(HubSettings(kind="hub", id="owner/name", revision=COMMIT, **settings), Path("unused"))


@pytest.mark.parametrize("path", ["models/smoke", "./models/smoke", "models/smoke/"])
def test_a_folder_is_named_by_its_path_in_the_params_wherever_the_checkout_is(path: str) -> None:
    base = folder(path, ROOT, dtype="bfloat16")
    assert (base.id, base.revision, base.hub, base.dtype) == ("models/smoke", None, None, "bfloat16")
    assert base.folder() == ROOT / "models" / "smoke" and base.download_note is None
    assert base.identity == SMOKE.identity and len(base.identity) == 40
    assert base.tokenizer().name_or_path == "models/smoke"
    assert base.load(training=False).model.config.name_or_path == "models/smoke"


def test_a_hub_base_is_pinned_by_its_commit_and_published_by_its_name() -> None:
    base = hub(quantize="nf4")
    assert (base.id, base.revision, base.hub, base.quantize) == ("owner/name", COMMIT, "owner/name", "nf4")
    assert base.identity == COMMIT and base.files() == {} and base.bundled_files() == {}
    assert base.location == "owner/name" and base.download_note and COMMIT in base.download_note


def test_a_base_that_no_hub_names_is_published_whole_unless_it_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SMOKE.folder(), tmp_path / "base")
    (tmp_path / "base" / "nested").mkdir()
    (tmp_path / "base" / "nested" / "note.txt").write_text("n")
    base = FolderBase.at(tmp_path / "base")
    bundled = base.bundled_files()
    assert bundled["nested/note.txt"] == b"n" and {"config.json", "model.safetensors", "README.md"} < set(bundled)
    monkeypatch.setattr(module, "MAX_BUNDLED_MIB", 0)
    with pytest.raises(BadData, match="too large to be published"):
        base.bundled_files()


@pytest.mark.parametrize("read", [Base.config, Base.tokenizer, Base.generation_config, Base.files])
def test_a_missing_folder_is_one_sentence(read: Any, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"models/absent: there is no model here"):
        read(folder("models/absent", tmp_path))
    with pytest.raises(BadData, match=r"models/absent: there is no model here"):
        folder("models/absent", tmp_path).load(training=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read", [Base.config, Base.tokenizer, Base.generation_config])
def test_a_missing_folder_is_not_looked_up_on_the_hub(
    read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *_, **__: pytest.fail(f"{host} was looked up"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadData):
        read(folder("models/absent", Path()))  # as a relative path it has the form of a hub id


@pytest.mark.parametrize(
    ("base", "kind", "sentence"),
    [("broken", BadData, "cannot be loaded"), ("hub", Unreachable, "owner/name at 0123")],
)
def test_a_base_that_cannot_be_read_is_one_sentence(
    base: str, kind: type[BiloraError], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "config.json").write_text('{"model_type": "no such architecture"}')
    opened: Base = FolderBase.at(tmp_path) if base == "broken" else HubBase(id="owner/name", revision=COMMIT)
    for read in (opened.config, lambda: opened.load(training=False), opened.tokenizer):
        with pytest.raises(kind, match=sentence) as raised:
            read()
        assert "\n" not in str(raised.value)


def test_without_a_generation_config_the_config_names_the_stop_tokens(tmp_path: Path) -> None:
    shutil.copytree(SMOKE.folder(), tmp_path / "base")
    assert SMOKE.generation_config().eos_token_id == [3, 6, 4]
    (tmp_path / "base" / "generation_config.json").unlink()
    base = FolderBase.at(tmp_path / "base")
    assert base.generation_config().eos_token_id == 3 and base.load(training=False).stop_ids == [3, 6]


def test_a_loaded_base_names_precision_and_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_tuning, "_best_max_packed_rows", lambda _: 16)
    assert SMOKE.load(training=True).mode == "cpu, float32"
    half = FolderBase.at(SMOKE.path, dtype="bfloat16")
    assert half.load(training=False).mode == "cpu, bfloat16" and half.load(training=False).model.dtype == torch.bfloat16
    assert load_for_inference(half).mode == "cpu, bfloat16 packed for oneDNN"
    assert load_for_inference(SMOKE).mode == "cpu, float32 packed for oneDNN"


def test_nf4_is_for_training_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    base = folder("models/smoke", ROOT, quantize="nf4")
    with pytest.raises(BadData, match=r"base\.quantize: nf4 trains on CUDA only"):
        base.load(training=True)
    assert base.load(training=False).mode == "cpu, float32"


def test_a_quantization_is_converted() -> None:
    assert SMOKE.gguf("f16", lambda base, quantization: Path(f"{base.id}-{quantization}")).name == "smoke-f16"
