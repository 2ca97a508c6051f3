from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from real_data import real_file

from bilora.errors import BadData
from bilora.params import FilesSource
from bilora.sources.files import Files

ROWS = [{"text": "a", "n": 1}, {"text": "b", "n": 2}]


def files(*paths: Path, **rest: Any) -> list[dict[str, Any]]:
    params = FilesSource(kind="files", paths=[str(path) for path in paths], licence="MIT", **rest)
    return [dict(row) for row in Files(params).rows()]


def write(folder: Path, name: str) -> Path:
    path = folder / name
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    match name:
        case "rows.jsonl":
            path.write_bytes(lines)
        case "rows.jsonl.gz":
            path.write_bytes(gzip.compress(lines))
        case "rows.json":
            path.write_text(json.dumps(ROWS))
        case "rows.parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    assert files(write(tmp_path, name)) == [
        {"source": "rows:1", "group": "1", "text": "a", "n": 1, "licence": "MIT"},
        {"source": "rows:2", "group": "2", "text": "b", "n": 2, "licence": "MIT"},
    ]


def test_files_follow_each_other_up_to_the_limit(tmp_path: Path) -> None:
    paths = write(tmp_path, "rows.jsonl"), write(tmp_path, "rows.json")
    assert [row["n"] for row in files(*paths, limit=3)] == [1, 2, 1]


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("bad.jsonl", b'{"a": 1}\n{"a": \n', "bad.jsonl:2"),
        ("bad.jsonl", b'{"a": 1}\n[1]\n', "bad.jsonl:2"),
        ("bad.jsonl.gz", gzip.compress(b'{"a": 1}\nnot json\n', mtime=0), "bad.jsonl.gz:2"),
        ("bad.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9, mtime=0)[:-6], "bad.jsonl.gz"),
        ("bad.jsonl.gz", b"no gzip", "bad.jsonl.gz"),
        ("bad.json", b'{"a": 1}', "must hold a JSON list"),
        ("bad.json", b'[{"a": 1}, 2]', "entry 2"),
        ("bad.json", b"[", "bad.json:1"),
        ("bad.parquet", b"no parquet", "bad.parquet"),
        ("bad.csv", b"a,b\n", "cannot be read as data"),
    ],
)
def test_what_is_malformed_is_named(tmp_path: Path, name: str, content: bytes, place: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadData, match=place):
        files(tmp_path / name)


@pytest.mark.parametrize("name", ["no.jsonl", "no.json", "no.parquet"])
def test_an_absent_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadData, match=rf"{name}: the file does not exist"):
        files(tmp_path / name)


@pytest.mark.parametrize("task_id", ["7", None, True])
def test_mbpp_needs_task_numbers(tmp_path: Path, task_id: object) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"task_id": 1}\n' + json.dumps({"task_id": task_id}))
    with pytest.raises(BadData, match=r"m\.jsonl:2.*task_id"):
        files(path, splits="mbpp")


def test_mbpp_has_its_official_splits() -> None:
    rows = files(real_file("mbpp/mbpp.jsonl"), splits="mbpp")
    sizes = {name: sum(row["split"] == name for row in rows) for name in {row["split"] for row in rows}}
    assert sizes == {"prompt": 10, "test": 500, "validation": 90, "train": 374}


def test_a_row_speaks_for_itself() -> None:
    first = files(real_file("docstrings/permissive-pairs.jsonl.gz"), limit=1)[0]
    assert (first["group"], first["licence"]) == ("networkx/networkx", "BSD-3-Clause")
