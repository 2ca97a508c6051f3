"""What decisions about training passes rest on: shapes of products, loss by few tokens, attention by products, oneDNN.

    python perf/training_parts.py [--rounds 5]

In bfloat16 on a CPU that multiplies it natively: 1) what a shape costs that has not occurred before, in time and in
memory that stays; 2) the loss of 256 tokens with a vocabulary of 49,152, all at once or a few at a time; 3) attention
of eight rows of 160 tokens, 9 heads that share 3 of keys, forward and backward, beside torch's kernel. In 32-bit:
4) a product of 1,024 tokens by torch, which asks MKL, and by oneDNN, and one of 64 tokens from packed weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.nn import Linear
from torch.nn.functional import linear, scaled_dot_product_attention

from bilora.inference.memory import keep_freed_memory, return_freed_memory
from bilora.inference.torch.cpu_tuning import ALL_ROWS
from bilora.inference.torch.packed_linear import PackedLinear
from bilora.inference.torch.products import product
from bilora.training import answer_loss
from bilora.training.attention import PackedRows, attend

SHAPES = 40
PAGE = 4096


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def resident() -> int:
    """Return the process's memory in bytes, without what is freed."""
    return_freed_memory()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def products(tokens: int) -> None:
    """Multiply some tokens as an MLP's first layer does, forward and backward."""
    x, weight = torch.ones(tokens, 576, dtype=torch.bfloat16), torch.ones(1536, 576, dtype=torch.bfloat16)
    gradient = x @ weight.T
    gradient @ weight
    gradient.T @ x


def new_shapes() -> str:
    """Measure products of shapes that have not occurred, and the same again."""
    products(1024)
    before = resident()
    first = sum(seconds_of(partial(products, tokens)) for tokens in range(1025, 1025 + SHAPES))
    kept = resident() - before
    again = sum(seconds_of(partial(products, tokens)) for tokens in range(1025, 1025 + SHAPES))
    count = 3 * SHAPES
    return f"a new shape: {(first - again) / count * 1e3:.2f} ms and {kept / count / 2**20:.2f} MiB that stays"


def compared(title: str, rounds: int, **ways: Callable[[], object]) -> str:
    """Return the medians of interleaved rounds in milliseconds."""
    for work in ways.values():
        work()
    found = [{name: seconds_of(work) for name, work in ways.items()} for _ in range(rounds)]
    medians = [f"{name} {statistics.median(one[name] for one in found) * 1e3:.2f} ms" for name in ways]
    return f"{title}: {', '.join(medians)}"


def loss(size: int) -> None:
    """Turn logits of 256 tokens into their gradient, `size` tokens at a time."""
    for part, targets in zip(torch.split(LOGITS.clone(), size), torch.split(TARGETS, size), strict=True):
        answer_loss._turn_into_gradient(part, targets[:, None])


LOGITS, TARGETS = torch.randn(256, 49152).bfloat16(), torch.randint(0, 49152, (256,))


def attention() -> tuple[Callable[[], None], Callable[[], None]]:
    """Return torch's kernel and ours on the same rows, forward and backward."""
    rows, length, size = 8, 160, 64
    q, k, v = (torch.randn(rows * length, count, size).bfloat16().requires_grad_() for count in (9, 3, 3))
    layout = PackedRows([length] * rows, torch.device("cpu"))

    def kernel() -> None:
        query, key, value = (one.view(rows, length, -1, size).transpose(1, 2) for one in (q, k, v))
        out = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        out.backward(torch.ones_like(out))  # type: ignore[no-untyped-call]

    def ours() -> None:
        out = attend(q, k, v, layout, size**-0.5, None)
        out.backward(torch.ones_like(out))  # type: ignore[no-untyped-call]

    return kernel, ours


def float32_products(tokens: int) -> dict[str, Callable[[], object]]:
    """Return an MLP's first product by each library."""
    x, layer = torch.randn(tokens, 576), Linear(576, 1536, bias=False).requires_grad_(False)
    packed = PackedLinear(layer, ALL_ROWS)
    return {
        "torch": partial(linear, x, layer.weight),
        "oneDNN": partial(product, x, layer.weight),
        "packed": partial(packed.forward, x),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    print(new_shapes())
    few = answer_loss._CACHED_TOKENS
    print(compared("loss", rounds, **{"at once": partial(loss, 256), f"by {few}": partial(loss, few)}))
    kernel, ours = attention()
    print(compared("attention", rounds, **{"torch's kernel": kernel, "products": ours}))
    with torch.inference_mode():
        for tokens in (1024, 64):
            print(compared(f"32-bit product of {tokens} tokens", 5 * rounds, **float32_products(tokens)))


if __name__ == "__main__":
    main()
