"""A workspace reads and writes only below its root, from any current directory."""

from __future__ import annotations

import inspect
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from support.checkouts import ROOT, change_task, shell_in, smoke_checkout

from bilora.bases.base import open_base
from bilora.bases.kinds.hub import HubSettings
from bilora.errors import BadData, Unreachable
from bilora.layout import Layout
from bilora.plugins import SOURCE_KINDS, kind_names
from bilora.sources.kinds.hub import HubDataset, HubDatasetSettings
from bilora.tracking import provenance
from bilora.workspace import Workspace

COMMIT = "f" * 40
SOURCES = {
    "exercises": {"kind": "exercises", "compositions": {"one": 4}},
    "files": {"kind": "files", "paths": ["rows/a.jsonl"], "licence": "MIT"},
    "hub": {"kind": "hub", "id": "rows/a", "revision": COMMIT, "splits": {"train": "train"}, "licence": "MIT"},
    "installed": {"kind": "installed", "train": ["click"], "validation": ["pluggy"], "test": ["packaging"], "limit": 4},
}
EVENTS = ("open", "sqlite3.connect", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
watched: list[Path] = []
"""The current directory while nothing may be touched in it."""
touched: list[str] = []
"""What was touched there nevertheless."""


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if watched and event in EVENTS and isinstance(arguments[0], str | bytes | os.PathLike):
        path = Path(os.fsdecode(arguments[0]))
        if path.name != "<unknown>" and path.resolve().is_relative_to(watched[0]):  # the name of a parsed text
            touched.append(f"{event} {path}")


@pytest.fixture(scope="module", autouse=True)
def watch() -> None:
    """Install the hook; it cannot be removed, and does nothing while no directory is watched."""
    sys.addaudithook(_watch)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory, of which nothing is read and in which nothing is written."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if Path(place or ".").resolve() != folder])
    touched.clear()
    watched.append(folder)
    yield folder
    watched.clear()
    assert not list(folder.iterdir())
    assert not touched


@pytest.fixture(params=["absolute", "relative"])
def workspace(request: pytest.FixtureRequest, adapted: Path, elsewhere: Path) -> Workspace:
    """The checkout with adapters, from another current directory."""
    return Workspace(adapted if request.param == "absolute" else Path(os.path.relpath(adapted, elsewhere)))


def test_every_path_is_below_the_root() -> None:
    root = Path("elsewhere")
    layout = Layout(root)
    for name, member in vars(Layout).items():
        if isinstance(member, property):
            path = getattr(layout, name)
        elif inspect.isfunction(member) and not name.startswith("_"):
            path = member(layout, *["part"] * (len(inspect.signature(member).parameters) - 1))
        else:
            continue
        assert path.is_relative_to(root) and path != root, name


def test_params_tasks_and_curated_samples_are_read_below_the_root(workspace: Workspace) -> None:
    assert workspace.params.profile == "smoke" and sorted(workspace.tasks) == ["codegen", "docstring"]
    assert all(workspace.curated_samples(task) for task in workspace.tasks.values())
    assert workspace.read_params(workspace.profiles / "smollm2.yaml").profile == "smollm2"
    assert len(workspace.lock_sha256()) == 64 and not workspace.read_rated_pairs().kto


def test_the_base_is_read_below_the_root_and_named_by_its_entry(workspace: Workspace) -> None:
    base = workspace.base()
    assert base.id == "models/smoke" and base.folder() == workspace.root / "models" / "smoke"
    assert base.tokenizer().chat_template and base.config().model_type == "phi3" and base.load(training=True).model


def test_adapters_are_compatible_from_any_current_directory(workspace: Workspace) -> None:
    assert dict(workspace.compatible_adapters()) == {task: workspace.adapter(task) for task in workspace.tasks}
    assert "codegen" in workspace.adapters_version(None)


@pytest.mark.parametrize("kind", kind_names(SOURCE_KINDS))
def test_a_source_of_any_kind_reads_below_the_root(
    kind: str, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    root = smoke_checkout(tmp_path / "checkout")
    change_task(root, "docstring", lambda task: task.update(source=SOURCES[kind]))
    (root / "rows").mkdir()
    (root / "rows" / "a.jsonl").write_text('{"code": "def f():\\n    return 1", "docstring": "Return 1."}\n')
    rows = Workspace(root).source("docstring").rows()
    if kind == "hub":
        with pytest.raises(Unreachable):
            list(rows)
    else:
        assert next(rows)


@pytest.mark.parametrize("kind", ["base", "source"])
def test_a_folder_in_the_current_directory_is_not_read_instead_of_the_hub(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "models" / "smoke", tmp_path / "rows" / "a")
    (tmp_path / "rows" / "a" / "train.jsonl").write_text('{"code": "def f(): pass"}')
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if kind == "base":
        settings = HubSettings(kind="hub", id="rows/a", revision=COMMIT)
        with pytest.raises(Unreachable, match="rows/a"):
            open_base(settings, ROOT).tokenizer()
    else:
        entry = HubDatasetSettings.model_validate(SOURCES["hub"])
        with pytest.raises(BadData, match="rows/a: is a folder in the current directory"):
            list(HubDataset(entry).rows())


def test_hubs_caches_and_judges_are_below_the_root(tmp_path: Path, elsewhere: Path) -> None:
    root = smoke_checkout(tmp_path / "checkout")
    params = root / "params.yaml"
    endpoint = {"name": "other", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
    document = yaml.safe_load(params.read_text(encoding="utf-8"))
    params.write_text(yaml.safe_dump(document | {"endpoints": [endpoint], "judge": endpoint | {"name": "judge"}}))
    workspace = Workspace(Path(os.path.relpath(root)))
    hub, public = workspace.hub_to_publish()
    hub.publish({"manifest.json": b"{}"}, message="a version")
    assert public is None and list(workspace.hub.iterdir())
    engines, skipped = workspace.endpoints({})
    judge, reason = workspace.judge({})
    assert engines and judge and not skipped and not reason
    assert "has not been checked" in " ".join(workspace.judge_remarks())


def test_a_run_record_names_the_commit_of_the_checkout(adapted: Path, elsewhere: Path) -> None:
    assert provenance.commit(adapted) == shell_in(adapted)("git", "rev-parse", "HEAD").stdout.strip()
    assert provenance.commit(elsewhere) == "unknown" and not provenance.dirty_diff_sha256(elsewhere)
