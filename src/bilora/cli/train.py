"""The verb train."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilora.cli.data import TaskName

if TYPE_CHECKING:
    from bilora.cli.progress import Bar
    from bilora.training.trainer import Step, Watch
    from bilora.workspace import Workspace


def train(task: TaskName) -> None:
    """Train one task's adapter, or continue where an interrupted run stopped."""
    from bilora.cli.withdrawals import print_unread
    from bilora.data.ratings import GROUP, ratings_of, without_withdrawn
    from bilora.feedback.withdrawals import read_withdrawals
    from bilora.library_logs import silence_libraries
    from bilora.tracking.sinks import check_sinks
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    params, (chosen, task_type) = workspace.params, workspace.task(task)
    check_sinks(params.tracking.sinks)
    samples = {name: workspace.split_samples(task, name) for name in ("train", "validation")}
    preferences = workspace.preference_pairs(task)
    if ratings := ratings_of(samples["train"], preferences):
        rows = len(samples["train"]) + len(preferences)
        gone = read_withdrawals(workspace.outbox)
        samples["train"], preferences = without_withdrawn(samples["train"], preferences, gone.ratings)
        print_unread(gone)
        if left_out := rows - len(samples["train"]) - len(preferences):
            print(f"train {task}: {left_out} rows left out, whose ratings were deleted or withdrawn since the split")
            ratings = ratings_of(samples["train"], preferences)
    silence_libraries()

    # These take seconds to import; what is wrong with the params is said before.
    from bilora.bases.prompt import template_remarks
    from bilora.cli.progress import bar
    from bilora.protocols import Referees
    from bilora.records import RunRecord
    from bilora.storage import adapter_sha256, sha256_json, write_json
    from bilora.tracking import provenance
    from bilora.tracking.runs import RunFolder
    from bilora.training.loading import load_for_training
    from bilora.training.run import train as train_adapter

    base = workspace.base()
    loaded, revision = load_for_training(base), base.identity
    decisive: dict[str, Any] = {
        "params": {
            "seed": params.seed,
            "base": params.base.model_dump(),
            "task": chosen.model_dump(include={"adapter", "training", "generation"}),
        },
        "base_revision": revision,
        "data": sha256_json(
            {name: [s.id for s in members] for name, members in samples.items()}
            | ({"preference": [row.model_dump() for row in preferences]} if preferences else {})
        ),
        "lock": workspace.lock_sha256(),
        "template": sha256_json(loaded.tokenizer.chat_template),
        "mode": loaded.mode,
        "chat": [m.model_dump() for m in task_type.messages("")],
    }
    if second := chosen.training.preference:
        decisive["params"]["second_phase"] = chosen.split.preference
    identity = sha256_json(decisive)
    started = datetime.now(UTC)
    run = RunFolder(workspace.runs, f"{started:%Y%m%dT%H%M%SZ}-{task}-{identity[:8]}")
    curve: list[dict[str, Any]] = []

    def record(row: dict[str, Any]) -> None:
        curve.append(row)
        run.append(row)

    print(f"train {task}: {loaded.mode}, base {base.id} at {revision[:12]}")
    for remark in template_remarks(loaded.tokenizer):
        print(f"train {task}: {remark}")
    steps = chosen.training.steps + (second.steps if second else 0)
    with bar(f"train {task}", steps, "steps") as shown, workspace.sandbox() as sandbox:
        done = train_adapter(
            task_type,
            params=chosen,
            base=base,
            base_revision=revision,
            loaded=loaded,
            train_samples=samples["train"],
            validation_samples=samples["validation"],
            preferences=preferences,
            referees=Referees(sandbox=sandbox),
            seed=params.seed,
            identity=identity,
            checkpoints=workspace.checkpoints(task),
            destination=workspace.adapter(task),
            sinks=params.tracking.sinks,
            watch=_watcher(shown, record),
            announce=lambda checked: print("\n".join(f"  {line}" for line in checked.lines())),
        )
    metrics = done.metrics()
    if chosen.split.feedback:
        metrics["feedback_rows"] = float(sum(sample.group == GROUP for sample in samples["train"]))
    run.finish(
        RunRecord(
            id=run.path.name,
            task=task,
            created_utc=started.isoformat(timespec="seconds"),
            commit=provenance.commit(),
            dirty_diff_sha256=provenance.dirty_diff_sha256(),
            params=decisive["params"],
            params_sha256=sha256_json(decisive["params"]),
            data_sha256=decisive["data"],
            lock_sha256=decisive["lock"],
            base_id=base.id,
            base_revision=revision,
            adapter_sha256=adapter_sha256(workspace.adapter(task)),
            seed=params.seed,
            hardware=provenance.hardware(),
            versions=provenance.versions(),
            duration_s=done.duration_s,
            tokens=done.tokens,
            tokens_per_s=done.tokens_per_s,
            peak_memory_bytes=provenance.peak_memory_bytes(),
            metrics=metrics,
            ratings=ratings,
            resumed=done.resumed_from,
        )
    )
    # DVC draws a file only if all its rows have the same fields.
    write_json(workspace.loss_plot(task), [row for row in curve if "loss" in row])
    write_json(workspace.validation_plot(task), [row for row in curve if "metric" in row])
    write_json(workspace.train_metrics(task), metrics)
    collect(workspace)
    name = task_type.headline
    print(
        f"train {task}: {name} on validation {done.base_metric:.3f} → {done.best_metric:.3f} "
        f"(best of {done.steps} steps: {done.best_step}), {done.tokens_per_s:,.0f} tokens/s, "
        f"{done.duration_s:.0f} s; {run.path}"
    )
    if done.second:
        print(
            f"train {task}: {chosen.split.preference} on {done.second.rows} rated rows "
            f"({done.second.too_long} too long and left out): {name} on validation {done.metric:.3f}, "
            f"margin {done.second.margin:+.3f}, {done.second.duration_s:.0f} s"
        )
    if done.metric <= done.base_metric:
        print(f"train {task}: it does not beat the base on validation; the gate will not let this adapter ship.")


def _watcher(shown: Bar, record: Callable[[dict[str, Any]], None]) -> Watch:
    def watch(step: Step) -> None:
        record(step.row())
        if step.loss is not None:
            shown(1)
            shown.postfix(f"loss {step.loss:.3f}, {step.tokens_per_s or 0:,.0f} tokens/s")
        elif step.preference_loss is not None:
            shown(1)
            shown.postfix(f"second phase, loss {step.preference_loss:.3f}")
        else:
            shown.note(f"step {step.step}: validation {step.metric:.3f}, loss {step.validation_loss:.3f}")

    return watch


def collect(workspace: Workspace) -> None:
    """Gather the metrics of all trained tasks into training_metrics.json."""
    from bilora.storage import read_json, write_json

    found = {path.stem: read_json(path) for path in sorted(workspace.train_metrics("").parent.glob("*.json"))}
    write_json(workspace.training_metrics, found)
