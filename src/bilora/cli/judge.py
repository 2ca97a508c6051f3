"""The command judge check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The LLM judge that rates answers.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make `check` a subcommand, although it is the only one."""


@app.command("check")
def check(
    samples: Annotated[int, typer.Option(min=2, help="Number of samples, with two calls each.")] = 40,
) -> None:
    """Check the judge of params.yaml on samples with a known order of ratings.

    Exit code 11 means that its ratings are not reliable, 6 that its endpoint did not answer.
    """
    from bilora.cli.progress import bar
    from bilora.errors import BadData, ExitCode
    from bilora.evaluation.judge_check import check_judge
    from bilora.inference.endpoint.models import missing_models
    from bilora.storage import write_json
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    params = workspace.params
    judge, no_judge_reason = workspace.judge({})
    if judge is None or params.judge is None:
        raise BadData(workspace.params_file, f"{no_judge_reason}, so there is none to check.")
    task = "docstring" if "docstring" in params.tasks else min(params.tasks)
    test_samples = workspace.split_samples(task, "test")[:samples]
    if len(test_samples) < 2:
        raise BadData(workspace.split(task, "test"), "a judge check needs at least two test samples.")
    if missing := missing_models([params.judge], {}):
        print(f"judge check: {missing[params.judge.name]}.", file=sys.stderr)
    with bar("judge check", 2 * len(test_samples), "calls") as tick:
        result = check_judge(judge, test_samples, params.judge.model, progress=tick)
    write_json(workspace.judge_check, result.model_dump(mode="json"))
    print(f"judge check: {result.sentence()}")
    if result.unreachable:
        raise typer.Exit(ExitCode.UNREACHABLE)
    raise typer.Exit(ExitCode.INCONCLUSIVE if result.faults else ExitCode.OK)
