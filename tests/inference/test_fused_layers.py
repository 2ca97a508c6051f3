"""Fused layers compute exactly the same as the model's layers, with and without adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.sample_adapters import SMOKE, chat_request, greedy_answer, prompts

from bilora.bases.loading import LoadedBase
from bilora.errors import BadData
from bilora.inference.torch.engine import TorchEngine
from bilora.inference.torch.fused_layers import FusedAttention, FusedMLP, fuse_layers
from bilora.inference.torch.lora import StackedLora, read_adapter

SIZES: dict[str, Any] = {
    "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_hidden_layers": 3, "max_position_embeddings": 256, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 3,
}  # fmt: skip
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def model_of(family: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES), attn_implementation="sdpa").eval()
    for parameter in model.parameters():
        parameter.data *= 4  # far from the ties of a fresh model
        if parameter.dim() == 1:
            parameter.data += torch.rand_like(parameter)  # biases are zero in a fresh model
    return model


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_logits_are_the_model_s_own_to_the_last_bit(family: str) -> None:
    model, ids = model_of(family), torch.arange(3, 43).view(2, 20)
    with torch.inference_mode():
        before = model(ids).logits
        fuse_layers(model)
        assert torch.equal(model(ids).logits, before)
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(FusedAttention) == kinds.count(FusedMLP) == SIZES["num_hidden_layers"]


def test_answers_of_a_batch_are_the_model_s_own() -> None:
    model = model_of("llama")
    tokenizer = SMOKE.load(training=False).tokenizer
    requests = [chat_request(text, 20) for text in prompts(10)]
    expected = [greedy_answer(model, tokenizer, request) for request in requests]
    fuse_layers(model)
    engine = TorchEngine(LoadedBase(model, tokenizer, ""), {}, batch_size=4)
    assert [completion.text for completion in engine.generate("base", requests)] == expected


def write_adapter(model: Any, folder: Path, targets: list[str]) -> Any:
    """Write a random adapter for these layers; return the model with it."""
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    wrapped.save_pretrained(str(folder))
    return wrapped.eval()


@pytest.mark.parametrize("targets", [PROJECTIONS, ["q_proj", "v_proj"], ["k_proj", "down_proj"], ["up_proj"]], ids=len)
def test_an_adapter_for_the_model_s_layers_adds_what_it_does_in_peft(targets: list[str], tmp_path: Path) -> None:
    ids = torch.arange(3, 43).view(2, 20)
    with torch.inference_mode():
        base = model_of("qwen2")(ids).logits
        expected = write_adapter(model_of("qwen2"), tmp_path, targets)(ids).logits
        model = model_of("qwen2")
        fuse_layers(model)
        lora = StackedLora(model)
        adapter = read_adapter("one", tmp_path, model)
        with lora.active([adapter, adapter]):
            together = model(ids).logits
        with lora.active([adapter, None]):
            mixed = model(ids).logits
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(mixed, torch.stack([expected[0], base[1]]), rtol=1e-4, atol=1e-3)
    assert float((expected - base).abs().max()) > 0.1


def test_an_adapter_of_another_shape_does_not_fit_a_part(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    other = LlamaForCausalLM(LlamaConfig(**SIZES | {"num_key_value_heads": 4}))
    write_adapter(other, tmp_path, ["k_proj"])
    model = model_of("llama")
    fuse_layers(model)
    with pytest.raises(BadData, match=r"does not match the base .*k_proj"):
        read_adapter("one", tmp_path, model)
