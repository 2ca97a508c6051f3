"""Adapters that are trained together come out as they would alone."""

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
from bilora.training.adapter import attach
from bilora.training.encode import IGNORED
from bilora.training.lean_layers import _LeanNorm
from bilora.training.packed_model import PackedModel, PackedRow, can_pack, passes
from bilora.training.run import TrainingResult, train
from bilora.training.together import Together

TARGETS = (["qkv_proj", "o_proj"], ["qkv_proj", "gate_up_proj", "down_proj"], ["down_proj"])
LENGTHS = ((30, 10), (18, 17), (25, 1), (40, 12), (7, 3))


@pytest.fixture(autouse=True)
def peft_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attach PEFT's own layers, so that what is compared with PEFT shares no code with it."""
    monkeypatch.setattr(lora_linear, "LoraLinear", peft.tuners.lora.Linear)


ARCHITECTURES: dict[str, tuple[type[Any], type[Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}


def small_model(architecture: str) -> Any:
    """A random model whose keys have fewer heads than its queries."""
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
    """Models with adapters of different layers and ranks, whose B is not 0, on one frozen base."""
    base, models = base or BASE.load(training=True).model, []
    for number in range(count):
        spec = Adapter(rank=4 + number, alpha=8, dropout=0.0, target_modules=targets[number])
        models.append(attach(shared_copy(base), spec, seed=number))
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
        labels[: length - trained] = IGNORED
        rows.append(PackedRow(ids, labels, adapter))
    return rows


def gradients(model: Any) -> torch.Tensor:
    return torch.cat([one.grad.flatten() for one in model.parameters() if one.requires_grad])


def peft_gradients(model: Any, rows: Sequence[PackedRow]) -> torch.Tensor:
    """Row by row through PEFT's own model."""
    model.zero_grad()
    for row in rows:
        logits = model(input_ids=row.ids[None]).logits[0, :-1]
        cross_entropy(logits, row.labels[1:], ignore_index=IGNORED, reduction="sum").backward()
    return gradients(model)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative to `other`."""
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_that_is_packed_computes_what_its_model_does(architecture: str) -> None:
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    (model,) = adapted(1, small_model(architecture), [targets])
    rows = random_rows(0, seed=2)
    expected = peft_gradients(model, rows)
    model.zero_grad()
    assert can_pack(model.get_base_model())
    PackedModel([model], limit=10_000).train_one(rows, 1.0)
    assert distance(gradients(model), expected) < 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_16_bit_they_do_as_exactly_as_their_models(architecture: str) -> None:
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    rows = [row for seed in range(3) for row in random_rows(0, seed)]
    expected = peft_gradients(adapted(1, small_model(architecture), [targets])[0], rows)
    (model,) = adapted(1, small_model(architecture).bfloat16(), [targets])
    own = peft_gradients(model, rows)
    model.zero_grad()
    PackedModel([model], limit=200).train_one(rows, 1.0)
    assert distance(gradients(model), expected) < 1.2 * distance(own, expected) < 0.1


@pytest.mark.parametrize("limit", [10_000, 60, 1])
def test_gradients_of_a_mixed_pass_are_those_of_peft_row_by_row(limit: int) -> None:
    models = adapted(3)
    rows = [random_rows(number, seed=number) for number in range(3)]
    expected = [peft_gradients(model, own) for model, own in zip(models, rows, strict=True)]
    for model in models:
        model.zero_grad()
    mixed = [row for group in zip(*rows, strict=True) for row in group]  # one of each adapter in turn
    losses = PackedModel(models, limit=limit).train(mixed, [1.0, 1.0, 1.0])
    for model, own in zip(models, expected, strict=True):
        assert distance(gradients(model), own) < 1e-5
    alone = [PackedModel([model], limit=10_000).measure(random_rows(0, seed=n)) for n, model in enumerate(models)]
    assert torch.allclose(torch.stack(losses), torch.stack(alone), rtol=1e-6)


def test_a_row_that_saw_another_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: attention that does not know where rows end."""
    (model,) = adapted(1)
    rows = random_rows(0, seed=1)
    expected = peft_gradients(model, rows)
    packed = PackedModel([model], limit=10_000)
    one_row = attention.PackedRows([sum(len(row.ids) for row in rows) + 8], torch.device("cpu"))
    monkeypatch.setattr(packed_model, "PackedRows", lambda *_: one_row)
    model.zero_grad()
    packed.train_one(rows, 1.0)
    assert distance(gradients(model), expected) > 1e-2


def test_a_normalisation_leaves_its_input_as_it_is() -> None:
    plain = LlamaRMSNorm(8, eps=1e-5)
    x = torch.randn(3, 8, requires_grad=True)
    before = x.detach().clone()
    found = _LeanNorm(plain)(x)
    (gradient,) = torch.autograd.grad(found.square().sum(), x)
    assert torch.equal(x, before)
    torch.testing.assert_close(found, plain(x))
    torch.testing.assert_close(gradient, torch.autograd.grad(plain(x).square().sum(), x)[0])


def test_passes_keep_to_their_size_and_to_the_order_of_adapters() -> None:
    rows = [*random_rows(1, 1), *random_rows(0, 2)]
    found = [[(row.adapter, len(row.ids)) for row in part] for part in passes(rows, 60)]
    assert found == [[(0, 30), (0, 18)], [(0, 25)], [(0, 40), (0, 7)], [(1, 30), (1, 18)], [(1, 25)], [(1, 40), (1, 7)]]
    halves = [sum(len(row.ids) for row in part) for part in passes(rows, 200)]
    assert halves == [120, 120]
    assert [len(part) for part in passes(rows, 1)] == [1] * 10  # a longer row is a pass of its own


@pytest.mark.parametrize(
    ("optimizer", "limit"), [(partial(torch.optim.SGD, lr=0.05), 1e-5), (partial(torch.optim.AdamW, lr=1e-3), 1e-3)]
)
def test_twenty_mixed_steps_move_each_adapter_as_its_own_do(optimizer: Callable[..., Any], limit: float) -> None:
    def products(model: Any) -> torch.Tensor:
        layers = [module for module in model.modules() if hasattr(module, "lora_A")]
        return torch.cat([(m.lora_B["default"].weight @ m.lora_A["default"].weight).flatten().detach() for m in layers])

    apart, mixed = adapted(2), adapted(2)
    before = [products(model) for model in apart]
    together = PackedModel(mixed, limit=100)
    alone = [PackedModel([model], limit=100) for model in apart]
    optimizers = {id(m): optimizer([p for p in m.parameters() if p.requires_grad]) for m in [*apart, *mixed]}
    for step in range(20):
        rows = [random_rows(number, seed=10 * step + number) for number in range(2)]
        for number in range(2):
            alone[number].train_one([replace(row, adapter=0) for row in rows[number]], 0.02)
        together.train([*rows[0], *rows[1]], [0.02, 0.02])
        for model in [*apart, *mixed]:
            optimizers[id(model)].step()
            optimizers[id(model)].zero_grad()
    for one, other, start in zip(apart, mixed, before, strict=True):
        assert distance(products(other), products(one)) <= limit
        assert distance(products(one), start) > 1e-3  # they moved


def trainings(folder: Path, together: Together | None, **changes: Any) -> list[Callable[[], TrainingResult]]:
    """Two trainings of the smoke base that differ in rate, seed and dropout's draws."""
    loaded = BASE.load(training=True)
    found = []
    for number, rate in enumerate((1e-3, 3e-3)):
        phases = [{**SFT, "steps": 4 + number, "evaluate_every": 2, "accumulation": 1 + number, "learning_rate": rate}]
        own = replace(loaded, model=shared_copy(loaded.model))
        context = training_context(
            own, folder / f"checkpoints-{number}", phases, seed=number, together=together, **changes
        )
        found.append(
            partial(train, context, identity="i" * 64, destination=folder / str(number), on_prepared=lambda _: None)
        )
    return found


def test_together_on_a_cpu_gives_the_bytes_of_one_after_the_other(tmp_path: Path) -> None:
    alone = [run() for run in trainings(tmp_path / "alone", None)]
    together = Together()
    joint = together.run(trainings(tmp_path / "joint", together))
    for number in range(2):
        assert adapter_sha256(tmp_path / "joint" / str(number)) == adapter_sha256(tmp_path / "alone" / str(number))
    assert [one.metric for one in joint] == [one.metric for one in alone]
    assert all(one.duration_s > 0 for one in joint)


def test_mixed_passes_train_as_well(tmp_path: Path) -> None:
    together = Together(mixed=True)
    joint = together.run(trainings(tmp_path, together))
    assert [dict(one.phases[0].result.metrics)["steps"] for one in joint] == [4, 5]


def test_an_error_in_one_training_ends_all(tmp_path: Path) -> None:
    together = Together()
    steps: list[int] = []

    def fail(step: Any) -> None:
        steps.append(step.step)
        if len(steps) > 3:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        together.run(trainings(tmp_path, together, on_step=fail))
    assert not (tmp_path / "0").exists() and not (tmp_path / "1").exists()
