"""Our Muon takes the steps of torch's own, which iterates in bf16."""

from __future__ import annotations

import torch
from torch.nn import Parameter

from bilora.pretraining.muon import Muon, orthogonal


def test_it_steps_as_torchs_own_does() -> None:
    torch.manual_seed(0)
    shapes = [(48, 16), (16, 48), (16, 16), (48, 16)]
    ours = [Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [Parameter(one.detach().clone()) for one in ours]
    begun = [one.detach().clone() for one in ours]
    one = Muon(ours, lr=0.02, weight_decay=0.1)
    other = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for mine, its in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            its.grad = mine.grad.clone()
        one.step()
        other.step()
    for start, mine, its in zip(begun, ours, theirs, strict=True):
        moved = (its - start).norm()
        assert moved > 0.1 and (mine - its).norm() < 0.02 * moved


def test_every_matrix_of_a_stack_is_made_nearly_orthogonal_by_itself() -> None:
    torch.manual_seed(0)
    stack = torch.randn(3, 12, 40) * torch.tensor([1.0, 100.0, 0.01])[:, None, None]
    made = orthogonal(stack)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.5 and values.max() < 1.3
    torch.testing.assert_close(made[1], orthogonal(stack[1:2])[0])
