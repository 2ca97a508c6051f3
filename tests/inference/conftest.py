"""Fixtures: an engine with two adapters."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from support.sample_adapters import SMOKE, SampleAdapters

from bilora.bases.loading import LoadedBase
from bilora.inference.torch.engine import TorchEngine


@pytest.fixture(scope="session")
def another_smoke() -> LoadedBase:
    """A second copy of the smoke base, for engines with adapters."""
    return SMOKE.load(training=False)


@pytest.fixture
def mixed(sample_adapters: SampleAdapters, another_smoke: LoadedBase) -> Iterator[TorchEngine]:
    """An engine with both adapters; at the end no request runs."""
    folders = {name: sample_adapters.folders[name] for name in ("codegen", "docstring")}
    engine = TorchEngine(another_smoke, folders, batch_size=8)
    yield engine
    for thread in threading.enumerate():
        if thread.name == "batch":  # a cancelled sequence is removed at its next token
            thread.join(10)
    assert engine.queue_depth() == (0, 0)
