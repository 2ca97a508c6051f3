"""On a GPU packed passes have the losses and gradients of PEFT's model: `make test-gpu`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_bases import tiny_base, tiny_model

from bilora.bases.kinds.folder import FolderBase
from bilora.bases.loading import shared_copy
from bilora.params import Adapter
from bilora.sweeping import linear_layers
from bilora.training import fused
from bilora.training.adapter import attach_adapter
from bilora.training.encode import IGNORE_INDEX
from bilora.training.packed_model import PackedModel, PackedRow

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

LENGTHS = (40, 7, 25, 33)
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("mistral", {"sliding_window": 16}),
    ("phi3", {"sliding_window": 16}),
    ("phi3", {"sliding_window": None, "num_attention_heads": 1, "num_key_value_heads": 1}),  # a head of 64
    ("qwen2", {}),
]


def rows(device: str, *, adapters: int = 1) -> list[PackedRow]:
    """Return random rows, whose second half is trained, of several adapters."""
    generator = torch.Generator().manual_seed(3)
    packed_rows = []
    for number, length in enumerate(LENGTHS):
        ids = torch.randint(10, 2000, (length,), generator=generator)
        labels = ids.clone()
        labels[: length // 2] = IGNORE_INDEX
        packed_rows.append(PackedRow(ids.to(device), labels.to(device), number % adapters))
    return packed_rows


def adapted(model: Any, seed: int = 1) -> Any:
    """Return the model with an adapter on all linear layers whose B is not 0."""
    model = attach_adapter(
        model, Adapter(rank=4, alpha=8, dropout=0.0, target_modules=linear_layers(model, "all")), seed=seed
    )
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.empty(parameter.shape).normal_(std=0.1).to(parameter.device)
    return model


def gradients(model: Any) -> torch.Tensor:
    """Return the gradients of A and B as one vector, and clear them."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    vector = torch.cat([parameter.grad.flatten().cpu() for parameter in trained])
    model.zero_grad()
    return vector


def unpacked(model: Any, batch: list[PackedRow]) -> tuple[float, torch.Tensor]:
    """Return the summed loss and the gradients of PEFT's model, row by row."""
    total = 0.0
    for row in batch:
        logits = model(row.ids[None]).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits, row.labels[1:], ignore_index=IGNORE_INDEX, reduction="sum")
        loss.backward()
        total += loss.item()
    return total, gradients(model)


def packed(model: Any, batch: list[PackedRow]) -> tuple[float, torch.Tensor]:
    """Return the same from packed passes."""
    return PackedModel([model]).train_one(batch, 1.0).item(), gradients(model)


def distance(value: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the distance relative to `reference`."""
    return float((value - reference).norm() / reference.norm())


@pytest.mark.parametrize(("model_type", "config"), MODELS)
def test_in_32_bit_losses_and_gradients_are_those_of_peft_s_model_on_a_cpu(
    model_type: str, config: dict[str, Any]
) -> None:
    loss, expected = unpacked(adapted(tiny_model(model_type, **config)), rows("cpu"))
    result = packed(adapted(tiny_model(model_type, **config).cuda()), rows("cuda"))
    assert result[0] == pytest.approx(loss, rel=1e-5)
    assert distance(result[1], expected) < 1e-5


@pytest.mark.filterwarnings("ignore")  # torch warns about its compiler
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("model_type", "config"), MODELS)
def test_in_16_bit_they_are_those_of_peft_s_model_up_to_rounding(
    model_type: str, config: dict[str, Any], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "_MIN_NUMBERS", 0 if compiled else 2**60)

    def model(**changes: Any) -> Any:
        base = tiny_model(model_type, **{**config, **changes})
        for parameter in base.parameters():
            parameter.data = parameter.data.bfloat16().float()
        return adapted(base)

    loss, expected = unpacked(model(), rows("cpu"))
    result = packed(model().bfloat16().cuda(), rows("cuda"))
    assert result[0] == pytest.approx(loss, rel=2e-2)
    assert distance(result[1], expected) < 5e-2
    if config.get("sliding_window"):
        assert distance(unpacked(model(sliding_window=None), rows("cpu"))[1], expected) > 0.2


def test_rows_of_two_adapters_in_one_pass_give_the_gradients_of_separate_ones() -> None:
    base = tiny_model("llama").cuda()

    models = [adapted(shared_copy(base), seed) for seed in (1, 2)]
    batch = rows("cuda", adapters=2)
    PackedModel(models).train(batch, [1.0, 1.0])
    mixed = [gradients(model) for model in models]
    for number, model in enumerate(models):
        separate = [PackedRow(row.ids, row.labels) for row in batch if row.adapter == number]
        assert distance(mixed[number], packed(model, separate)[1]) < 1e-5


def test_on_a_4_bit_base_they_are_those_of_peft_s_model(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    base = FolderBase(
        id="base", path=tiny_base(tmp_path / "base", "llama", intermediate_size=128), dtype="bfloat16", quantize="nf4"
    )
    model = adapted(base.load(training=True).model)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss, expected = unpacked(model, rows("cuda"))
    result = packed(model, rows("cuda"))
    assert result[0] == pytest.approx(loss, rel=2e-2)
    assert distance(result[1], expected) < 5e-2
