"""Compile functions of several elementwise operations into one GPU kernel each.

A kernel per operation reads and writes whole tensors, so one kernel for all is faster. But its call costs CPU time, so
functions of small tensors are not compiled.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar, cast

import torch

_MIN_NUMBERS = 2**24
"""The minimum size of a tensor; for smaller ones an H100 waits for the CPU that launches its kernels."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def fused(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return `function` compiled for large GPU tensors, without gradients; in all other cases it is not compiled.

    The first dimension of its first argument is tokens.
    """

    @wraps(function)
    def run(*arguments: _P.args, **options: _P.kwargs) -> _T:
        first = cast("torch.Tensor", arguments[0])
        if not (first.is_cuda and first.numel() >= _MIN_NUMBERS and _can_compile()):
            return function(*arguments, **options)
        detached = [value.detach() if isinstance(value, torch.Tensor) else value for value in arguments]
        for value in detached:
            if isinstance(value, torch.Tensor) and value.ndim and len(value) == len(first):
                torch._dynamo.maybe_mark_dynamic(value, 0)  # passes differ in length
        return cast("_T", _compiled(function)(*detached, **options))

    return run


@cache
def _compiled(function: Callable[_P, _T]) -> Callable[_P, _T]:
    return torch.compile(function, fullgraph=True)


@cache
def _can_compile() -> bool:
    """Return whether Triton and the C compiler that it needs are installed."""
    from torch.utils._triton import has_triton

    return has_triton() and any(shutil.which(name) for name in ("cc", "gcc", "clang"))
