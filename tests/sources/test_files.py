from __future__ import annotations

import datetime
import decimal
import errno
import gzip
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from support.shared_data import shared_file

from bilora.errors import BadData, Infrastructure
from bilora.rows import RowForm
from bilora.sources.json_entries import CHUNK_CHARS
from bilora.sources.kinds.files import Files, FilesSettings

ROWS = [{"text": "a", "n": 1}, {"text": "b", "n": 2}]


def files(*paths: Path, **settings: Any) -> list[dict[str, Any]]:
    params = FilesSettings(kind="files", paths=[str(path) for path in paths], licence="MIT", **settings)
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
    path = write(tmp_path, name)
    rows = files(path)
    places = [row.pop("origin") for row in rows]
    assert rows == [
        {"source": "rows:1", "group": f"{path}:1", "text": "a", "n": 1, "licence": "MIT"},
        {"source": "rows:2", "group": f"{path}:2", "text": "b", "n": 2, "licence": "MIT"},
    ]
    entry = ", entry {}" if name == "rows.json" else ""
    assert places == [f"{path}:{1 if entry else n}{entry.format(n)}" for n in (1, 2)]


def test_files_follow_each_other_up_to_the_limit(tmp_path: Path) -> None:
    paths = write(tmp_path, "rows.jsonl"), write(tmp_path, "rows.json")
    assert [row["n"] for row in files(*paths, limit=3)] == [1, 2, 1]


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("content", "rule", "place"),
    [
        (b'{"a": 1}\n{"a": \n', "not JSON", "{}:2"),
        (b'{"a": 1}\n\n[1]\n', "not a JSON object", "{}:3"),
        (b'[1]\n{"a": 1}\n', "not a JSON object", "{}:1"),
        (b'{"a": 1} x\n{"a": 1}\n', "not JSON", "{}:1"),
        (packed(b'{"a": 1}\nnot json\n'), "not JSON", "{}:2"),
        (b'[{"a": 1},\n 2]', "not a JSON object", "{}:2, entry 2"),
        (b"{'a': 2}\n{\"a\": 1}\n", "not JSON", "{}:1"),
        (b'{"a": 1}\n{"a": "\xfc"}\n', "not UTF-8", "{}:2"),
        (b'{"a": 1}\n' + b"[" * 100_000 + b"\n", "not JSON", "{}:2"),
        (b'{"a": 1}\nversion https://git-lfs\n', "not JSON", "{}:2"),
    ],
)
@pytest.mark.parametrize("name", ["odd.jsonl", "odd.json", "odd.jsonl.gz", "odd.txt"])
def test_a_line_or_entry_that_is_not_an_object_is_replaced_by_a_drop(
    tmp_path: Path, name: str, content: bytes, rule: str, place: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    rows = files(path)
    (refused,) = [row for row in rows if "drop" in row]
    assert (refused["drop"]["rule"], refused["origin"]) == (rule, place.format(path))
    assert [row["a"] for row in rows if "drop" not in row] == [1]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (packed(b""), "is empty"),
        (b"[ ]", "contains no rows"),
        (packed(b'{"a": 1}\n' * 9)[:-6], "not a whole gzip file"),
        (packed(b'{"a": 1}\n' * 99)[:20] + b"\0\0\0\0" + packed(b'{"a": 1}\n' * 99)[24:], "not a whole gzip file"),
        (packed(packed(b"{}")), "gunzip"),
        (b"no gzip", "odd.jsonl:1: cannot be read as data: not JSON"),
        (b"[", "odd.jsonl:1: cannot be read as data: not JSON"),
        (b'[{"a": 1},\n{"a": 2}', "odd.jsonl:2: cannot be read as data: the list does not end"),
        (b'[{"a": 1}\n\n{"a": 2}]', "odd.jsonl:3: cannot be read as data: a comma is missing"),
        (b'[{"a": 1},\n{"a": 2}]\n\n{"a": 3}', "odd.jsonl:4: cannot be read as data: the file continues"),
        (b'[{"a": 1},\n{"a": tru', "odd.jsonl:2: cannot be read as data: not JSON"),
        (b'[{"a": ' + b"[" * 99_999, "nested too deeply"),
        (b"PAR1 no parquet", "not a whole Parquet file"),
        (b"a,b\n1,2\n", "use JSON lines, a JSON list or Parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "git lfs pull"),
        (b"PK\x03\x04 zipped", "is a zip archive"),
        (packed(b"\0" * 257 + b"ustar" + b"\0" * 250), "is a tar archive"),
        (b"<!DOCTYPE html>", "is a web page"),
        (b"\x80\x04\x95pickled", "is a pickle"),
        (b'{"a": {"0": 1}, "b": {"0": 2}}', "contains columns, not a list of rows"),
        (b'{\n "a": {"0": 1},\n "b": {"0": 2}\n}\n', "contains columns, not a list of rows"),
        (b"[1]\n" * 500, "odd.jsonl:1: cannot be read as data: not a JSON object"),
        ("ä".encode("latin-1"), "odd.jsonl:1: cannot be read as data: not UTF-8"),
        ('{"a": 1}\n'.encode("utf-16")[:-1], "odd.jsonl: is not utf-16"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "odd.jsonl").write_bytes(content)
    with pytest.raises(BadData, match=re.escape(problem)) as caught:
        files(tmp_path / "odd.jsonl")
    assert "odd.jsonl" in str(caught.value) and "\n" not in str(caught.value)


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    "content",
    [
        LINES.encode("utf-8-sig"),
        LINES.encode("utf-16"),
        LINES.encode("utf-16-be"),
        LINES.encode("utf-32"),
        LINES.replace("\n", "\r\n").encode(),
        LINES.replace("\n", "\r").encode(),
        LINES.replace("\n", "").encode(),
        b"\n\n" + LINES.encode(),
        json.dumps(ROWS).encode("utf-8-sig"),
        json.dumps(ROWS, indent=2).encode("utf-16"),
        "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
        packed(json.dumps(ROWS).encode()),
        packed(LINES.encode("utf-16")),
    ],
)
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl.gz", "rows.parquet", "rows"])
def test_the_content_and_not_the_name_decides_the_format(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert [(row["text"], row["n"]) for row in files(tmp_path / name)] == [("a", 1), ("b", 2)]


def test_parquet_is_recognised_by_its_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.parquet").rename(tmp_path / "rows.jsonl")
    assert [row["n"] for row in files(path)] == [1, 2]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\0", "\t"])
def test_only_a_newline_ends_a_line(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"text": "a{sign}b", "n": {n}}}\n' for n in (1, 2)), encoding="utf-8")
    assert [(row["text"], row["n"]) for row in files(path)] == [(f"a{sign}b", 1), (f"a{sign}b", 2)]


def test_a_folder_is_refused_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(BadData, match=r"rows\.jsonl: is a folder"):
        files(tmp_path / "rows.jsonl")


def test_a_long_list_is_read_entry_by_entry(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    entry = {"text": "a" * 1000}
    path.write_text("[" + ",\n".join([json.dumps(entry)] * 20_000) + "]")
    tracemalloc.start()
    count = sum(1 for _ in Files(FilesSettings(kind="files", paths=[str(path)], licence="MIT")).rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000 and peak < path.stat().st_size / 2


def test_a_number_on_the_edge_of_a_chunk_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    start = '[{"text": "'
    padding = "a" * (CHUNK_CHARS - len(start) - len('"},\n12'))
    path.write_text(f'{start}{padding}"}},\n12345,\n{{"text": "b"}}]')
    rows = files(path)
    assert [row.get("text", "")[-1:] for row in rows] == ["a", "", "b"]
    assert rows[1]["drop"]["detail"] == "not a JSON object: 12345" and rows[2]["origin"] == f"{path}:3, entry 3"


class Described(RowForm):
    text: str
    note: str = ""


class Written(RowForm):
    prompt: str
    answer: str


def read_described(*rows: dict[str, Any], folder: Path, name: str = "rows.parquet") -> list[dict[str, Any]]:
    path = folder / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    params = FilesSettings(kind="files", paths=[str(path)], licence="MIT")
    return [dict(row) for row in Files(params, (Described, Written)).rows()]


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        datetime.date(9998, 1, 1),
        datetime.time(1, 2),
        datetime.timedelta(seconds=1),
        decimal.Decimal("1.50"),
        b"\xff",
        {"bytes": b"\xff", "path": "p"},
        [b"\xff"],
        float("nan"),
        float("inf"),
    ],
)
def test_a_column_that_the_task_does_not_read_does_not_matter(tmp_path: Path, value: object) -> None:
    (row,) = read_described({"text": "a", "odd": value}, folder=tmp_path)
    assert "odd" not in row and row["text"] == "a"


@pytest.mark.parametrize("odd", ["9" * 5000, "[" * 900 + "]" * 900, '"\\ud83d"', "-Infinity", '{"b": 1, "b": 2}'])
def test_odd_json_in_an_unread_column_does_not_matter(tmp_path: Path, odd: str) -> None:
    (tmp_path / "rows.jsonl").write_text(f'{{"text": "a", "odd": {odd}}}\n')
    params = FilesSettings(kind="files", paths=[str(tmp_path / "rows.jsonl")], licence="MIT")
    (row,) = Files(params, (Described,)).rows()
    assert row["text"] == "a" and "drop" not in row


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (datetime.date(2024, 1, 1), "`text` is a value of type date: 2024-01-01"),
        (b"ab", "`text` is a value of type bytes: b'ab'"),
        (float("inf"), "`text` is a number: inf"),
        ([datetime.time(1)], "`text` is a list: [datetime.time(1, 0)]"),
    ],
)
def test_a_column_that_the_task_reads_is_named_with_its_value(tmp_path: Path, value: object, shown: str) -> None:
    (row,) = read_described({"text": value}, folder=tmp_path)
    assert row["drop"] == {"rule": "`text` cannot be read", "detail": shown}
    assert row["origin"].endswith("rows.parquet:1")


def test_text_in_parquet_that_is_not_utf8_is_a_drop_of_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    broken = pyarrow.array([b"a", b"\xff", b"c"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": broken}), path)
    rows = files(path)
    assert [row.get("text") for row in rows] == ["a", None, "c"]
    assert rows[1]["drop"]["rule"] == "`text` cannot be read" and rows[1]["origin"] == f"{path}:2"
    assert "byte 0xff" in rows[1]["drop"]["detail"]


@pytest.mark.parametrize("where", ["start", "middle", "end"])
def test_damaged_parquet_is_named(tmp_path: Path, where: str) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"text": ["a" * 50] * 500}), path, compression="none", use_dictionary=False
    )
    content = bytearray(path.read_bytes())
    place = {"start": 4, "middle": len(content) // 2, "end": len(content) - 60}[where]
    path.write_bytes(
        content[: len(content) // 2] if where == "middle" else content[:place] + b"\xff" * 50 + content[place + 50 :]
    )
    with pytest.raises(BadData, match=r"rows\.parquet: not a whole Parquet file"):
        files(path)


def test_a_key_that_is_given_twice_is_a_drop(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "text": "b"}\n{"text": "c", "text": "c", "odd": 1, "odd": 2}\n')
    params = FilesSettings(kind="files", paths=[str(tmp_path / "rows.jsonl")], licence="MIT")
    first, second = Files(params, (Described,)).rows()
    assert first["drop"]["rule"] == "`text` is given twice" and second["text"] == "c"


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (
            [{"question": "a", "answer": "b"}],
            "no row has `prompt`, which the task reads; the columns are `question`, `answer`",
        ),
        (
            [{"text": None, "n": 1}, {"n": 2, "text": None}],
            "no row has `text`, which the task reads; the columns are `text`, `n`",
        ),
    ],
)
def test_a_column_that_all_rows_lack_is_reported_with_the_present_columns(
    tmp_path: Path, name: str, rows: list[dict[str, Any]], problem: str
) -> None:
    with pytest.raises(BadData, match=re.escape(problem)) as caught:
        read_described(*rows, folder=tmp_path, name=name)
    assert name in str(caught.value)


def test_a_list_of_rows_within_an_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"columns are `version`, `data` .*Are the rows in `data`\? Write that list to a"):
        read_described({"version": 1, "data": [{"text": "a"}, {"text": "b"}]}, folder=tmp_path, name="rows.json")


def test_a_column_that_some_rows_lack_does_not_end_the_source(tmp_path: Path) -> None:
    assert len(read_described({"text": None}, {"text": "a"}, {"prompt": "a"}, folder=tmp_path, name="rows.jsonl")) == 3


def test_rows_of_two_files_with_equal_numbers_are_in_different_groups(tmp_path: Path) -> None:
    paths = [tmp_path / "x" / "rows.jsonl", tmp_path / "y" / "rows.jsonl", tmp_path / "z.json"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(LINES)
    rows = files(*paths)
    assert len({row["group"] for row in rows}) == 6 and len({row["source"] for row in rows}) == 6
    assert rows[4]["source"] == "z:1"


@pytest.mark.parametrize("column", ["repo", "repository_name", "task_id", "group"])
@pytest.mark.parametrize("values", [("x", "x"), (7, 7.0)])
def test_a_named_group_spans_files(tmp_path: Path, column: str, values: tuple[Any, Any]) -> None:
    for name, value in zip("ab", values, strict=True):
        (tmp_path / name).write_text(json.dumps({"text": name, column: value}) + "\n")
    groups = {str(row["group"]).removesuffix(".0") for row in files(tmp_path / "a", tmp_path / "b")}
    assert len(groups) == 1


@pytest.mark.parametrize("empty", [None, "", float("nan")])
def test_an_empty_label_names_no_group(tmp_path: Path, empty: object) -> None:
    rows = read_described(
        *({"text": "a", "repo": empty, "group": empty, "source": empty} for _ in range(2)), folder=tmp_path, name="r"
    )
    assert len({row["group"] for row in rows}) == 2 and [row["source"] for row in rows] == ["r:1", "r:2"]


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl")
    assert len(files(path, path.parent / "." / path.name)) == 2


@pytest.mark.parametrize("name", ["no.jsonl", "no.json", "no.parquet"])
def test_an_absent_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadData, match=rf"{name}: the file does not exist"):
        files(tmp_path / name)


@pytest.mark.parametrize("task_id", ["seven", None, True, 7.5, [7]])
def test_a_row_without_task_number_has_no_mbpp_split(tmp_path: Path, task_id: object) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"task_id": 1}\n' + json.dumps({"task_id": task_id}))
    first, second = files(path, splits="mbpp")
    assert first["split"] == "prompt"
    assert second["drop"]["rule"] == "no integer `task_id`" and second["origin"] == f"{path}:2"


@pytest.mark.parametrize("task_id", [601, 601.0, "601", "Mbpp/601"])
def test_a_task_number_has_several_forms(tmp_path: Path, task_id: object) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"task_id": task_id}))
    assert [row["split"] for row in files(path, splits="mbpp")] == ["train"]


def test_mbpp_has_its_official_splits() -> None:
    rows = files(shared_file("mbpp/mbpp.jsonl"), splits="mbpp")
    sizes = {name: sum(row["split"] == name for row in rows) for name in {row["split"] for row in rows}}
    assert sizes == {"prompt": 10, "test": 500, "validation": 90, "train": 374}


def test_labels_of_a_row_take_precedence() -> None:
    first = files(shared_file("docstrings/permissive-pairs.jsonl.gz"), limit=1)[0]
    assert (first["group"], first["licence"]) == ("networkx/networkx", "BSD-3-Clause")


def test_a_line_of_a_list_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b'[\n{"text": "a"},\n{"text": "\xe4"}\n]\n')
    with pytest.raises(BadData, match=re.escape(f"{path}:3: cannot be read as data: not UTF-8 (byte 0xe4 at 11")):
        files(path)


@pytest.mark.parametrize("content", [b"\0" * 300, b"\x1b[31mred\n", b"[\n1,\n2]\x07\n"])
def test_a_refusal_sends_no_control_character_to_the_terminal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadData) as refused:
        files(path)
    assert str(path) in str(refused.value) and str(refused.value).isprintable()


def test_an_invalid_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadData, match="loop: is a link to itself"):
        files(tmp_path / "loop")
    with pytest.raises(BadData, match="has too long a name; choose a shorter one"):
        files(tmp_path / ("x" * 300))
    params = FilesSettings(kind="files", paths=["https://example.org/rows.jsonl"], licence="MIT")
    with pytest.raises(BadData, match=r"^https://example\.org/rows\.jsonl: is a URL; download the file"):
        list(Files(params).rows())


def test_a_file_without_read_permission_is_not_bad_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "rows.jsonl")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(Infrastructure, match=re.escape(f"{path}: is not accessible to this user; change its perm")):
        files(path)


def test_a_parquet_value_that_python_cannot_represent_is_named_by_its_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    dates = pyarrow.array([0, 2**55], pyarrow.date64())
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"], "day": dates}), path)
    _, row = files(path)
    assert row["drop"]["rule"] == "`day` cannot be read" and "`day` is not a valid date32[day]" in row["drop"]["detail"]


def test_a_relative_path_refers_to_the_root_which_rows_do_not_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "rows.jsonl").write_text('{"code": "x"}\nno JSON\n', encoding="utf-8")
    settings = FilesSettings(kind="files", paths=["my/rows.jsonl"], licence="MIT")
    monkeypatch.chdir(tmp_path / "my")
    rows = list(Files(settings, root=tmp_path).rows())
    assert [row["origin"] for row in rows] == ["my/rows.jsonl:1", "my/rows.jsonl:2"]
    assert str(tmp_path) not in str(rows)
    with pytest.raises(BadData, match=r"^my/rows\.jsonl: the file does not exist"):
        list(Files(settings).rows())
