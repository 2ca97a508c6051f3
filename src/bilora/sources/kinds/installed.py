"""The kind `installed`: functions and docstrings of installed packages, which are read but never imported."""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from bilora.plugins import SourceSettings
from bilora.protocols import Progress, no_progress
from bilora.records import Row, Split
from bilora.rows import Forms
from bilora.sources.packages import Module, is_generated, package_modules, read_module
from bilora.sources.source import SourceKind
from bilora.storage import sha256_bytes
from bilora.yaml_settings import Count


class InstalledSettings(SourceSettings):
    """Functions and docstrings of installed packages. A package belongs to one split."""

    kind: Literal["installed"]
    train: list[str] = Field(min_length=1, description="packages of the training split")
    validation: list[str] = Field(min_length=1, description="packages of the validation split")
    test: list[str] = Field(min_length=1, description="packages of the test split")
    limit: Count | None = Field(default=None, description="rows per package, so that a large one does not dominate")

    @model_validator(mode="after")
    def _disjoint(self) -> InstalledSettings:
        seen: set[str] = set()
        for name in (*self.train, *self.validation, *self.test):
            if name in seen:
                raise ValueError(f"package {name!r} is named twice; a package belongs to one split")
            seen.add(name)
        return self


class Installed:
    """Reads packages in the order of the settings, files in sorted order, and functions in file order."""

    def __init__(self, settings: InstalledSettings, *, workers: int = 2) -> None:
        self._settings = settings
        self._workers = workers

    def rows(self, *, progress: Progress = no_progress) -> Iterator[Row]:
        """Yield one row per documented function.

        Raises:
            BadData: a named package is not installed.
        """
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        lists: dict[Split, list[str]] = {
            "train": self._settings.train,
            "validation": self._settings.validation,
            "test": self._settings.test,
        }
        packages = [package_modules(name, split) for split, names in lists.items() for name in names]
        spawn = get_context("spawn")
        with ProcessPoolExecutor(max_workers=self._workers, mp_context=spawn) as pool:
            row_lists = pool.map(function_rows, [module for files in packages for module in files], chunksize=16)
            for files in packages:
                rows = [row for _ in files for row in next(row_lists)]
                for row in self._sampled(rows):
                    progress(1)
                    yield row

    def _sampled(self, rows: list[dict[str, str]]) -> list[dict[str, str]]:
        """Return at most `limit` rows, sampled from the whole package by the hash of their source."""
        if self._settings.limit is None or len(rows) <= self._settings.limit:
            return rows
        drawn = sorted(rows, key=lambda row: sha256_bytes(row["source"].encode()))[: self._settings.limit]
        sources = {row["source"] for row in drawn}
        return [row for row in rows if row["source"] in sources]


def function_rows(module: Module) -> list[dict[str, str]]:
    """Return the documented functions of one file as rows; a file that does not parse has none."""
    text = read_module(module)
    if text is None or is_generated(text):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in packages are not worth a warning
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return []
    lines = text.split("\n")
    return [
        {
            "code": textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])),
            "docstring": docstring,
            "func_name": node.name,
            "package": module.package,
            "version": module.version,
            "licence": module.licence,
            "source": f"installed:{module.package}=={module.version}:{module.relative}:{node.lineno}",
            "group": module.package,
            "split": module.split,
        }
        for node in _definitions(tree.body)
        if (docstring := ast.get_docstring(node, clean=False))
    ]


def _definitions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield functions and methods, except those inside another function."""
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node
            case ast.ClassDef():
                yield from _definitions(node.body)
            case ast.If() | ast.Try():
                yield from _definitions([*node.body, *node.orelse])


def _build(settings: InstalledSettings, *, seed: int, forms: Forms, root: Path) -> Installed:
    """Return the source of the packages."""
    return Installed(settings)


SOURCE = SourceKind(InstalledSettings, _build)
