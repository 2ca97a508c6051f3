"""Adapters that are trained together equal those of separate trainings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import peft.tuners.lora
import pytest
import torch
from support.training import BASE, SFT, training_context
from torch.nn.functional import cross_entropy
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from bilora.bases.loading import shared_copy
from bilora.params import Adapter
from bilora.storage import adapter_sha256
from bilora.training import attention, lora_linear, packed_model
from bilora.training.adapter import attach_adapter
from bilora.training.encode import IGNORE_INDEX
from bilora.training.joint_training import JointTraining
from bilora.training.lean_layers import _LeanNorm
from bilora.training.packed_model import PackedModel, PackedRow, can_pack, passes
from bilora.training.run import TrainingResult, train

TARGETS = (["qkv_proj", "o_proj"], ["qkv_proj", "gate_up_proj", "down_proj"], ["down_proj"])
LENGTHS = ((30, 10), (18, 17), (25, 1), (40, 12), (7, 3))


@pytest.fixture(autouse=True)
def peft_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attach PEFT's layers, so that the reference shares no code with the packed model."""
    monkeypatch.setattr(lora_linear, "LoraLinear", peft.tuners.lora.Linear)


ARCHITECTURES: dict[str, tuple[type[Any], type[Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}


def small_model(architecture: str) -> Any:
    """Return a random model with fewer key heads than query heads."""
    torch.manual_seed(7)
    config_type, model_type = ARCHITECTURES[architecture]
    config = config_type(
        vocab_size=200,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = model_type(config)
    for name, parameter in model.named_parameters():
        parameter.data.normal_(std=0.3)
        parameter.data += 1.0 if "norm" in name else 0.0
    return model


def adapted(count: int, base: Any = None, targets: Sequence[list[str]] = TARGETS) -> list[Any]:
    """Return models on one frozen base with adapters of different layers and ranks, whose B is not 0."""
    base, models = base or BASE.load(training=True).model, []
    for number in range(count):
        spec = Adapter(rank=4 + number, alpha=8, dropout=0.0, target_modules=targets[number])
        models.append(attach_adapter(shared_copy(base), spec, seed=number))
        for name, parameter in models[-1].named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    return models


def random_rows(adapter: int, seed: int) -> list[PackedRow]:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for length, trained in LENGTHS:
        ids = torch.randint(10, 200, (length,), generator=generator)
        labels = ids.clone()
        labels[: length - trained] = IGNORE_INDEX
        rows.append(PackedRow(ids, labels, adapter))
    return rows


def gradients(model: Any) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad])


def peft_gradients(model: Any, rows: Sequence[PackedRow]) -> torch.Tensor:
    """Return the gradients of PEFT's model, row by row."""
    model.zero_grad()
    for row in rows:
        logits = model(input_ids=row.ids[None]).logits[0, :-1]
        cross_entropy(logits, row.labels[1:], ignore_index=IGNORE_INDEX, reduction="sum").backward()
    return gradients(model)


def distance(value: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the distance relative to `reference`."""
    return float((value - reference).norm() / reference.norm())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_packed_architecture_has_the_gradients_of_its_model(architecture: str) -> None:
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    (model,) = adapted(1, small_model(architecture), [targets])
    rows = random_rows(0, seed=2)
    expected = peft_gradients(model, rows)
    model.zero_grad()
    assert can_pack(model.get_base_model())
    PackedModel([model], limit=10_000).train_one(rows, 1.0)
    assert distance(gradients(model), expected) < 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_16_bit_packed_models_are_as_exact_as_peft_s(architecture: str) -> None:
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    rows = [row for seed in range(3) for row in random_rows(0, seed)]
    expected = peft_gradients(adapted(1, small_model(architecture), [targets])[0], rows)
    (model,) = adapted(1, small_model(architecture).bfloat16(), [targets])
    peft16 = peft_gradients(model, rows)
    model.zero_grad()
    PackedModel([model], limit=200).train_one(rows, 1.0)
    assert distance(gradients(model), expected) < 1.2 * distance(peft16, expected) < 0.1


@pytest.mark.parametrize("limit", [10_000, 60, 1])
def test_gradients_of_a_mixed_pass_are_those_of_peft_row_by_row(limit: int) -> None:
    models = adapted(3)
    rows = [random_rows(number, seed=number) for number in range(3)]
    expected = [peft_gradients(model, adapter_rows) for model, adapter_rows in zip(models, rows, strict=True)]
    for model in models:
        model.zero_grad()
    mixed = [row for group in zip(*rows, strict=True) for row in group]  # one of each adapter in turn
    losses = PackedModel(models, limit=limit).train(mixed, [1.0, 1.0, 1.0])
    for model, reference in zip(models, expected, strict=True):
        assert distance(gradients(model), reference) < 1e-5
    separate = [PackedModel([model], limit=10_000).measure(random_rows(0, seed=n)) for n, model in enumerate(models)]
    assert torch.allclose(torch.stack(losses), torch.stack(separate), rtol=1e-6)


def test_attention_across_rows_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant a fault: attention does not know where rows end."""
    (model,) = adapted(1)
    rows = random_rows(0, seed=1)
    expected = peft_gradients(model, rows)
    packed = PackedModel([model], limit=10_000)
    one_row = attention.RowLayout([sum(len(row.ids) for row in rows) + 8], torch.device("cpu"))
    monkeypatch.setattr(packed_model, "RowLayout", lambda *_: one_row)
    model.zero_grad()
    packed.train_one(rows, 1.0)
    assert distance(gradients(model), expected) > 1e-2


def test_a_norm_does_not_change_its_input() -> None:
    reference = LlamaRMSNorm(8, eps=1e-5)
    x = torch.randn(3, 8, requires_grad=True)
    before = x.detach().clone()
    normalized = _LeanNorm(reference)(x)
    (gradient,) = torch.autograd.grad(normalized.square().sum(), x)
    assert torch.equal(x, before)
    torch.testing.assert_close(normalized, reference(x))
    torch.testing.assert_close(gradient, torch.autograd.grad(reference(x).square().sum(), x)[0])


def test_passes_keep_to_their_size_and_to_the_order_of_adapters() -> None:
    rows = [*random_rows(1, 1), *random_rows(0, 2)]
    split = [[(row.adapter, len(row.ids)) for row in part] for part in passes(rows, 60)]
    assert split == [[(0, 30), (0, 18)], [(0, 25)], [(0, 40), (0, 7)], [(1, 30), (1, 18)], [(1, 25)], [(1, 40), (1, 7)]]
    halves = [sum(len(row.ids) for row in part) for part in passes(rows, 200)]
    assert halves == [120, 120]
    assert [len(part) for part in passes(rows, 1)] == [1] * 10  # a row above the limit is a separate pass


@pytest.mark.parametrize(
    ("optimizer", "limit"), [(partial(torch.optim.SGD, lr=0.05), 1e-5), (partial(torch.optim.AdamW, lr=1e-3), 1e-3)]
)
def test_twenty_mixed_steps_equal_separate_ones(optimizer: Callable[..., Any], limit: float) -> None:
    def products(model: Any) -> torch.Tensor:
        layers = [module for module in model.modules() if hasattr(module, "lora_A")]
        return torch.cat([(m.lora_B["default"].weight @ m.lora_A["default"].weight).flatten().detach() for m in layers])

    separate, mixed = adapted(2), adapted(2)
    before = [products(model) for model in separate]
    mixed_model = PackedModel(mixed, limit=100)
    separate_models = [PackedModel([model], limit=100) for model in separate]
    optimizers = {id(m): optimizer([p for p in m.parameters() if p.requires_grad]) for m in [*separate, *mixed]}
    for step in range(20):
        rows = [random_rows(number, seed=10 * step + number) for number in range(2)]
        for number in range(2):
            separate_models[number].train_one([replace(row, adapter=0) for row in rows[number]], 0.02)
        mixed_model.train([*rows[0], *rows[1]], [0.02, 0.02])
        for model in [*separate, *mixed]:
            optimizers[id(model)].step()
            optimizers[id(model)].zero_grad()
    for first, second, start in zip(separate, mixed, before, strict=True):
        assert distance(products(second), products(first)) <= limit
        assert distance(products(first), start) > 1e-3  # they changed


def trainings(folder: Path, joint: JointTraining | None, **changes: Any) -> list[Callable[[], TrainingResult]]:
    """Return two trainings of the smoke base with different learning rates, seeds and dropout masks."""
    loaded = BASE.load(training=True)
    runs = []
    for number, rate in enumerate((1e-3, 3e-3)):
        phases = [{**SFT, "steps": 4 + number, "evaluate_every": 2, "accumulation": 1 + number, "learning_rate": rate}]
        copy = replace(loaded, model=shared_copy(loaded.model))
        context = training_context(copy, folder / f"checkpoints-{number}", phases, seed=number, joint=joint, **changes)
        runs.append(
            partial(train, context, identity="i" * 64, destination=folder / str(number), on_prepared=lambda _: None)
        )
    return runs


def test_together_on_a_cpu_gives_the_bytes_of_separate_trainings(tmp_path: Path) -> None:
    separate = [run() for run in trainings(tmp_path / "separate", None)]
    joint = JointTraining()
    results = joint.run(trainings(tmp_path / "joint", joint))
    for number in range(2):
        assert adapter_sha256(tmp_path / "joint" / str(number)) == adapter_sha256(tmp_path / "separate" / str(number))
    assert [result.metric for result in results] == [result.metric for result in separate]
    assert all(result.duration_s > 0 for result in results)


def test_mixed_passes_train_as_well(tmp_path: Path) -> None:
    joint = JointTraining(mixed=True)
    results = joint.run(trainings(tmp_path, joint))
    assert [dict(result.phases[0].result.metrics)["steps"] for result in results] == [4, 5]


def test_an_error_in_one_training_ends_all(tmp_path: Path) -> None:
    joint = JointTraining()
    steps: list[int] = []

    def fail(step: Any) -> None:
        steps.append(step.step)
        if len(steps) > 3:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        joint.run(trainings(tmp_path, joint, on_step=fail))
    assert not (tmp_path / "0").exists() and not (tmp_path / "1").exists()
