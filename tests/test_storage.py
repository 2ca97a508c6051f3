"""Writes are atomic, and faults have file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from bilora.errors import BadData
from bilora.records import Message
from bilora.storage import (
    atomic,
    dump_json,
    read_json,
    read_records,
    read_rows,
    sha256_tree,
    write_json,
    write_rows,
)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_rows_that_fail_midway_leave_nothing(tmp_path: Path) -> None:
    def rows():  # type: ignore[no-untyped-def]
        yield {"a": 1}
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        write_rows(tmp_path / "rows.jsonl", rows())
    assert list(tmp_path.iterdir()) == []


def test_equal_values_are_equal_bytes() -> None:
    assert dump_json({"b": 1, "a": [2]}) == dump_json({"a": [2], "b": 1})


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError):
        dump_json({"value": float("nan")})


def test_a_malformed_row_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n', encoding="utf-8")
    with pytest.raises(BadData, match=r"rows\.jsonl:3: not JSON"):
        list(read_rows(path))


def test_an_invalid_record_names_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"role": "user", "content": "x"}\n{"role": "robot", "content": "x"}\n', encoding="utf-8")
    with pytest.raises(BadData, match=r"rows\.jsonl:2: not a Message: role"):
        list(read_records(path, Message))


def test_a_lone_surrogate_does_not_stop_a_write(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"text": "a\ud800b"}])
    assert [row for _, row in read_rows(tmp_path / "rows.jsonl")] == [{"text": "a\ud800b"}]


def test_a_tree_s_hash_sees_every_file(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_text("1")
    before = sha256_tree(tmp_path)
    (tmp_path / "b" / "c").write_text("2")
    assert list(before) == ["b/c"] and sha256_tree(tmp_path) != before
