"""The architectures that llama.cpp is used for: how weights and settings of transformers are written as GGUF.

Sources: the GGUF specification, the `gguf` package's names, and the graphs of llama.cpp (`src/models`).
Another architecture is one more entry of `ARCHITECTURES`.
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
"""transformers' name of the output layer."""
ROPE_FACTORS = "rope_freqs.weight"
"""GGUF's name of what `ModelArchitecture.rope_factors` returns."""


@dataclass(frozen=True)
class Linear:
    """A linear layer of a block.

    `heads` names the setting with the number of heads whose rows are interleaved in GGUF (`interleave_halves`).
    `bias` names the setting that gives the layer a bias; True where it always has one.
    """

    gguf: str
    heads: str | None = None
    bias: str | bool = False


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor in GGUF: its name, and in how many heads its rows are interleaved; None if they keep their order."""

    name: str
    heads: int | None = None

    def reorder_rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return transformers' tensor, or the B matrix of a LoRA on it, with its rows in the order of GGUF."""
        return tensor if self.heads is None else interleave_halves(tensor, self.heads)

    def restore_rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return GGUF's tensor with its rows in the order of transformers; the inverse of `reorder_rows`."""
        return tensor if self.heads is None else separate_halves(tensor, self.heads)


@dataclass(frozen=True)
class ModelArchitecture:
    """One architecture in GGUF; names of layers are those of transformers, within a block."""

    model_type: str
    """Its name in transformers' config.json."""
    gguf: str
    """Its name in GGUF."""
    linear: Mapping[str, Linear]
    metadata: Mapping[str, str | int] = field(default_factory=dict)
    """What its files hold beyond `metadata_of`: key → the setting with the value, or the value."""
    rope_types: frozenset[str] = frozenset({"default"})
    """Rotary embeddings that llama.cpp computes as transformers does."""
    partial_rotary: bool = False
    """Whether only a part of each head may be rotated."""
    any_head_size: bool = False
    """Whether all heads together may be wider or narrower than the hidden states."""

    @property
    def target_modules(self) -> tuple[str, ...]:
        """The linear layers that a LoRA can be put on, as `adapter.target_modules` names them."""
        return tuple(name.rpartition(".")[2] for name in self.linear)

    def tensors(self, config: PreTrainedConfig, *, tied: bool) -> dict[str, GGUFTensor]:
        """Return transformers' name of every weight and bias → its tensor in GGUF.

        Args:
            tied: the embeddings are the output layer too, so that there is no tensor for the latter.
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

    def metadata_of(self, config: PreTrainedConfig) -> dict[str, int | float]:
        """Return what the file of a base says of it, by GGUF's keys without the architecture's prefix."""
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

    def config_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return transformers' settings for what a file says, by GGUF's keys without the architecture's prefix.

        The inverse of `metadata_of`. `rope_theta` has both its spellings: alone, and in `rope_parameters`.

        Raises:
            KeyError: a value is missing.
            ValueError: its positions are scaled, or its heads are of another kind.
        """
        if values.get("rope.scaling.type", "none") != "none":
            raise ValueError(f"its positions are scaled ({values['rope.scaling.type']})")
        heads, theta = values["attention.head_count"], _decimal(values.get("rope.freq_base", 10_000.0))
        size = values.get("attention.key_length", values["embedding_length"] // heads)
        part = values.get("rope.dimension_count", size) / size
        if part != 1 and not self.partial_rotary:
            raise ValueError(f"a part of {part:.2f} of each head is rotated")
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

    def biases_in(self, tensors: Collection[str]) -> dict[str, bool]:
        """Return the settings that give layers a bias, by the names of a file's tensors."""
        return {
            linear.bias: f"blk.0.{linear.gguf}.bias" in tensors
            for linear in self.linear.values()
            if isinstance(linear.bias, str)
        }

    def rope_factors(self, config: PreTrainedConfig) -> torch.Tensor | None:
        """Return by what each rotary frequency is divided, shape (head size / 2,); None if by nothing.

        transformers' own function computes the frequencies, so that both engines rotate alike.
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

    def differences(self, config: PreTrainedConfig) -> list[str]:
        """Return what llama.cpp would compute differently from transformers, each in a few words."""
        differences = []
        if _rope_type(config) not in self.rope_types:
            differences.append(f"{_rope_type(config)} positions")
        if _rotated_part(config) != 1 and not self.partial_rotary:
            differences.append("heads of which a part is rotated")
        if _head_size(config) * config.num_attention_heads != config.hidden_size and not self.any_head_size:
            differences.append(f"heads of {_head_size(config)}")
        if config.hidden_act not in ("silu", "swish"):
            differences.append(f"the activation {config.hidden_act}")
        return differences


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
        "attention.sliding_window": 0,  # llama.cpp keeps none for Phi-3, whatever is written: see `max_context`
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
"""By transformers' `model_type`."""


def architecture_of(model_type: str, base: str) -> ModelArchitecture:
    """Return the architecture of a base, which is named `base` in messages.

    Raises:
        BadData: llama.cpp is not used for it.
    """
    if model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise BadData(base, f"llama.cpp is used for {known} only, and this base is {model_type}; {USE_TORCH}.")
    return ARCHITECTURES[model_type]


def max_context(config: PreTrainedConfig) -> int:
    """Return how many tokens transformers and llama.cpp compute alike.

    That ends where a sliding window begins to slide: llama.cpp keeps none for these architectures.
    """
    longest = int(config.max_position_embeddings)
    return min(longest, int(getattr(config, "sliding_window", None) or longest))


def interleave_halves(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder the first axis, shape (heads * size, ...): interleave the two halves of each head.

    transformers rotates row i of a head with row i + size / 2, GGML rows 2i and 2i + 1 where an architecture's
    positions are of its "normal" type. The same order on both of q and k leaves their products as they are.
    """
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def separate_halves(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Undo `interleave_halves` on the first axis, shape (heads * size, ...)."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)


def _decimal(value: float) -> float:
    """Return the shortest decimal number that is `value` in 32-bit, which GGUF stores: 1e-05 for 9.99999975e-06."""
    import numpy

    return float(str(numpy.float32(value)))


def _head_size(config: PreTrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _rope_type(config: PreTrainedConfig) -> str:
    return str((config.rope_parameters or {}).get("rope_type", "default"))


def _rotated_part(config: PreTrainedConfig) -> float:
    return float((config.rope_parameters or {}).get("partial_rotary_factor", 1.0))
