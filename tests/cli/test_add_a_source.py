"""docs/add-a-source.md works as written: one file and one entry add a kind of source."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.checkouts import Shell, change_task, shell_in, smoke_checkout
from support.guide_examples import guide_block

from bilora.data_reports import SplitReport
from bilora.sources.kinds.installed import function_rows
from bilora.sources.packages import package_modules
from bilora.storage import read_record, read_rows

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("click", "packaging", "pluggy", "tomlkit", "voluptuous")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace with the guide's file and entry, and the database of the entry."""
    folder = smoke_checkout(tmp_path_factory.mktemp("checkout"))
    (folder / "src/bilora/sources/kinds/sqlite.py").write_text(guide_block("add-a-source", "python"), encoding="utf-8")
    entry = yaml.safe_load(guide_block("add-a-source", "yaml"))["tasks"]["docstring"]
    change_task(folder, "docstring", lambda task: task.update(entry))
    rows = [row for name in PACKAGES for module in package_modules(name, "train") for row in function_rows(module)]
    with closing(sqlite3.connect(folder / "functions.sqlite3")) as database, database:
        database.execute("CREATE TABLE functions (id INTEGER PRIMARY KEY, code TEXT, docstring TEXT, repo TEXT)")
        database.executemany(
            "INSERT INTO functions (code, docstring, repo) VALUES (?, ?, ?)",
            [(row["code"], row["docstring"], row["source"].rpartition(":")[0]) for row in rows],
        )
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Shell:
    return shell_in(folder)


@pytest.fixture(scope="module")
def rows(folder: Path, run: Shell) -> list[dict[str, Any]]:
    run("bilora", "data-download", "docstring")
    return [row for _, row in read_rows(folder / "data/raw/docstring.jsonl")]


def test_rows_have_labels_and_no_path_of_this_machine(folder: Path, rows: list[dict[str, Any]]) -> None:
    assert len(rows) > 300
    first = rows[0]
    assert first["source"] == "functions.sqlite3:1" and first["origin"] == "functions.sqlite3, row 1"
    assert first["group"].startswith("installed:click") and first["licence"] == "MIT"
    assert str(folder) not in str(rows)


def test_its_rows_are_processed_and_split(folder: Path, run: Shell, rows: list[dict[str, Any]]) -> None:
    run("bilora", "data-process", "docstring")
    run("bilora", "data-split", "docstring")
    report = read_record(folder / "data/reports/split/docstring.json", SplitReport)
    assert {name: counts.rows for name, counts in report.splits.items()} == {"train": 120, "validation": 8, "test": 24}
    assert set(report.splits["test"].group) <= {row["group"] for row in rows}


def test_an_error_in_the_entry_names_its_location(folder: Path, run: Shell) -> None:
    params = (folder / "params.yaml").read_bytes()
    change_task(folder, "docstring", lambda task: task["source"].update(query=5, limit=3))
    done = run("bilora", "data-download", "docstring", check=False)
    (folder / "params.yaml").write_bytes(params)
    assert done.returncode == 2
    assert "tasks.docstring.source.query: 5 is" in done.stderr
    assert "tasks.docstring.source.limit: there is no such key" in done.stderr


def test_an_unknown_kind_is_refused_with_the_names_of_all(folder: Path, run: Shell) -> None:
    params = (folder / "params.yaml").read_bytes()
    change_task(folder, "docstring", lambda task: task["source"].update(kind="postgres"))
    done = run("bilora", "data-download", "docstring", check=False)
    (folder / "params.yaml").write_bytes(params)
    assert done.returncode == 2
    assert "'exercises', 'files', 'hub', 'installed', 'sqlite'" in done.stderr


def test_a_query_that_fails_writes_nothing(folder: Path, run: Shell, rows: list[dict[str, Any]]) -> None:
    params, raw = (folder / "params.yaml").read_bytes(), (folder / "data/raw/docstring.jsonl").read_bytes()
    change_task(folder, "docstring", lambda task: task["source"].update(query="SELECT code FROM nowhere"))
    done = run("bilora", "data-download", "docstring", check=False)
    (folder / "params.yaml").write_bytes(params)
    assert done.returncode == 2 and "the query fails (no such table: nowhere)" in done.stderr
    assert (folder / "data/raw/docstring.jsonl").read_bytes() == raw
