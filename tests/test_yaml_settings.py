"""YAML settings are read as they look, or refused with their key or line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from bilora.errors import BadData, ParamsError
from bilora.yaml_settings import Flag, Settings, load_yaml, parse_settings


class Numbers(Settings):
    count: int = 0
    rate: float = 0.0
    name: str = ""
    flag: Flag = False
    kind: Literal["no", "on"] | None = None
    counts: list[int] = Field(default_factory=list)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "params.yaml"


def read(path: Path, text: str | bytes) -> Any:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return parse_settings(path, Numbers, *load_yaml(path))


def fault(path: Path, text: str | bytes) -> str:
    with pytest.raises(ParamsError) as caught:
        read(path, text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-5", 3e-5),
        ("1E4", 1e4),
        ("-2e+3", -2e3),
        (".5", 0.5),
        ("5.", 5.0),
        ("7", 7.0),
        ("6.02e23", 6.02e23),
        ("1_000.5", 1000.5),
        ("00.5", 0.5),
        ("!!float 2", 2.0),
    ],
)
def test_every_spelling_of_a_number_is_read_as_a_number(path: Path, text: str, value: float) -> None:
    assert read(path, f"rate: {text}\n").rate == value


@pytest.mark.parametrize(
    ("text", "value"), [("1_000", 1000), ("0x10", 16), ("0o10", 8), ("+3", 3), ("-0", 0), ("0", 0)]
)
def test_every_spelling_of_a_whole_number_is_read_as_one(path: Path, text: str, value: int) -> None:
    assert read(path, f"count: {text}\n").count == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("FALSE", False), ("yes", True), ("On", True), ("NO", False), ("off", False)],
)
def test_a_flag_accepts_yes_and_no(path: Path, text: str, value: bool) -> None:
    assert read(path, f"flag: {text}\n").flag is value


@pytest.mark.parametrize("text", ["no", "on", "Yes", "off", "012", "12:30", "2026-11-26", "e5", "1e", "'7'", "'1e-4'"])
def test_a_text_field_keeps_ambiguous_words_as_they_are_written(path: Path, text: str) -> None:
    assert read(path, f"name: {text}\n").name == text.strip("'")


def test_a_literal_field_accepts_an_ambiguous_word(path: Path) -> None:
    assert read(path, "kind: no\n").kind == "no"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("count: 0755", "count: 0755 is read differently by different versions of YAML; write 755"),
        ("rate: 0012", "rate: 0012 is read differently by different versions of YAML; write 12"),
        ("counts: [1, 02]", "counts.1: 02 is read differently by different versions of YAML; write 2"),
        ("count: 2:15", "count: '2:15' is not a whole number"),
        ("rate: 1:30.5", "rate: '1:30.5' is not a number"),
        ("count: 2e3", "count: 2000.0 is not a whole number; write 2000"),
        ("count: 1.5", "count: 1.5 is not a whole number"),
        ("count: '3'", "count: '3' is not a whole number"),
        ("count: yes", "count: 'yes' is not a whole number"),
        ("count: true", "count: True is not a whole number"),
        ("count: 1,000", "count: '1,000' is not a whole number"),
        (f"count: {'9' * 5000}", "is not a whole number"),
        ("count:", "count: there is no value; it must be a whole number"),
        ("count: {}", "count: a mapping is not a whole number"),
        ("rate: .nan", "rate: Input should be a finite number"),
        ("rate: .inf", "rate: Input should be a finite number"),
        ("rate: 1e999", "rate: Input should be a finite number"),
        ("rate: !!float fast", "rate: 'fast' is not a number"),
        ("flag: 'yes'", "flag: 'yes' is not true or false"),
        ("flag: 1", "flag: 1 is not true or false"),
        ("name: 1.0", "name: 1.0 is not text; put it in quotes"),
        ("name: true", "name: True is not text; put it in quotes"),
    ],
    ids=lambda value: value[:24],
)
def test_the_message_of_a_wrong_value_says_how_to_write_it(path: Path, text: str, expected: str) -> None:
    assert expected in fault(path, text)


def test_a_repeated_key_is_reported_with_both_lines_beside_all_other_faults(path: Path) -> None:
    message = fault(path, "count: 1\nrate: fast\n\ncount: 2\nname: {a: 1, 'a': 2}\nodd: 1\n")
    assert "4 faults" not in message and "5 faults" in message
    for part in (
        "line 4: 'count' is already set in line 1",
        "line 5: 'a' is already set in line 5",
        "rate: 'fast' is not a number",
        "name: a mapping is not text",
        "odd: ",
    ):
        assert part in message


def test_an_anchor_may_be_merged_and_overridden(path: Path) -> None:
    path.write_text("one: &one {a: 1, b: 2}\ntwo: {<<: *one, b: 3}\n", encoding="utf-8")
    assert load_yaml(path) == ({"one": {"a": 1, "b": 2}, "two": {"a": 1, "b": 3}}, [])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "must be a mapping"),
        (b"just words\n", "must be a mapping"),
        (b"a:\n\t- 1\n", "line 2, column 1: found character '\\t' that cannot start any token; indent with spaces"),
        (b"a: {b: 1\n", "line 2, column 1: expected ',' or '}'"),
        (b"a: 1\n---\nb: 2\n", "line 2, column 1: expected a single document in the stream, but found another"),
        (b"a: !!python/name:os.system ''\n", "could not determine a constructor"),
        (b"a: *nowhere\n", "found undefined alias 'nowhere'"),
        (b"? [a, b]\n: 1\n", "unhashable key"),
        (b"a: \x07\n", "the character '\\x07' at position 3 is not allowed"),
        (b"{a: " * 5000, "nested too deeply"),
        ("a: é\n".encode("cp1252"), "line 1: the file is not UTF-8 (byte 0xe9 at position 3)"),
        ("a: 1\nb: \u4e2d\n".encode("gb18030"), "line 2: the file is not UTF-8"),
        ("a: 1\n".encode("utf-16"), "the file is UTF-16-LE, which DVC does not read; save it as UTF-8"),
        (b"\xfe\xff" + "a: 1\n".encode("utf-16-be"), "the file is UTF-16-BE"),
        ("a: 1\n".encode("utf-32"), "the file is UTF-32-LE"),
        (b"\xef\xbb\xbfa: \xff\n", "(byte 0xff at position 6)"),
    ],
    ids=lambda value: repr(value[:16]),
)
def test_a_file_that_is_not_yaml_is_reported_with_its_position(path: Path, data: bytes, expected: str) -> None:
    message = fault(path, data)
    assert expected in message and message.count("\n") == 1 and "1 fault" in message


def test_a_byte_order_mark_is_not_part_of_the_first_key(path: Path) -> None:
    assert read(path, b"\xef\xbb\xbfcount: 5\n").count == 5


def test_the_message_of_an_unreadable_file_gives_advice(path: Path) -> None:
    path.mkdir()
    with pytest.raises(BadData, match="is a folder, not a file; name a file"):
        load_yaml(path)
    with pytest.raises(BadData, match="has a file where a folder is needed"):
        load_yaml(Path(__file__) / "params.yaml")
    with pytest.raises(BadData, match="choose a shorter one"):
        load_yaml(path / ("x" * 300))
    (path / "loop").symlink_to("loop")
    with pytest.raises(BadData, match="is a link to itself"):
        load_yaml(path / "loop")
