"""The command sweep."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bilora.cli.data import TaskName

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bilora.cli.progress import Bar
    from bilora.sweep_results import Sweep
    from bilora.training.context import OnStep, Step

LAYERS = ("attention", "mlp", "all")

Rates = Annotated[
    list[float] | None,
    typer.Option(
        "--rate", min=1e-7, max=1.0, help="A learning rate; by default half, once and twice the suggested rate."
    ),
]
Ranks = Annotated[
    list[int] | None, typer.Option("--rank", min=1, max=1024, help="A rank; by default that of params.yaml.")
]
Parts = Annotated[
    list[str] | None, typer.Option("--layers", help="attention, mlp or all; by default the layers of params.yaml.")
]
Seeds = Annotated[list[int] | None, typer.Option("--seed", min=0, help="A seed; by default that of params.yaml.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps per variant; by default those of params.yaml.")]


def sweep(
    task: TaskName,
    rates: Rates = None,
    ranks: Ranks = None,
    layers: Parts = None,
    seeds: Seeds = None,
    steps: Steps = None,
) -> None:
    """Train variants of one task's adapter together and compare them on the validation split."""
    from bilora.cli.engines import prepare_base
    from bilora.cli.progress import bar
    from bilora.data.training_rows import TrainingRows, read_training_rows
    from bilora.library_logs import silence_libraries
    from bilora.storage import write_json
    from bilora.workspace import Workspace

    if unknown := sorted(set(layers or []) - set(LAYERS)):
        raise typer.BadParameter(f"--layers {', '.join(unknown)}: choose from {', '.join(LAYERS)}.")
    workspace = Workspace(Path())
    task_params, definition = workspace.task(task)
    rows = read_training_rows(workspace, task, None)
    print(f"sweep {task}: loading the base", flush=True)
    silence_libraries()

    # Imported after the params are checked, because these imports take seconds.
    from bilora.sweep_results import Sweep
    from bilora.sweeping import linear_layers, make_variants, run_sweep, suggested_learning_rate
    from bilora.training.joint_training import JointTraining
    from bilora.training.loading import load_for_training

    base = prepare_base(workspace)
    loaded = load_for_training(base)
    center = suggested_learning_rate(loaded.model.config)
    variants = make_variants(
        task_params,
        rates=rates or [center / 2, center, 2 * center],
        ranks=ranks or [],
        layers=[linear_layers(loaded.model, name) for name in layers or []],
        seeds=seeds or [workspace.params.seed],
    )
    print(f"sweep {task}: {len(variants)} variants; the suggested rate for a base of this size is {center:g}")
    joint = JointTraining()
    total = len(variants) * (steps or task_params.training.phases[0].steps)
    with workspace.sandbox() as sandbox, bar(f"sweep {task}", total, "steps") as steps_bar:
        context = workspace.training_context(
            task,
            TrainingRows(rows.train, rows.validation, ()),
            loaded,
            sandbox,
            on_step=_count_steps(steps_bar),
            bars=steps_bar.nested,
            folder=workspace.checkpoints(f"sweep-{task}"),
        )
        results = run_sweep(context, variants, joint, lock_sha256=workspace.lock_sha256(), steps=steps)
    finished = Sweep(
        task=task,
        base_id=base.id,
        metric=definition.headline,
        validation_samples=len(context.validation_subset()),
        results=tuple(results),
    )
    write_json(workspace.sweep(task), finished.model_dump())
    shutil.rmtree(context.folder)
    print("\n".join(_lines(finished)))


def _count_steps(steps_bar: Bar) -> OnStep:
    def count(step: Step) -> None:
        if step.loss is not None:
            steps_bar(1)

    return count


def _lines(finished: Sweep) -> Iterator[str]:
    """Yield the table of variants, and the best settings as lines of params.yaml."""
    best = finished.best
    yield f"rate       rank  layers                          seed  {finished.metric:>10s}  loss    best step  seconds"
    for result in finished.results:
        variant = result.variant
        modules = ",".join(name.removesuffix("_proj") for name in variant.target_modules)
        mark = "  <" if variant.settings == best else ""
        yield (
            f"{variant.learning_rate:<9g}  {variant.rank:4d}  {modules:30s}  {variant.seed:4d}  {result.metric:10.3f}  "
            f"{result.validation_loss:.3f}  {result.best_step:9d}  {result.seconds:7.0f}{mark}"
        )
    yield f"best on {finished.validation_samples} validation samples; in params.yaml under tasks.{finished.task}:"
    modules = ", ".join(best.target_modules)
    yield f"  adapter: {{rank: {best.rank}, alpha: {best.alpha}, target_modules: [{modules}]}}"
    yield f"  training.phases[0].learning_rate: {best.learning_rate:g}"
