"""Muon (Jordan et al. 2024) in a given precision.

torch.optim.Muon iterates in bf16 wherever it runs, which a CPU without 16-bit units emulates. Here all matrices of one
shape are iterated side by side, in 32-bit where that is faster; studies/muon.py measures the gain.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic whose iteration brings every singular value near one (Jordan et al.)."""
ITERATIONS = 5


class Muon(Optimizer):
    """Nesterov momentum, orthogonalised, for matrices only; the step is that of torch.optim.Muon.

    It is scaled to AdamW's root mean square (Liu et al. 2025, arXiv:2502.16982), so one learning rate serves both.
    """

    def __init__(
        self, params: Iterable[Parameter], *, lr: float, weight_decay: float, precision: torch.dtype = torch.float32
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self._precision = precision

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step with the current gradients."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Parameter]] = defaultdict(list)
            for one in group["params"]:
                shapes[one.shape].append(one)
            for shape, alike in shapes.items():
                steps = orthogonal(torch.stack([self._momentum(one) for one in alike]).to(self._precision))
                for one, step in zip(alike, steps, strict=True):
                    one.mul_(1 - group["lr"] * group["weight_decay"])
                    one.add_(step, alpha=-0.2 * group["lr"] * math.sqrt(max(shape)))

    def _momentum(self, one: Parameter) -> Tensor:
        assert one.grad is not None
        kept = self.state[one].setdefault("momentum", torch.zeros_like(one))
        kept.lerp_(one.grad, 1 - MOMENTUM)
        return one.grad.lerp(kept, MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """Bring the singular values of each matrix, shape (count, rows, columns), near one by Newton-Schulz iteration.

    It iterates in the type that it is given.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
