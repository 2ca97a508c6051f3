"""Read adapters in PEFT's format, for any engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.errors import BadData
from bilora.storage import ADAPTER_FILES, adapter_sha256, read_json

if TYPE_CHECKING:
    import torch

_PREFIX = "base_model.model."
"""PEFT's prefix of module names."""

_INITIALISATION_ONLY = frozenset({"loftq_config", "eva_config", "corda_config", "lora_ga_config"})
"""Settings of the initialisation of A and B, which do not change what the adapter computes."""

_UNSUPPORTED = (
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "alora_invocation_tokens",
    "target_parameters",
)
"""Settings of adapters that compute something other than x + scale * x A' B'."""


@dataclass(frozen=True)
class PeftAdapter:
    """A LoRA adapter: per module A, shape (r, in), and B, shape (out, r), and the scale."""

    sha256: str
    scale: float
    layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def read_peft_adapter(folder: Path) -> PeftAdapter:
    """Read an adapter's two files.

    Raises:
        BadData: it is not plain LoRA, or contains numbers that are not finite.
        MissingStep: one of its two files is absent.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    sha256 = adapter_sha256(folder)
    config = read_json(folder / ADAPTER_FILES[0])
    _check_plain_lora(folder, config)
    try:
        # Not memory-mapped: overwriting the file in place would end this process by SIGBUS.
        tensors = load((folder / ADAPTER_FILES[1]).read_bytes())
    except (SafetensorError, OSError) as error:
        raise BadData(folder, f"its weights cannot be read ({str(error).splitlines()[0][:200]}).") from None
    if adapter_sha256(folder) != sha256:
        raise BadData(folder, "was changed while it was read; try again.")
    layers = {}
    for module in sorted({_module(folder, key) for key in tensors}):
        a, b = tensors.get(f"{_PREFIX}{module}.lora_A.weight"), tensors.get(f"{_PREFIX}{module}.lora_B.weight")
        if a is None or b is None or a.shape[0] != b.shape[1]:
            raise incompatible_adapter(folder, module)
        if not (a.isfinite().all() and b.isfinite().all()):
            raise BadData(folder, f"{module} contains numbers that are not finite; train it again.")
        layers[module] = (a, b)
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    return PeftAdapter(sha256, scale, layers)


def incompatible_adapter(folder: Path, module: str) -> BadData:
    """Return the error of an adapter with a module that the base does not have in this shape."""
    return BadData(folder, f"this adapter does not match the base ({module} is absent there or has another shape).")


def _check_plain_lora(folder: Path, config: Mapping[str, object]) -> None:
    refused = {key for key, value in config.items() if value and key.startswith("use_")} - {"use_rslora"}
    refused |= {key for key, value in config.items() if value and key.endswith("_config")} - _INITIALISATION_ONLY
    refused |= {key for key in _UNSUPPORTED if config.get(key)}
    if config.get("bias", "none") != "none":
        refused.add("bias")
    if config.get("peft_type") != "LORA" or refused:
        names = ", ".join(sorted(refused)) or "peft_type"
        raise BadData(folder, f"only plain LoRA is supported; this adapter sets {names}.")


def _module(folder: Path, key: str) -> str:
    name, dot, part = key.removeprefix(_PREFIX).rpartition(".lora_")
    if not key.startswith(_PREFIX) or not dot or part not in ("A.weight", "B.weight"):
        raise BadData(folder, f"only plain LoRA is supported; this adapter contains {key}.")
    return name
