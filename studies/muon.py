"""Time per step of bilora's Muon and of torch.optim.Muon, on the matrices of the embedded base.

python studies/muon.py [--model models/nano] [--rounds 9]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.nn import Parameter
from transformers import AutoModelForCausalLM

from bilora.pretraining.muon import Muon


def main() -> None:
    """Print the medians of interleaved steps and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/nano")
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(chosen.model)
    shapes = [one.shape for name, one in model.named_parameters() if one.dim() == 2 and "embed" not in name]
    matrices = [Parameter(torch.randn(shape)) for shape in shapes]
    for one in matrices:
        one.grad = torch.randn_like(one)
    kinds = {
        "torch": torch.optim.Muon(matrices, lr=1e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        "ours": Muon(matrices, lr=1e-3, weight_decay=0.1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(chosen.rounds + 1):
        for name, optimizer in kinds.items():
            began = time.perf_counter()
            optimizer.step()
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
    for name, found in seconds.items():
        print(f"{name:6} {1000 * statistics.median(found):7.1f} ms [{1000 * min(found):.1f}, {1000 * max(found):.1f}]")
    ratio = statistics.median(one / other for one, other in zip(seconds["torch"], seconds["ours"], strict=True))
    print(f"torch takes {ratio:.2f} times as long")


if __name__ == "__main__":
    main()
