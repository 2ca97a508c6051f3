"""The model cards: front matter that the Hub understands, then what a reader needs. Only measured numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from bilora.bases.base import Base
from bilora.publishing.bundle_info import BundleInfo
from bilora.publishing.licences import licence_fields, licence_section
from bilora.publishing.usage import usage_section
from bilora.results import MetricSummary, Results, TaskResults

CARD = "README.md"
_DATASET = "bilora-{task}-test"
MEASURED = (
    "Mean of scores between 0 and 1, with its 95 % interval and the number of scored samples. "
    "An adapter is published only if it is better than its base beyond doubt."
)


def bundle_card(tasks: Sequence[str], results: Results, info: BundleInfo) -> str:
    """Write the card of a bundle; latency stays out, for it differs from run to run.

    Args:
        tasks: the bundled adapters.
        results: a metric without a mean is left out, not shown as 0.
    """
    measured = {task: results.tasks[task] for task in tasks if task in results.tasks}
    first, *others = tasks
    lines = [
        f"# {info.name}",
        "",
        f"{len(tasks)} LoRA adapter{'s' if len(tasks) != 1 else ''} for {info.base_name}, "
        "one folder per task. `manifest.json` holds the SHA-256 of every file and each adapter's verdict.",
        "",
        "| Folder | Task |",
        "|---|---|",
        *(f"| `{task}/` | {measured[task].title if task in measured else task} |" for task in tasks),
        "",
        *_table(measured, info),
        *usage_section(first, f'"{info.bundle}", subfolder="{first}"', info),
        *([f"The other adapters are asked by their own cards: {_listed(others)}.", ""] if others else []),
        *licence_section(tasks, info),
    ]
    return _front(tasks, measured, info) + "\n".join(lines)


def adapter_card(task: str, results: Results, info: BundleInfo) -> str:
    """Write the card of one adapter, for its folder in the bundle and for its own repository."""
    measured = {task: results.tasks[task]} if task in results.tasks else {}
    title = measured[task].title if measured else task
    lines = [
        f"# {info.name}: {title}",
        "",
        f"A LoRA adapter for {info.base_name}. "
        "`manifest.json` holds the SHA-256 of every file and the adapter's verdict.",
        "",
        *_table(measured, info),
        *usage_section(task, f'"{info.adapter(task)}"', info),
        *licence_section([task], info),
    ]
    return _front([task], measured, info) + "\n".join(lines)


def eval_results(task: str, results: Results, info: BundleInfo) -> str | None:
    """Return `.eval_results/TASK.yaml` with the headline; None if its samples are no dataset of the hub.

    Source: huggingface.co/docs/hub/eval-results
    """
    source, found = info.tasks[task].dataset, results.tasks.get(task)
    if source is None or found is None or (headline := _measured(found, task).get(found.headline)) is None:
        return None
    entry = {
        "dataset": {"id": source.id, "task_id": source.config or "default"}
        | ({"revision": source.revision} if source.revision else {}),
        "value": round(headline.mean, 6),
        "notes": f"{found.headline}, {headline.n} held-out samples, LoRA adapter",
    }
    return yaml.safe_dump([entry], sort_keys=False, allow_unicode=True)


def _front(tasks: Sequence[str], measured: Mapping[str, TaskResults], info: BundleInfo) -> str:
    """Write the front matter. A base that no public model is stays unnamed: the hub would link a stranger's model."""
    named = {"base_model": info.base.hub, "base_model_relation": "adapter"} if info.base.hub else {}
    front: dict[str, object] = {
        "library_name": "peft",
        **named,
        "pipeline_tag": "text-generation",
        **licence_fields(tasks, info),
        "language": ["en"],
        "tags": ["lora", "bilora"],
    }
    if datasets := sorted({dataset.id for task in tasks if (dataset := info.tasks[task].dataset)}):
        front["datasets"] = datasets
    if index := [entry for task, found in measured.items() if (entry := _index(task, found, info))]:
        front["model-index"] = [{"name": info.name, "results": index}]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)}---\n\n"


@dataclass(frozen=True)
class _Mean:
    """A measured mean, its interval in brackets where there is one, and the number of scored samples."""

    mean: float
    text: str
    n: int


def _measured(task: TaskResults, system: str) -> dict[str, _Mean]:
    """Return the measured metrics of a system on the held-out split, the headline first."""
    summary = task.test_systems.get(system)
    found = summary.metrics if summary else {}
    order = dict.fromkeys([task.headline, *task.metrics])
    return {
        metric: _Mean(mean, _text(mean, found[metric]), found[metric].n)
        for metric in order
        if metric in found and (mean := found[metric].mean) is not None
    }


def _text(mean: float, found: MetricSummary) -> str:
    return f"{mean:.3f}" if found.low is None else f"{mean:.3f} ({found.low:.3f} to {found.high:.3f})"


def _index(name: str, task: TaskResults, info: BundleInfo) -> dict[str, object] | None:
    metrics = [
        {"type": metric, "name": metric, "value": round(found.mean, 6)}
        for metric, found in _measured(task, name).items()
    ]
    if not metrics:
        return None
    source = info.tasks[name].dataset
    pinned = {"revision": source.revision} if source and source.revision else {}
    return {
        "task": {"type": "text-generation", "name": task.title},
        "dataset": {
            "type": source.id if source else _DATASET.format(task=name),
            "name": f"{task.title}, held-out split",
            "split": "test",
            **pinned,
        },
        "metrics": metrics,
    }


def _table(measured: Mapping[str, TaskResults], info: BundleInfo) -> list[str]:
    lines = [
        "## Measured on held-out samples",
        "",
        MEASURED,
        "",
        "| Task | Metric | Base | This adapter | Samples |",
        "|---|---|---|---|---|",
    ]
    for task, found in measured.items():
        base = _measured(found, "base")
        for metric, adapter in _measured(found, task).items():
            old = base[metric].text if metric in base else "not run"
            lines.append(f"| {found.title} | `{metric}` | {old} | {adapter.text} | {adapter.n} |")
    return [*lines, "", *(line for found in measured.values() for line in _guards(found)), *_weights(info.base)]


def _weights(base: Base) -> list[str]:
    """Say on which weights the adapters were trained and measured, where they are not those of the public model."""
    if not base.weights_note:
        return []
    other = f" The weights of `{base.hub}` itself differ slightly, and so may its answers." if base.hub else ""
    return [f"{base.weights_note} The numbers above are of those weights.{other}", ""]


def _guards(task: TaskResults) -> list[str]:
    """Write one paragraph per public set on which the adapter was compared with its base."""
    lines = []
    for check in task.verdict.guards if task.verdict else ():
        title = task.guards[check.guard].title if check.guard in task.guards else check.guard
        lines += [
            f"On {title}, {check.n} public questions: `{check.metric}` {check.base:.3f} for the base and "
            f"{check.adapter:.3f} for this adapter, "
            f"difference {check.delta:+.3f} ({check.low:+.3f} to {check.high:+.3f}).",
            "",
        ]
    return lines


def _listed(tasks: Sequence[str]) -> str:
    return ", ".join(f"`{task}/{CARD}`" for task in tasks)
