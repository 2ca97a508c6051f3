"""A card's program returns the engine's answer, and its licence follows from params and data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from support.checkouts import change_task
from support.gguf_files import SMOLLM2, packaged_gguf
from support.random_adapters import write_random_adapter

from bilora.cli.push_adapters import read_bundle_info
from bilora.data_reports import RatingsReport, SplitCounts, SplitReport
from bilora.errors import MissingStep
from bilora.inference.torch.engine import TorchEngine
from bilora.publishing.bundle import build_bundle, extract_adapter
from bilora.publishing.bundle_info import BundleInfo
from bilora.requests import Request
from bilora.results import Results
from bilora.storage import write_bytes, write_json
from bilora.workspace import Workspace

NOTHING_MEASURED = Results(profile="smoke", harness="1", seed=1, notes={}, judge=(), latency_s={}, tasks={})
NO_SYSTEM_ROLE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


def write_split_report(root: Path, task: str, *licences: str, ratings: int | None = None) -> None:
    counts = SplitCounts(rows=1, tier={}, licence=dict.fromkeys(licences, 1), groups=1, group={})
    report = SplitReport(rows_in=1, rows_out=1, rules=(), dealt={}, pairs=(), splits={"train": counts})
    if ratings is not None:
        report = report.model_copy(update={"feedback": RatingsReport(samples=0, preferences=ratings, rules=())})
    write_json(root / "data" / "reports" / "split" / f"{task}.json", report.model_dump(exclude_none=True))


@pytest.fixture
def checkout(adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the base, two adapters, and the reports of data-split."""
    for name in ("models", "adapters"):
        shutil.copytree(adapted / name, tmp_path / name)
    shutil.copy(adapted / "params.yaml", tmp_path)
    for task in ("codegen", "docstring"):
        write_split_report(tmp_path, task, "MIT")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bundled(workspace: Workspace, bundle_info: BundleInfo) -> dict[str, bytes]:
    adapters = {task: workspace.adapter(task) for task in workspace.params.tasks}
    return build_bundle(adapters, {}, NOTHING_MEASURED, bundle_info)


def written(workspace: Workspace) -> dict[str, bytes]:
    """Return a bundle after writing it to the path on its cards."""
    files = bundled(workspace, read_bundle_info(workspace, None))
    for name, data in files.items():
        write_bytes(workspace.root / "path" / "to" / "this" / "bundle" / name, data)
    return files


def program(card: bytes) -> str:
    """Return the Python of a card."""
    return card.decode().split("\n```python\n")[1].split("\n```\n")[0]


def printed(program: str, folder: Path) -> str:
    """Return what a program prints that runs in `folder`, without a network and without this repository."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**environment, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def measured_answer(workspace: Workspace, name: str) -> str:
    """Return the engine's answer to the question of a task's card."""
    generation, task = workspace.params.tasks[name].generation, workspace.tasks[name]
    request = Request(
        "one", task.messages(task.make_prompt(task.example)), generation.sampling(seed=workspace.params.seed)
    )
    engine = TorchEngine(workspace.base().load(training=False), {name: workspace.adapter(name)}, batch_size=1)
    (completion,) = engine.generate(name, [request])
    return completion.text


@pytest.mark.parametrize(
    ("task", "card", "changes", "template"),
    [
        ("codegen", "README.md", {}, None),
        ("codegen", "codegen/README.md", {"max_new_tokens": 40}, None),
        ("docstring", "docstring/README.md", {"max_new_tokens": 40, "frequency_penalty": 1.5}, None),
        ("docstring", "docstring/README.md", {}, NO_SYSTEM_ROLE),
    ],
)
def test_a_cards_program_prints_the_engines_answer(
    checkout: Path, task: str, card: str, changes: dict[str, Any], template: str | None
) -> None:
    change_task(checkout, task, lambda entry: entry["generation"].update(changes))
    if template:
        (checkout / "models" / "smoke" / "chat_template.jinja").write_text(template, encoding="utf-8")
    workspace = Workspace(checkout)
    text = program(written(workspace)[card])
    imported = {line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import", "from"))}
    assert imported <= {"peft", "transformers", "torch"}
    expected = measured_answer(workspace, task)
    assert len(expected) > 10 and printed(text, checkout) == expected + "\n"


@pytest.mark.slow
def test_the_program_for_a_packaged_base_prints_the_engines_answer(checkout: Path) -> None:
    packaged_gguf()
    document = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))
    document |= {
        "base": {**SMOLLM2.model_dump(), "dtype": "float32"},
        "tasks": {"codegen": document["tasks"]["codegen"]},
    }
    (checkout / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    workspace = Workspace(checkout)
    write_random_adapter(workspace.adapter("codegen"), workspace.base(), ["q_proj", "down_proj"], seed=0, std=0.01)
    card = written(workspace)["codegen/README.md"]
    expected = measured_answer(workspace, "codegen")
    assert len(expected) > 10 and printed(program(card), checkout) == expected + "\n"
    assert ModelCard(card.decode()).data.license_name == "apache-2.0-and-mit"


def test_a_sampled_tasks_card_says_so_and_samples_alike(checkout: Path) -> None:
    change_task(checkout, "codegen", lambda entry: entry["generation"].update(temperature=0.5, frequency_penalty=1.0))
    workspace = Workspace(checkout)
    card = bundled(workspace, read_bundle_info(workspace, None))["codegen/README.md"].decode()
    assert "sampling at temperature 0.5" in card and "do_sample=True, temperature=0.5, top_k=0" in card
    assert "return scores - 2.0 * " in card  # transformers divided the scores by 0.5 before
    compile(program(card.encode()), "card", "exec")


def test_the_card_names_a_public_base_with_its_commit(checkout: Path) -> None:
    from bilora.bases.kinds.hub import HubBase

    workspace = Workspace(checkout)
    bundle_info = read_bundle_info(workspace, "owner/name")
    commit = "0" * 40
    public = replace(bundle_info, base=HubBase(id="org/base", hub="org/base", revision=commit, dtype="bfloat16"))
    for task in workspace.params.tasks:
        path = workspace.adapter(task) / "adapter_config.json"
        text = path.read_text(encoding="utf-8")
        text = text.replace('"models/smoke"', '"org/base"').replace('"revision": null', f'"revision": "{commit}"')
        path.write_text(text, encoding="utf-8")
    files = bundled(workspace, public)
    loads = f'base = AutoModelForCausalLM.from_pretrained("org/base", revision="{commit}", dtype="bfloat16")'
    assert loads in files["README.md"].decode() and "and the base in bfloat16." in files["README.md"].decode()
    assert 'AutoTokenizer.from_pretrained("owner/name", subfolder="codegen")' in files["README.md"].decode()
    alone = extract_adapter(files, "docstring")
    assert {"tokenizer.json", "tokenizer_config.json"} < set(alone)
    assert 'AutoTokenizer.from_pretrained("owner/name-docstring")' in alone["README.md"].decode()


def licence_of_cards(checkout: Path) -> dict[str, tuple[str, str | None]]:
    workspace = Workspace(checkout)
    files = bundled(workspace, read_bundle_info(workspace, None))
    data = {name: ModelCard(text.decode()).data for name, text in files.items() if name.endswith("README.md")}
    return {name: (card.license, card.license_name) for name, card in data.items() if not name.startswith("base/")}


def test_licences_of_the_rows_and_of_the_source_in_params_both_count(checkout: Path) -> None:
    assert licence_of_cards(checkout)["README.md"] == ("mit", None)
    restricted = {"kind": "files", "paths": ["mine.jsonl"], "licence": "CC-BY-NC-4.0"}
    change_task(checkout, "codegen", lambda entry: entry.update(source=restricted))
    write_split_report(checkout, "docstring", "MIT", "unknown")
    assert licence_of_cards(checkout) == {
        "README.md": ("other", "cc-by-nc-4.0-and-mit-and-unknown"),
        "codegen/README.md": ("other", "cc-by-nc-4.0-and-mit"),
        "docstring/README.md": ("other", "mit-and-unknown"),
    }


@pytest.mark.parametrize(("ratings", "licence"), [(0, "mit"), (3, "other")])
def test_ratings_that_were_trained_on_count_as_given_with_consent(checkout: Path, ratings: int, licence: str) -> None:
    write_split_report(checkout, "codegen", "MIT", ratings=ratings)
    assert licence_of_cards(checkout)["codegen/README.md"][0] == licence


def test_without_the_report_of_data_split_nothing_is_said(checkout: Path) -> None:
    (checkout / "data" / "reports" / "split" / "codegen.json").unlink()
    with pytest.raises(MissingStep, match="dvc repro data-split@codegen"):
        read_bundle_info(Workspace(checkout), None)
