"""Read the JSON entries of a text file: one value per line, a list, or consecutive objects."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from bilora.errors import BadData
from bilora.records import Drop
from bilora.rows import excerpt

CHUNK_CHARS = 1 << 20
MAX_ENTRY_CHARS = 1 << 26
"""Maximum length of a line or list entry."""
MAX_BAD_LINES = 100
"""A file whose first lines, this many, contain no object is not JSON lines."""
MAX_INT_DIGITS = 4000
"""Python refuses to convert longer integers; they are stored as strings of digits."""
TOO_LONG = "a line that is too long"
SUPPORTED_FORMATS = "use JSON lines, a JSON list or Parquet"


@dataclass(frozen=True)
class Entry:
    """One line, list entry or Parquet row: its number, its location for the user, and its value."""

    number: int
    location: str
    value: dict[str, object] | Drop


class JsonObject(dict[str, object]):
    """A decoded object; `repeated` contains the keys that occur twice with different values."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.repeated: set[str] = set()
        if len(pairs) != len(self):
            self.repeated = {key for key, value in pairs if value != self[key]}


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_INT_DIGITS else digits


DECODER = json.JSONDecoder(object_pairs_hook=JsonObject, parse_int=_integer, strict=False)


def json_entries(path: Path, file: IO[bytes], encoding: str) -> Iterator[Entry]:
    """Yield the entries of a seekable stream, after detecting its form.

    Raises:
        BadData: the stream contains no entries.
    """
    as_lines = _is_lines(path, file, encoding)
    file.seek(0)
    if as_lines:
        yield from _json_lines(path, file, encoding)
    else:
        try:
            with _text(file, encoding) as text:
                yield from _json_values(path, text)
        except UnicodeDecodeError:
            _refuse_bytes(path, file, encoding)
            raise


@contextlib.contextmanager
def _text(file: IO[bytes], encoding: str) -> Iterator[io.TextIOWrapper]:
    """Decode a stream and leave it open. Lone surrogates in UTF-16 pass, because the reader of the row refuses them."""
    errors = "strict" if encoding.startswith("utf-8") else "surrogatepass"
    text = io.TextIOWrapper(file, encoding, errors, newline="\n")
    try:
        yield text
    finally:
        text.detach()


def _refuse_bytes(path: Path, file: IO[bytes], encoding: str) -> None:
    """Raise BadData for the first line of a stream that is not UTF-8."""
    file.seek(0)
    for number, line in _lines(file, encoding):
        if isinstance(line, Drop) and line.rule != TOO_LONG:
            raise BadData(path, f"cannot be read as data: {line.detail}.", number)


def _is_lines(path: Path, file: IO[bytes], encoding: str) -> bool:
    """Return whether a file contains one JSON value per line: its first non-empty line is a complete value."""
    start = _lines(file, encoding)
    filled = (line for _, line in start if isinstance(line, Drop) or line.strip())
    first = next(filled, None)
    if first is None:
        raise BadData(path, "is empty.")
    if isinstance(first, Drop):
        return first.rule != TOO_LONG
    value = _decoded(first)
    if not isinstance(value, Drop):
        if next(filled, None) is not None:
            return True
        _refuse_columns(path, value)
        return not isinstance(value, list)
    return not first.lstrip().startswith("[") and not _is_objects(path, file, encoding, first.strip())


def _is_objects(path: Path, file: IO[bytes], encoding: str, first: str) -> bool:
    """Return whether a stream begins with an object of several lines, or with two objects on one line."""
    file.seek(0)
    try:
        with _text(file, encoding) as text:
            whole = text.read(MAX_ENTRY_CHARS).lstrip("\ufeff \t\r\n")
        value, end = DECODER.raw_decode(whole)
    except (ValueError, RecursionError):
        return False
    if not whole[end:].strip():
        _refuse_columns(path, value)
    return isinstance(value, dict) and (end > len(first) or first[end:].lstrip().startswith("{"))


def _refuse_columns(path: Path, only: object) -> None:
    """Refuse a file whose only object maps columns to values, as pandas writes by default."""
    if isinstance(only, dict) and only and all(isinstance(column, dict) for column in only.values()):
        raise BadData(
            path,
            "contains columns, not a list of rows; write a list of rows, as pandas does with orient='records'.",
        )


def _lines(file: IO[bytes], encoding: str) -> Iterator[tuple[int, str | Drop]]:
    """Yield numbered lines, which only \\n ends. A line that is not UTF-8 is a Drop."""
    if not encoding.startswith("utf-8"):
        with _text(file, encoding) as text:
            for number in itertools.count(1):
                wide = text.readline(MAX_ENTRY_CHARS)
                if not wide:
                    return
                yield number, _bounded(wide, wide.endswith("\n"))
    for number in itertools.count(1):
        line = file.readline(MAX_ENTRY_CHARS)
        if not line:
            return
        try:
            yield number, _bounded(line.decode(), line.endswith(b"\n"))
        except UnicodeDecodeError as error:
            reason = f"byte 0x{line[error.start]:02x} at {error.start + 1}; save the file as UTF-8"
            yield number, Drop(rule="not UTF-8", detail=f"not UTF-8 ({reason})")


def _bounded(line: str, ended: bool) -> str | Drop:
    if len(line) >= MAX_ENTRY_CHARS and not ended:
        return Drop(rule=TOO_LONG, detail=f"over {MAX_ENTRY_CHARS} characters")
    return line.lstrip("\ufeff")


def _decoded(text: str) -> object:
    """Return the JSON value of a text, or a Drop if it is not JSON."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        return Drop(rule="not JSON", detail=f"not JSON ({error.msg}, column {error.colno}): {excerpt(text.strip())}")
    except RecursionError:
        return Drop(rule="not JSON", detail="nested too deeply")


def _json_lines(path: Path, file: IO[bytes], encoding: str) -> Iterator[Entry]:
    refused: list[Entry] = []
    has_object = False
    for number, line in _lines(file, encoding):
        if isinstance(line, str) and not line.strip():
            continue
        entry = Entry(number, f"{path}:{number}", line if isinstance(line, Drop) else _object(_decoded(line)))
        if has_object:
            yield entry
        elif isinstance(entry.value, Drop):
            refused.append(entry)
            if len(refused) == MAX_BAD_LINES:
                break
        else:
            has_object = True
            yield from (*refused, entry)
    if not has_object:
        first = refused[0]
        assert isinstance(first.value, Drop)
        raise BadData(path, f"cannot be read as data: {first.value.detail}; {SUPPORTED_FORMATS}.", first.number)


def _object(value: object) -> JsonObject | Drop:
    if isinstance(value, JsonObject | Drop):
        return value
    return Drop(rule="not a JSON object", detail=f"not a JSON object: {excerpt(json.dumps(value))}")


class _Scanner:
    """Decodes consecutive JSON values of a text stream, with at most one chunk and one value in memory."""

    def __init__(self, path: Path, text: io.TextIOWrapper) -> None:
        self._path, self._text = path, text
        self._buffer, self._position, self.line = "", 0, 1

    def _read_more(self) -> bool:
        remaining = self._buffer[self._position :]
        if len(remaining) > MAX_ENTRY_CHARS:
            self.fail(f"an entry of more than {MAX_ENTRY_CHARS} characters")
        chunk = self._text.read(max(CHUNK_CHARS, len(remaining)))
        self._buffer, self._position = remaining + chunk, 0
        return bool(chunk)

    def fail(self, problem: str) -> NoReturn:
        raise BadData(self._path, f"cannot be read as data: {problem}.", self.line)

    def next_character(self) -> str:
        """Skip whitespace and return the next character without consuming it, "" at the end."""
        while True:
            while self._position < len(self._buffer):
                character = self._buffer[self._position]
                if character not in " \t\r\n\ufeff":
                    return character
                self.advance()
            if not self._read_more():
                return ""

    def advance(self) -> None:
        """Consume one character."""
        self.line += self._buffer[self._position] == "\n"
        self._position += 1

    def value(self) -> object:
        """Consume and return the next value."""
        while True:
            try:
                value, end = DECODER.raw_decode(self._buffer, self._position)
            except json.JSONDecodeError as error:
                if self._read_more():
                    continue
                self.line += self._buffer.count("\n", self._position, error.pos)
                self.fail(f"not JSON ({error.msg})")
            except RecursionError:
                self.fail("nested too deeply")
            if end == len(self._buffer) and self._read_more():  # a number may continue
                continue
            self.line += self._buffer.count("\n", self._position, end)
            self._position = end
            return value


def _json_values(path: Path, text: io.TextIOWrapper) -> Iterator[Entry]:
    """Yield the entries of a JSON list, or of consecutive objects of several lines."""
    scanner = _Scanner(path, text)
    is_list = scanner.next_character() == "["
    if is_list:
        scanner.advance()
    for number in itertools.count(1):
        character = scanner.next_character()
        if character == "" and not is_list:
            return
        if character == "]" and is_list and number == 1:
            break
        line = scanner.line
        value = _object(scanner.value())
        yield Entry(number, f"{path}:{line}, entry {number}", value)
        if not is_list:
            continue
        character = scanner.next_character()
        if character == "]":
            break
        if character != ",":
            scanner.fail("the list does not end" if character == "" else "a comma is missing between two entries")
        scanner.advance()
    scanner.advance()
    if scanner.next_character():
        scanner.fail("the file continues after the list")
