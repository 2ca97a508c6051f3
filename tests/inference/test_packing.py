"""Packed layers compute the same as unpacked ones, store the weights once, and are used only if they are faster."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from support.sample_adapters import SMOKE, SampleAdapters
from torch.nn import Linear

from bilora.bases.kinds.folder import FolderBase
from bilora.inference.torch import cpu_tuning
from bilora.inference.torch.cpu_tuning import SMALL_BATCH_ROWS, UNLIMITED_ROWS, pack_linear_layers
from bilora.inference.torch.loading import load_for_inference
from bilora.inference.torch.lora import StackedLora, read_adapter
from bilora.inference.torch.packed_linear import BLOCK_OUTPUTS, PackedLinear

SMOKE_16 = FolderBase.at(SMOKE.id, dtype="bfloat16")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_tuning, "_best_max_packed_rows", lambda _: SMALL_BATCH_ROWS)


@pytest.mark.parametrize("max_packed_rows", [SMALL_BATCH_ROWS, UNLIMITED_ROWS])
@pytest.mark.parametrize("rows", [1, SMALL_BATCH_ROWS, SMALL_BATCH_ROWS + 1, 200])
@pytest.mark.parametrize("bias", [True, False])
def test_it_multiplies_as_the_plain_layer_does(rows: int, bias: bool, max_packed_rows: int) -> None:
    torch.manual_seed(0)
    linear_layer = Linear(96, BLOCK_OUTPUTS + 40, bias=bias, dtype=torch.bfloat16)
    inputs = torch.randn(1, rows, 96).bfloat16()
    with torch.inference_mode():
        exact = torch.nn.functional.linear(
            inputs.double(), linear_layer.weight.double(), linear_layer.bias.double() if bias else None
        )
        outputs = PackedLinear(linear_layer, max_packed_rows)(inputs)
    assert outputs.shape == exact.shape and outputs.dtype == torch.bfloat16
    torch.testing.assert_close(outputs.double(), exact, rtol=2**-7, atol=2**-7)


@pytest.mark.usefixtures("always")
def test_a_packed_base_with_an_adapter_scores_as_the_plain_one(
    sample_adapters: SampleAdapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.arange(3, 43)[None]
    scores = []
    for packed in (False, True):
        loaded = load_for_inference(SMOKE_16) if packed else load_without_packing(monkeypatch)
        assert loaded.mode.endswith("packed for oneDNN") is packed
        lora = StackedLora(loaded.model)
        adapter = read_adapter("codegen", sample_adapters.folders["codegen"], loaded.model)
        with torch.inference_mode(), lora.active([adapter]):
            scores.append(loaded.model(ids).logits.float())
    torch.testing.assert_close(scores[1], scores[0], rtol=0.05, atol=0.1)


def load_without_packing(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    with monkeypatch.context() as patched:
        patched.setattr(cpu_tuning, "_best_max_packed_rows", lambda _: 0)
        return load_for_inference(SMOKE_16)


@pytest.mark.usefixtures("always")
def test_the_plain_weights_are_freed_and_the_embedding_keeps_those_of_a_tied_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load_without_packing(monkeypatch).model
    layer, embedding = model.model.layers[0].mlp.down_proj, model.model.embed_tokens.weight.clone()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert pack_linear_layers(model)
    assert not hasattr(layer, "weight") and isinstance(model.model.layers[0].mlp.down_proj, PackedLinear)
    assert isinstance(model.lm_head, PackedLinear)
    assert torch.equal(model.model.embed_tokens.weight, embedding)
    assert torch.equal(model.lm_head.weight.to_dense(), embedding)


def test_what_is_not_faster_or_not_16_bit_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(isinstance(module, PackedLinear) for module in load_without_packing(monkeypatch).model.modules())
    monkeypatch.setattr(cpu_tuning, "_best_max_packed_rows", lambda _: SMALL_BATCH_ROWS)
    assert not pack_linear_layers(load_for_inference(SMOKE).model)


@pytest.mark.parametrize(
    ("costs", "best"),
    [
        ({0: 1.0, SMALL_BATCH_ROWS: 0.9, UNLIMITED_ROWS: 0.95}, 0),
        ({0: 1.0, SMALL_BATCH_ROWS: 0.5, UNLIMITED_ROWS: 0.6}, SMALL_BATCH_ROWS),
        ({0: 1.0, SMALL_BATCH_ROWS: 0.5, UNLIMITED_ROWS: 0.4}, UNLIMITED_ROWS),
    ],
)
def test_a_trial_decides_and_looks_at_more_than_a_cache_holds(
    costs: dict[int, float], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [Linear(8, size, bias=False, dtype=torch.bfloat16) for size in (16, 64, 32)]
    looked: list[tuple[int, ...]] = []

    def seconds(tried: Sequence[Linear]) -> float:
        looked.append(tuple(module.out_features for module in tried))
        return costs[getattr(tried[0], "max_packed_rows", 0)]

    monkeypatch.setattr(cpu_tuning, "_has_units_for", lambda _: False)
    monkeypatch.setattr(cpu_tuning, "_answer_seconds", seconds)
    monkeypatch.setattr(cpu_tuning, "TRIAL_BYTES", 64 * 8 * 2 + 1)
    assert cpu_tuning._best_max_packed_rows(layers) == best
    assert set(looked) == {(64, 32)}


def test_a_cpu_with_16_bit_units_packs_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_tuning, "_answer_seconds", None)
    for unit in ("avx512_bf16", "amx_bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda unit=unit: {unit: True})
        assert cpu_tuning._best_max_packed_rows([Linear(8, 16, dtype=torch.bfloat16)]) == UNLIMITED_ROWS
        with pytest.raises(TypeError):  # it has no units for the other 16-bit type, so a trial decides
            cpu_tuning._best_max_packed_rows([Linear(8, 16, dtype=torch.float16)])
