"""The verb report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def write_report(results: Mapping[str, Any]) -> None:
    """Render report.html from results and whatever reports, curves and runs lie beside them."""
    from bilora.cli import wiring
    from bilora.evaluation.report import render
    from bilora.storage import read_json, write_text
    from bilora.tracking.runs import find_run

    drops, curves, runs = {}, {}, {}
    for name, task in results["tasks"].items():
        reports = {f"data-{stage}": wiring.REPORTS / stage / f"{name}.json" for stage in ("process", "split")}
        drops[name] = {stage: read_json(path) for stage, path in reports.items() if path.is_file()}
        drawn = [folder / f"{name}.json" for folder in (wiring.TRAIN_PLOTS, wiring.VALIDATION_PLOTS)]
        curves[name] = [point for path in drawn if path.is_file() for point in read_json(path)]
        if run := find_run(wiring.RUNS, task["adapter_sha256"]):
            runs[name] = run
    write_text(wiring.REPORT, render(results, drops=drops, runs=runs, curves=curves))


def report() -> None:
    """Write report.html from the last benchmark and show the table, the verdicts and what to do next."""
    from bilora.cli import wiring
    from bilora.cli.show import print_table, print_verdicts
    from bilora.evaluation.results import read_results

    results = read_results(wiring.need(wiring.RESULTS, "benchmark"))
    write_report(results)
    print_table(results)
    print_verdicts(results)
    print(f"report: {wiring.REPORT.resolve().as_uri()}")
    print("next: open the report · `bilora app` asks the adapters · `bilora profile list` shows other profiles")
