"""Each DVC stage depends on every module that it imports, so that a change of one of them runs the stage again."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from import_graph import ImportGraph, UnreadableImport

ROOT = Path(__file__).resolve().parents[2]
TASK = "bilora.tasks.${key}"

ENTRIES: dict[str, Sequence[str]] = {
    "data-download": ("bilora.data.download", "bilora.sources", TASK),
    "data-process": ("bilora.data.process", "bilora.sandbox", "bilora.guards", TASK),
    "data-split": ("bilora.data.split", "bilora.data.ratings", "bilora.guards", TASK),
    "train": (
        "bilora.training", "bilora.data.training_rows", "bilora.evaluation.validation", "bilora.bases",
        "bilora.inference.torch", "bilora.sandbox", TASK,
    ),
    "evaluate": (
        "bilora.evaluation.run", "bilora.bases", "bilora.inference.torch", "bilora.inference.endpoint",
        "bilora.metrics", "bilora.sandbox", "bilora.guards", TASK,
    ),
    "benchmark": ("bilora.evaluation.verdicts", "bilora.evaluation.report", "bilora.results", "bilora.tasks"),
    "push-adapters": ("bilora.publishing.push", "bilora.publishing.bundle", "bilora.publishing.promote", "bilora.hub"),
}  # fmt: skip
"""The modules that do a stage's work; of a package every module counts.

The imports of `bilora.cli` and of `Workspace` are not followed: they only parse, print and build objects. The modules
of the objects that they build (a source, a sandbox, an engine) are listed here instead.
"""

WITHOUT_EFFECT = {
    "bilora": "the public names, each imported when it is first used",
    "bilora.api_keys": "a key gives access to a server and does not change its answers",
    "bilora.yaml_settings": "reads params.yaml, whose values a stage names under `params`",
    "bilora.errors": "the messages of failures",
    "bilora.layout": "where the files of a checkout are",
    "bilora.locks": "one process at a time per folder",
    "bilora.network": "the messages of failed connections",
    "bilora.external_services": "the addresses of servers and hubs, which a stage names under `params`",
    "bilora.protocols": "signatures without bodies",
    "bilora.redaction": "hides keys in messages",
    "bilora.system_errors": "the messages of the operating system's refusals",
    "bilora.tracking.provenance": "machine and commit in a run record",
    "bilora.tracking.runs": "the paths of a run's record and checkpoints",
}
"""Modules that cannot change a stage's output, each with the reason; they and their imports need no dependency."""

UNUSED: dict[str, tuple[Sequence[str], str]] = {
    "data-download": (
        ("bilora.extraction", "bilora.metrics", "bilora.requests", "bilora.sandbox"),
        "it reads only `forms` of the task",
    ),
    "data-process": (("bilora.metrics", "bilora.requests"), "it sends no request to a model and scores no answer"),
    "data-split": (
        ("bilora.metrics", "bilora.requests", "bilora.sandbox"),
        "it sends no request to a model, scores no answer and runs no program",
    ),
    "train": (
        ("bilora.data.drops", "bilora.data.similarity", "bilora.data_reports"),
        "data-split has assigned the ratings already",
    ),
    "benchmark": (("bilora.sandbox",), "it runs no program"),
}
"""Modules and packages that a stage imports, mostly through its task, but does not use, and the reason."""


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml, for one task if it runs per task: its dependencies and its outputs."""

    name: str
    task: str | None
    deps: list[str]
    outs: list[str]

    @property
    def label(self) -> str:
        return f"{self.name}@{self.task}" if self.task else self.name


def read_stages(root: Path = ROOT) -> Iterator[Stage]:
    """Yield every stage of dvc.yaml; a stage that runs per task once per task of params.yaml."""
    tasks = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))["tasks"]
    for name, entry in yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"].items():
        for task in tasks if "foreach" in entry else [None]:
            stage = entry.get("do", entry)
            outs = [path for kind in ("outs", "metrics", "plots") for path in _paths(stage.get(kind, []), task)]
            yield Stage(name, task, _paths(stage["deps"], task), outs)


def _paths(entries: list[str | dict[str, object]], task: str | None) -> list[str]:
    """Return the paths in a stage's list for one task; an entry may be a path with options."""
    paths = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
    return [path.replace("${key}", task or "") for path in paths]


def required(stage: Stage, graph: ImportGraph) -> set[str]:
    """Return the modules that can change the stage's outputs."""
    entries = [entry.replace("${key}", stage.task or "") for entry in ENTRIES[stage.name]]
    unused, _ = UNUSED.get(stage.name, ((), ""))
    ignored = [*WITHOUT_EFFECT, *(module for package in unused for module in graph.members(package))]
    return graph.closure([module for entry in entries for module in graph.members(entry)], without=ignored)


def missing(root: Path = ROOT) -> list[str]:
    """Return the missing dependencies: stage, file, and the modules that import it."""
    graph, faults = ImportGraph(root / "src"), []
    for stage in read_stages(root):
        modules = required(stage, graph)
        for module in sorted(modules):
            file = graph.file(module)
            if (root / file).read_text(encoding="utf-8").strip() and not _covered(file, stage.deps):
                importers = sorted(other for other in modules if module in graph.edges[other])
                faults.append(f"{stage.label}: {file} (imported by {', '.join(importers[:3]) or 'the stage itself'})")
    return faults


def _covered(file: str, deps: Sequence[str]) -> bool:
    return any(file == dep or file.startswith(f"{dep}/") for dep in deps)


def test_every_stage_depends_on_all_that_it_imports() -> None:
    faults = missing()
    assert not faults, "add to `deps` in dvc.yaml, or to WITHOUT_EFFECT in this file:\n" + "\n".join(faults)


def test_every_stage_has_its_entry_modules_listed() -> None:
    graph = ImportGraph(ROOT / "src")
    assert list(ENTRIES) == list(dict.fromkeys(stage.name for stage in read_stages()))
    for stage in read_stages():
        for entry in ENTRIES[stage.name]:
            assert graph.members(entry.replace("${key}", stage.task or "")), f"{stage.label}: no module {entry}"


def test_no_stage_depends_on_source_that_it_does_not_import() -> None:
    graph, needed, declared = (
        ImportGraph(ROOT / "src"),
        defaultdict[str, set[str]](set),
        defaultdict[str, set[str]](set),
    )
    for stage in read_stages():
        declared[stage.name] |= {dep for dep in stage.deps if dep.startswith("src/")}
        needed[stage.name] |= {graph.file(module) for module in required(stage, graph)}
    faults = [
        f"{name}: {dep}"
        for name, deps in declared.items()
        for dep in sorted(deps)
        if not any(_covered(file, [dep]) for file in needed[name])
    ]
    assert not faults, "remove from `deps` in dvc.yaml:\n" + "\n".join(faults)


def test_every_module_without_effect_is_one_that_a_stage_imports() -> None:
    graph = ImportGraph(ROOT / "src")
    imported = set[str]()
    for stage in read_stages():
        modules = required(stage, graph)
        imported |= {target for module in modules for target in graph.edges[module]} | {"bilora"}
    assert set(WITHOUT_EFFECT) <= imported, f"unused: {', '.join(sorted(set(WITHOUT_EFFECT) - imported))}"


def test_stages_run_in_the_order_of_the_file_and_none_depends_on_what_it_writes() -> None:
    stages = list(read_stages())
    order = list(ENTRIES)
    for stage in stages:
        later = [out for other in stages if order.index(other.name) >= order.index(stage.name) for out in other.outs]
        faults = [dep for dep in stage.deps for out in later if _covered(out, [dep]) or _covered(dep, [out])]
        assert not faults, f"{stage.label} depends on outputs of a later stage: {', '.join(faults)}"


@pytest.fixture
def source_copy(tmp_path: Path) -> Path:
    """A copy of the source, of dvc.yaml and of params.yaml, with a new module `added`."""
    shutil.copytree(ROOT / "src" / "bilora", tmp_path / "src" / "bilora", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "src" / "bilora" / "added.py").write_text("ADDED = 1\n", encoding="utf-8")
    return tmp_path


def append(root: Path, module: str, text: str) -> None:
    """Add lines to the end of a module."""
    path = root / "src" / f"{module.replace('.', '/')}.py"
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{text}\n", encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "import bilora.added",
        "from bilora import added",
        "from bilora.added import ADDED",
        "def late() -> None:\n    from bilora.added import ADDED",
        "if not TYPE_CHECKING:\n    import bilora.added",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import bilora.added",
        'import_module("bilora.added")',
    ],
)
def test_a_new_import_anywhere_in_a_module_is_reported(source_copy: Path, text: str) -> None:
    before = missing(source_copy)
    append(source_copy, "bilora.training.run", text)
    added = set(missing(source_copy)) - set(before)
    assert added == {
        f"train@{task}: src/bilora/added.py (imported by bilora.training.run)" for task in ("codegen", "docstring")
    }


def test_a_new_relative_import_is_reported(source_copy: Path) -> None:
    before = missing(source_copy)
    append(source_copy, "bilora.evaluation.gate", "from ..added import ADDED")
    added = set(missing(source_copy)) - set(before)
    assert added == {"benchmark: src/bilora/added.py (imported by bilora.evaluation.gate)"}


def test_an_import_only_for_the_type_checker_needs_no_dependency(source_copy: Path) -> None:
    before = missing(source_copy)
    append(source_copy, "bilora.training.run", "if TYPE_CHECKING:\n    from bilora.added import ADDED")
    assert missing(source_copy) == before


def test_an_import_of_one_task_concerns_only_that_task(source_copy: Path) -> None:
    before = missing(source_copy)
    append(source_copy, "bilora.tasks.docstring", "import bilora.added")
    stages = {fault.partition(":")[0] for fault in set(missing(source_copy)) - set(before)}
    per_task = {f"{name}@docstring" for name in ("data-download", "data-process", "data-split", "train", "evaluate")}
    assert stages == per_task | {"benchmark"}


@pytest.mark.parametrize(
    ("lines", "counts"),
    [
        ('load_kind("bilora.added_kinds", name, "ADDED")', True),
        ('ADDED_KINDS = "bilora.added_kinds"\nload_kind(ADDED_KINDS, name, "ADDED")', True),
        ('from bilora.added import ADDED_KINDS\nload_kind(ADDED_KINDS, name, "ADDED")', True),
        ('load_kind("bilora.added_kinds", name, "ADDED").settings', False),
        ('settings_union("bilora.added_kinds", "ADDED")', False),
    ],
)
def test_a_module_that_is_loaded_by_its_kind_counts_as_imported(source_copy: Path, lines: str, counts: bool) -> None:
    folder = source_copy / "src" / "bilora" / "added_kinds"
    folder.mkdir()
    (folder / "one.py").write_text("ADDED = 1\n", encoding="utf-8")
    append(source_copy, "bilora.added", 'ADDED_KINDS = "bilora.added_kinds"')
    append(source_copy, "bilora.training.run", lines)
    added = "train@codegen: src/bilora/added_kinds/one.py (imported by bilora.training.run)"
    assert (added in missing(source_copy)) == counts


def test_a_package_that_is_only_loaded_counts_without_its_functions(source_copy: Path) -> None:
    folder = source_copy / "src" / "bilora" / "added_package"
    folder.mkdir()
    (folder / "one.py").write_text("ONE = 1\n", encoding="utf-8")
    (folder / "__init__.py").write_text("def find() -> None:\n    import bilora.added\n", encoding="utf-8")
    append(source_copy, "bilora.training.run", "from bilora.added_package.one import ONE")
    files = {fault.partition(" (")[0] for fault in missing(source_copy) if "added" in fault and "codegen" in fault}
    assert files == {f"train@codegen: src/bilora/added_package/{name}.py" for name in ("__init__", "one")}
    append(source_copy, "bilora.training.run", "from bilora.added_package import find")
    assert "train@codegen: src/bilora/added.py (imported by bilora.added_package)" in missing(source_copy)


def test_an_import_by_a_computed_name_is_refused(source_copy: Path) -> None:
    append(source_copy, "bilora.training.run", "import_module(f'bilora.{name}')")
    with pytest.raises(UnreadableImport, match=r"bilora\.training\.run:\d+: imports by a computed name"):
        missing(source_copy)
