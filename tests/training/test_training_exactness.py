"""The optimized training has the losses and gradients of unmodified TRL and PEFT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft.tuners.lora
import pytest
import torch
from datasets import Dataset
from support.training import BASE, SFT, training_context
from torch.nn.functional import scaled_dot_product_attention
from trl import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from bilora.bases.kinds.folder import FolderBase
from bilora.params import Adapter
from bilora.training import lora_linear
from bilora.training.adapter import attach_adapter
from bilora.training.arguments import no_checkpointing
from bilora.training.attention import RowLayout, attend
from bilora.training.encode import IGNORE_INDEX
from bilora.training.lora_linear import LoraLinear
from bilora.training.run import train
from bilora.training.sft_trainer import AdapterTrainer
from bilora.training.shapes import PASS_MULTIPLE

ROWS = [(30, 10), (18, 17), (25, 1)]
"""Lengths of rows, and how many of their last tokens are trained."""


def adapted(monkeypatch: pytest.MonkeyPatch, layer: type, dropout: float = 0.0) -> Any:
    """Return the smoke base with an adapter on all layers whose B is not 0."""
    monkeypatch.setattr(lora_linear, "LoraLinear", layer)
    targets = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    spec = Adapter(rank=4, alpha=8, dropout=dropout, target_modules=targets)
    model = attach_adapter(BASE.load(training=True).model, spec, seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def encoded() -> list[dict[str, list[int]]]:
    """Return random rows."""
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(10, 200, (length,), generator=generator).tolist() for length, _ in ROWS]
    return [
        {"input_ids": row, "labels": [IGNORE_INDEX] * (len(row) - trained) + row[-trained:]}
        for row, (_, trained) in zip(rows, ROWS, strict=True)
    ]


def trainer_of(model: Any, folder: Path) -> AdapterTrainer:
    arguments = SFTConfig(
        str(folder), use_cpu=True, bf16=False, **no_checkpointing(), max_length=None, report_to="none"
    )
    return AdapterTrainer(
        metric=lambda: 0.0,
        patience=1,
        model=model,
        args=arguments,
        processing_class=BASE.tokenizer(),
        train_dataset=Dataset.from_list(encoded()),
        data_collator=DataCollatorForLanguageModeling(pad_token_id=0),
    )


def loss_and_gradients(
    trainer: AdapterTrainer, packed: bool, count: int | None = None, rows: list[dict[str, list[int]]] | None = None
) -> tuple[float, torch.Tensor]:
    """Return the loss of a batch, and the gradients of A and B as one vector; not `packed`: those of TRL."""
    if not packed:
        trainer._train_rows = None
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.training_step(trainer.model, trainer.data_collator(rows or encoded()), count)
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    return loss.item(), torch.cat([parameter.grad.flatten() for parameter in trained])


def validation_loss(trainer: AdapterTrainer, rows: list[dict[str, list[int]]]) -> float:
    """Return the mean loss of the rows' trained tokens in the trainer's validation."""
    trainer.model.eval()
    loss, _, _ = trainer.prediction_step(trainer.model, trainer.data_collator(rows), True)
    assert loss is not None
    return loss.item()


def distance(value: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the distance relative to `reference`."""
    return float((value - reference).norm() / reference.norm())


@pytest.mark.parametrize("count", [None, 50])
def test_loss_and_gradients_are_those_of_trl_and_peft(
    count: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = trainer_of(adapted(monkeypatch, peft.tuners.lora.Linear), tmp_path)
    optimized = trainer_of(adapted(monkeypatch, LoraLinear), tmp_path)
    assert optimized._train_rows
    expected_loss, expected_gradients = loss_and_gradients(reference, packed=False, count=count)
    loss, gradients = loss_and_gradients(optimized, packed=True, count=count)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert distance(gradients, expected_gradients) < 1e-5


def test_rows_of_a_batch_do_not_attend_to_each_other_s_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(adapted(monkeypatch, LoraLinear), tmp_path)
    single = [validation_loss(trainer, [row]) * trained for row, (_, trained) in zip(encoded(), ROWS, strict=True)]
    assert validation_loss(trainer, encoded()) == pytest.approx(sum(single) / sum(n for _, n in ROWS), rel=1e-6)


def test_the_validation_loss_is_that_of_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(adapted(monkeypatch, LoraLinear), tmp_path)
    packed = validation_loss(trainer, encoded())
    trainer._packed = None
    assert packed == pytest.approx(validation_loss(trainer, encoded()), rel=1e-6)


def test_a_batch_without_trained_tokens_has_a_loss_of_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(adapted(monkeypatch, LoraLinear), tmp_path)
    batch = trainer.data_collator(encoded())
    batch["labels"][:] = IGNORE_INDEX
    trainer.current_gradient_accumulation_steps = 1
    assert trainer.training_step(trainer.model, batch).item() == 0.0


def test_dropout_is_that_of_peft_and_off_in_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    ids = (encoded()[0]["input_ids"] * 3)[:PASS_MULTIPLE]  # so that no padding gets a dropout mask
    row = {"input_ids": ids, "labels": [IGNORE_INDEX] * 10 + ids[10:]}
    for layer in (peft.tuners.lora.Linear, LoraLinear):
        trainer = trainer_of(adapted(monkeypatch, layer, dropout=0.3), tmp_path)
        torch.manual_seed(5)
        gradients.append(loss_and_gradients(trainer, packed=layer is LoraLinear, rows=[row])[1])
    assert distance(gradients[1], gradients[0]) < 1e-5
    assert distance(loss_and_gradients(trainer, packed=True, rows=[row])[1], gradients[0]) > 1e-2  # another mask
    assert validation_loss(trainer, encoded()) == validation_loss(trainer, encoded())


def attended(dtype: torch.dtype, *, packed: bool) -> list[torch.Tensor]:
    """Return attention's output over rows with four heads, of which two share keys, and its inputs' gradients."""
    torch.manual_seed(1)
    lengths = [20, 13, 40, 9]
    states = [torch.randn(sum(lengths), heads, 16).to(dtype).requires_grad_() for heads in (4, 2, 2)]
    query, key, value = states
    if packed:
        out = attend(query, key, value, RowLayout(lengths, torch.device("cpu")), 0.25, None)
    else:
        ends = [sum(lengths[:index]) for index in range(1, len(lengths))]
        by_row = [torch.tensor_split(state.transpose(0, 1)[None], ends, dim=2) for state in states]
        parts = [
            scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.25, enable_gqa=True)
            for q, k, v in zip(*by_row, strict=True)
        ]
        out = torch.cat(parts, dim=2)[0].transpose(0, 1)
    weight = torch.randn(out.shape)
    (out * weight).sum().backward()
    return [out.detach().float(), *(state.grad.float() for state in states if state.grad is not None)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [5, 20])
def test_attention_has_the_model_s_window(window: int, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    query, key, value = (torch.randn(20, heads, 16).to(dtype) for heads in (4, 2, 2))
    rows = RowLayout([20], torch.device("cpu"))
    out = attend(query, key, value, rows, 0.25, window)
    key[4], value[4] = 9.0, 9.0
    changed = attend(query, key, value, rows, 0.25, window)
    affected = [index for index in range(20) if not torch.equal(out[index], changed[index])]
    assert affected == list(range(4, min(20, 4 + window)))


def test_attention_over_short_rows_is_as_exact_as_torch_s() -> None:
    exact = attended(torch.float32, packed=False)
    for packed, torch16, reference in zip(
        attended(torch.bfloat16, packed=True), attended(torch.bfloat16, packed=False), exact, strict=True
    ):
        assert distance(packed, reference) < max(1.5 * distance(torch16, reference), 0.01)


def test_a_nan_in_a_row_does_not_affect_other_rows() -> None:
    query, key, value = (torch.randn(33, heads, 16).bfloat16() for heads in (4, 2, 2))
    value[0] = torch.nan
    query.requires_grad_()
    out = attend(query, key, value, RowLayout([20, 13], torch.device("cpu")), 0.25, None)
    out.float().sum().backward()
    assert query.grad is not None
    assert out[:20].isnan().all() and query.grad[:20].isnan().any()
    assert not out[20:].isnan().any() and not query.grad[20:].isnan().any()


@pytest.fixture
def base16() -> Iterator[FolderBase]:
    """The smoke base in 16-bit."""
    yield FolderBase.at(BASE.path, dtype="bfloat16")


@pytest.mark.slow
def test_a_run_in_16_bit_keeps_the_adapter_in_32_bit_and_learns(base16: FolderBase, tmp_path: Path) -> None:
    phases = [{**SFT, "steps": 8, "evaluate_every": 8, "learning_rate": 1e-2}]
    losses: list[float] = []
    loaded = base16.load(training=True)
    context = training_context(
        loaded, tmp_path / "checkpoints", phases, on_step=lambda step: losses.append(step.loss or 0.0)
    )
    train(context, identity="i" * 64, destination=tmp_path / "adapter", on_prepared=lambda _: None)
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert loaded.mode == "cpu, bfloat16" and losses[7] < 0.7 * losses[0]
