"""Bases to measure: that of params.yaml, or one of any size with random weights; and random adapters for them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bilora.bases.base import Base
from bilora.bases.kinds.folder import FolderBase
from bilora.params import Quantization
from bilora.storage import write_json
from bilora.workspace import Workspace

SMOKE = FolderBase.at("models/smoke")
"""Whose tokenizer the random bases have."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
ATTENTION = ["qkv_proj", "q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_up_proj", "gate_proj", "up_proj", "down_proj"]
OWN = "params"
"""The shape that names no random base but that of params.yaml."""
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


def base_of(shape: str, folder: Path) -> Base:
    """Return the base of params.yaml, or write one of this shape with random weights."""
    return Workspace(Path()).base() if shape == OWN else random_base(shape, folder)


def quantization_of(shape: str, chosen: Quantization | None) -> Quantization | None:
    """Return what llama.cpp serves if no quantization was chosen: a base's own GGUF file, or q4_k_m."""
    return chosen or (None if shape == OWN else "q4_k_m")


def random_base(shape: str, folder: Path) -> Base:
    """Write a bf16 base of Phi-3's architecture and these sizes, one file per layer, unless the folder has one."""
    from transformers import Phi3Config

    base = FolderBase.at(folder, dtype="bfloat16")
    if (folder / "config.json").exists():
        return base
    sizes = SHAPES[shape]
    config = Phi3Config(**sizes, bos_token_id=1, eos_token_id=3, pad_token_id=0, dtype="bfloat16")
    torch.manual_seed(0)
    pieces = [{"model.embed_tokens": (config.vocab_size, config.hidden_size), "model.norm": (config.hidden_size,)}]
    if not config.tie_word_embeddings:
        pieces.append({"lm_head": (config.vocab_size, config.hidden_size)})
    pieces += [layer(config, number) for number in range(config.num_hidden_layers)]
    folder.mkdir(parents=True, exist_ok=True)
    places: dict[str, str] = {}
    for number, piece in enumerate(pieces, start=1):
        name = f"model-{number:05d}-of-{len(pieces):05d}.safetensors"
        tensors = {f"{key}.weight": weight(size) for key, size in piece.items()}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, name)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    for name in TOKENIZER:
        shutil.copy(Path(SMOKE.id) / name, folder / name)
    config.architectures = ["Phi3ForCausalLM"]
    config.save_pretrained(folder)
    return base


def layer(config: Any, number: int) -> dict[str, tuple[int, ...]]:
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
    return {f"model.layers.{number}.{name}": size for name, size in shapes.items()}


def weight(size: tuple[int, ...]) -> torch.Tensor:
    """Return random values; for a norm, ones."""
    if len(size) == 1:
        return torch.ones(size, dtype=torch.bfloat16)
    return torch.empty(size, dtype=torch.bfloat16).normal_(std=0.02)


def adapter_for(base: Base, folder: Path, targets: list[str], *, seed: int, rank: int = 16) -> Path:
    """Write an adapter with random weights for those layers of the base that have these names."""
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(base.config())
    torch.manual_seed(seed)
    tensors = {}
    found = set()
    for name, module in model.named_modules():
        leaf = name.rpartition(".")[2]
        if leaf in targets:
            found.add(leaf)
            rows, columns = module.weight.shape
            stem = f"base_model.model.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.empty(rank, columns).normal_(std=0.02)
            tensors[f"{stem}.lora_B.weight"] = torch.empty(rows, rank).normal_(std=0.02)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=sorted(found), task_type="CAUSAL_LM")
    lora.base_model_name_or_path = base.id
    lora.save_pretrained(str(folder))
    return folder
