"""The command benchmark, and the entry point benchmarking/evaluate.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bilora.records import EvalRow
    from bilora.results import Results
    from bilora.workspace import Workspace


def gate_evaluation(workspace: Workspace, rows: Mapping[str, Sequence[EvalRow]], *, keys: Mapping[str, str]) -> Results:
    """Return the results of scored rows, with a verdict per task; `keys` as in `Workspace.endpoints`."""
    from bilora.evaluation.verdicts import RunContext, gate_rows
    from bilora.results import read_baseline
    from bilora.storage import adapter_sha256, require_file

    _, skipped_endpoints = workspace.endpoints(keys)
    _, no_judge_reason = workspace.judge(keys)
    context = RunContext(
        adapters={
            name: adapter_sha256(require_file(workspace.adapter(name), f"train@{name}")) for name in workspace.tasks
        },
        baseline=read_baseline(workspace.baseline),
        skipped_endpoints=skipped_endpoints,
        no_judge_reason=no_judge_reason,
        judge_remarks=workspace.judge_remarks(),
    )
    return gate_rows(workspace.params, rows, context)


def _finish(workspace: Workspace, results: Results) -> int:
    """Write results, metrics and report, print the table and the verdicts, and return the gate's exit code."""
    from bilora.cli.console import print_table, print_verdicts
    from bilora.cli.report import write_report
    from bilora.evaluation.gate import EXIT_CODES, overall_outcome
    from bilora.results import write_results
    from bilora.storage import write_json

    write_results(workspace.results, results)
    write_json(workspace.benchmark_metrics, results.means())
    write_report(workspace, results)
    print_table(results)
    print_verdicts(results)
    return EXIT_CODES[overall_outcome(task.verdict for task in results.tasks.values() if task.verdict)]


def evaluation_rows(workspace: Workspace) -> dict[str, list[EvalRow]]:
    """Read the rows of the evaluate stages, by task."""
    from bilora.errors import MissingStep
    from bilora.records import EvalRow
    from bilora.storage import read_records, require_file

    rows: dict[str, list[EvalRow]] = {}
    for name in workspace.params.tasks:
        path, stage = workspace.evaluation(name), f"evaluate@{name}"
        rows[name] = list(read_records(require_file(path, stage), EvalRow))
        if not rows[name]:
            raise MissingStep(path, f"-f {stage}", "has no rows")
    return rows


def benchmark() -> None:
    """Compute all metrics, write results and report, and fail unless every adapter passes the gate."""
    from bilora.training.record import collect_metrics
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    rows = evaluation_rows(workspace)
    collect_metrics(workspace)
    raise typer.Exit(_finish(workspace, gate_evaluation(workspace, rows, keys={})))


def _evaluate_all(
    groq_api_key: Annotated[
        str | None,
        typer.Option(envvar="GROQ_API_KEY", show_envvar=True, help="Key of the Groq endpoint, if params.yaml has one."),
    ] = None,
    max_samples: Annotated[
        int | None, typer.Option(min=1, help="Evaluate only the first N samples; such a run never passes.")
    ] = None,
    only_bilora: Annotated[
        bool, typer.Option("--only-bilora", help="Evaluate only the adapters; such a run never passes.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every answer.")] = False,
) -> None:
    """Evaluate all tasks, without the pipeline's cache, and apply the gate."""
    from bilora.cli.console import print_answers
    from bilora.cli.evaluate import answer_and_score
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    keys = {"GROQ_API_KEY": groq_api_key} if groq_api_key else {}
    rows = {
        name: answer_and_score(workspace, name, max_samples=max_samples, only_bilora=only_bilora, keys=keys)
        for name in workspace.params.tasks
    }
    if verbose:
        print_answers(rows)
    raise typer.Exit(_finish(workspace, gate_evaluation(workspace, rows, keys=keys)))


def main() -> int:
    """Entry point of `python benchmarking/evaluate.py`."""
    from bilora.cli import run_command

    entry = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    entry.command()(_evaluate_all)
    return run_command(entry)
