"""Write the model cards: front matter for the Hub, then the measured results, the usage and the licence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from bilora.bases.base import Base
from bilora.publishing.bundle_info import BundleInfo
from bilora.publishing.licences import licence_fields, licence_section
from bilora.publishing.usage import usage_section
from bilora.records import Scale
from bilora.results import MetricSummary, Results, TaskResults

CARD = "README.md"
_DATASET = "bilora-{task}-test"
_RESULTS_NOTE = (
    "Mean score with its 95 % interval, and the number of scored samples. "
    "An adapter is published only if it is significantly better than its base."
)


def bundle_card(tasks: Sequence[str], results: Results, info: BundleInfo) -> str:
    """Return the card of a bundle. Latency is not on it, because it differs from run to run.

    Args:
        tasks: the bundled adapters.
        results: a metric without a mean is not on the card.
    """
    measured = {task: results.tasks[task] for task in tasks if task in results.tasks}
    first, *others = tasks
    lines = [
        f"# {info.name}",
        "",
        f"{len(tasks)} LoRA adapter{'s' if len(tasks) != 1 else ''} for {info.base_name}, "
        "one folder per task. `manifest.json` contains the SHA-256 of every file and each adapter's verdict.",
        "",
        "| Folder | Task |",
        "|---|---|",
        *(f"| `{task}/` | {measured[task].title if task in measured else task} |" for task in tasks),
        "",
        *_table(measured, info),
        *usage_section(first, f'"{info.bundle_location}", subfolder="{first}"', info),
        *([f"For the other adapters see {_card_paths(others)}.", ""] if others else []),
        *licence_section(tasks, info),
    ]
    return _front_matter(tasks, measured, info) + "\n".join(lines)


def adapter_card(task: str, results: Results, info: BundleInfo) -> str:
    """Return the card of one adapter, for its folder in the bundle and for its repository."""
    measured = {task: results.tasks[task]} if task in results.tasks else {}
    title = measured[task].title if measured else task
    lines = [
        f"# {info.name}: {title}",
        "",
        f"A LoRA adapter for {info.base_name}. "
        "`manifest.json` contains the SHA-256 of every file and the adapter's verdict.",
        "",
        *_table(measured, info),
        *usage_section(task, f'"{info.adapter_location(task)}"', info),
        *licence_section([task], info),
    ]
    return _front_matter([task], measured, info) + "\n".join(lines)


def eval_results(task: str, results: Results, info: BundleInfo) -> str | None:
    """Return `.eval_results/TASK.yaml` with the headline's mean, from 0 to 1; None if its samples are not from the hub.

    Source: huggingface.co/docs/hub/eval-results
    """
    source, measured = info.tasks[task].dataset, results.tasks.get(task)
    if source is None or measured is None or (headline := _means(measured, task).get(measured.headline)) is None:
        return None
    entry = {
        "dataset": {"id": source.id, "task_id": source.config or "default"}
        | ({"revision": source.revision} if source.revision else {}),
        "value": round(headline.mean, 6),
        "notes": f"{measured.headline}, {headline.n} held-out samples, LoRA adapter",
    }
    return yaml.safe_dump([entry], sort_keys=False, allow_unicode=True)


def _front_matter(tasks: Sequence[str], measured: Mapping[str, TaskResults], info: BundleInfo) -> str:
    """Return the front matter. It names only a public base; the Hub would link any other name to another model."""
    base = {"base_model": info.base.hub, "base_model_relation": "adapter"} if info.base.hub else {}
    front: dict[str, object] = {
        "library_name": "peft",
        **base,
        "pipeline_tag": "text-generation",
        **licence_fields(tasks, info),
        "language": ["en"],
        "tags": ["lora", "bilora"],
    }
    if datasets := sorted({dataset.id for task in tasks if (dataset := info.tasks[task].dataset)}):
        front["datasets"] = datasets
    if index := [entry for task, results in measured.items() if (entry := _model_index(task, results, info))]:
        front["model-index"] = [{"name": info.name, "results": index}]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)}---\n\n"


@dataclass(frozen=True)
class _Mean:
    """A metric's mean from 0 to 1, the same as text with its interval, and the number of scored samples."""

    mean: float
    text: str
    n: int


def _means(task: TaskResults, system: str) -> dict[str, _Mean]:
    """Return the measured metrics of a system on the test split, the headline first."""
    system_summary = task.test_systems.get(system)
    summaries = system_summary.metrics if system_summary else {}
    order = dict.fromkeys([task.headline, *task.metrics])
    return {
        metric: _Mean(mean, _text(mean, summaries[metric], task.scales[metric]), summaries[metric].n)
        for metric in order
        if metric in summaries and (mean := summaries[metric].mean) is not None
    }


def _text(mean: float, summary: MetricSummary, scale: Scale) -> str:
    if summary.low is None or summary.high is None:
        return scale.text(mean)
    return f"{scale.text(mean)} ({scale.number(summary.low)} to {scale.number(summary.high)})"


def _model_index(name: str, task: TaskResults, info: BundleInfo) -> dict[str, object] | None:
    metrics = [
        {"type": metric, "name": metric, "value": round(measured.mean, 6)}
        for metric, measured in _means(task, name).items()
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
        _RESULTS_NOTE,
        "",
        "| Task | Metric | Base | This adapter | Samples |",
        "|---|---|---|---|---|",
    ]
    for name, task in measured.items():
        base_means = _means(task, "base")
        for metric, adapter in _means(task, name).items():
            base = base_means[metric].text if metric in base_means else "not run"
            lines.append(f"| {task.title} | {task.scales[metric].label} | {base} | {adapter.text} | {adapter.n} |")
    guard_lines = (line for task in measured.values() for line in _guard_lines(task))
    return [*lines, "", *guard_lines, *_weights_note(info.base)]


def _weights_note(base: Base) -> list[str]:
    """Return a paragraph on the measured weights, if they are not those of the public model."""
    if not base.weights_note:
        return []
    public = f" The weights of `{base.hub}` itself differ slightly, and so may its answers." if base.hub else ""
    return [f"{base.weights_note} The numbers above were measured with those weights.{public}", ""]


def _guard_lines(task: TaskResults) -> list[str]:
    """Return one paragraph per guard of the task's verdict."""
    lines = []
    for check in task.verdict.guards if task.verdict else ():
        title = task.guards[check.guard].title if check.guard in task.guards else check.guard
        scale = task.scales[check.metric]
        low, delta, high = map(scale.difference, (check.low, check.delta, check.high))
        lines += [
            f"On {title}, {check.n} public questions: {scale.label} {scale.text(check.base)} for the base and "
            f"{scale.text(check.adapter)} for this adapter, difference {delta} points ({low} to {high}).",
            "",
        ]
    return lines


def _card_paths(tasks: Sequence[str]) -> str:
    return ", ".join(f"`{task}/{CARD}`" for task in tasks)
