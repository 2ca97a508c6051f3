"""A run's identity has all inputs that determine its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.training import PAIRED, SFT, rated_pairs, sample, task_params, training_context

from bilora.training.context import TrainingContext
from bilora.training.record import run_identity

CHANGES: dict[str, Callable[[TrainingContext], TrainingContext]] = {
    "seed": lambda context: replace(context, seed=2),
    "phase": lambda context: replace(context, params=task_params([SFT | {"steps": 3}])),
    "further phase": lambda context: replace(context, params=task_params([SFT, {"kind": "kto", **PAIRED}])),
    "training rows": lambda context: replace(context, train_samples=[sample(7)]),
    "validation rows": lambda context: replace(context, validation_samples=[sample(7)]),
    "rated pairs": lambda context: replace(context, pairs=rated_pairs("kto", 2)),
    "base": lambda context: replace(context, base_revision="another"),
    "precision": lambda context: replace(context, loaded=replace(context.loaded, mode="cuda, nf4")),
    "prompt": lambda context: replace(context, task=replace(context.task, system="Be brief.")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_input_changes_the_identity(change: Any, smoke_loaded: Any) -> None:
    context = training_context(smoke_loaded, Path())
    assert run_identity(change(context), "lock").sha256 != run_identity(context, "lock").sha256


def test_packages_change_the_identity_and_the_folder_does_not(smoke_loaded: Any) -> None:
    context = training_context(smoke_loaded, Path())
    assert run_identity(context, "another").sha256 != run_identity(context, "lock").sha256
    assert (
        run_identity(replace(context, folder=Path("elsewhere")), "lock").sha256 == run_identity(context, "lock").sha256
    )
