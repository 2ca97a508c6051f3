"""Train variants of a task's adapter together on one base and compare them on the validation subset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from bilora.bases.loading import shared_copy
from bilora.errors import PreflightFailed
from bilora.params import Adapter, TaskParams
from bilora.storage import read_record, sha256_json, write_json
from bilora.sweep_results import Variant, VariantResult
from bilora.training.adapter import attach_adapter, count_trainable
from bilora.training.context import TrainingContext
from bilora.training.phases.sft import PHASE, SftSettings
from bilora.training.record import run_identity

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from bilora.training.joint_training import JointTraining

_POWERS = {"qwen2": 0.0775}
_POWER = 0.781


def suggested_learning_rate(config: PretrainedConfig) -> float:
    """Return a learning rate for LoRA on a base of this size: ten times that of full fine-tuning.

    Source: Schulman et al., "LoRA Without Regret" (2025): 5e-5 x 10 x (2000 / hidden size) ^ p, with p fitted to
    Llama's sizes (0.781) and to Qwen's (0.0775).
    """
    rate = 5e-4 * (2000 / config.hidden_size) ** _POWERS.get(config.model_type, _POWER)
    return float(f"{rate:.1g}")


def linear_layers(model: PreTrainedModel, part: str) -> list[str]:
    """Return the names of the linear layers of a model's `attention`, its `mlp`, or `all`."""
    import torch

    head = model.get_output_embeddings()
    modules = model.named_modules()
    linear = [name for name, module in modules if isinstance(module, torch.nn.Linear) and module is not head]
    words = {"attention": ("attn",), "mlp": ("mlp",), "all": ("attn", "mlp")}[part]
    return sorted({name.rpartition(".")[2] for name in linear if any(word in name for word in words)})


def make_variants(
    params: TaskParams,
    rates: Sequence[float],
    ranks: Sequence[int],
    layers: Sequence[Sequence[str]],
    seeds: Sequence[int],
) -> list[Variant]:
    """Return all combinations. Empty `ranks` or `layers` mean those in params; alpha / rank stays as in params."""
    adapter = params.adapter
    combinations = product(rates, ranks or [adapter.rank], layers or [sorted(adapter.target_modules)], seeds)
    return [
        Variant(
            learning_rate=rate,
            rank=rank,
            alpha=max(1, round(rank * adapter.alpha / adapter.rank)),
            target_modules=tuple(modules),
            seed=seed,
        )
        for rate, rank, modules, seed in combinations
    ]


def run_sweep(
    context: TrainingContext,
    variants: Sequence[Variant],
    joint: JointTraining,
    *,
    lock_sha256: str,
    steps: int | None = None,
) -> list[VariantResult]:
    """Train all variants by the task's first phase, except those that a killed sweep has finished.

    Args:
        context: the task's training, with the base without an adapter.
        steps: the number of steps per variant; None for the phase's.

    Raises:
        PreflightFailed: the first phase is not sft, or a check of the rows fails.
    """
    phase = context.params.training.phases[0]
    if not isinstance(phase, SftSettings):
        raise PreflightFailed(f"{context.task.name} begins with the phase {phase.kind}; a sweep can only train sft.")
    if steps is not None:
        phase = phase.model_copy(update={"steps": steps, "evaluate_every": min(phase.evaluate_every, steps)})
    trainings = [
        partial(_train, _variant_context(context, variant, phase), variant, joint, lock_sha256) for variant in variants
    ]
    return joint.run(trainings)


def _variant_context(context: TrainingContext, variant: Variant, phase: SftSettings) -> TrainingContext:
    """Return the context of one variant, with its params and a copy of the model that shares the base's weights."""
    adapter = Adapter(
        rank=variant.rank,
        alpha=variant.alpha,
        dropout=context.params.adapter.dropout,
        target_modules=list(variant.target_modules),
    )
    phase = phase.model_copy(update={"learning_rate": variant.learning_rate})
    training = context.params.training.model_copy(update={"phases": [phase]})
    return replace(
        context,
        params=context.params.model_copy(update={"adapter": adapter, "training": training}),
        seed=variant.seed,
        loaded=replace(context.loaded, model=shared_copy(context.model)),
    )


def _train(context: TrainingContext, variant: Variant, joint: JointTraining, lock_sha256: str) -> VariantResult:
    identity = sha256_json([run_identity(context, lock_sha256).sha256, variant.model_dump()])
    context = replace(context, folder=context.folder / identity[:16], joint=joint)
    file = context.folder / "result.json"
    if file.is_file():
        return read_record(file, VariantResult)
    context = context.with_model(attach_adapter(context.model, context.params.adapter, seed=context.seed))
    (phase,) = context.params.training.phases
    trained = PHASE.run(context, phase, PHASE.prepare(context, phase))  # type: ignore[arg-type]
    result = VariantResult(
        variant=variant,
        trainable_parameters=count_trainable(context.model),
        metric=trained.metric,
        validation_loss=trained.metrics["validation_loss"],
        best_step=int(trained.metrics["best_step"]),
        steps=int(trained.metrics["steps"]),
        tokens=trained.tokens,
        seconds=trained.duration_s,
    )
    write_json(file, result.model_dump())
    return result
