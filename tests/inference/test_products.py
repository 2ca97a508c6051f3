"""Products with frozen weights equal those of torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Linear, Sequential
from torch.nn.functional import linear

from bilora.inference.torch.products import FrozenLinear, add_product, freeze_linear_layers, product

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("rows", [1, 70])
def test_a_product_is_that_of_torch(rows: int, dtype: torch.dtype) -> None:
    x, weight, bias = (torch.randn(size).to(dtype) for size in ((rows, 48), (32, 48), (32,)))
    expected = x.double() @ weight.double().T
    tolerance = TOLERANCES[dtype]
    assert (product(x, weight).double() - expected).norm() < tolerance * expected.norm()
    assert (product(x, weight, bias).double() - expected - bias.double()).norm() < tolerance * expected.norm()
    assert (product(x, weight.T.contiguous().T).double() - expected).norm() < tolerance * expected.norm()
    out = torch.randn(rows, 32).to(dtype)
    summed = out.double() + expected
    add_product(out, x, weight)
    assert (out.double() - summed).norm() < tolerance * summed.norm()


def test_frozen_layers_share_the_weights_of_plain_ones() -> None:
    model = Sequential(Linear(48, 32), Linear(32, 16, bias=False)).requires_grad_(False)
    x, weights = torch.randn(5, 48), [layer.weight for layer in model]
    expected = linear(linear(x, weights[0], model[0].bias), weights[1])
    freeze_linear_layers(model)
    assert all(type(layer) is FrozenLinear for layer in model)
    assert all(layer.weight is weight for layer, weight in zip(model, weights, strict=True))
    assert torch.allclose(model(x), expected, rtol=1e-5, atol=1e-6)
