"""llama.cpp has the same logits as transformers for each architecture, with and without a LoRA on all layers."""

from __future__ import annotations

import json
import random
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.random_adapters import write_random_adapter
from support.sample_adapters import chat_request, prompts
from support.tiny_bases import tiny_base

from bilora.bases import architectures
from bilora.bases.architectures import ARCHITECTURES, interleave_halves
from bilora.bases.kinds.folder import FolderBase
from bilora.errors import BadData
from bilora.inference.llamacpp.bindings import LlamaContext, LlamaModel
from bilora.inference.llamacpp.engine import LlamaEngine
from bilora.inference.llamacpp.gguf import adapter_gguf, base_gguf, lora_tensors
from bilora.inference.llamacpp.weights import Weights, gguf_model, open_weights
from bilora.inference.peft_adapter import read_peft_adapter
from bilora.inference.torch.engine import TorchEngine
from bilora.params import Quantization
from bilora.protocols import Progress, no_bar

NEAR = 1e-4
"""The largest accepted difference of logits, whose standard deviation is about 0.7 in these models."""
NEW = 8
QUANTIZATIONS: tuple[Quantization, ...] = ("f32", "f16", "q8_0", "q4_k_m")

HALF = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "phi3": ("phi3", {}),
    "phi3, half of each head rotated": ("phi3", {"rope_parameters": HALF}),
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, another theta": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, wide heads": ("llama", {"head_dim": 32}),
    "llama, linear positions": ("llama", {"rope_parameters": LINEAR}),
    "llama, positions of 3.1": ("llama", {"rope_parameters": LLAMA3}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "qwen2, untied": ("qwen2", {}),
}


@pytest.fixture(scope="module")
def library() -> Any:
    """The module that the extra installs."""
    return pytest.importorskip("llama_cpp", reason='llama.cpp is not installed: pip install "bilora[llamacpp]"')


def reference(folder: Path, adapter: Path | None) -> Any:
    """Return transformers' model in 32-bit, with the adapter merged by PEFT."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return (PeftModel.from_pretrained(model, str(adapter)).merge_and_unload() if adapter else model).eval()


def weights_of(folder: Path) -> Weights:
    return open_weights(folder, gguf_model(FolderBase.at(folder)))


def converted(folder: Path, adapter: Path | None, cache: Path) -> LlamaContext:
    """Return the same model in llama.cpp, from GGUF files in 32-bit."""
    weights = weights_of(folder)
    file = base_gguf(weights, "f32", cache, no_bar)
    model = LlamaModel(file, max_sequences=1, kv_capacity=256, threads=1, kv_float32=True, repack=True)
    return model.context(
        adapter_gguf(read_peft_adapter(adapter), adapter, weights, cache, float32=True) if adapter else None
    )


def largest_difference(context: LlamaContext, model: Any, count: int = 20) -> float:
    """Return the largest difference of logits from transformers' along greedy answers to random prompts."""
    rng = random.Random(8)
    worst = 0.0
    for _ in range(count):
        ids = [rng.randrange(4, 2048) for _ in range(rng.randint(1, 80))]
        logits = [*context.logits([(token, position, 0) for position, token in enumerate(ids)], len(ids)).clone()]
        for _ in range(NEW):
            ids.append(int(logits[-1].argmax()))
            logits += [*context.logits([(ids[-1], len(ids) - 1, 0)], 1).clone()]
        context.remove(0)
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([ids])).logits[0]
        worst = max(worst, float((torch.stack(logits) - expected).abs().max()))
        if expected[-NEW - 1 : -1].argmax(-1).tolist() != ids[-NEW:]:
            return float("inf")
    return worst


def adapter_of(folder: Path, parent: Path) -> Path:
    """Write an adapter on all linear layers, with random products about as large as the weights."""
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    targets = list(ARCHITECTURES[model_type].target_modules)
    adapter = write_random_adapter(parent / "adapter", FolderBase.at(folder), targets, seed=4)
    file = adapter / "adapter_model.safetensors"
    save_file({name: 0.1 * tensor if "lora_B" in name else tensor for name, tensor in load_file(file).items()}, file)
    return adapter


@pytest.mark.parametrize("with_adapter", [False, True], ids=["base", "adapter"])
@pytest.mark.parametrize("form", FORMS)
def test_logits_and_greedy_tokens_are_transformers_own(
    library: Any, tmp_path: Path, form: str, with_adapter: bool
) -> None:
    model_type, config = FORMS[form]
    folder = tiny_base(tmp_path / "models", model_type, **config)
    adapter = adapter_of(folder, tmp_path) if with_adapter else None
    model = reference(folder, adapter)
    assert largest_difference(converted(folder, adapter, tmp_path / "kept"), model) < NEAR


@pytest.mark.parametrize("part", ["base", "adapter"])
def test_rows_of_q_and_k_in_transformers_order_would_be_seen(
    library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    folder = tiny_base(tmp_path / "models", "llama")
    adapter = adapter_of(folder, tmp_path) if part == "adapter" else None
    if adapter:
        converted(folder, None, tmp_path / "kept")  # only the adapter is converted below
    monkeypatch.setattr(architectures, "interleave_halves", lambda rows, heads: rows)
    assert largest_difference(converted(folder, adapter, tmp_path / "kept"), reference(folder, adapter), 3) > 100 * NEAR


def test_an_adapter_on_q_and_k_changes_the_answer(library: Any, tmp_path: Path) -> None:
    """Otherwise a comparison that skips the adapter on both sides would pass."""
    folder = tiny_base(tmp_path / "models", "llama")
    adapter = write_random_adapter(tmp_path / "adapter", FolderBase.at(folder), ["q_proj", "k_proj"], seed=4)
    assert largest_difference(converted(folder, adapter, tmp_path / "kept"), reference(folder, None), 3) > 100 * NEAR


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("llama", {}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 150, "max_window_layers": 1}),
    ],
    ids=str,
)
def test_the_engine_answers_as_torch_does(
    library: Any, tmp_path: Path, model_type: str, config: dict[str, Any]
) -> None:
    folder = tiny_base(tmp_path / "models", model_type, **config)
    base, adapters = FolderBase.at(folder), {"one": adapter_of(folder, tmp_path)}
    engine = LlamaEngine(base, "f32", adapters, batch_size=4, cache=tmp_path / "kept")
    local = TorchEngine(base.load(training=False), adapters, batch_size=4)
    requests = [chat_request(text, 20) for text in prompts(10)]
    answers = {}
    for system in ("base", "one"):
        answers[system] = [completion.text for completion in local.generate(system, requests)]
        assert [completion.text for completion in engine.generate(system, requests)] == answers[system]
    assert answers["base"] != answers["one"]
    assert engine.context_length == config.get("sliding_window", 256)


@pytest.mark.parametrize("width", [512, 320])
@pytest.mark.parametrize(("model_type", "config"), [("llama", {"rope_parameters": LLAMA3}), ("qwen2", {})])
def test_a_quantised_file_is_about_as_large_as_said_and_answers_nearly_alike(
    library: Any, tmp_path: Path, model_type: str, config: dict[str, Any], width: int
) -> None:
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "vocab_size": 4096}
    folder = tiny_base(tmp_path / "models", model_type, tie_word_embeddings=True, **sizes, **config)
    weights, logits = weights_of(folder), {}
    for quantization in QUANTIZATIONS:
        steps: list[int] = []
        totals: list[int] = []

        def progress_bars(title: str, total: int) -> AbstractContextManager[Progress]:
            totals.append(total)  # noqa: B023 (it is called in this round)
            return nullcontext(steps.append)  # noqa: B023

        file = base_gguf(weights, quantization, tmp_path / "kept", progress_bars)
        assert [sum(steps)] == totals
        assert 0.8 < file.stat().st_size / weights.bytes_as(quantization) < 1.05
        model = LlamaModel(
            file, max_sequences=1, kv_capacity=64, threads=1, kv_float32=quantization == "f32", repack=False
        )
        logits[quantization] = model.context().logits([(4 + index, index, 0) for index in range(40)], 40).clone()
    for quantization, alike in {"f16": 0.9999, "q8_0": 0.99, "q4_k_m": 0.8}.items():
        assert torch.cosine_similarity(logits["f32"], logits[quantization]).mean() > alike


def test_the_same_adapter_on_another_base_is_another_file(library: Any, tmp_path: Path) -> None:
    """The order of its rows depends on the base's heads, so the adapter's hash alone is not enough."""
    files = []
    for heads in (4, 2):
        folder = tiny_base(tmp_path / f"base{heads}", "llama", num_attention_heads=heads, num_key_value_heads=heads)
        adapter = tmp_path / "adapter"
        adapter = adapter if adapter.exists() else adapter_of(folder, tmp_path)
        model = gguf_model(FolderBase.at(folder))
        files.append(adapter_gguf(read_peft_adapter(adapter), adapter, model, tmp_path, float32=True))
    assert files[0] != files[1] and files[0].read_bytes() != files[1].read_bytes()


# What needs no llama.cpp


@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_in_the_files_has_its_place(tmp_path: Path, form: str) -> None:
    model_type, config = FORMS[form]
    weights = weights_of(tiny_base(tmp_path / "models", model_type, **config))
    assert set(weights.headers) == set(weights.gguf_tensors)
    for name, tensor in weights.tensors():
        assert tuple(tensor.shape) == weights.headers[name].shape


def test_of_llama_q_and_k_are_interleaved_in_the_base_and_in_b_of_its_adapters(tmp_path: Path) -> None:
    weights = weights_of(tiny_base(tmp_path / "models", "llama"))
    adapter = adapter_of(weights.folder, tmp_path)
    unscaled = read_peft_adapter(adapter)
    lora = lora_tensors(unscaled, adapter, weights, float32=True)
    places = {"q_proj": interleave_halves(torch.arange(64), 4), "k_proj": interleave_halves(torch.arange(32), 2)}
    originals: dict[str, torch.Tensor] = {}
    for file in weights.folder.glob("*.safetensors"):
        originals |= load_file(file)
    for name, tensor in weights.tensors():
        module = name.removesuffix(".weight")
        order = places.get(module.rpartition(".")[2], slice(None))
        assert torch.equal(tensor, originals[name][order])
        if module in unscaled.layers:
            (a, b), stored = unscaled.layers[module], weights.gguf_tensors[name].name
            assert torch.equal(lora[f"{stored}.lora_a"], a) and torch.equal(lora[f"{stored}.lora_b"], b[order])
    assert len(lora) == 2 * len(unscaled.layers) == 2 * 7 * 3


def test_an_output_layer_beside_the_embeddings_is_tied_only_if_it_is_the_same(tmp_path: Path) -> None:
    """As in transformers: if a checkpoint has two different layers, its config.json is wrong."""
    folder = tiny_base(tmp_path / "models", "qwen2", tie_word_embeddings=True)
    embeddings = next(tensor for name, tensor in weights_of(folder).tensors() if "embed_tokens" in name)
    for output, there in ((embeddings, False), (2 * embeddings, True)):
        save_file({"lm_head.weight": output.contiguous()}, folder / "output.safetensors", metadata={"format": "pt"})
        weights = weights_of(folder)
        assert ("lm_head.weight" in weights.headers) == ("lm_head.weight" in weights.gguf_tensors) == there


def refusal(folder: Path) -> str:
    with pytest.raises(BadData) as refused:
        open_weights(folder, gguf_model(FolderBase(id="models/mine", path=folder)))
    return str(refused.value)


def test_a_base_that_llama_cpp_would_compute_otherwise_is_refused(tmp_path: Path) -> None:
    folder = tiny_base(
        tmp_path / "models", "llama", hidden_act="gelu", rope_parameters=LINEAR | {"rope_type": "dynamic"}
    )
    assert refusal(folder) == (
        "models/mine: llama.cpp computes dynamic positions and the activation gelu differently from transformers; "
        "set `inference.engine: torch`."
    )
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    assert refusal(folder) == (
        "models/mine: engine llamacpp supports phi3, llama, qwen2, and this base is gpt2; "
        "set `inference.engine: torch`."
    )


def test_weights_that_the_architecture_does_not_have_or_lacks_are_refused(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "models", "llama")
    odd = folder / "odd.safetensors"
    save_file({"model.layers.0.self_attn.q_proj.bias": torch.ones(64)}, odd)  # config.json says there is none
    assert "has tensors that llama does not support: model.layers.0.self_attn.q_proj.bias" in refusal(folder)
    save_file({"model.norm.weight": torch.ones(64, dtype=torch.int8)}, odd)
    odd.rename(folder / "zz.safetensors")  # the last one read counts
    assert "does not support: model.norm.weight" in refusal(folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    assert "does not have the weights model.embed_tokens.weight, model.norm.weight, lm_head.weight" in refusal(folder)
