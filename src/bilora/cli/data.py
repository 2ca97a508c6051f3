"""The commands data-download, data-process and data-split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bilora.data_reports import RatingsReport
    from bilora.params import Splitting

TaskName = Annotated[str, typer.Argument(help="A task of params.yaml.", show_default=False)]


def data_download(task: TaskName) -> None:
    """Download, extract or generate one task's raw rows."""
    from bilora.cli.progress import bar
    from bilora.data.download import download
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    path = workspace.raw(task)
    with bar(f"data-download {task}", None) as tick:
        count = download(workspace.source(task), path, progress=tick)
    print(f"data-download {task}: {count} rows in {path}")


def data_process(task: TaskName) -> None:
    """Clean, execute, deduplicate and decontaminate one task's rows."""
    from bilora.cli.progress import bar
    from bilora.data.process import process
    from bilora.storage import require_file, write_json, write_records
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    _, definition = workspace.task(task)
    raw = require_file(workspace.raw(task), f"data-download@{task}")
    guards = workspace.guard_samples(definition)
    with workspace.sandbox() as sandbox:
        processed = process(
            definition,
            raw,
            sandbox=sandbox,
            rules=workspace.params.processing,
            curated=workspace.curated_samples(definition),
            guards=guards,
            bars=bar,
        )
    write_json(workspace.drop_report("process", task), processed.report.model_dump())
    write_records(workspace.samples(task), processed.samples)
    print(f"data-process {task}: {processed.report.rows_in} rows in, {processed.report.rows_out} samples out")
    for rule in processed.report.rules:
        print(f"  {rule.count:6} dropped: {rule.rule}")


def data_split(task: TaskName) -> None:
    """Split one task's samples into train, validation and test, and add rated answers to the training rows."""
    from bilora.cli.withdrawals import print_unread
    from bilora.data.ratings import samples_from_ratings
    from bilora.data.split import split_samples
    from bilora.feedback.withdrawals import Withdrawals, read_withdrawals
    from bilora.records import Sample
    from bilora.storage import read_records, require_file, write_json, write_records
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    params, (task_params, definition) = workspace.params, workspace.task(task)
    samples = read_records(require_file(workspace.samples(task), f"data-process@{task}"), Sample)
    splits, report = split_samples(
        list(samples), splitting=task_params.split, seed=params.seed, rules=params.processing
    )
    uses_ratings = bool(task_params.split.feedback or task_params.split.preference)
    withdrawals = read_withdrawals(workspace.outbox) if uses_ratings else Withdrawals()
    rated = samples_from_ratings(
        definition,
        workspace.read_rated_pairs(),
        splitting=task_params.split,
        trained=splits["train"],
        held_out=[
            *splits["validation"],
            *splits["test"],
            *workspace.curated_samples(definition),
            *(sample for samples in workspace.guard_samples(definition).values() for sample in samples),
        ],
        rules=params.processing,
        withdrawn=withdrawals.ratings,
    )
    splits["train"] += rated.samples
    for name, members in splits.items():
        write_records(workspace.split(task, name), members)
    write_records(workspace.split(task, "preference"), rated.preferences)
    if uses_ratings:
        report = report.model_copy(update={"feedback": rated.report})
    write_json(workspace.drop_report("split", task), report.model_dump(exclude_none=True))
    counts = ", ".join(f"{len(members)} {name}" for name, members in splits.items())
    print(f"data-split {task}: {counts}; {len(report.pairs)} near-duplicates across splits removed")
    if uses_ratings:
        _print_ratings(rated.report, task_params.split, workspace.rated_pairs)
        print_unread(withdrawals)


def _print_ratings(report: RatingsReport, splitting: Splitting, pairs: Path) -> None:
    counts = [f"{report.samples} edited answers among them"] if splitting.feedback else []
    counts += [f"{report.preferences} rows for {splitting.preference}"] if splitting.preference else []
    print(f"  of the ratings: {', '.join(counts)}")
    for rule in report.rules:
        print(f"  {rule.count:6} skipped: {rule.rule}")
    if not pairs.exists():
        print(f"  {pairs} does not exist; `bilora feedback pairs` writes it.")
