"""Run by torchrun in two processes: gradients and updates of a training alone, then divided over the ranks.

    python -m torch.distributed.run --nproc-per-node 2 rank_program.py

Prints one line of JSON from the first rank.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bilora.bases.loading import shared_copy
from bilora.params import Adapter
from bilora.training import ranks
from bilora.training.adapter import attach_adapter
from bilora.training.encode import IGNORE_INDEX
from bilora.training.packed_model import PackedModel, PackedRow
from support.training import BASE

TARGETS = (["qkv_proj", "o_proj"], ["gate_up_proj", "down_proj"])
STEPS = 20


def trained_models(base: Any) -> list[Any]:
    """Return models with adapters of the base; B is not 0, so that A has a gradient."""
    models = []
    for number, targets in enumerate(TARGETS):
        settings = Adapter(rank=4, alpha=8, dropout=0.0, target_modules=targets)
        models.append(attach_adapter(shared_copy(base), settings, seed=number))
        for name, parameter in models[-1].named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    return models


def batches() -> Iterator[list[PackedRow]]:
    """Yield one batch per step: five rows of the first adapter and one of the second, of different lengths."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(STEPS):
        lengths = torch.randint(4, 60, (6,), generator=generator).tolist()
        rows = []
        for index, length in enumerate(lengths):
            ids = torch.randint(10, 200, (length,), generator=generator)
            labels = ids.clone()
            labels[: length // 2] = IGNORE_INDEX
            rows.append(PackedRow(ids, labels, adapter=int(index == 5)))
        yield rows


def train(base: Any, optimizer_type: type[torch.optim.Optimizer], rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the losses of all steps, and the adapters' products B A after them."""
    torch.manual_seed(0)
    models = trained_models(base)
    packed, losses = PackedModel(models), []
    parameters = [parameter for model in models for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizer_type(parameters, lr=rate)  # type: ignore[call-arg]
    for rows in batches():
        half = len(rows) // 2  # two batches per step: gradients accumulate
        for part in (rows[:half], rows[half:]):
            losses.append(torch.stack(packed.train(part, [0.02, 0.02])).sum())
        losses.append(packed.measure(rows))
        optimizer.step()
        optimizer.zero_grad()
    products = [
        layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        for model in models
        for layer in model.modules()
        if hasattr(layer, "lora_A")
    ]
    return torch.stack(losses), torch.cat([product.detach().flatten() for product in products])


def main() -> None:
    """Compare."""
    base = BASE.load(training=True).model
    optimizers: dict[str, tuple[Any, float]] = {"sgd": (torch.optim.SGD, 0.05), "adamw": (torch.optim.AdamW, 1e-3)}
    alone = {name: train(base, *optimizer) for name, optimizer in optimizers.items()}
    ranks.join_ranks()
    assert ranks.world_size() == 2 and "RANK" not in os.environ
    report: dict[str, object] = {}
    for name, optimizer in optimizers.items():
        losses, products = train(base, *optimizer)
        report[name] = {
            "loss": float(((losses - alone[name][0]).abs() / alone[name][0].abs().clamp(min=1e-3)).max()),
            "product": float((products - alone[name][1]).norm() / alone[name][1].norm()),
        }
    report["gathered"] = [ranks.all_gather(ranks.shard(range(size))) == list(range(size)) for size in range(6)]
    report["broadcast"] = ranks.broadcast(ranks.rank())
    torch.manual_seed(5)
    with ranks.rank_rng():
        separate = float(torch.rand(()))
    report["separate"] = len(set(ranks.all_gather([separate])))
    report["common"] = len(set(ranks.all_gather([float(torch.rand(()))])))
    if ranks.is_first():
        sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
