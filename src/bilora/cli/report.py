"""The command report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bilora.results import Results
    from bilora.workspace import Workspace


def write_report(workspace: Workspace, results: Results) -> None:
    """Write report.html from results, and from the data reports, loss curves and run records that exist."""
    from bilora.data_reports import ProcessReport, SplitReport, StageReport
    from bilora.evaluation.report import TaskArtifacts, render_report
    from bilora.storage import read_json, read_record, write_text
    from bilora.sweep_results import Sweep
    from bilora.tracking.runs import find_run

    artifacts = {}
    for name, task in results.tasks.items():
        reports: dict[str, StageReport] = {}
        if (path := workspace.drop_report("process", name)).is_file():
            reports["data-process"] = read_record(path, ProcessReport)
        if (path := workspace.drop_report("split", name)).is_file():
            reports["data-split"] = read_record(path, SplitReport)
        plots = [workspace.loss_plot(name), workspace.validation_plot(name)]
        artifacts[name] = TaskArtifacts(
            reports=reports,
            run=find_run(workspace.runs, task.adapter_sha256) or {},
            sweep=read_record(workspace.sweep(name), Sweep) if workspace.sweep(name).is_file() else None,
            curve=[point for path in plots if path.is_file() for point in read_json(path)],
        )
    write_text(workspace.report, render_report(results, artifacts))


def report() -> None:
    """Write report.html from the last benchmark, and print the table and the verdicts."""
    from bilora.cli.console import print_table, print_verdicts
    from bilora.results import read_results
    from bilora.storage import require_file
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    results = read_results(require_file(workspace.results, "benchmark"))
    write_report(workspace, results)
    print_table(results)
    print_verdicts(results)
    print(f"report: {workspace.report.resolve().as_uri()}")
    print("next: open the report · `bilora app` opens the page · `bilora profile list` lists other profiles")
