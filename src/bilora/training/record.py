"""Train an adapter and write its run record; the run's identity decides whether a killed run is resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast

from bilora.layout import Layout
from bilora.records import RunRecord
from bilora.storage import adapter_sha256, read_json, sha256_json, write_json
from bilora.tracking import provenance
from bilora.tracking.runs import RunFolder
from bilora.training import ranks
from bilora.training.context import Step, TrainingContext
from bilora.training.run import TrainingResult, train


@dataclass(frozen=True)
class RunIdentity:
    """The inputs that determine a run's result. On one machine, equal identities give equal adapters."""

    params: Mapping[str, object]
    base_revision: str
    data: str
    lock: str
    template: str
    mode: str
    chat: Sequence[Mapping[str, object]]

    @property
    def sha256(self) -> str:
        """The hash of all fields."""
        return sha256_json(vars(self))


def run_identity(context: TrainingContext, lock_sha256: str) -> RunIdentity:
    """Return the identity of a run; `lock_sha256` is the hash of the pinned requirements."""
    samples = {"train": context.train_samples, "validation": context.validation_samples}
    data: dict[str, object] = {name: [sample.id for sample in members] for name, members in samples.items()}
    if context.pairs:
        data["pairs"] = [pair.model_dump() for pair in context.pairs]
    return RunIdentity(
        params={
            "seed": context.seed,
            "base": context.base_settings.model_dump(),
            "task": context.params.model_dump(include={"adapter", "training", "generation"}),
        },
        base_revision=context.base_revision,
        data=sha256_json(data),
        lock=lock_sha256,
        template=sha256_json(context.tokenizer.chat_template),
        mode=context.loaded.mode,
        chat=[message.model_dump() for message in context.task.messages("")],
    )


def train_and_record(
    context: TrainingContext,
    layout: Layout,
    *,
    lock_sha256: str,
    ratings: tuple[str, ...],
    data_metrics: Mapping[str, float],
    planned: tuple[float, int] | None = None,
    on_prepared: Callable[[list[str]], None],
) -> tuple[TrainingResult, RunRecord]:
    """Train an adapter and write it with its run record, metrics and plots to the paths of `layout`.

    Of several ranks the first writes; all return its record.

    Args:
        ratings: ids of the rating events in the training rows.
        data_metrics: additional metrics, on the training rows.
        planned: the estimated seconds and bytes of memory.
        on_prepared: see `train`.
    """
    task, identity = context.task.name, run_identity(context, lock_sha256)
    started = datetime.now(UTC)
    run_id = f"{started:%Y%m%dT%H%M%SZ}-{task}-{identity.sha256[:8]}"
    folder = RunFolder(layout.runs, run_id) if ranks.is_first() else None
    curve: list[dict[str, float | int]] = []

    def on_step(step: Step) -> None:
        curve.append(step.row())
        if folder:
            folder.append(curve[-1])
        context.on_step(step)

    result = train(
        replace(context, on_step=on_step),
        identity=identity.sha256,
        destination=layout.adapter(task),
        on_prepared=on_prepared,
    )
    if folder is None:
        return result, cast("RunRecord", ranks.broadcast(None))
    processes = {"processes": str(ranks.world_size())} if ranks.world_size() > 1 else {}
    record = RunRecord(
        id=run_id,
        task=task,
        created_utc=started.isoformat(timespec="seconds"),
        commit=provenance.commit(layout.root),
        dirty_diff_sha256=provenance.dirty_diff_sha256(layout.root),
        params=dict(identity.params),
        params_sha256=sha256_json(identity.params),
        data_sha256=identity.data,
        lock_sha256=identity.lock,
        base_id=context.base.id,
        base_revision=identity.base_revision,
        adapter_sha256=adapter_sha256(layout.adapter(task)),
        seed=context.seed,
        hardware=provenance.hardware() | processes,
        versions=provenance.package_versions(),
        duration_s=result.duration_s,
        tokens=result.tokens,
        tokens_per_s=result.tokens / result.duration_s,
        peak_memory_bytes=provenance.peak_memory_bytes(),
        metrics=result.metrics() | dict(data_metrics),
        ratings=ratings,
        resumed=result.resumed_from,
        mode=identity.mode,
        planned_s=planned[0] if planned else None,
        planned_memory_bytes=planned[1] if planned else None,
    )
    folder.finish(record)
    _write_plots(layout, task, curve)
    write_json(layout.train_metrics(task), record.metrics)
    return result, ranks.broadcast(record)


def _write_plots(layout: Layout, task: str, curve: Sequence[Mapping[str, float | int]]) -> None:
    """Write the first phase's curves to two files, because all rows of a DVC plot must have the same fields."""
    write_json(layout.loss_plot(task), [row for row in curve if "loss" in row])
    write_json(layout.validation_plot(task), [row for row in curve if "metric" in row])


def collect_metrics(layout: Layout) -> None:
    """Collect the metrics of all trained tasks in one file."""
    paths = sorted(layout.train_metrics("").parent.glob("*.json"))
    write_json(layout.training_metrics, {path.stem: read_json(path) for path in paths})
