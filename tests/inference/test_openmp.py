"""A thread that waits for an engine has no OpenMP threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.sample_adapters import chat_request

from bilora.inference.openmp import release_openmp_threads
from bilora.inference.torch.engine import TorchEngine


@pytest.fixture
def computed() -> Iterator[int]:
    """The number of this process's threads after a computation with two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.ones(2**22).sin()
    yield threads()
    torch.set_num_threads(before)


def threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def fewer_than(count: int) -> bool:
    """Return whether the number falls below `count` within five seconds."""
    end = time.monotonic() + 5
    while threads() >= count and time.monotonic() < end:
        time.sleep(0.01)
    return threads() < count


def test_released_threads_are_created_again(computed: int) -> None:
    release_openmp_threads()
    assert fewer_than(computed)
    torch.ones(2**22).sin()
    assert threads() >= computed


def test_a_caller_of_an_engine_has_no_openmp_threads(mixed: TorchEngine, computed: int) -> None:
    mixed.generate("base", [chat_request("a list")])
    assert fewer_than(computed)
