"""The verb benchmark, and the documented entry point benchmarking/evaluate.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bilora.records import Scored
    from bilora.workspace import Workspace


def _isolation(rows: Sequence[Scored]) -> str:
    # The level alone: which further layers a machine offers changes no honest program's outcome.
    found = {score.evidence.get("isolation", "").partition(":")[0] for row in rows for score in row.scores}
    return ", ".join(sorted(level for level in found if level))


def judge_rows(
    workspace: Workspace, rows: Mapping[str, Sequence[Scored]], *, keys: Mapping[str, str]
) -> dict[str, Any]:
    """Turn scored rows into results with a verdict per task."""
    from bilora.evaluation.baseline import read_baseline
    from bilora.evaluation.gate import gate
    from bilora.evaluation.notes import answer_notes
    from bilora.evaluation.results import build_results, comparability_key
    from bilora.storage import adapter_sha256, require_file

    params, tasks = workspace.params, workspace.tasks
    baseline = read_baseline(workspace.baseline)
    # A key may have been there when the answers were made and be gone by now: the rows know.
    answered = {row.completion.system for found in rows.values() for row in found}
    judged = any(score.metric == "judge" for found in rows.values() for row in found for score in row.scores)
    _, left_out = workspace.endpoints(keys)
    _, no_judge = workspace.judge(keys)
    hashes, comparable, verdicts = {}, {}, {}
    for name, task in tasks.items():
        hashes[name] = adapter_sha256(require_file(workspace.adapter(name), f"train@{name}"))
        comparable[name] = comparability_key(
            task,
            {row.sample.id: row.sample for row in rows[name] if row.dataset == "test"}.values(),
            decoding=params.tasks[name].generation.model_dump(),
            judge=params.judge.model if params.judge else None,
            isolation=_isolation(rows[name]),
        )
        verdicts[name] = gate(
            name,
            task.metric_names,
            rows[name],
            baseline.get(name),
            adapter_sha256=hashes[name],
            key=comparable[name],
            margin=params.tasks[name].margin,
            min_samples=params.benchmark.min_samples,
            seed=params.seed,
            draws=params.benchmark.draws,
            promised=("judge",) if params.judge and not no_judge else (),
        )
    return build_results(
        rows,
        profile=params.profile,
        tasks=tasks,
        keys=comparable,
        adapters=hashes,
        verdicts=verdicts,
        seed=params.seed,
        draws=params.benchmark.draws,
        k=params.benchmark.pass_at_k.k if params.benchmark.pass_at_k else (),
        not_run={"judge": no_judge} if no_judge and not judged else {},
        notes={name: reason for name, reason in left_out.items() if name not in answered}
        | answer_notes(row for found in rows.values() for row in found),
        judge=workspace.judge_remarks() if judged else (),
    )


def _finish(workspace: Workspace, results: dict[str, Any]) -> int:
    """Write results, metrics and report, print the table and the verdicts, return the gate's exit code (`ExitCode`)."""
    from bilora.cli.report import write_report
    from bilora.cli.show import print_table, print_verdicts
    from bilora.evaluation.gate import EXIT_CODES, worst
    from bilora.records import Verdict
    from bilora.storage import write_json

    write_json(workspace.results, results)
    write_json(workspace.benchmark_metrics, {name: _means(task) for name, task in results["tasks"].items()})
    write_report(workspace, results)
    print_table(results)
    print_verdicts(results)
    verdicts = [Verdict.model_validate(task["verdict"]) for task in results["tasks"].values()]
    return EXIT_CODES[worst(verdicts)]


def _means(task: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    systems = task["summary"]["test"]["systems"]
    return {
        system: {name: found["mean"] for name, found in numbers["metrics"].items() if found}
        for system, numbers in systems.items()
    }


def evaluation_rows(workspace: Workspace) -> dict[str, list[Scored]]:
    """Read what the evaluate stages wrote."""
    from bilora.errors import MissingStep
    from bilora.records import Scored
    from bilora.storage import read_records, require_file

    rows: dict[str, list[Scored]] = {}
    for name in workspace.params.tasks:
        path, stage = workspace.evaluation(name), f"evaluate@{name}"
        rows[name] = list(read_records(require_file(path, stage), Scored))
        if not rows[name]:
            raise MissingStep(path, f"-f {stage}", "has no rows")
    return rows


def benchmark() -> None:
    """Gather all numbers, write results and report, and fail unless the gate passes every adapter."""
    from bilora.cli.train import collect
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    rows = evaluation_rows(workspace)
    collect(workspace)
    raise typer.Exit(_finish(workspace, judge_rows(workspace, rows, keys={})))


def _evaluate_all(
    groq_api_key: Annotated[
        str | None,
        typer.Option(envvar="GROQ_API_KEY", show_envvar=True, help="Key of the Groq endpoint, if params name one."),
    ] = None,
    max_samples: Annotated[
        int | None, typer.Option(min=1, help="Ask only the first N; such a run never passes.")
    ] = None,
    only_bilora: Annotated[
        bool, typer.Option("--only-bilora", help="Ask the adapters only; such a run never passes.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every answer.")] = False,
) -> None:
    """Measure all tasks now, without the pipeline's cache, and let the gate decide."""
    from bilora.cli.evaluate import answer_and_score
    from bilora.cli.show import print_answers
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    keys = {"GROQ_API_KEY": groq_api_key} if groq_api_key else {}
    rows = {
        name: answer_and_score(workspace, name, max_samples=max_samples, only_bilora=only_bilora, keys=keys)
        for name in workspace.params.tasks
    }
    if verbose:
        print_answers(rows)
    raise typer.Exit(_finish(workspace, judge_rows(workspace, rows, keys=keys)))


def main() -> int:
    """Entry point of `python benchmarking/evaluate.py`."""
    from bilora.cli import guarded

    entry = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    entry.command()(_evaluate_all)
    return guarded(entry)
