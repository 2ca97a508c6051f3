"""Every module of sources/kinds is a kind that params.yaml knows by the module's name, and is light to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from bilora.plugin_settings import AnySource
from bilora.plugins import SOURCE_KINDS, SourceSettings, kind_names, load_kind
from bilora.sources.source import build_source

ENTRIES: dict[str, dict[str, Any]] = {
    "exercises": {"compositions": {"one": 1}},
    "files": {"paths": ["rows.jsonl"], "licence": "MIT"},
    "hub": {"id": "owner/name", "revision": "0" * 40, "splits": {"train": "train"}, "licence": "MIT"},
    "installed": {"train": ["a"], "validation": ["b"], "test": ["c"]},
}
HEAVY = ("datasets", "pyarrow", "torch", "transformers", "huggingface_hub", "multiprocessing", "bilora.params")


@pytest.mark.parametrize("name", kind_names(SOURCE_KINDS))
def test_a_kind_is_named_by_its_module_and_builds_its_source(name: str) -> None:
    kind = load_kind(SOURCE_KINDS, name, "SOURCE")
    assert get_args(kind.settings.model_fields["kind"].annotation) == (name,)
    settings = TypeAdapter[SourceSettings](AnySource).validate_python({"kind": name, **ENTRIES[name]})
    assert type(settings) is kind.settings
    source = build_source(settings, seed=1, forms=(), root=Path("elsewhere"))
    assert callable(source.rows)


def test_an_unknown_kind_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(ValidationError, match=", ".join(f"'{name}'" for name in kind_names(SOURCE_KINDS))):
        TypeAdapter[SourceSettings](AnySource).validate_python({"kind": "postgres"})


def test_all_kinds_together_import_no_large_library() -> None:
    names = [f"{SOURCE_KINDS}.{name}" for name in kind_names(SOURCE_KINDS)]
    code = f"import {', '.join(names)}, sys; print(*(set({HEAVY!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_importing_the_kinds_reads_no_data_file() -> None:
    code = (
        f"import {SOURCE_KINDS}.exercises\n"
        "from bilora.sources.exercises.operations import exercise_vocabulary\n"
        "from bilora.sources.exercises.names import vocabulary\n"
        "print(exercise_vocabulary.cache_info().misses, vocabulary.cache_info().misses)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0"]
