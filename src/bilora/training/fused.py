"""Functions of several elementwise steps, which torch compiles into one kernel each where tensors are on a GPU.

A kernel per step reads and writes whole tensors. One kernel for all takes a third of the time, but a call of it some
hundred microseconds of the processor's, so small tensors are left to torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar, cast

import torch

_MIN_NUMBERS = 2**24
"""How many numbers a tensor has at least: with fewer an H100 is faster than the processor that starts its kernels."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def fused(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return the same function, compiled for a GPU's tensors; the first has a dimension of tokens in front.

    No gradient passes through it.

    Elsewhere, and where nothing can be compiled, it runs step by step.
    """

    @wraps(function)
    def run(*arguments: _P.args, **options: _P.kwargs) -> _T:
        first = cast("torch.Tensor", arguments[0])
        if not (first.is_cuda and first.numel() >= _MIN_NUMBERS and _can_compile()):
            return function(*arguments, **options)
        leaves = [one.detach() if isinstance(one, torch.Tensor) else one for one in arguments]
        for one in leaves:
            if isinstance(one, torch.Tensor) and one.ndim and len(one) == len(first):
                torch._dynamo.maybe_mark_dynamic(one, 0)  # passes differ in length
        return cast("_T", _compiled(function)(*leaves, **options))

    return run


@cache
def _compiled(function: Callable[_P, _T]) -> Callable[_P, _T]:
    return torch.compile(function, fullgraph=True)


@cache
def _can_compile() -> bool:
    """Return whether there is Triton and the C compiler that it needs."""
    from torch.utils._triton import has_triton

    return has_triton() and any(shutil.which(name) for name in ("cc", "gcc", "clang"))
