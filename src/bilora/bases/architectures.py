"""Map the weights and config of transformers models to GGUF and back, per architecture that runs on llama.cpp.

Sources: the GGUF specification, the `gguf` package's names, and the graphs of llama.cpp (`src/models`).
To support another architecture, add an entry to `ARCHITECTURES`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bilora.errors import BadData

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

USE_TORCH = "set `inference.engine: torch`"
LM_HEAD = "lm_head.weight"
"""Name of the output layer's weight in transformers."""
ROPE_FACTORS = "rope_freqs.weight"
"""Name of the tensor of `ModelArchitecture.rope_factors` in GGUF."""


@dataclass(frozen=True)
class Linear:
    """A linear layer of a transformer block.

    `gguf` is its name in GGUF. `heads` is the config key of the number of heads if GGUF interleaves the layer's rows
    (see `interleave_halves`). `bias` is the config key that says whether it has a bias; True if it always has one.
    """

    gguf: str
    heads: str | None = None
    bias: str | bool = False


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor's name in GGUF, and the number of heads in which its rows are interleaved; None if they are not."""

    name: str
    heads: int | None = None

    def reorder_rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a transformers weight, or the B matrix of a LoRA on it, with its rows in GGUF's order."""
        return tensor if self.heads is None else interleave_halves(tensor, self.heads)

    def restore_rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a GGUF tensor with its rows in transformers' order; the inverse of `reorder_rows`."""
        return tensor if self.heads is None else separate_halves(tensor, self.heads)


@dataclass(frozen=True)
class ModelArchitecture:
    """An architecture that both transformers and llama.cpp compute."""

    model_type: str
    """Its `model_type` in transformers' config.json."""
    gguf: str
    """Its name in GGUF."""
    linear: Mapping[str, Linear]
    """The linear layers of a block by their names in transformers."""
    metadata: Mapping[str, str | int] = field(default_factory=dict)
    """Additional GGUF metadata: key → the config key of its value, or the value itself."""
    rope_types: frozenset[str] = frozenset({"default"})
    """The RoPE types that llama.cpp computes as transformers does."""
    partial_rotary: bool = False
    """Whether llama.cpp supports rotating only part of each head."""
    any_head_size: bool = False
    """Whether the head size may differ from hidden size / number of heads."""

    @property
    def target_modules(self) -> tuple[str, ...]:
        """The layers that can have a LoRA, as named in `adapter.target_modules`."""
        return tuple(name.rpartition(".")[2] for name in self.linear)

    def tensors(self, config: PreTrainedConfig, *, tied: bool) -> dict[str, GGUFTensor]:
        """Return the GGUF tensor of every weight and bias, by its name in transformers.

        Args:
            tied: whether the output layer shares the embeddings' weight and so has no tensor.
        """
        names = {
            "model.embed_tokens.weight": GGUFTensor("token_embd.weight"),
            "model.norm.weight": GGUFTensor("output_norm.weight"),
        }
        if not tied:
            names[LM_HEAD] = GGUFTensor("output.weight")
        for block in range(config.num_hidden_layers):
            prefix, gguf_prefix = f"model.layers.{block}", f"blk.{block}"
            for norm, gguf in _NORMS.items():
                names[f"{prefix}.{norm}.weight"] = GGUFTensor(f"{gguf_prefix}.{gguf}.weight")
            for layer, linear in self.linear.items():
                heads = getattr(config, linear.heads) if linear.heads else None
                names[f"{prefix}.{layer}.weight"] = GGUFTensor(f"{gguf_prefix}.{linear.gguf}.weight", heads)
                if linear.bias is True or (linear.bias and getattr(config, linear.bias)):
                    names[f"{prefix}.{layer}.bias"] = GGUFTensor(f"{gguf_prefix}.{linear.gguf}.bias", heads)
        return names

    def to_metadata(self, config: PreTrainedConfig) -> dict[str, int | float]:
        """Return the GGUF metadata of a config, by keys without the architecture's prefix."""
        size, rope = _head_size(config), config.rope_parameters
        values: dict[str, int | float] = {
            "context_length": config.max_position_embeddings,
            "embedding_length": config.hidden_size,
            "feed_forward_length": config.intermediate_size,
            "block_count": config.num_hidden_layers,
            "attention.head_count": config.num_attention_heads,
            "attention.head_count_kv": config.num_key_value_heads,
            "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
            "rope.dimension_count": int(_rotated_part(config) * size),
            "rope.freq_base": float(rope["rope_theta"]),
            "vocab_size": config.vocab_size,
        }
        if self.any_head_size:
            values |= {"attention.key_length": size, "attention.value_length": size}
        for key, value in self.metadata.items():
            values[key] = getattr(config, value) if isinstance(value, str) else value
        return values

    def to_config(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the transformers config of GGUF metadata; the inverse of `to_metadata`.

        `rope_theta` is written both at the top level and in `rope_parameters`, for all versions of transformers.

        Args:
            values: the metadata by keys without the architecture's prefix.

        Raises:
            KeyError: a value is missing.
            ValueError: the positions are scaled, or the heads are only partly rotated.
        """
        if values.get("rope.scaling.type", "none") != "none":
            raise ValueError(f"its positions are scaled ({values['rope.scaling.type']})")
        heads, theta = values["attention.head_count"], _decimal(values.get("rope.freq_base", 10_000.0))
        size = values.get("attention.key_length", values["embedding_length"] // heads)
        part = values.get("rope.dimension_count", size) / size
        if part != 1 and not self.partial_rotary:
            raise ValueError(f"only {part:.2f} of each head is rotated")
        settings = {
            "max_position_embeddings": values["context_length"],
            "hidden_size": values["embedding_length"],
            "intermediate_size": values["feed_forward_length"],
            "num_hidden_layers": values["block_count"],
            "num_attention_heads": heads,
            "num_key_value_heads": values.get("attention.head_count_kv", heads),
            "rms_norm_eps": _decimal(values["attention.layer_norm_rms_epsilon"]),
            "rope_theta": theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta}
            | ({"partial_rotary_factor": part} if part != 1 else {}),
        }
        if self.any_head_size:
            settings["head_dim"] = size
        return settings | {
            setting: values[key] for key, setting in self.metadata.items() if isinstance(setting, str) and key in values
        }

    def bias_config(self, tensors: Collection[str]) -> dict[str, bool]:
        """Return the config keys that say which layers have a bias, from the names of a GGUF file's tensors."""
        return {
            linear.bias: f"blk.0.{linear.gguf}.bias" in tensors
            for linear in self.linear.values()
            if isinstance(linear.bias, str)
        }

    def rope_factors(self, config: PreTrainedConfig) -> torch.Tensor | None:
        """Return the divisors of the rotary frequencies, shape (head size / 2,); None for unscaled RoPE.

        The frequencies come from transformers, so that both engines rotate equally.
        """
        import torch
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        rope = config.rope_parameters
        if _rope_type(config) == "default":
            return None
        scaled, _ = ROPE_INIT_FUNCTIONS[_rope_type(config)](config)
        size = _head_size(config)
        unscaled = rope["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
        factors: torch.Tensor = unscaled / scaled
        return factors

    def unsupported(self, config: PreTrainedConfig) -> list[str]:
        """Return short descriptions of what llama.cpp would compute differently from transformers."""
        features = []
        if _rope_type(config) not in self.rope_types:
            features.append(f"{_rope_type(config)} positions")
        if _rotated_part(config) != 1 and not self.partial_rotary:
            features.append("partly rotated heads")
        if _head_size(config) * config.num_attention_heads != config.hidden_size and not self.any_head_size:
            features.append(f"heads of size {_head_size(config)}")
        if config.hidden_act not in ("silu", "swish"):
            features.append(f"the activation {config.hidden_act}")
        return features


_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}

_PHI3 = ModelArchitecture(
    model_type="phi3",
    gguf="phi3",
    linear={
        "self_attn.qkv_proj": Linear("attn_qkv"),
        "self_attn.o_proj": Linear("attn_output"),
        "mlp.gate_up_proj": Linear("ffn_up"),
        "mlp.down_proj": Linear("ffn_down"),
    },
    metadata={
        "rope.scaling.original_context_length": "original_max_position_embeddings",
        "attention.sliding_window": 0,  # llama.cpp ignores it for Phi-3: see `max_context`
    },
    partial_rotary=True,
)
_LLAMA = ModelArchitecture(
    model_type="llama",
    gguf="llama",
    linear={
        "self_attn.q_proj": Linear("attn_q", heads="num_attention_heads", bias="attention_bias"),
        "self_attn.k_proj": Linear("attn_k", heads="num_key_value_heads", bias="attention_bias"),
        "self_attn.v_proj": Linear("attn_v", bias="attention_bias"),
        "self_attn.o_proj": Linear("attn_output", bias="attention_bias"),
        "mlp.gate_proj": Linear("ffn_gate", bias="mlp_bias"),
        "mlp.up_proj": Linear("ffn_up", bias="mlp_bias"),
        "mlp.down_proj": Linear("ffn_down", bias="mlp_bias"),
    },
    rope_types=frozenset({"default", "linear", "llama3"}),
    any_head_size=True,
)
_QWEN2 = ModelArchitecture(
    model_type="qwen2",
    gguf="qwen2",
    linear={
        "self_attn.q_proj": Linear("attn_q", bias=True),
        "self_attn.k_proj": Linear("attn_k", bias=True),
        "self_attn.v_proj": Linear("attn_v", bias=True),
        "self_attn.o_proj": Linear("attn_output"),
        "mlp.gate_proj": Linear("ffn_gate"),
        "mlp.up_proj": Linear("ffn_up"),
        "mlp.down_proj": Linear("ffn_down"),
    },
)
ARCHITECTURES = {entry.model_type: entry for entry in (_PHI3, _LLAMA, _QWEN2)}
"""The supported architectures by transformers' `model_type`."""


def architecture_of(model_type: str, base: str) -> ModelArchitecture:
    """Return the architecture of a base.

    Args:
        base: its name in messages.

    Raises:
        BadData: llama.cpp does not support it.
    """
    if model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise BadData(base, f"engine llamacpp supports {known}, and this base is {model_type}; {USE_TORCH}.")
    return ARCHITECTURES[model_type]


def max_context(config: PreTrainedConfig) -> int:
    """Return the number of tokens up to which llama.cpp and transformers compute the same.

    It ends at the size of the sliding window, which llama.cpp ignores for these architectures.
    """
    longest = int(config.max_position_embeddings)
    return min(longest, int(getattr(config, "sliding_window", None) or longest))


def interleave_halves(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Interleave the two halves of each head along the first axis, shape (heads * size, ...).

    transformers rotates row i of a head with row i + size / 2; GGML's "normal" RoPE rotates rows 2i and 2i + 1.
    Reordering q and k equally does not change their product.
    """
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def separate_halves(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Undo `interleave_halves` on the first axis, shape (heads * size, ...)."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)


def _decimal(value: float) -> float:
    """Return the shortest decimal number with the same float32 value: 1e-05 for 9.99999975e-06."""
    import numpy

    return float(str(numpy.float32(value)))


def _head_size(config: PreTrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _rope_type(config: PreTrainedConfig) -> str:
    return str((config.rope_parameters or {}).get("rope_type", "default"))


def _rotated_part(config: PreTrainedConfig) -> float:
    return float((config.rope_parameters or {}).get("partial_rotary_factor", 1.0))
