"""The verb report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilora.workspace import Workspace


def write_report(workspace: Workspace, results: Mapping[str, Any]) -> None:
    """Render report.html from results and whatever reports, curves and runs lie beside them."""
    from bilora.evaluation.report import render
    from bilora.storage import read_json, write_text
    from bilora.tracking.runs import find_run

    drops, curves, runs = {}, {}, {}
    for name, task in results["tasks"].items():
        reports = {f"data-{stage}": workspace.drop_report(stage, name) for stage in ("process", "split")}
        drops[name] = {stage: read_json(path) for stage, path in reports.items() if path.is_file()}
        drawn = [workspace.loss_plot(name), workspace.validation_plot(name)]
        curves[name] = [point for path in drawn if path.is_file() for point in read_json(path)]
        if run := find_run(workspace.runs, task["adapter_sha256"]):
            runs[name] = run
    write_text(workspace.report, render(results, drops=drops, runs=runs, curves=curves))


def report() -> None:
    """Write report.html from the last benchmark and show the table, the verdicts and what to do next."""
    from bilora.cli.show import print_table, print_verdicts
    from bilora.evaluation.results import read_results
    from bilora.storage import require_file
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    results = read_results(require_file(workspace.results, "benchmark"))
    write_report(workspace, results)
    print_table(results)
    print_verdicts(results)
    print(f"report: {workspace.report.resolve().as_uri()}")
    print("next: open the report · `bilora app` asks the adapters · `bilora profile list` shows other profiles")
