"""A published adapter has the same logits when loaded without BiLoRA."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.checkouts import ROOT
from support.loopback_hub import TOKEN, Hub

from bilora.bases.kinds.folder import FolderBase
from bilora.hub.client import connect
from bilora.hub.repository import Repository
from bilora.publishing.bundle import build_bundle
from bilora.publishing.bundle_info import BundleInfo
from bilora.publishing.hub_repositories import HubRepositories
from bilora.publishing.push import publish_unchecked
from bilora.results import Results

pytestmark = pytest.mark.slow
IDS = [[5, 9, 13, 21, 34, 55]]
STRANGER = """
import sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

ids, out = torch.tensor([[5, 9, 13, 21, 34, 55]]), {}
for name, place, folder in (
    ("sub-folder", "owner/name", "codegen"), ("root", "owner/name-codegen", None), ("other", "owner/name", "docstring")
):
    base = AutoModelForCausalLM.from_pretrained("owner/name", subfolder="base", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, place, **({"subfolder": folder} if folder else {})).eval()
    out[name] = model(ids).logits.detach()
torch.save(out, sys.argv[1])
"""


def make_adapter(folder: Path, seed: int) -> Any:
    """Save an adapter with random weights as training does; return its logits."""
    import torch

    from bilora.params import Adapter
    from bilora.training.adapter import attach_adapter, save_adapter

    model = attach_adapter(
        FolderBase.at(ROOT / "models" / "smoke").load(training=False).model,
        Adapter(rank=4, alpha=8, dropout=0.0, target_modules=["qkv_proj", "down_proj"]),
        seed=seed,
    )
    torch.manual_seed(seed)
    for name, weights in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weights, std=0.1)
    save_adapter(model, folder, FolderBase.at("models/smoke"), "r")
    with torch.no_grad():
        return model.eval()(torch.tensor(IDS)).logits


def test_sub_folder_and_root_give_the_logits_that_were_trained(
    hub: Hub, tmp_path: Path, no_results: Results, bundle_info: Callable[..., BundleInfo]
) -> None:
    import torch

    folders = {task: tmp_path / "adapters" / task for task in ("codegen", "docstring")}
    expected = {task: make_adapter(folder, seed) for seed, (task, folder) in enumerate(folders.items())}
    files = build_bundle(
        folders,
        {},
        no_results,
        bundle_info(FolderBase(id="models/smoke", path=ROOT / "models" / "smoke"), repository="owner/name"),
    )
    api = connect(TOKEN, endpoint=hub.url)
    publish_unchecked(HubRepositories(lambda name: Repository(api, name), "owner/name"), files, message="m")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHONPATH"))}
    clean = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(tmp_path / "logits.pt")],
        cwd=tmp_path,
        env={**inherited, **clean},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    logits = torch.load(tmp_path / "logits.pt", weights_only=True)
    # Training's layers add in another order than PEFT's; the two adapters' logits differ by far more.
    assert torch.allclose(logits["sub-folder"], expected["codegen"], atol=1e-5)
    assert torch.allclose(logits["root"], expected["codegen"], atol=1e-5)
    assert torch.allclose(logits["other"], expected["docstring"], atol=1e-5)
    assert not torch.allclose(expected["codegen"], expected["docstring"], atol=0.1)
