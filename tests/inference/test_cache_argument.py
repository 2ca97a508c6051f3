"""The KV cache reaches the model and its fused layers under both names that transformers gave it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention

from bilora.inference.torch.fused_layers import FusedAttention
from bilora.inference.torch.kv_cache import KVCache, cache_argument


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_the_cache_has_the_name_of_the_model_s_signature(name: str) -> None:
    def new(input_ids: object, cache: object = None) -> None: ...

    def old(input_ids: object, past_key_values: object = None) -> None: ...

    model: Any = SimpleNamespace(forward=new if name == "cache" else old)
    assert cache_argument(model) == name


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_fused_attention_stores_keys_and_values_under_both_names(name: str) -> None:
    config = LlamaConfig(hidden_size=16, num_attention_heads=2, num_key_value_heads=2, intermediate_size=16)
    attention = FusedAttention(LlamaAttention(config, layer_idx=0))
    kv_cache = KVCache(1)
    kv_cache.begin_prefill([3])
    angles = torch.zeros(1, 3, 8)
    with torch.inference_mode():
        attention(torch.ones(1, 3, 16), (angles.cos(), angles.sin()), None, **{name: kv_cache})
        kv_cache.end_prefill()
        mask = kv_cache.mask(None, angles.device)
        output, _ = attention(
            torch.ones(1, 1, 16), (angles[:, :1].cos(), angles[:, :1].sin()), mask, **{name: kv_cache}
        )
        keys, _values = kv_cache.update(torch.ones(1, 2, 1, 8), torch.ones(1, 2, 1, 8), 0)
    assert output.shape == (1, 1, 16)
    assert keys.shape == (1, 2, 4, 8) and bool(keys[0, :, :3].any())
