"""The verb train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilora.cli.data import TaskName

if TYPE_CHECKING:
    from bilora.cli.progress import Bar
    from bilora.training.context import OnStep, Step
    from bilora.training.run import TrainingResult


def train(task: TaskName) -> None:
    """Train one task's adapter, or continue where an interrupted run stopped."""
    from bilora.cli import wiring
    from bilora.cli.withdrawals import withdrawals
    from bilora.data.ratings import GROUP, ratings_of, without_withdrawn
    from bilora.storage import sha256_file

    params, chosen, task_type = wiring.load_named(task)
    wiring.need_sinks(params)
    samples = {name: wiring.split(task, name) for name in ("train", "validation")}
    pairs = wiring.preferences(chosen, task)
    if ratings := ratings_of(samples["train"], pairs):
        rows = len(samples["train"]) + len(pairs)
        gone = withdrawals()
        samples["train"], pairs = without_withdrawn(samples["train"], pairs, gone.ratings)
        gone.print_unread()
        if left_out := rows - len(samples["train"]) - len(pairs):
            print(f"train {task}: {left_out} rows left out, whose ratings were deleted or withdrawn since the split")
            ratings = ratings_of(samples["train"], pairs)
    wiring.quiet_libraries()

    # These take seconds to import; what is wrong with the params is said before.
    from bilora.bases.loading import base_revision, load_base
    from bilora.bases.prompt import template_remarks
    from bilora.cli.progress import bar
    from bilora.evaluation.validation import ValidationScorer
    from bilora.protocols import Referees
    from bilora.training.context import TrainingContext
    from bilora.training.record import TrainingOutputs, train_recorded

    loaded, revision = load_base(params.base, training=True), base_revision(params.base)
    print(f"train {task}: {loaded.mode}, base {params.base.id} at {revision[:12]}")
    for remark in template_remarks(loaded.tokenizer):
        print(f"train {task}: {remark}")
    with bar(f"train {task}", chosen.training.steps, "steps") as shown, wiring.sandbox(params) as sandbox:
        context = TrainingContext(
            task=task_type,
            params=chosen,
            base=params.base,
            base_revision=revision,
            loaded=loaded,
            scorer=ValidationScorer(task_type, loaded, Referees(sandbox=sandbox)),
            seed=params.seed,
            folder=wiring.CHECKPOINTS / task,
            train_samples=samples["train"],
            validation_samples=samples["validation"],
            pairs=pairs,
            sinks=params.tracking.sinks,
            on_step=_reporter(shown),
        )
        mixed = sum(sample.group == GROUP for sample in samples["train"])
        result, record = train_recorded(
            context,
            TrainingOutputs(
                adapter=wiring.ADAPTERS / task,
                runs=wiring.RUNS,
                metrics=wiring.TRAIN_METRICS / f"{task}.json",
                train_plot=wiring.TRAIN_PLOTS / f"{task}.json",
                validation_plot=wiring.VALIDATION_PLOTS / f"{task}.json",
            ),
            lock_sha256=sha256_file(wiring.lock()),
            ratings=ratings,
            data_metrics={"feedback_rows": float(mixed)} if chosen.split.feedback else {},
            on_prepared=lambda lines: print("\n".join(f"  {line}" for line in lines)),
        )
    collect()
    _print_result(task, task_type.headline, result)
    print(f"train {task}: {wiring.RUNS / record.id}")


def _print_result(task: str, headline: str, result: TrainingResult) -> None:
    before = result.base_metric
    for phase in result.phases:
        done = phase.result
        print(
            f"train {task}: {phase.kind}: {headline} on validation {before:.3f} → {done.metric:.3f} "
            f"({done.summary}), {done.duration_s:.0f} s"
        )
        before = done.metric
    if result.metric <= result.base_metric:
        print(f"train {task}: it does not beat the base on validation; the gate will not let this adapter ship.")


def _reporter(shown: Bar) -> OnStep:
    def report(step: Step) -> None:
        if step.loss is None:
            shown.note(f"step {step.step}: validation {step.metric:.3f}, loss {step.validation_loss:.3f}")
            return
        shown(1)
        speed = "" if step.tokens_per_s is None else f", {step.tokens_per_s:,.0f} tokens/s"
        shown.postfix(f"{step.prefix}loss {step.loss:.3f}{speed}")

    return report


def collect() -> None:
    """Write the metrics of all trained tasks into training_metrics.json."""
    from bilora.cli import wiring
    from bilora.training.record import collect_metrics

    collect_metrics(wiring.TRAIN_METRICS, wiring.TRAINING_METRICS)
