"""A run's identity holds everything that decides its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.training import PAIRED, SFT, rated_pairs, sample, task_params, training_context

from bilora.training.context import TrainingContext
from bilora.training.record import identify

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
def test_what_decides_the_outcome_is_another_run(change: Any, smoke_loaded: Any) -> None:
    context = training_context(smoke_loaded, Path())
    assert identify(change(context), "lock").sha256 != identify(context, "lock").sha256


def test_other_packages_are_another_run_and_another_folder_is_not(smoke_loaded: Any) -> None:
    context = training_context(smoke_loaded, Path())
    assert identify(context, "another").sha256 != identify(context, "lock").sha256
    assert identify(replace(context, folder=Path("elsewhere")), "lock").sha256 == identify(context, "lock").sha256
