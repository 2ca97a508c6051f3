"""Text files are read with or without a byte order mark; invalid bytes are refused."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from bilora.errors import BadData
from bilora.textfiles import NotText, decode_text, read_text

TEXT = "größe = '中'\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_unicode_encoding_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "f").write_text(TEXT, encoding=encoding)
    assert read_text(tmp_path / "f") == TEXT


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF16_LE, "utf-16-le")],
)
def test_in_either_order_of_bytes(mark: bytes, encoding: str) -> None:
    assert decode_text(mark + TEXT.encode(encoding)) == TEXT


@pytest.mark.parametrize(
    ("data", "message", "line"),
    [
        (b"ab\ncd \xfc\n", r"is not UTF-8 \(byte 0xfc at position 6\)", 2),
        (codecs.BOM_UTF8 + b"\xc3", r"is not UTF-8 \(byte 0xc3 at position 3\)", 1),
        (codecs.BOM_UTF16_LE + b"a\0\n\0b", r"is not UTF-16-LE \(byte 0x62 at position 6\)", 2),
        (b"\xed\xa0\x80", r"byte 0xed at position 0", 1),
    ],
)
def test_an_invalid_byte_is_reported_with_its_position(data: bytes, message: str, line: int) -> None:
    with pytest.raises(NotText, match=message) as caught:
        decode_text(data)
    assert caught.value.line == line


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "absent", "the file does not exist"),
        (tmp_path, "is a folder, not a file"),
        (tmp_path / ("x" * 300), "choose a shorter one"),
    ):
        with pytest.raises(BadData, match=message):
            read_text(path)
    (tmp_path / "latin").write_bytes(b"\n\xe9")
    with pytest.raises(BadData, match=r"latin:2: is not UTF-8 \(byte 0xe9 at position 1\); save it as UTF-8"):
        read_text(tmp_path / "latin")
