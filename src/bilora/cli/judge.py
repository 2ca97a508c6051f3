"""The verb judge check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The model that grades answers.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `check` a verb of its own while it is the only one."""


@app.command("check")
def check(
    samples: Annotated[int, typer.Option(min=2, help="How many samples to try it on; two calls each.")] = 40,
) -> None:
    """Try the judge of params.yaml where the right grade is known.

    Exit code 11 says that it cannot be believed, 6 that its endpoint gave no reply at all.
    """
    from bilora.cli.progress import bar
    from bilora.errors import BadData, ExitCode
    from bilora.evaluation.judge_check import check_judge
    from bilora.inference.endpoint.models import missing_models
    from bilora.storage import write_json
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    params = workspace.params
    judge, why_not = workspace.judge({})
    if judge is None or params.judge is None:
        raise BadData(workspace.params_file, f"{why_not}, so there is none to check.")
    task = next(iter(sorted(name for name in params.tasks if name == "docstring") or sorted(params.tasks)))
    chosen = workspace.split_samples(task, "test")[:samples]
    if len(chosen) < 2:
        raise BadData(workspace.split(task, "test"), "a judge is checked with at least two test samples.")
    if missing := missing_models([params.judge], {}):
        print(f"judge check: {missing[params.judge.name]}.", file=sys.stderr)
    with bar("judge check", 2 * len(chosen), "calls") as tick:
        found = check_judge(judge, chosen, params.judge.model, progress=tick)
    write_json(workspace.judge_check, found.model_dump(mode="json"))
    print(f"judge check: {found.sentence()}")
    if found.unreachable:
        raise typer.Exit(ExitCode.UNREACHABLE)
    raise typer.Exit(ExitCode.INCONCLUSIVE if found.faults else ExitCode.OK)
