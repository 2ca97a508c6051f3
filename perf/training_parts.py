"""Microbenchmarks of the training step: new product shapes, chunked loss, attention by products, oneDNN.

    python perf/training_parts.py [--rounds 5]

In bfloat16 on a CPU with native bf16: 1) time and memory of a product whose shape is new; 2) the loss of 256 tokens
with a vocabulary of 49,152, at once or in chunks; 3) attention of eight rows of 160 tokens, 9 query heads and 3 key
heads, forward and backward, beside torch's kernel. In 32-bit: 4) products of 1,024 and of 64 tokens by torch, which
calls MKL, by oneDNN, and from packed weights.
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
from bilora.inference.torch.cpu_tuning import UNLIMITED_ROWS
from bilora.inference.torch.packed_linear import PackedLinear
from bilora.inference.torch.products import product
from bilora.training import answer_loss
from bilora.training.attention import RowLayout, attend

SHAPES = 40
PAGE_BYTES = 4096


def seconds_of(function: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def resident_bytes() -> int:
    """Return the process's resident memory after freed memory was returned to the kernel."""
    return_freed_memory()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def mlp_products(tokens: int) -> None:
    """Compute the products of an MLP's first layer, forward and backward."""
    x, weight = torch.ones(tokens, 576, dtype=torch.bfloat16), torch.ones(1536, 576, dtype=torch.bfloat16)
    gradient = x @ weight.T
    gradient @ weight
    gradient.T @ x


def new_shapes() -> str:
    """Return the time and the permanent memory that a product's first call with a shape costs."""
    mlp_products(1024)
    before = resident_bytes()
    first = sum(seconds_of(partial(mlp_products, tokens)) for tokens in range(1025, 1025 + SHAPES))
    permanent = resident_bytes() - before
    second = sum(seconds_of(partial(mlp_products, tokens)) for tokens in range(1025, 1025 + SHAPES))
    count = 3 * SHAPES
    return f"a new shape: {(first - second) / count * 1e3:.2f} ms and {permanent / count / 2**20:.2f} MiB, never freed"


def compare(title: str, rounds: int, **functions: Callable[[], object]) -> str:
    """Return the medians of interleaved rounds in milliseconds."""
    for function in functions.values():
        function()
    times = [{name: seconds_of(function) for name, function in functions.items()} for _ in range(rounds)]
    medians = [f"{name} {statistics.median(row[name] for row in times) * 1e3:.2f} ms" for name in functions]
    return f"{title}: {', '.join(medians)}"


def loss(chunk_size: int) -> None:
    """Turn logits of 256 tokens into their gradient, in chunks of tokens."""
    chunks = zip(torch.split(LOGITS.clone(), chunk_size), torch.split(TARGETS, chunk_size), strict=True)
    for logits, targets in chunks:
        answer_loss._replace_by_gradient(logits, targets[:, None])


LOGITS, TARGETS = torch.randn(256, 49152).bfloat16(), torch.randint(0, 49152, (256,))


def attention() -> tuple[Callable[[], None], Callable[[], None]]:
    """Return torch's kernel and ours on the same rows, forward and backward."""
    rows, length, size = 8, 160, 64
    q, k, v = (torch.randn(rows * length, count, size).bfloat16().requires_grad_() for count in (9, 3, 3))
    layout = RowLayout([length] * rows, torch.device("cpu"))

    def kernel() -> None:
        query, key, value = (tensor.view(rows, length, -1, size).transpose(1, 2) for tensor in (q, k, v))
        out = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        out.backward(torch.ones_like(out))  # type: ignore[no-untyped-call]

    def ours() -> None:
        out = attend(q, k, v, layout, size**-0.5, None)
        out.backward(torch.ones_like(out))  # type: ignore[no-untyped-call]

    return kernel, ours


def float32_products(tokens: int) -> dict[str, Callable[[], object]]:
    """Return a function per library that computes an MLP's first product."""
    x, layer = torch.randn(tokens, 576), Linear(576, 1536, bias=False).requires_grad_(False)
    packed = PackedLinear(layer, UNLIMITED_ROWS)
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
    chunk_size = answer_loss._CACHED_TOKENS
    losses = {"at once": partial(loss, 256), f"chunks of {chunk_size}": partial(loss, chunk_size)}
    print(compare("loss", rounds, **losses))
    kernel, ours = attention()
    print(compare("attention", rounds, **{"torch's kernel": kernel, "products": ours}))
    with torch.inference_mode():
        for tokens in (1024, 64):
            print(compare(f"32-bit product of {tokens} tokens", 5 * rounds, **float32_products(tokens)))


if __name__ == "__main__":
    main()
