"""The table of architectures: each tensor has its place in GGUF, and what would be computed otherwise is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny_bases import SIZES, tiny_model
from torch.nn import Linear

from bilora.bases.architectures import (
    ARCHITECTURES,
    GGUFTensor,
    architecture_of,
    interleave_halves,
    max_context,
)
from bilora.errors import BadData

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("phi3", {}),
    ("llama", {}),
    ("llama", {"attention_bias": True}),
    ("llama", {"mlp_bias": True, "tie_word_embeddings": True}),
    ("qwen2", {"tie_word_embeddings": True}),
]


def config_of(model_type: str, **settings: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type, **SIZES | settings)


@pytest.mark.parametrize(("model_type", "settings"), FORMS, ids=str)
def test_every_tensor_of_a_model_has_exactly_one_in_gguf(model_type: str, settings: dict[str, Any]) -> None:
    model = tiny_model(model_type, **settings)
    stored = ARCHITECTURES[model_type].tensors(model.config, tied=model.config.tie_word_embeddings)
    assert set(stored) == {name for name, _ in model.named_parameters()}
    assert len({tensor.name for tensor in stored.values()}) == len(stored)


@pytest.mark.parametrize(("model_type", "settings"), FORMS, ids=str)
def test_the_names_are_those_of_the_gguf_package(model_type: str, settings: dict[str, Any]) -> None:
    gguf = pytest.importorskip("gguf", reason='gguf is not installed: pip install "bilora[llamacpp]"')
    architecture = ARCHITECTURES[model_type]
    (number,) = (key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture.gguf)
    config = config_of(model_type, **settings)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for name, stored in architecture.tensors(config, tied=False).items():
        assert stored.name == names.get_name(name, try_suffixes=(".weight", ".bias"))


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_target_modules_are_the_linear_layers(model_type: str) -> None:
    model = tiny_model(model_type)
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, Linear)}
    assert sorted(ARCHITECTURES[model_type].target_modules) == sorted(linear - {"lm_head"})


def test_rows_are_only_reordered_where_ggml_rotates_neighbours() -> None:
    reordered = {
        model_type: {name for name, tensor in entry.tensors(config_of(model_type), tied=False).items() if tensor.heads}
        for model_type, entry in ARCHITECTURES.items()
    }
    assert reordered["phi3"] == reordered["qwen2"] == set()
    assert reordered["llama"] == {
        f"model.layers.{block}.self_attn.{layer}.weight" for block in range(3) for layer in ("q_proj", "k_proj")
    }


def test_interleaving_takes_every_row_to_its_place() -> None:
    places = interleave_halves(torch.arange(12), 2)
    assert places.tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    rows = torch.randn(12, 5)
    assert torch.equal(interleave_halves(rows, 2), rows[places])
    assert torch.equal(interleave_halves(rows, 2)[places.argsort()], rows)


def test_neighbours_rotated_in_the_stored_order_give_transformers_scores() -> None:
    """What GGML computes of interleaved q and k is what transformers computes of them as they are."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    config = config_of("llama")
    heads, size, tokens = config.num_attention_heads, config.head_dim, 9
    torch.manual_seed(0)
    q, k = torch.randn(2, tokens, heads * size)
    cos, sin = LlamaRotaryEmbedding(config)(q, torch.arange(tokens)[None])
    halves = (rows.view(1, tokens, heads, size).transpose(1, 2) for rows in (q, k))
    rotated_q, rotated_k = apply_rotary_pos_emb(*halves, cos, sin)

    angles = torch.arange(tokens)[:, None] * 1e4 ** (-torch.arange(0, size, 2) / size)
    turns = torch.polar(torch.ones_like(angles), angles)[:, None]
    pairs = (interleave_halves(rows.T, heads).T.reshape(tokens, heads, -1, 2).contiguous() for rows in (q, k))
    turned_q, turned_k = (torch.view_as_complex(pair) * turns for pair in pairs)
    scores = torch.einsum("ihd,jhd->hij", turned_q, turned_k.conj()).real
    assert torch.allclose(scores, (rotated_q @ rotated_k.mT)[0], atol=1e-4)


def test_of_a_lora_b_is_reordered_as_the_weight_is() -> None:
    torch.manual_seed(0)
    weight, a, b = torch.randn(16, 10), torch.randn(3, 10), torch.randn(16, 3)
    assert torch.equal(GGUFTensor("attn_q", heads=4).reorder_rows(b), interleave_halves(b, 4))
    assert torch.equal(GGUFTensor("attn_v").reorder_rows(b), b)
    for tensor in (GGUFTensor("attn_q", heads=4), GGUFTensor("attn_v")):
        reordered, lora = tensor.reorder_rows(weight), tensor.reorder_rows(b) @ a
        assert torch.allclose(tensor.reorder_rows(weight + b @ a), reordered + lora, atol=1e-6)


@pytest.mark.parametrize("rope", [LLAMA3, {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}], ids=str)
def test_llama_s_scaled_frequencies_are_transformers_own(rope: dict[str, Any]) -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = config_of("llama", rope_parameters=rope)
    factors = ARCHITECTURES["llama"].rope_factors(config)
    assert factors is not None and factors.max() > 3
    frequencies = 1e4 ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)
    assert torch.allclose(frequencies / factors, LlamaRotaryEmbedding(config).inv_freq)
    assert ARCHITECTURES["llama"].rope_factors(config_of("llama")) is None


def test_metadata_says_what_differs_between_architectures() -> None:
    def only(model_type: str, **settings: Any) -> dict[str, int | float]:
        return ARCHITECTURES[model_type].to_metadata(config_of(model_type, **settings))

    common = only("qwen2")
    assert common["attention.head_count_kv"] == 2 and common["rope.dimension_count"] == 16
    assert all(isinstance(common[key], float) for key in ("rope.freq_base", "attention.layer_norm_rms_epsilon"))
    assert {key: value for key, value in only("llama", head_dim=32).items() if common.get(key) != value} == {
        "attention.key_length": 32,
        "attention.value_length": 32,
        "rope.dimension_count": 32,
    }
    phi3 = only("phi3", original_max_position_embeddings=128, sliding_window=100)
    assert phi3["rope.scaling.original_context_length"] == 128 and phi3["attention.sliding_window"] == 0


def test_an_unknown_architecture_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(BadData) as refused:
        architecture_of("gpt2", "models/other")
    assert str(refused.value) == (
        "models/other: engine llamacpp supports phi3, llama, qwen2, and this base is gpt2; "
        "set `inference.engine: torch`."
    )


@pytest.mark.parametrize(
    ("model_type", "settings", "differences"),
    [
        ("llama", {"rope_parameters": LLAMA3}, []),
        ("llama", {"head_dim": 32}, []),
        ("phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}, []),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            ["dynamic positions"],
        ),
        ("qwen2", {"rope_parameters": LLAMA3, "hidden_act": "gelu"}, ["llama3 positions", "the activation gelu"]),
        ("qwen2", {"head_dim": 32}, ["heads of size 32"]),
        (
            "llama",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            ["partly rotated heads"],
        ),
    ],
    ids=str,
)
def test_what_llama_cpp_would_compute_otherwise_is_named(
    model_type: str, settings: dict[str, Any], differences: list[str]
) -> None:
    assert ARCHITECTURES[model_type].unsupported(config_of(model_type, **settings)) == differences


@pytest.mark.parametrize(
    ("model_type", "settings", "tokens"),
    [
        ("llama", {}, 256),
        ("phi3", {"sliding_window": 100}, 100),
        ("phi3", {"sliding_window": 1000}, 256),
        ("qwen2", {"sliding_window": 100}, 256),
        ("qwen2", {"sliding_window": 100, "use_sliding_window": True, "max_window_layers": 1}, 100),
    ],
)
def test_the_context_ends_where_a_sliding_window_begins(model_type: str, settings: dict[str, Any], tokens: int) -> None:
    assert max_context(config_of(model_type, **settings)) == tokens
