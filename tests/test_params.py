"""params.yaml is loaded once; all faults are reported together, each with its key."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bilora.errors import ParamsError
from bilora.params import read_params
from bilora.tasks import known_tasks

ROOT = Path(__file__).resolve().parents[1]
GUARDS = {"humaneval": "codegen"}
SFT = {"kind": "sft", "steps": 4, "batch_size": 4, "learning_rate": 1e-3, "evaluate_every": 2}
KTO = {"kind": "kto", "steps": 5, "batch_size": 4, "learning_rate": 1e-4}


@pytest.fixture
def faults(tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], str]:
    """Change a copy of params.yaml and return the message of its faults."""

    def read(change: Callable[[dict[str, Any]], None]) -> str:
        document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        change(document)
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        with pytest.raises(ParamsError) as caught:
            read_params(path, known_tasks=known_tasks(), known_guards=GUARDS)
        return str(caught.value)

    return read


@pytest.mark.parametrize("profile", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_is_valid_and_says_its_name(profile: Path) -> None:
    assert read_params(profile, known_tasks=known_tasks(), known_guards=GUARDS).profile == profile.stem


def test_an_unknown_key_is_reported_with_its_path(faults: Any) -> None:
    message = faults(lambda document: document["tasks"]["codegen"]["adapter"].update(rnak=4))
    assert "tasks.codegen.adapter.rnak" in message


def test_a_wrong_type_is_a_fault_even_if_it_could_be_converted(faults: Any) -> None:
    message = faults(lambda document: document["tasks"]["codegen"]["adapter"].update(rank="8"))
    assert "tasks.codegen.adapter.rank" in message


@pytest.mark.parametrize(
    ("inference", "sentence"),
    [
        ({"engine": "ollama"}, "inference.engine"),
        ({"engine": "llamacpp", "quantization": "q3"}, "inference.quantization"),
        ({"quantization": "q8_0"}, "quantization needs engine llamacpp"),
    ],
    ids=str,
)
def test_an_unknown_engine_is_reported_beside_the_other_faults(
    faults: Any, inference: dict[str, str], sentence: str
) -> None:
    base = {"kind": "folder", "path": "models/smoke"}  # it has no GGUF file
    message = faults(lambda document: document.update(inference=inference, base=base, sead=1))
    assert sentence in message and "sead" in message


def test_llamacpp_without_a_quantization_needs_a_base_with_a_gguf_file(faults: Any, tmp_path: Path) -> None:
    def without_a_file(document: dict[str, Any]) -> None:
        document.update(base={"kind": "folder", "path": "models/smoke"}, inference={"engine": "llamacpp"}, sead=1)

    message = faults(without_a_file)
    assert "inference: this base has no GGUF file, so engine llamacpp needs a quantization" in message
    assert "sead" in message
    package = {"kind": "package", "distribution": "a", "version": "1", "file": "a/b.gguf", "sha256": "0" * 64}
    hub = {"kind": "hub", "id": "a/b", "revision": "0" * 40, "file": "b.gguf"}
    for base in (package | {"hub": "a/b"}, {"kind": "folder", "path": "models/b.gguf"}, hub):
        document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        document.update(base=base, inference={"engine": "llamacpp"})
        (tmp_path / "valid.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        assert read_params(tmp_path / "valid.yaml").inference.quantization is None


def test_all_faults_are_reported_at_once(faults: Any) -> None:
    def three(document: dict[str, Any]) -> None:
        document["sead"] = 1
        document["tasks"]["codegen"]["adapter"]["rank"] = 0
        document["tasks"]["poetry"] = document["tasks"]["docstring"]

    message = faults(three)
    assert "3 faults" in message
    assert all(place in message for place in ("sead", "tasks.codegen.adapter.rank", "tasks.poetry"))


def test_faults_of_guards_are_reported_beside_the_others(faults: Any) -> None:
    def guarded(document: dict[str, Any]) -> None:
        document["sead"] = 1
        document["benchmark"]["guards"] = ["humaneval", "mmlu", "humaneval"]
        del document["tasks"]["codegen"]

    message = faults(guarded)
    assert "4 faults" in message
    assert "benchmark.guards: humaneval: it needs the task codegen, which `tasks` does not have" in message
    assert "benchmark.guards: mmlu: no such guard; known: humaneval" in message
    assert "benchmark.guards: named more than once: humaneval" in message


@pytest.mark.parametrize("guards", ["humaneval", [1], None])
def test_guards_of_a_wrong_type_are_a_fault(faults: Any, guards: object) -> None:
    assert "benchmark.guards" in faults(lambda document: document["benchmark"].update(guards=guards))


def test_an_unknown_task_names_the_known_ones(faults: Any) -> None:
    message = faults(lambda document: document["tasks"].update(poetry=document["tasks"]["docstring"]))
    assert "tasks.poetry" in message and "codegen" in message


@pytest.mark.parametrize("revision", [{}, {"revision": "main"}, {"revision": "F" * 40}])
def test_a_hub_base_without_a_pinned_revision_is_refused(faults: Any, revision: dict[str, str]) -> None:
    message = faults(lambda document: document.update(base={"kind": "hub", "id": "owner/name", **revision}))
    assert "base.revision" in message and "run `bilora pin`" in message


COMMIT = "f" * 40


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"id": "models/smoke"}, "{kind: folder, path: models/smoke}"),
        ({"id": "owner/name", "revision": None, "dtype": "bfloat16"}, "revision: COMMIT, dtype: bfloat16}"),
        ({"id": "owner/name", "revision": COMMIT}, f"{{kind: hub, id: owner/name, revision: {COMMIT}}}"),
    ],
)
def test_a_base_without_a_kind_is_refused_with_the_new_entry_beside_other_faults(
    faults: Any, old: dict[str, Any], new: str
) -> None:
    message = faults(lambda document: document.update(base=old, sead=1))
    assert "2 faults" in message and "base: `id` without `kind` is no longer read; write base: " in message
    assert new in message


def test_a_base_of_an_unknown_kind_names_the_known_ones(faults: Any) -> None:
    message = faults(lambda document: document.update(base={"kind": "cloud", "path": "x"}))
    assert "base: " in message and "'folder'" in message


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"base": "models/smoke"}, "base: it must be a mapping"),
        ({"base": None}, "base: it must be a mapping"),
        ({"base": {"path": "models/smoke"}}, "base: `kind` is missing"),
        ({"base": {"id": None}}, "base: `kind` is missing"),
        ({"base": {"kind": "cloud"}}, "base: there is no kind 'cloud'; it is one of 'folder', 'hub'"),
        ({"base": {"kind": "folder", "id": "models/smoke"}}, "base.id: there is no such key"),
        ({"bases": []}, "bases: there is no such key"),
        ({"tasks": {}}, "tasks: it must not be empty"),
        ({"endpoints": {}}, "endpoints: it must be a list"),
    ],
    ids=str,
)
def test_faults_are_reported_in_plain_words(faults: Any, change: dict[str, Any], fault: str) -> None:
    assert f"\n  {fault}" in faults(lambda document: document.update(change))


def test_the_path_of_a_fault_does_not_contain_the_kind_of_base(faults: Any) -> None:
    assert "base.path: " in faults(lambda document: document.update(base={"kind": "folder"}))


def test_a_package_in_two_splits_is_refused(faults: Any) -> None:
    message = faults(lambda document: document["tasks"]["docstring"]["source"]["train"].append("rich"))
    assert "'rich' is named twice" in message


def test_a_gate_that_can_never_pass_is_refused(faults: Any) -> None:
    message = faults(lambda document: document["benchmark"].update(min_samples=10_000))
    assert "no verdict could pass" in message


def test_an_endpoint_may_not_take_a_task_s_name(faults: Any) -> None:
    endpoint = {"name": "codegen", "base_url": "http://127.0.0.1:1/v1", "model": "m"}
    assert "'codegen' is taken" in faults(lambda document: document.update(endpoints=[endpoint]))


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="bilora profile use"):
        read_params(tmp_path / "params.yaml")


def test_a_file_that_is_not_a_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("- a\n- b\n", encoding="utf-8")
    with pytest.raises(ParamsError, match="must be a mapping"):
        read_params(path)


@pytest.mark.parametrize(
    ("hub", "place"),
    [
        ({"kind": "hub", "id": "no-owner"}, "hub.id"),
        ({"kind": "hub", "id": "owner/name", "private": "yes"}, "hub.private"),
        ({"kind": "url", "url": "bucket/x"}, "hub.url"),
        ({"kind": "url"}, "hub.url"),
        ({"kind": "local", "path": "hub", "id": "owner/name"}, "hub.id"),
        ({"kind": "elsewhere"}, "hub"),
    ],
)
def test_an_invalid_hub_is_reported_with_its_key(faults: Any, hub: dict[str, Any], place: str) -> None:
    assert f"\n  {place}: " in faults(lambda document: document.update(hub=hub))


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("split", {"preference": "kto"}, "selects kto pairs, and no entry of training.phases trains on them"),
        ("training", {"phases": [SFT, KTO]}, "the phase kto has no rows: set split.preference to kto"),
        ("split", {"feedback": "all"}, "tasks.codegen.split.feedback"),
        ("split", {"preference": "ppo"}, "tasks.codegen.split.preference"),
        ("training", {"phases": [SFT, KTO | {"batch_size": 1}]}, "tasks.codegen.training.phases.1.batch_size"),
    ],
    ids=["rows alone", "numbers alone", "another mix", "another method", "one row"],
)
def test_training_on_ratings_needs_a_phase_and_its_rows(faults: Any, section: str, value: Any, message: str) -> None:
    assert message in faults(lambda document: document["tasks"]["codegen"][section].update(value))


@pytest.mark.parametrize(
    ("phases", "fault"),
    [
        ([], "tasks.codegen.training.phases: "),
        ([KTO], "the phase kto needs a trained adapter; put a phase such as sft before it"),
        ([SFT | {"kind": "ppo"}], "tasks.codegen.training.phases.0: "),
        ([SFT | {"stepz": 4}], "tasks.codegen.training.phases.0.stepz: "),
        ([SFT | {"evaluate_every": 5}], "no checkpoint would be evaluated"),
        ([SFT, {"kind": "kto"}], "tasks.codegen.training.phases.1.steps: "),
    ],
    ids=["none", "no first phase", "unknown kind", "unknown key", "no evaluation", "no steps"],
)
def test_phases_that_cannot_run_are_refused_with_their_key(faults: Any, phases: Any, fault: str) -> None:
    assert fault in faults(lambda document: document["tasks"]["codegen"]["training"].update(phases=phases))


def test_settings_of_a_phase_outside_phases_are_refused_with_the_new_entry(faults: Any) -> None:
    old = {"max_length": 512, "evaluate_samples": 4, "steps": 8, "batch_size": 4, "preference": {"steps": 5}}
    message = faults(lambda document: document["tasks"]["codegen"].update(training=old))
    assert "batch_size, steps belong to a phase: write `phases: [{kind: sft, batch_size: 4, steps: 8}]`" in message
    assert "preference is a phase: move its settings to a new entry of `phases`" in message and "1 fault" in message


def test_a_misplaced_setting_of_a_pair_phase_is_not_attributed_to_sft(faults: Any) -> None:
    assert "kind: sft" not in faults(lambda document: document["tasks"]["codegen"]["training"].update(beta=0.1))


def test_an_ambiguous_number_is_refused_in_an_old_section_too(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("max_length: 512\n", "max_length: 512\n      steps: 010\n", 1), encoding="utf-8")
    with pytest.raises(ParamsError, match="steps: 010"):
        read_params(path)


def test_params_are_read_without_the_libraries_that_train() -> None:
    heavy = ("torch", "transformers", "trl", "datasets", "peft")
    code = f"import bilora.params, sys; sys.exit(bool(set({heavy}) & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
