"""A sweep selects settings on validation, trains its variants together, and continues after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.training import BASE, PAIRED, SFT, task_params, training_context
from transformers import LlamaConfig, Qwen2Config

from bilora.errors import PreflightFailed
from bilora.sweep_results import Variant, VariantResult, best_settings
from bilora.sweeping import linear_layers, make_variants, run_sweep, suggested_learning_rate
from bilora.training.joint_training import JointTraining

PARAMS = task_params([SFT])


def result(rate: float, seed: int, metric: float, loss: float) -> VariantResult:
    variant = Variant(learning_rate=rate, rank=4, alpha=8, target_modules=("down_proj",), seed=seed)
    return VariantResult(
        variant=variant,
        trainable_parameters=1,
        metric=metric,
        validation_loss=loss,
        best_step=1,
        steps=1,
        tokens=1,
        seconds=1.0,
    )


def test_the_mean_over_seeds_decides_and_the_loss_breaks_ties() -> None:
    lucky = [result(1e-3, 1, 0.9, 1.0), result(1e-3, 2, 0.1, 1.0)]
    steady = [result(2e-3, 1, 0.6, 1.2), result(2e-3, 2, 0.6, 1.2)]
    lower = [result(4e-3, 1, 0.6, 1.1), result(4e-3, 2, 0.6, 1.1)]
    assert best_settings([*lucky, *steady]).learning_rate == 2e-3
    assert best_settings([*lucky, *steady, *lower]).learning_rate == 4e-3


def test_the_rule_for_the_rate() -> None:
    assert suggested_learning_rate(LlamaConfig(hidden_size=576)) == 1e-3
    assert suggested_learning_rate(LlamaConfig(hidden_size=3072)) == 4e-4
    assert suggested_learning_rate(Qwen2Config(hidden_size=1536)) == 5e-4


def test_layers_by_name() -> None:
    model = BASE.load(training=True).model
    assert linear_layers(model, "attention") == ["o_proj", "qkv_proj"]
    assert linear_layers(model, "mlp") == ["down_proj", "gate_up_proj"]
    assert linear_layers(model, "all") == ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]


def test_variants_are_all_combinations_and_keep_the_scale() -> None:
    variants = make_variants(PARAMS, [1e-3, 2e-3], [2, 8], [], [1, 2])
    assert len(variants) == 8 and {(variant.rank, variant.alpha) for variant in variants} == {(2, 4), (8, 16)}
    assert {variant.target_modules for variant in variants} == {("down_proj", "gate_up_proj")}


def test_finished_variants_of_a_killed_sweep_are_not_trained_again(tmp_path: Path) -> None:
    variants = make_variants(PARAMS, [1e-3, 5e-3], [], [], [1])
    steps: list[Any] = []

    def run(fail_after: int | None = None) -> list[VariantResult]:
        def on_step(step: Any) -> None:
            steps.append(step)
            if fail_after is not None and len(steps) > fail_after:
                raise OSError("killed")

        context = training_context(BASE.load(training=True), tmp_path, on_step=on_step)
        return run_sweep(context, variants[:1] if fail_after else variants, JointTraining(), lock_sha256="l")

    first = run(fail_after=1000)
    steps_of_first = len(steps)
    both = run()
    assert both[0] == first[0] and len(steps) == 2 * steps_of_first
    assert both[1].variant.learning_rate == 5e-3 and both[1].steps == 2


def test_only_supervised_training_is_swept(tmp_path: Path) -> None:
    context = training_context(BASE.load(training=True), tmp_path, [SFT, {"kind": "kto", **PAIRED}])
    training = context.params.training.model_copy(update={"phases": context.params.training.phases[1:]})
    context = replace(context, params=context.params.model_copy(update={"training": training}))
    with pytest.raises(PreflightFailed, match="begins with the phase kto"):
        run_sweep(context, make_variants(PARAMS, [1e-3], [], [], [1]), JointTraining(), lock_sha256="l")
