"""Bases and adapters for measurements: the base of params.yaml or one with random weights, and random adapters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bilora.bases.base import Base
from bilora.bases.kinds.folder import FolderBase
from bilora.params import Adapter, Quantization
from bilora.storage import write_json
from bilora.training.adapter import attach_adapter, save_adapter
from bilora.workspace import Workspace

TOKENIZER_FOLDER = Path("models/smoke")
"""The random bases use its tokenizer."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
ATTENTION = ["qkv_proj", "q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_up_proj", "gate_proj", "up_proj", "down_proj"]
PARAMS_SHAPE = "params"
"""Selects the base of params.yaml instead of a random one."""
SHAPES: dict[str, dict[str, Any]] = {
    "half-billion": {  # the shape of Qwen2.5-0.5B
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "vocab_size": 151_936, "max_position_embeddings": 2048, "tie_word_embeddings": True,
    },
    "phi3-mini": {
        "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 32_064, "max_position_embeddings": 4096, "sliding_window": 2047,
        "tie_word_embeddings": False,
    },
}  # fmt: skip


def select_base(shape: str, folder: Path) -> Base:
    """Return the base of params.yaml, or a random one of this shape, which is written to `folder`."""
    return Workspace(Path()).base() if shape == PARAMS_SHAPE else write_random_base(shape, folder)


def quantization_of(shape: str, requested: Quantization | None) -> Quantization | None:
    """Return the requested quantization; by default None (the base's GGUF file), or q4_k_m for a random base."""
    return requested or (None if shape == PARAMS_SHAPE else "q4_k_m")


def write_random_base(shape: str, folder: Path) -> Base:
    """Write a bf16 base of Phi-3's architecture, one file per layer, unless the folder contains one."""
    from transformers import Phi3Config

    base = FolderBase.at(folder, dtype="bfloat16")
    if (folder / "config.json").exists():
        return base
    sizes = SHAPES[shape]
    config = Phi3Config(**sizes, bos_token_id=1, eos_token_id=3, pad_token_id=0, dtype="bfloat16")
    torch.manual_seed(0)
    shards = [{"model.embed_tokens": (config.vocab_size, config.hidden_size), "model.norm": (config.hidden_size,)}]
    if not config.tie_word_embeddings:
        shards.append({"lm_head": (config.vocab_size, config.hidden_size)})
    shards += [layer_shapes(config, number) for number in range(config.num_hidden_layers)]
    folder.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {f"{key}.weight": random_weight(shape) for key, shape in shard.items()}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    for name in TOKENIZER_FILES:
        shutil.copy(TOKENIZER_FOLDER / name, folder / name)
    config.architectures = ["Phi3ForCausalLM"]
    config.save_pretrained(folder)
    return base


def layer_shapes(config: Any, number: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of one layer's weights."""
    hidden, inner = config.hidden_size, config.intermediate_size
    head = hidden // config.num_attention_heads
    shapes = {
        "input_layernorm": (hidden,),
        "self_attn.qkv_proj": (hidden + 2 * config.num_key_value_heads * head, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_up_proj": (2 * inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    return {f"model.layers.{number}.{name}": shape for name, shape in shapes.items()}


def random_weight(shape: tuple[int, ...]) -> torch.Tensor:
    """Return random values; for a norm, ones."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02)


def write_random_adapter(base: Base, folder: Path, targets: list[str], *, seed: int, rank: int = 16) -> Path:
    """Write a random adapter on the base's layers that `targets` names, without loading the base."""
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(base.config())
    torch.manual_seed(seed)
    tensors = {}
    target_modules = set()
    for name, module in model.named_modules():
        leaf = name.rpartition(".")[2]
        if leaf in targets:
            target_modules.add(leaf)
            rows, columns = module.weight.shape
            stem = f"base_model.model.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.empty(rank, columns).normal_(std=0.02)
            tensors[f"{stem}.lora_B.weight"] = torch.empty(rows, rank).normal_(std=0.02)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=sorted(target_modules), task_type="CAUSAL_LM")
    lora.base_model_name_or_path = base.id
    lora.save_pretrained(str(folder))
    return folder


def save_random_adapter(model: Any, folder: Path, base: Base, targets: list[str], *, seed: int) -> Path:
    """Save a random adapter on the layers of a loaded base that `targets` names; the model is unchanged afterwards."""
    leaves = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    layers = [name for name in targets if name in leaves]
    adapted = attach_adapter(model, Adapter(rank=16, alpha=32, dropout=0.0, target_modules=layers), seed=seed)
    torch.manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(adapted, folder, base, base.identity)
    adapted.unload()
    return folder
