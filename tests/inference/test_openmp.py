"""Who only waits keeps no OpenMP threads."""

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
    """This process's threads after this one has computed something with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.ones(2**22).sin()
    yield threads()
    torch.set_num_threads(before)


def threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def fewer_than(count: int) -> bool:
    """Whether there soon are; a thread that has done its work takes a moment to end."""
    end = time.monotonic() + 5
    while threads() >= count and time.monotonic() < end:
        time.sleep(0.01)
    return threads() < count


def test_they_are_let_go_and_come_again(computed: int) -> None:
    release_openmp_threads()
    assert fewer_than(computed)
    torch.ones(2**22).sin()
    assert threads() >= computed


def test_who_asks_an_engine_keeps_none(mixed: TorchEngine, computed: int) -> None:
    mixed.generate("base", [chat_request("a list")])
    assert fewer_than(computed)
