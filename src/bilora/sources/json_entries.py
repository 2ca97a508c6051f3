"""JSON entries of a text file: one value per line, a list, or objects one after the other."""

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
"""Longest line or list entry that is read; more is another kind of file."""
HOPELESS_LINES = 100
"""If this many lines at the beginning hold no object, the file is not JSON lines."""
MAX_INT_DIGITS = 4000
"""Python refuses to read or write longer integers in decimal; they are kept as their digits."""
TOO_LONG = "a line that is too long"
USABLE = "use JSON lines, a JSON list or Parquet"


@dataclass(frozen=True)
class Entry:
    """One line, list entry or Parquet row: its number, where the user finds it, and what it holds."""

    number: int
    place: str
    value: dict[str, object] | Drop


class JsonObject(dict[str, object]):
    """An object as it was read; `repeated` names the keys that it has twice with different values."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.repeated: set[str] = set()
        if len(pairs) != len(self):
            self.repeated = {key for key, value in pairs if value != self[key]}


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_INT_DIGITS else digits


DECODER = json.JSONDecoder(object_pairs_hook=JsonObject, parse_int=_integer, strict=False)


def json_entries(path: Path, file: IO[bytes], encoding: str) -> Iterator[Entry]:
    """Yield the entries of a stream that can be read twice: once to see its form.

    Raises:
        BadData: it holds no entries.
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
    """Decode a stream and leave it open; half a surrogate pair in UTF-16 is left for the row's reader to refuse."""
    errors = "strict" if encoding.startswith("utf-8") else "surrogatepass"
    text = io.TextIOWrapper(file, encoding, errors, newline="\n")
    try:
        yield text
    finally:
        text.detach()


def _refuse_bytes(path: Path, file: IO[bytes], encoding: str) -> None:
    """Name the first line of a stream that is not UTF-8."""
    file.seek(0)
    for number, line in _lines(file, encoding):
        if isinstance(line, Drop) and line.rule != TOO_LONG:
            raise BadData(path, f"cannot be read as data: {line.detail}.", number)


def _is_lines(path: Path, file: IO[bytes], encoding: str) -> bool:
    """Whether a file holds one JSON value per line: its first line with text is one by itself."""
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
    """Whether a stream begins with an object of several lines, or with two on its first line."""
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
    """Refuse a file whose only object maps each column to its values, as pandas writes by default."""
    if isinstance(only, dict) and only and all(isinstance(column, dict) for column in only.values()):
        raise BadData(
            path,
            "holds columns, not rows, or rows by name; write a list of rows, as pandas does with orient='records'.",
        )


def _lines(file: IO[bytes], encoding: str) -> Iterator[tuple[int, str | Drop]]:
    """Yield numbered lines; only \\n ends one. A line that is not UTF-8 is a Drop."""
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
            shown = f"byte 0x{line[error.start]:02x} at {error.start + 1}; save the file as UTF-8"
            yield number, Drop(rule="not UTF-8", detail=f"not UTF-8 ({shown})")


def _bounded(line: str, ended: bool) -> str | Drop:
    if len(line) >= MAX_ENTRY_CHARS and not ended:
        return Drop(rule=TOO_LONG, detail=f"over {MAX_ENTRY_CHARS} characters")
    return line.lstrip("\ufeff")


def _decoded(text: str) -> object:
    """Return a JSON value, or the Drop of what is none."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        return Drop(rule="not JSON", detail=f"not JSON ({error.msg}, column {error.colno}): {excerpt(text.strip())}")
    except RecursionError:
        return Drop(rule="not JSON", detail="nested too deeply")


def _json_lines(path: Path, file: IO[bytes], encoding: str) -> Iterator[Entry]:
    refused: list[Entry] = []
    found = False
    for number, line in _lines(file, encoding):
        if isinstance(line, str) and not line.strip():
            continue
        entry = Entry(number, f"{path}:{number}", line if isinstance(line, Drop) else _object(_decoded(line)))
        if found:
            yield entry
        elif isinstance(entry.value, Drop):
            refused.append(entry)
            if len(refused) == HOPELESS_LINES:
                break
        else:
            found = True
            yield from (*refused, entry)
    if not found:
        first = refused[0]
        assert isinstance(first.value, Drop)
        raise BadData(path, f"cannot be read as data: {first.value.detail}; {USABLE}.", first.number)


def _object(value: object) -> JsonObject | Drop:
    if isinstance(value, JsonObject | Drop):
        return value
    return Drop(rule="not a JSON object", detail=f"not a JSON object: {excerpt(json.dumps(value))}")


class _Scanner:
    """Takes one JSON value after another from a text stream and holds no more than a chunk and a value of it."""

    def __init__(self, path: Path, text: io.TextIOWrapper) -> None:
        self._path, self._text = path, text
        self._buffer, self._at, self.line = "", 0, 1

    def _more(self) -> bool:
        rest = self._buffer[self._at :]
        if len(rest) > MAX_ENTRY_CHARS:
            self.fail(f"an entry of more than {MAX_ENTRY_CHARS} characters")
        chunk = self._text.read(max(CHUNK_CHARS, len(rest)))
        self._buffer, self._at = rest + chunk, 0
        return bool(chunk)

    def fail(self, problem: str) -> NoReturn:
        raise BadData(self._path, f"cannot be read as data: {problem}.", self.line)

    def next_sign(self) -> str:
        """Pass over white space and return the sign that follows, "" at the end."""
        while True:
            while self._at < len(self._buffer):
                sign = self._buffer[self._at]
                if sign not in " \t\r\n\ufeff":
                    return sign
                self.step()
            if not self._more():
                return ""

    def step(self) -> None:
        """Pass over one sign."""
        self.line += self._buffer[self._at] == "\n"
        self._at += 1

    def value(self) -> object:
        """Decode the value that begins here."""
        while True:
            try:
                value, end = DECODER.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if self._more():
                    continue
                self.line += self._buffer.count("\n", self._at, error.pos)
                self.fail(f"not JSON ({error.msg})")
            except RecursionError:
                self.fail("nested too deeply")
            if end == len(self._buffer) and self._more():  # a number may go on
                continue
            self.line += self._buffer.count("\n", self._at, end)
            self._at = end
            return value


def _json_values(path: Path, text: io.TextIOWrapper) -> Iterator[Entry]:
    """Read a JSON list, or objects of several lines each that follow one another."""
    scanner = _Scanner(path, text)
    is_list = scanner.next_sign() == "["
    if is_list:
        scanner.step()
    for number in itertools.count(1):
        sign = scanner.next_sign()
        if sign == "" and not is_list:
            return
        if sign == "]" and is_list and number == 1:
            break
        line = scanner.line
        value = _object(scanner.value())
        yield Entry(number, f"{path}:{line}, entry {number}", value)
        if not is_list:
            continue
        sign = scanner.next_sign()
        if sign == "]":
            break
        if sign != ",":
            scanner.fail("the list does not end" if sign == "" else "a comma is missing between two entries")
        scanner.step()
    scanner.step()
    if scanner.next_sign():
        scanner.fail("more follows after the list")
