"""The verbs data-download, data-process and data-split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bilora.data_reports import RatingsReport
    from bilora.params import Splitting

TaskName = Annotated[str, typer.Argument(help="A task of params.yaml.", show_default=False)]


def data_download(task: TaskName) -> None:
    """Fetch, mine or generate one task's raw rows."""
    from bilora.cli.progress import bar
    from bilora.data.download import download
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    path = workspace.raw(task)
    with bar(f"data-download {task}", None) as tick:
        count = download(workspace.source(task), path, progress=tick)
    print(f"data-download {task}: {count} rows in {path}")


def data_process(task: TaskName) -> None:
    """Clean, execute, de-duplicate and decontaminate one task's rows."""
    from bilora.cli.progress import bar
    from bilora.data.process import process
    from bilora.storage import require_file, write_json, write_records
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    params, (_, chosen) = workspace.params, workspace.task(task)
    raw = require_file(workspace.raw(task), f"data-download@{task}")
    guards = workspace.guard_samples(chosen)
    with workspace.sandbox() as sandbox:
        done = process(
            chosen,
            raw,
            sandbox=sandbox,
            rules=params.processing,
            curated=workspace.curated_samples(chosen),
            guards=guards,
            bars=bar,
        )
    write_json(workspace.drop_report("process", task), done.report.model_dump())
    write_records(workspace.samples(task), done.samples)
    print(f"data-process {task}: {done.report.rows_in} rows in, {done.report.rows_out} samples out")
    for rule in done.report.rules:
        print(f"  {rule.count:6} dropped: {rule.rule}")


def data_split(task: TaskName) -> None:
    """Assign one task's samples to train, validation and test, and rated answers to training."""
    from bilora.cli.withdrawals import print_unread
    from bilora.data.ratings import from_ratings
    from bilora.data.split import split_samples
    from bilora.feedback.withdrawals import Withdrawals, read_withdrawals
    from bilora.records import Sample
    from bilora.storage import read_records, require_file, write_json, write_records
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    params, (chosen, task_type) = workspace.params, workspace.task(task)
    samples = read_records(require_file(workspace.samples(task), f"data-process@{task}"), Sample)
    dealt, report = split_samples(list(samples), splitting=chosen.split, seed=params.seed, rules=params.processing)
    uses_ratings = bool(chosen.split.feedback or chosen.split.preference)
    gone = read_withdrawals(workspace.outbox) if uses_ratings else Withdrawals()
    rated = from_ratings(
        task_type,
        workspace.read_rated_pairs(),
        splitting=chosen.split,
        trained=dealt["train"],
        held_out=[
            *dealt["validation"],
            *dealt["test"],
            *workspace.curated_samples(task_type),
            *(sample for samples in workspace.guard_samples(task_type).values() for sample in samples),
        ],
        rules=params.processing,
        withdrawn=gone.ratings,
    )
    dealt["train"] += rated.samples
    for name, members in dealt.items():
        write_records(workspace.split(task, name), members)
    write_records(workspace.split(task, "preference"), rated.preferences)
    if uses_ratings:
        report = report.model_copy(update={"feedback": rated.report})
    write_json(workspace.drop_report("split", task), report.model_dump(exclude_none=True))
    counts = ", ".join(f"{len(members)} {name}" for name, members in dealt.items())
    print(f"data-split {task}: {counts}; {len(report.pairs)} repeats across splits removed")
    if uses_ratings:
        _report_ratings(rated.report, chosen.split, workspace.rated_pairs)
        print_unread(gone)


def _report_ratings(report: RatingsReport, splitting: Splitting, pairs: Path) -> None:
    joined = [f"{report.samples} edited answers among them"] if splitting.feedback else []
    joined += [f"{report.preferences} rows for {splitting.preference}"] if splitting.preference else []
    print(f"  of the ratings: {', '.join(joined)}")
    for rule in report.rules:
        print(f"  {rule.count:6} left out: {rule.rule}")
    if not pairs.exists():
        print(f"  {pairs} is not there; `bilora feedback pairs` writes it.")
