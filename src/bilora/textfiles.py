"""Read text files of users: UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one."""

from __future__ import annotations

import codecs
from pathlib import Path

from bilora.errors import BadData
from bilora.system_errors import path_error

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class NotText(ValueError):
    """Bytes are not text in their encoding; `line` counts from 1."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.line = line


def encoding_of(head: bytes) -> tuple[str, int]:
    """Return the encoding by the byte order mark at the beginning of a text, and the mark's length in bytes."""
    return next(((name, len(mark)) for mark, name in MARKS if head.startswith(mark)), ("utf-8", 0))


def decode_text(data: bytes) -> str:
    """Return the text of `data` without its byte order mark.

    Raises:
        NotText: a byte is invalid in the encoding.
    """
    encoding, mark = encoding_of(data)
    try:
        return data[mark:].decode(encoding)
    except UnicodeDecodeError as error:
        start = error.start + mark
        raise NotText(
            f"is not {encoding.upper()} (byte 0x{data[start]:02x} at position {start})",
            data[:start].decode(encoding, errors="replace").count("\n") + 1,
        ) from None


def read_text(path: Path) -> str:
    """Read a text file of a user.

    Raises:
        BadData: it does not exist, cannot be read, or is not text.
        Infrastructure: this user or this machine cannot read it.
    """
    try:
        return decode_text(path.read_bytes())
    except FileNotFoundError:
        raise BadData(path, "the file does not exist.") from None
    except OSError as error:
        raise path_error(path, error) from None
    except NotText as error:
        raise BadData(path, f"{error}; save it as UTF-8.", error.line) from None
