"""`import bilora` in any directory: the public names, published bundles, the sandbox, comparisons."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.checkouts import ROOT

import bilora
from bilora.bases.compatibility import BaseMismatch
from bilora.errors import BadData, UnknownModel
from bilora.publishing.manifest import MANIFEST
from bilora.storage import dump_json, sha256_bytes

PROMPT = "def area(width, height):\n    return width * height\n"


def write_bundle(folder: Path, workspace: bilora.Workspace, *, base: Mapping[str, object] | None = None) -> Path:
    """Write a bundle of a workspace's adapters with their base; `base` adds to its manifest's entry."""
    files = {
        f"{name}/{path.name}": path.read_bytes()
        for name in workspace.params.tasks
        for path in workspace.adapter(name).iterdir()
        if path.is_file()
    }
    files |= {f"base/{path.name}": path.read_bytes() for path in workspace.base().folder().iterdir() if path.is_file()}
    sampling = {"max_tokens": 5, "temperature": 0.0, "frequency_penalty": 0.0}
    manifest = {
        "schema": 1,
        "base": {"id": workspace.base().id, "revision": None, "path": "base", **(base or {})},
        "adapters": {
            name: {"path": name, "sha256": "0" * 64, "verdict": None, "sampling": sampling}
            for name in workspace.params.tasks
        },
        "files": {name: sha256_bytes(data) for name, data in files.items()},
    }
    for name, data in {**files, MANIFEST: dump_json(manifest).encode()}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def workspace(adapted: Path) -> bilora.Workspace:
    return bilora.Workspace(str(adapted))


RECORDED = {"settings": {"kind": "folder", "path": "base", "dtype": "float32"}}


@pytest.fixture(scope="module")
def folder(workspace: bilora.Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), workspace, base=RECORDED)


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bilora.Bundle:
    return bilora.Bundle.open(folder, cache=tmp_path_factory.mktemp("cache"))


def test_the_import_is_quick_and_names_are_typed() -> None:
    program = "import bilora, sys; print(*(name in sys.modules for name in ('torch', 'pydantic', 'typer')))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).split() == ["False"] * 3
    assert (Path(bilora.__file__).parent / "py.typed").is_file()
    assert {name for name in dir(bilora) if getattr(bilora, name) is not None} == set(bilora.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Bundel'"):
        _ = bilora.Bundel


def test_a_bundle_answers_as_its_workspace_does(workspace: bilora.Workspace, bundle: bilora.Bundle) -> None:
    engine = workspace.load_engine({name: workspace.adapter(name) for name in bundle.adapters}, batch_size=4)
    for name in bundle.adapters:
        task, params = workspace.tasks[name], workspace.params.tasks[name]
        request = bilora.bundle._request(name, PROMPT, params.generation.sampling(seed=0), 0)
        assert request.messages == task.messages(task.make_prompt(PROMPT))
        expected = engine.generate(name, [request])[0].text
        assert bundle.generate(name, PROMPT, max_tokens=params.generation.max_new_tokens).text == expected


def test_sampling_parameters_default_to_the_measured_ones(bundle: bilora.Bundle) -> None:
    completion = bundle.generate("codegen", PROMPT)
    assert (completion.output_tokens, completion.finish) == (5, "length")
    two = bundle.generate_batch("codegen", [PROMPT, "half"], max_tokens=3)
    assert [item.output_tokens for item in two] == [3, 3] and completion.text.startswith(two[0].text)
    stream = bundle.stream("base", "text", max_tokens=4, temperature=1.0, seed=3)
    assert "".join(stream) == bundle.generate("base", "text", max_tokens=4, temperature=1.0, seed=3).text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"stop": "x"}, "stop"),
        ({"max_new_tokens": 5}, "max_new_tokens"),
    ],
)
def test_a_sampling_parameter_that_cannot_be_used_is_an_error(
    bundle: bilora.Bundle, options: Any, message: str
) -> None:
    with pytest.raises(BadData, match=f"sampling parameters: .*{message}"):
        bundle.generate("codegen", PROMPT, **options)


def test_an_unknown_model_and_an_empty_prompt_are_errors(bundle: bilora.Bundle) -> None:
    with pytest.raises(UnknownModel, match=r"nobody: .*base, codegen, docstring"):
        bundle.generate("nobody", PROMPT)
    with pytest.raises(BadData, match="prompt: it is empty"):
        bundle.generate("codegen", " \n")


def test_a_bundle_that_does_not_record_its_base_needs_it_named(workspace: bilora.Workspace, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", workspace)
    with pytest.raises(BadData, match=f"does not record how to open its base {workspace.base().id}; name it"):
        bilora.Bundle.open(folder, cache=tmp_path)
    base = {"kind": "folder", "path": str(folder / "base")}
    assert bilora.Bundle.open(folder, base=base, cache=tmp_path).base_id == workspace.base().id


def test_a_base_outside_the_bundle_is_refused(workspace: bilora.Workspace, tmp_path: Path) -> None:
    outside = write_bundle(tmp_path / "other", workspace) / "base"
    for path in (str(outside), "../other/base"):
        settings = {"settings": {"kind": "folder", "path": path}}
        folder = write_bundle(tmp_path / "bundle", workspace, base=settings)
        with pytest.raises(BadData, match="names a base outside the bundle"):
            bilora.Bundle.open(folder, cache=tmp_path)


def test_another_base_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in (folder / "base").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}), encoding="utf-8")
    with pytest.raises((BadData, BaseMismatch), match="another version"):
        bilora.Bundle.open(folder, base={"kind": "folder", "path": str(other)}, cache=tmp_path)
    with pytest.raises(BadData, match=r"base: .*kind"):
        bilora.Bundle.open(folder, base={"kind": "floppy"}, cache=tmp_path)


def test_a_damaged_bundle_and_a_folder_that_is_none_are_refused(workspace: bilora.Workspace, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", workspace, base=RECORDED)
    weights = folder / "codegen" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(BadData, match="does not match the bundle's manifest"):
        bilora.Bundle.open(folder, cache=tmp_path)
    with pytest.raises(BadData, match="is not a bundle"):
        bilora.Bundle.open(tmp_path, cache=tmp_path)


def test_the_sandbox_takes_source_and_tests_as_text() -> None:
    with bilora.Sandbox() as sandbox:
        program = "def double(x):\n    return 2 * x\n"
        outcome = sandbox.run(program, "assert double(2) == 4\nassert double(3) == 7\n")
        assert (outcome.status, outcome.results) == ("failed", (True, False))
        assert sandbox.run(program, ["assert double(2) == 4"]).status == "passed"
        assert sandbox.run("n = 1", "assert double == 1", setup="double = n").status == "passed"
        assert sandbox.run(program).status == "untested"
        with pytest.raises(BadData, match=r"tests:1: `double\(2\) == 4` asserts nothing"):
            sandbox.run(program, "double(2) == 4")


def write_baseline(path: Path, scores: list[float]) -> Path:
    """Write a baseline with one adapter of these scores."""
    entry = {
        "adapter_sha256": "0" * 64,
        "key": "1" * 64,
        "metric": "bleu",
        "scores": {"bleu": {f"sample-{number}": score for number, score in enumerate(scores)}},
    }
    tasks = {"docstring": {"current": entry, "champion": entry}}
    path.write_text(json.dumps({"schema": 3, "tasks": tasks}), encoding="utf-8")
    return path


def test_compare_needs_no_workspace(tmp_path: Path) -> None:
    old = write_baseline(tmp_path / "old.json", [0.1, 0.2, 0.3, 0.4] * 30)
    new = write_baseline(tmp_path / "new.json", [0.2, 0.3, 0.4, 0.5] * 30)
    small = write_baseline(tmp_path / "few.json", [0.2, 0.3] * 30)
    assert [(item.task, item.outcome) for item in bilora.compare(new, str(old))] == [("docstring", "pass")]
    assert [item.outcome for item in bilora.compare(old, new)] == ["regressed"]
    (short,) = bilora.compare(small, old)
    assert short.outcome == "inconclusive" and "60 common samples" in short.reason
    with pytest.raises(BadData, match=r"neither a results\.json nor a baseline\.json"):
        bilora.compare(old, ROOT / "benchmarking" / "eval_dataset.json")
