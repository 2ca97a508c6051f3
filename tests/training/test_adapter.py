"""An adapter is attached to exactly the layers in params, and saved atomically and reproducibly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bilora.bases.kinds.folder import FolderBase
from bilora.errors import PreflightFailed
from bilora.params import Adapter
from bilora.storage import adapter_sha256, sha256_tree
from bilora.training.adapter import attach_adapter, save_adapter

ROOT = Path(__file__).resolve().parents[2]
BASE = FolderBase.at(ROOT / "models" / "smoke")


def spec(*targets: str) -> Adapter:
    return Adapter(rank=4, alpha=8, dropout=0.1, target_modules=list(targets))


def fresh(*targets: str) -> Any:
    return attach_adapter(BASE.load(training=False).model, spec(*targets), seed=1)


def test_a_target_that_matches_nothing_stops_the_run() -> None:
    with pytest.raises(PreflightFailed, match=r"q_proj, v_proj match no layer.*qkv_proj"):
        fresh("q_proj", "v_proj", "o_proj")


def test_only_the_named_layers_are_trained() -> None:
    trained = [name for name, parameter in fresh("qkv_proj", "o_proj").named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name and ("qkv_proj" in name or "o_proj" in name) for name in trained)


def test_equal_seeds_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_adapter(fresh("qkv_proj", "o_proj"), tmp_path / name, BASE, "r")
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")


def test_the_folder_is_standard_and_names_its_base(tmp_path: Path) -> None:
    save_adapter(fresh("o_proj", "qkv_proj"), tmp_path / "a", BASE, "revision")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text(encoding="utf-8"))
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text(encoding="utf-8"))
    assert config == {
        "base_model_name_or_path": BASE.id,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": 8,
        "lora_dropout": 0.1,
        "peft_type": "LORA",
        "r": 4,
        "revision": None,
        "target_modules": ["o_proj", "qkv_proj"],
        "task_type": "CAUSAL_LM",
    }
    assert (manifest["base_id"], manifest["base_revision"]) == (BASE.id, "revision")
    assert manifest["base_files"] == BASE.files() and "chat_template.jinja" in manifest["base_files"]
    assert set(manifest["files"]) == {"adapter_config.json", "adapter_model.safetensors"}


def test_a_setting_with_another_value_than_pefts_default_is_written(tmp_path: Path) -> None:
    model = fresh("o_proj")
    model.peft_config["default"].use_rslora = True
    save_adapter(model, tmp_path / "a", BASE, "r")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["use_rslora"] is True and "use_dora" not in config


def test_saving_again_replaces_the_whole_folder(tmp_path: Path) -> None:
    save_adapter(fresh("o_proj"), tmp_path / "a", BASE, "r")
    old = adapter_sha256(tmp_path / "a")
    (tmp_path / "a" / "stray").touch()
    save_adapter(fresh("qkv_proj"), tmp_path / "a", BASE, "r")
    assert adapter_sha256(tmp_path / "a") != old and not (tmp_path / "a" / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_failed_save_leaves_the_old_adapter(tmp_path: Path) -> None:
    save_adapter(fresh("o_proj"), tmp_path / "a", BASE, "r")
    before = sha256_tree(tmp_path)

    class Full:
        def save_pretrained(self, folder: str, **_: Any) -> None:
            Path(folder).mkdir()
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        save_adapter(Full(), tmp_path / "a", BASE, "r")
    assert sha256_tree(tmp_path) == before
