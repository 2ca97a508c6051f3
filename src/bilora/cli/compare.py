"""The verb compare, and the documented entry point scripts/compare_metrics.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

NewFile = Annotated[Path, typer.Argument(readable=False, help="results.json or a baseline.json.")]
OldFile = Annotated[Path, typer.Argument(readable=False, help="What to compare with: results.json or a baseline.json.")]


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    from bilora.errors import BadData
    from bilora.evaluation.baseline import CURRENT, read_baseline
    from bilora.evaluation.results import read_results
    from bilora.storage import read_json

    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("tasks"), dict):
        raise BadData(path, "is neither a results.json nor a baseline.json.")
    if "profile" in document or any(isinstance(task, dict) and "entry" in task for task in document["tasks"].values()):
        return {name: task["entry"] for name, task in read_results(path)["tasks"].items()}
    return {name: standing[CURRENT] for name, standing in read_baseline(path).items()}


def compare(
    new: NewFile = Path("benchmarking/results.json"), old: OldFile = Path("benchmarking/baseline.json")
) -> None:
    """Compare two measurements task by task, sample by sample; the exit code is the gate's."""
    from bilora.evaluation.gate import EXIT_CODES, SEVERITY, outcome_of
    from bilora.evaluation.gate import told as told_difference
    from bilora.evaluation.statistics import score_difference
    from bilora.storage import require_file
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    params = workspace.params
    if new == workspace.results:
        require_file(new, "benchmark")
    left, right = _entries(new), _entries(old)
    outcomes: set[str] = set()
    outcome: str
    for name in sorted(left.keys() | right.keys()):
        a, b = left.get(name), right.get(name)
        if a is None or b is None:
            outcome, told = "incomparable", f"only {new if b is None else old} has it"
        elif (a["key"], a["metric"]) != (b["key"], b["metric"]):
            outcome, told = (
                "incomparable",
                "measured under other conditions (data, prompt, decoding, judge or isolation)",
            )
        else:
            mine, theirs = a["scores"].get(a["metric"], {}), b["scores"].get(b["metric"], {})
            both = [i for i in mine if mine[i] is not None and theirs.get(i) is not None]
            if len(both) < max(2, params.benchmark.min_samples):
                outcome, told = (
                    "inconclusive",
                    f"{len(both)} common samples; {params.benchmark.min_samples} are wanted",
                )
            else:
                difference = score_difference(
                    [mine[i] for i in both],
                    [theirs[i] for i in both],
                    seed=params.seed,
                    draws=params.benchmark.draws,
                )
                margin = params.tasks[name].margin if name in params.tasks else 0.0
                outcome = outcome_of(difference, margin)
                told = f"{a['metric']} {told_difference(difference)}, n {len(both)}, margin {margin:g}"
        outcomes.add(outcome)
        print(f"{outcome:13} {name}: {told}")
    if not outcomes:
        print("incomparable  neither file has a task yet")
    worst = next((outcome for outcome in SEVERITY if outcome in outcomes), "incomparable")
    raise typer.Exit(EXIT_CODES[worst])


def main() -> int:
    """Entry point of `python scripts/compare_metrics.py`."""
    from bilora.cli import guarded

    entry = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    entry.command()(compare)
    return guarded(entry)
