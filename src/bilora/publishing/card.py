"""The model card: front matter that the Hub understands, then what a reader needs. Only measured numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

CARD = "README.md"
DATASET = "bilora-{task}-test"


def write_card(
    tasks: Sequence[str],
    results: Mapping[str, Any],
    *,
    base_id: str,
    base_revision: str | None,
    licence: str,
    datasets: Sequence[str],
    name: str,
) -> str:
    """Write the card of a bundle; latency stays out, for it differs from run to run.

    Args:
        tasks: the bundled adapters.
        results: the content of results.json; a metric without a mean is left out, not shown as 0.
        base_id, base_revision, licence, datasets, name: see `build_bundle`.
    """
    front: dict[str, Any] = {
        "library_name": "peft",
        "base_model": base_id,
        "base_model_relation": "adapter",
        "pipeline_tag": "text-generation",
        "license": licence,
        "language": ["en"],
        "tags": ["lora", "bilora"],
    }
    if datasets:
        front["datasets"] = list(datasets)
    measured = {task: results["tasks"][task] for task in tasks if task in results["tasks"]}
    index = [entry for task, found in measured.items() if (entry := _index(task, found))]
    if index:
        front["model-index"] = [{"name": name, "results": index}]
    header = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{header}---\n\n{_body(tasks, measured, base_id, base_revision, name)}"


def _means(task: Mapping[str, Any], system: str) -> dict[str, Mapping[str, Any]]:
    """Return the measured metrics of a system on the held-out split, the headline first."""
    systems = task["summary"].get("test", {"systems": {}})["systems"]
    found = systems.get(system, {"metrics": {}})["metrics"]
    order = dict.fromkeys([task["headline"], *task["metrics"]])
    return {metric: found[metric] for metric in order if found.get(metric, {}).get("mean") is not None}


def _index(name: str, task: Mapping[str, Any]) -> dict[str, Any] | None:
    metrics = [
        {"type": metric, "name": metric, "value": round(found["mean"], 6)}
        for metric, found in _means(task, name).items()
    ]
    if not metrics:
        return None
    return {
        "task": {"type": "text-generation", "name": task["title"]},
        "dataset": {
            "type": DATASET.format(task=name),
            "name": f"{task['title']}, held-out split",
            "split": "test",
        },
        "metrics": metrics,
    }


def _body(
    tasks: Sequence[str],
    measured: Mapping[str, Mapping[str, Any]],
    base_id: str,
    base_revision: str | None,
    name: str,
) -> str:
    pinned = f" at revision `{base_revision}`" if base_revision else ""
    lines = [
        f"# {name}",
        "",
        f"{len(tasks)} LoRA adapter{'s' if len(tasks) != 1 else ''} for `{base_id}`{pinned}, "
        "one folder a task. `manifest.json` holds the SHA-256 of every file and each adapter's verdict.",
        "",
        "| Folder | Task |",
        "|---|---|",
        *(f"| `{task}/` | {measured[task]['title'] if task in measured else task} |" for task in tasks),
        "",
        "## Measured on held-out samples",
        "",
        "Mean of scores between 0 and 1, with its 95 % interval and the number of scored samples. "
        "An adapter is published only if it is better than its base beyond doubt.",
        "",
        "| Task | Metric | Base | This adapter | Samples |",
        "|---|---|---|---|---|",
    ]
    for task, found in measured.items():
        base = _means(found, "base")
        for metric, own in _means(found, task).items():
            old = _with_interval(base[metric]) if metric in base else "not run"
            lines.append(f"| {found['title']} | `{metric}` | {old} | {_with_interval(own)} | {own['n']} |")
    revision = f', revision="{base_revision}"' if base_revision else ""
    lines += [
        "",
        "## Use",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{base_id}"{revision})',
        *(
            f'{start}"path/to/this/bundle", "{task}", subfolder="{task}")'
            for start, task in zip(
                ["model = PeftModel.from_pretrained(base, ", *["model.load_adapter("] * (len(tasks) - 1)],
                tasks,
                strict=True,
            )
        ),
        "```",
        "",
        "Code that the model writes may be wrong or harmful: run it only where it can do no damage.",
        "",
    ]
    return "\n".join(lines)


def _with_interval(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return f"{found['mean']:.3f}"
    return f"{found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
