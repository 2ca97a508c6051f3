"""The command evaluate."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bilora.cli.data import TaskName

if TYPE_CHECKING:
    from bilora.protocols import Engine
    from bilora.records import EvalRow
    from bilora.workspace import Workspace


def answer_and_score(
    workspace: Workspace,
    task: str,
    *,
    max_samples: int | None = None,
    only_bilora: bool = False,
    keys: Mapping[str, str] | None = None,
) -> list[EvalRow]:
    """Generate and score the completions of every system for one task's test split, curated samples and guards."""
    print(f"evaluate {task}: loading the base", flush=True)

    # These take seconds to import.
    from bilora.cli.progress import bar
    from bilora.evaluation.notes import answer_notes, rating_note
    from bilora.evaluation.run import EvalConfig, eval_sets, evaluate, guard_eval_set
    from bilora.guards import task_guards
    from bilora.inference.endpoint.models import missing_models
    from bilora.inference.torch.engine import TorchEngine
    from bilora.inference.torch.loading import load_for_inference
    from bilora.library_logs import silence_libraries
    from bilora.protocols import Referees
    from bilora.records import guard_dataset
    from bilora.storage import adapter_sha256

    params, (task_params, definition) = workspace.params, workspace.task(task)
    folder = workspace.checked_adapter(task)
    limit = max_samples or params.benchmark.samples
    test, curated = workspace.split_samples(task, "test")[:limit], workspace.curated_samples(definition)[:limit]
    datasets = eval_sets(definition, test, curated, params.benchmark)
    for name, guard in task_guards(params, task).items():
        samples = guard.samples(definition)
        datasets[guard_dataset(name)] = guard_eval_set(guard, samples[:max_samples])
        print(f"evaluate {task}: the first prompt of {guard.title} is")
        for message in definition.messages(samples[0].prompt):
            print(textwrap.indent(f"[{message.role}] {message.content}", "  "))
    silence_libraries()
    local = TorchEngine(
        load_for_inference(workspace.base()), {task: folder}, batch_size=task_params.generation.batch_size
    )
    for remark in local.remarks():
        print(f"evaluate {task}: {remark}")
    remote, skipped_endpoints = workspace.endpoints(keys or {})
    for name, reason in skipped_endpoints.items():
        print(f"evaluate {task}: {name} is skipped: {reason}")
    endpoints = [] if only_bilora else [endpoint for endpoint in params.endpoints if endpoint.name in remote]
    for name, note in missing_models(endpoints, keys or {}).items():
        print(f"evaluate {task}: {name}: {note}; it is evaluated nevertheless")
    engines: dict[str, Engine] = {task: local} if only_bilora else {"base": local, task: local, **remote}
    judge, _ = workspace.judge(keys or {})
    total = sum(len(eval_set.repeated_samples) * len(eval_set.select(task, engines)) for eval_set in datasets.values())
    with workspace.sandbox() as sandbox, bar(f"evaluate {task}", total, "answers") as tick:
        config = EvalConfig(
            definition, adapter_sha256(folder), task_params.generation, params.seed, Referees(sandbox, judge)
        )
        rows = evaluate(config, datasets, engines, progress=tick, bars=tick.nested)
    for name, note in answer_notes(rows).items():
        print(f"evaluate {task}: {name}: {note}")
    if note := rating_note(rows):
        print(f"evaluate {task}: {note}")
    return rows


def evaluate(
    task: TaskName,
    max_samples: Annotated[
        int | None, typer.Option(min=1, help="Evaluate only the first N samples; such a run never passes.")
    ] = None,
) -> None:
    """Generate and score the answers of base, adapter and endpoints for one task."""
    from bilora.storage import write_records
    from bilora.workspace import Workspace

    workspace = Workspace(Path())
    rows = answer_and_score(workspace, task, max_samples=max_samples)
    path = workspace.evaluation(task)
    write_records(path, rows)
    print(f"evaluate {task}: {len(rows)} scored answers in {path}")
