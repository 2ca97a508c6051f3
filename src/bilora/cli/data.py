"""The verbs data-download, data-process and data-split."""

from __future__ import annotations

from typing import Annotated

import typer

TaskName = Annotated[str, typer.Argument(help="A task of params.yaml.", show_default=False)]


def data_download(task: TaskName) -> None:
    """Fetch, mine or generate one task's raw rows."""
    from bilora.cli import wiring
    from bilora.cli.progress import bar
    from bilora.data.download import download

    params, chosen, _ = wiring.load_named(task)
    path = wiring.RAW / f"{task}.jsonl"
    with bar(f"data-download {task}", None) as tick:
        count = download(wiring.source(chosen, params.seed), path, progress=tick)
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
    """Deal one task's samples to train, validation and test."""
    from bilora.cli import wiring
    from bilora.data.split import split
    from bilora.records import Sample
    from bilora.storage import read_records, write_json, write_records

    params, chosen, _ = wiring.load_named(task)
    samples = read_records(wiring.need(wiring.SAMPLES / f"{task}.jsonl", f"data-process@{task}"), Sample)
    dealt, report = split(list(samples), splitting=chosen.split, seed=params.seed, rules=params.processing)
    for name, members in dealt.items():
        write_records(wiring.SPLITS / task / f"{name}.jsonl", members)
    write_json(wiring.REPORTS / "split" / f"{task}.json", report)
    counts = ", ".join(f"{len(members)} {name}" for name, members in dealt.items())
    print(f"data-split {task}: {counts}; {len(report['pairs'])} repeats across splits removed")
