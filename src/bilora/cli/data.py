"""The verbs data-download, data-process and data-split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bilora.params import Splitting

TaskName = Annotated[str, typer.Argument(help="A task of params.yaml.", show_default=False)]


def data_download(task: TaskName) -> None:
    """Fetch, mine or generate one task's raw rows."""
    from bilora.cli import wiring
    from bilora.cli.progress import bar
    from bilora.data.download import download

    params, chosen, task_type = wiring.load_named(task)
    path = wiring.RAW / f"{task}.jsonl"
    with bar(f"data-download {task}", None) as tick:
        count = download(wiring.source(chosen, params.seed, task_type), path, progress=tick)
    print(f"data-download {task}: {count} rows in {path}")


def data_process(task: TaskName) -> None:
    """Clean, execute, de-duplicate and decontaminate one task's rows."""
    from bilora.cli import wiring
    from bilora.cli.progress import bar
    from bilora.data.process import process
    from bilora.storage import write_json, write_records

    params, _, chosen = wiring.load_named(task)
    raw = wiring.need(wiring.RAW / f"{task}.jsonl", f"data-download@{task}")
    with raw.open("rb") as lines:
        total = sum(1 for _ in lines)
    with wiring.sandbox(params) as sandbox, bar(f"data-process {task}", total) as tick:
        done = process(
            chosen,
            raw,
            sandbox=sandbox,
            rules=params.processing,
            curated=wiring.curated(params, chosen),
            progress=tick,
        )
    write_json(wiring.REPORTS / "process" / f"{task}.json", done.report)
    write_records(wiring.SAMPLES / f"{task}.jsonl", done.samples)
    print(f"data-process {task}: {done.report['rows_in']} rows in, {done.report['rows_out']} samples out")
    for rule in done.report["rules"]:
        print(f"  {rule['count']:6} dropped: {rule['rule']}")


def data_split(task: TaskName) -> None:
    """Deal one task's samples to train, validation and test, and what was rated to training."""
    from bilora.cli import wiring
    from bilora.cli.withdrawals import Withdrawals, withdrawals
    from bilora.data.ratings import from_ratings
    from bilora.data.split import split_samples
    from bilora.records import Sample
    from bilora.storage import read_records, write_json, write_records

    params, chosen, task_type = wiring.load_named(task)
    samples = read_records(wiring.need(wiring.SAMPLES / f"{task}.jsonl", f"data-process@{task}"), Sample)
    dealt, report = split_samples(list(samples), splitting=chosen.split, seed=params.seed, rules=params.processing)
    asked = bool(chosen.split.feedback or chosen.split.preference)
    gone = withdrawals() if asked else Withdrawals()
    rated = from_ratings(
        task_type,
        wiring.rated_pairs(),
        splitting=chosen.split,
        trained=dealt["train"],
        held_out=[*dealt["validation"], *dealt["test"], *wiring.curated(params, task_type)],
        rules=params.processing,
        withdrawn=gone.ratings,
    )
    dealt["train"] += rated.samples
    for name, members in dealt.items():
        write_records(wiring.SPLITS / task / f"{name}.jsonl", members)
    write_records(wiring.SPLITS / task / "preference.jsonl", rated.preferences)
    write_json(wiring.REPORTS / "split" / f"{task}.json", report | ({"feedback": rated.report} if asked else {}))
    counts = ", ".join(f"{len(members)} {name}" for name, members in dealt.items())
    print(f"data-split {task}: {counts}; {len(report['pairs'])} repeats across splits removed")
    if asked:
        _tell(rated.report, chosen.split)
        gone.print_unread()


def _tell(report: Mapping[str, Any], splitting: Splitting) -> None:
    from bilora.cli import wiring

    joined = [f"{report['samples']} edited answers among them"] if splitting.feedback else []
    joined += [f"{report['preferences']} rows for {splitting.preference}"] if splitting.preference else []
    print(f"  of the ratings: {', '.join(joined)}")
    for rule in report["rules"]:
        print(f"  {rule['count']:6} left out: {rule['rule']}")
    if not wiring.RATED_PAIRS.exists():
        print(f"  {wiring.RATED_PAIRS} is not there; `bilora feedback pairs` writes it.")
