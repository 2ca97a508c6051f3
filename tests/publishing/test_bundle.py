"""The bundle: complete, reproducible, and without private data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from bilora.bases.kinds.folder import FolderBase
from bilora.bases.kinds.hub import HubBase
from bilora.errors import BadData, MissingStep
from bilora.publishing.bundle import build_bundle, bundled_sha256, extract_adapter
from bilora.publishing.bundle_info import BundleInfo
from bilora.results import GuardCheck, GuardFacts, Results
from bilora.sources.kinds.hub import HubDatasetSettings
from bilora.storage import adapter_sha256, sha256_bytes, write_bytes

REVISION = "0" * 40


def test_only_adapters_card_and_manifest_are_in_it(inputs: Any, rebuild: Callable[..., dict[str, bytes]]) -> None:
    (inputs.folders["codegen"] / "optimizer.pt").write_bytes(b"state")
    files = rebuild(inputs.folders, inputs.verdicts, inputs.results)
    assert sorted(files) == [
        "README.md",
        "codegen/README.md",
        "codegen/adapter_config.json",
        "codegen/adapter_model.safetensors",
        "codegen/tokenizer.json",
        "docstring/README.md",
        "docstring/adapter_config.json",
        "docstring/adapter_model.safetensors",
        "docstring/tokenizer.json",
        "manifest.json",
    ]


def test_equal_input_gives_equal_bytes(inputs: Any, rebuild: Callable[..., dict[str, bytes]]) -> None:
    assert rebuild(inputs.folders, inputs.verdicts, inputs.results) == inputs.files


def test_the_adapters_bytes_are_untouched(inputs: Any) -> None:
    for task, folder in inputs.folders.items():
        assert bundled_sha256(inputs.files, task) == adapter_sha256(folder)


def test_the_manifest_names_every_other_file_by_its_hash(inputs: Any) -> None:
    manifest = json.loads(inputs.files["manifest.json"])
    others = {path: sha256_bytes(data) for path, data in inputs.files.items() if path != "manifest.json"}
    assert manifest["files"] == others
    assert manifest["base"] == {"id": "models/smoke", "revision": None}
    assert manifest["adapters"]["codegen"]["verdict"]["outcome"] == "pass"


def test_a_new_verdict_on_the_same_adapters_changes_nothing(
    inputs: Any, rebuild: Callable[..., dict[str, bytes]]
) -> None:
    """After a promotion the verdict is worded against another incumbent; what is published stays the same."""
    again = {
        task: verdict.model_copy(update={"against": "baseline", "low": -0.01, "reason": "Other words."})
        for task, verdict in inputs.verdicts.items()
    }
    assert rebuild(inputs.folders, again, inputs.results) == inputs.files


def test_an_untrained_adapter_names_the_stage(inputs: Any, rebuild: Callable[..., dict[str, bytes]]) -> None:
    (inputs.folders["codegen"] / "adapter_model.safetensors").unlink()
    with pytest.raises(MissingStep, match="dvc repro train"):
        rebuild(inputs.folders, inputs.verdicts, inputs.results)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"base_model_name_or_path": "/" + "home/somebody/base"}, "trained on base"),
        ({"revision": "other"}, "trained on base"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"auto_mapping": {"parent": "/" + "home/somebody/x.py"}}, "auto_mapping.parent"),
        ({"layers": ["C:\\adapters"]}, "layers"),
        ({"note": "~/adapters"}, "path of this machine"),
    ],
)
def test_a_config_that_does_not_belong_in_public_is_refused(
    inputs: Any,
    rebuild: Callable[..., dict[str, bytes]],
    adapter_writer: Callable[..., None],
    config: dict[str, Any],
    words: str,
) -> None:
    adapter_writer(inputs.folders["codegen"], 1, **config)
    with pytest.raises(BadData, match=words):
        rebuild(inputs.folders, inputs.verdicts, inputs.results)


def test_a_bundle_of_nothing_is_refused(rebuild: Callable[..., dict[str, bytes]], no_results: Results) -> None:
    with pytest.raises(BadData, match="no adapter to publish"):
        rebuild({}, {}, no_results)


def test_weights_that_are_no_lora_are_refused(
    inputs: Any, rebuild: Callable[..., dict[str, bytes]], adapter_writer: Callable[..., None]
) -> None:
    adapter_writer(inputs.folders["codegen"], 1, tensor="base_model.model.lm_head.weight")
    with pytest.raises(BadData, match="not a LoRA weight"):
        rebuild(inputs.folders, inputs.verdicts, inputs.results)


@pytest.mark.parametrize("data", [b"", b"junk", b"\x02\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]"])
def test_a_broken_weights_file_is_refused(inputs: Any, rebuild: Callable[..., dict[str, bytes]], data: bytes) -> None:
    (inputs.folders["codegen"] / "adapter_model.safetensors").write_bytes(data)
    with pytest.raises(BadData):
        rebuild(inputs.folders, inputs.verdicts, inputs.results)


DATA = HubDatasetSettings(
    kind="hub", id="org/data", revision="1" * 40, config="full", splits={"test": "test"}, licence="CC-BY-4.0"
)


@pytest.fixture
def pinned(
    inputs: Any, adapter_writer: Callable[..., None], bundle_info: Callable[..., BundleInfo]
) -> dict[str, bytes]:
    """Return a bundle for a base from the hub; the data of one task are a hub dataset."""
    for folder in inputs.folders.values():
        adapter_writer(folder, 1, base_model_name_or_path="org/base", revision=REVISION)
    details = bundle_info(HubBase(id="org/base", revision=REVISION, hub="org/base"), repository="owner/name")
    codegen = replace(details.tasks["codegen"], dataset=DATA)
    details = replace(details, tasks={**details.tasks, "codegen": codegen})
    return build_bundle(inputs.folders, inputs.verdicts, inputs.results, details)


def test_the_hub_reads_the_cards_front_matter(pinned: dict[str, bytes]) -> None:
    files = pinned
    data = ModelCard(files["README.md"].decode()).data
    assert (data.library_name, data.base_model, data.pipeline_tag) == ("peft", "org/base", "text-generation")
    assert (data.license, data.datasets) == ("mit", ["org/data"])
    assert data.to_dict()["base_model_relation"] == "adapter"


def test_the_hub_reads_the_measured_results(inputs: Any) -> None:
    data = ModelCard(inputs.files["README.md"].decode()).data
    values = {result.metric_type: result.metric_value for result in data.eval_results or []}
    assert values == {"pass_at_1": 0.7, "bleu": 0.7}


def test_what_was_not_measured_is_not_on_the_card(
    inputs: Any, rebuild: Callable[..., dict[str, bytes]], with_task: Callable[..., Results]
) -> None:
    assert "judge" not in inputs.files["README.md"].decode()
    results = inputs.results
    for task in results.tasks:
        results = with_task(results, task, summary={})
    card = ModelCard(rebuild(inputs.folders, inputs.verdicts, results)["README.md"].decode())
    assert "model-index" not in card.data.to_dict()


def test_the_card_has_the_reports_scale(inputs: Any) -> None:
    text = inputs.files["README.md"].decode()
    assert "| Codegen | Headline | 20.0 % (15.0 to 25.0) | 70.0 % (65.0 to 75.0) | 300 |" in text
    assert "0.700" not in text


def test_an_adapter_without_results_still_has_a_card(
    inputs: Any, rebuild: Callable[..., dict[str, bytes]], no_results: Results
) -> None:
    card = rebuild(inputs.folders, {}, no_results)["README.md"].decode()
    assert "`codegen/`" in card


def test_the_card_pins_the_base(pinned: dict[str, bytes]) -> None:
    assert f'revision="{REVISION}"' in pinned["README.md"].decode()


def test_the_hub_reads_the_results_of_its_own_data_sets(pinned: dict[str, bytes]) -> None:
    files = pinned
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[".eval_results/codegen.yaml"]))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("org/data", "full", 0.7)
    assert entry.dataset_revision == "1" * 40 and "pass_at_1, 300" in (entry.notes or "")
    assert ".eval_results/docstring.yaml" not in files  # its samples are no data set of the hub
    results = {result.metric_type: result for result in ModelCard(files["README.md"].decode()).data.eval_results or []}
    assert (results["pass_at_1"].dataset_type, results["pass_at_1"].dataset_revision) == ("org/data", "1" * 40)


def test_an_adapters_repository_has_the_same_bytes_at_the_root(pinned: dict[str, bytes]) -> None:
    files = pinned
    alone = extract_adapter(files, "codegen")
    assert sorted(alone) == [
        ".eval_results/codegen.yaml",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
        "tokenizer.json",
    ]
    assert alone["adapter_model.safetensors"] == files["codegen/adapter_model.safetensors"]
    manifest = json.loads(alone["manifest.json"])
    assert manifest["adapters"]["codegen"] == json.loads(files["manifest.json"])["adapters"]["codegen"] | {"path": "."}
    assert manifest["files"] == {name: sha256_bytes(data) for name, data in alone.items() if name != "manifest.json"}
    card = ModelCard(alone["README.md"].decode())
    assert [result.metric_type for result in card.data.eval_results or []] == ["pass_at_1"]
    assert 'from_pretrained(base, "owner/name-codegen")' in card.text


def test_a_base_without_a_hub_id_travels_along_and_is_not_named_as_one(
    inputs: Any, bundle_info: Callable[..., BundleInfo], tmp_path: Path
) -> None:
    write_bytes(tmp_path / "base" / "config.json", b"{}")
    files = build_bundle(
        inputs.folders,
        inputs.verdicts,
        inputs.results,
        bundle_info(FolderBase(id="models/smoke", path=tmp_path / "base"), repository="owner/name"),
    )
    assert files["base/config.json"] == b"{}"
    assert json.loads(files["manifest.json"])["base"]["path"] == "base"
    for name in ("README.md", "codegen/README.md"):
        card = ModelCard(files[name].decode())
        assert "base_model" not in card.data.to_dict() and "models/smoke" not in card.content
        assert 'from_pretrained("owner/name", subfolder="base", dtype="float32")' in card.text
        assert "the base in `owner/name/base`" in card.text
    assert not any(name.startswith("base/") for name in extract_adapter(files, "codegen"))


def test_the_card_says_how_adapter_and_base_did_on_a_guard(
    inputs: Any, rebuild: Callable[..., dict[str, bytes]]
) -> None:
    fields: dict[str, Any] = {"guard": "humaneval", "metric": "pass_at_1", "n": 164, "unscored": 0, "tripped": False}
    check = GuardCheck(**fields, base=0.061, adapter=0.067, low=-0.024, delta=0.006, high=0.036)
    task = inputs.results.tasks["codegen"]
    guarded = task.model_copy(
        update={
            "verdict": task.verdict.model_copy(update={"guards": (check,)}),
            "guards": {"humaneval": GuardFacts(title="HumanEval", prompt=(), decoding={})},
        }
    )
    results = inputs.results.model_copy(update={"tasks": {**inputs.results.tasks, "codegen": guarded}})
    files = rebuild(inputs.folders, inputs.verdicts, results)
    sentence = (
        "On HumanEval, 164 public questions: Headline 6.1 % for the base and 6.7 % for this adapter, "
        "difference +0.6 points (-2.4 to +3.6)."
    )
    assert all(sentence in files[name].decode() for name in ("README.md", "codegen/README.md"))
    assert sentence not in files["docstring/README.md"].decode()
