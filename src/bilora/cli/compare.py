"""The command compare, and the entry point scripts/compare_metrics.py."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

NewFile = Annotated[Path, typer.Argument(readable=False, help="results.json or a baseline.json.")]
OldFile = Annotated[Path, typer.Argument(readable=False, help="The reference: results.json or a baseline.json.")]


def compare(
    new: NewFile = Path("benchmarking/results.json"), old: OldFile = Path("benchmarking/baseline.json")
) -> None:
    """Compare two measurements per task, paired by sample; the exit code is the gate's."""
    from bilora.evaluation.compare import compare as compare_files
    from bilora.evaluation.gate import EXIT_CODES, most_severe
    from bilora.evaluation.verdicts import gate_settings
    from bilora.storage import require_file
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    params = workspace.params
    if new == workspace.results:
        require_file(new, "benchmark")
    comparisons = compare_files(new, old, partial(gate_settings, params))
    for comparison in comparisons:
        print(f"{comparison.outcome:13} {comparison.task}: {comparison.reason}")
    if not comparisons:
        print("incomparable  neither file has a task")
    outcomes = [comparison.outcome for comparison in comparisons]
    raise typer.Exit(EXIT_CODES[most_severe(outcomes, default="incomparable")])


def main() -> int:
    """Entry point of `python scripts/compare_metrics.py`."""
    from bilora.cli import run_command

    entry = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    entry.command()(compare)
    return run_command(entry)
