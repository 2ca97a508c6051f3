"""Attach a LoRA adapter to a base, and save it as a standard PEFT folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilora.bases.base import Base
from bilora.errors import PreflightFailed
from bilora.params import Adapter
from bilora.storage import ADAPTER_FILES, atomic, read_json, sha256_tree, write_json

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def attach_adapter(model: PreTrainedModel, adapter: Adapter, *, seed: int) -> PeftModel:
    """Return the model with a new adapter, whose A and B are float32 whatever the base's precision.

    Raises:
        PreflightFailed: a target module matches no layer. (PEFT raises only if none of them does.)
    """
    import torch
    from peft import LoraConfig, get_peft_model

    from bilora.training.lora_linear import LoraLinear

    layers = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    missing = sorted(set(adapter.target_modules) - layers)
    if missing:
        raise PreflightFailed(
            f"target_modules {', '.join(missing)} match no layer of this base; its linear layers are "
            f"{', '.join(sorted(layers))}."
        )
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=sorted(adapter.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    if model.device.type == "cpu":
        config._register_custom_module({torch.nn.Linear: LoraLinear})
    torch.manual_seed(seed)
    attached = get_peft_model(model, config)
    cast_adapter(attached)
    return attached


def cast_adapter(model: PeftModel) -> None:
    """Cast the adapter's weights to float32, since 16-bit weights lose small updates."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def count_trainable(model: PeftModel) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def save_adapter_weights(model: PeftModel, path: Path) -> None:
    """Write the adapter's weights to a file atomically."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    with atomic(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(model).items()}, temporary)


def load_adapter_weights(model: PeftModel, path: Path) -> None:
    """Load weights that `save_adapter_weights` wrote into the model's adapter."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(path))


_ALWAYS_WRITTEN = frozenset(
    {
        "base_model_name_or_path",
        "bias",
        "inference_mode",
        "lora_alpha",
        "lora_dropout",
        "peft_type",
        "r",
        "revision",
        "target_modules",
        "task_type",
    }
)
"""Settings that are written to adapter_config.json even if they have PEFT's default value."""


def save_adapter(model: PeftModel, folder: Path, base: Base, base_revision: str) -> None:
    """Write the PEFT folder atomically, with a manifest of the hashes of its files and the base's.

    Equal adapters are equal bytes. Settings with PEFT's default value are omitted, because older versions of PEFT
    reject settings that they do not know.
    """
    # 1) Save with PEFT into a temporary folder, without the files that PEFT adds.
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        model.save_pretrained(str(temporary), safe_serialization=True)
        for path in temporary.iterdir():
            if path.name not in ADAPTER_FILES:
                path.unlink()
        # 2) Name the base by its id and revision, and sort the target modules.
        config_file = temporary / "adapter_config.json"
        config = _without_defaults(read_json(config_file))
        config |= {
            "base_model_name_or_path": base.id,
            "revision": base.revision,
            "target_modules": sorted(config["target_modules"]),
        }
        write_json(config_file, config)
        # 3) Add the manifest and replace the old folder.
        manifest = {
            "base_id": base.id,
            "base_revision": base_revision,
            "base_files": base.files(),
            "files": sha256_tree(temporary),
        }
        write_json(temporary / "manifest.json", manifest)
        if folder.exists():
            retired = folder.with_name(f".{folder.name}.old")
            shutil.rmtree(retired, ignore_errors=True)
            folder.replace(retired)
            temporary.replace(folder)
            shutil.rmtree(retired)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _without_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    from peft import LoraConfig

    defaults = json.loads(json.dumps(LoraConfig().to_dict()))
    return {
        name: value
        for name, value in config.items()
        if name in _ALWAYS_WRITTEN or name not in defaults or value != defaults[name]
    }
