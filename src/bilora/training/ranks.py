"""Data parallelism over the processes that torchrun starts; each is a rank, with a device of its own.

Every rank runs the same training: the same rows, optimizer and random numbers. Only the work inside a step is divided,
the rows of a batch and the samples of a validation, and its results are exchanged. The adapter is therefore that of a
single process, up to the order of sums, and only the first rank writes. In a single process all functions do nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

_Item = TypeVar("_Item")
_TIMEOUT = timedelta(hours=1)
"""How long a rank waits for the others, which may be converting the base."""
_ENVIRONMENT = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
"""Set by torchrun. transformers and accelerate would divide the rows a second time if they saw it."""
_MISSING = object()


def join_ranks() -> None:
    """Connect this process with the others that torchrun started, if it did; call it before torch is imported.

    On a machine with GPUs, the process sees only the one of its local rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    local = int(os.environ["LOCAL_RANK"])
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[local] if visible else str(local)
    import torch
    from torch import distributed

    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_TIMEOUT)
    for name in _ENVIRONMENT:
        os.environ.pop(name, None)


def world_size() -> int:
    """Return the number of ranks."""
    distributed = sys.modules.get("torch.distributed")  # a command that never joins need not import it
    return int(distributed.get_world_size()) if distributed and distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this rank, from 0."""
    return int(sys.modules["torch.distributed"].get_rank()) if world_size() > 1 else 0


def is_first() -> bool:
    """Return whether this rank writes files and reports progress."""
    return rank() == 0


def shard(items: Sequence[_Item]) -> list[_Item]:
    """Return this rank's share of the items."""
    return list(items[rank() :: world_size()])


def all_gather(items: list[_Item]) -> list[_Item]:
    """Return the items of all ranks in the order before `shard`, on every rank."""
    if world_size() == 1:
        return items
    from torch import distributed

    shares: list[list[_Item]] = [[] for _ in range(world_size())]
    distributed.all_gather_object(shares, items)
    rounds = chain.from_iterable(zip_longest(*shares, fillvalue=_MISSING))
    return [item for item in rounds if item is not _MISSING]  # type: ignore[misc]


def broadcast(value: _Item) -> _Item:
    """Return the first rank's value, on every rank; all ranks wait for it."""
    if world_size() == 1:
        return value
    from torch import distributed

    values: list[_Item] = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def broadcast_tensors(tensors: Sequence[Tensor]) -> None:
    """Overwrite the tensors of all ranks by those of the first."""
    if world_size() > 1:
        from torch import distributed

        for tensor in tensors:
            distributed.broadcast(tensor.data, 0)


def all_reduce(tensors: Sequence[Tensor]) -> None:
    """Replace the tensors of all ranks by their sums over the ranks; 32-bit tensors of one device."""
    if world_size() == 1 or not tensors:
        return
    import torch
    from torch import distributed

    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


@contextmanager
def rank_rng() -> Iterator[None]:
    """Let each rank draw its own random numbers, for dropout, and continue with common ones afterwards."""
    if world_size() == 1:
        yield
        return
    import torch

    seed = int(torch.randint(2**62, ()))  # the same on all ranks
    with torch.random.fork_rng():
        torch.manual_seed(seed + rank())
        yield
