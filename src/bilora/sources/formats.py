"""Entries of a file, whatever its name says: JSON lines, a JSON list or Parquet, plain or in gzip.

A line, list entry or Parquet row that cannot be read is a Drop in its place; a file that cannot be read
as a whole is BadData. Of any file no more than one entry, or one batch of Parquet rows, is held at a time.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from bilora.errors import BadData
from bilora.records import Drop

HEAD_BYTES = 512
CHUNK_CHARS = 1 << 20
MAX_ENTRY_CHARS = 1 << 26
"""Longest line or list entry that is read; more is another kind of file."""
HOPELESS_LINES = 100
"""If so many lines at the beginning hold no object, the file is not JSON lines."""
BATCH_ROWS = 256
MAX_INT_DIGITS = 4000
"""Python refuses to read or write longer integers in decimal; they are kept as their digits."""

PARQUET, GZIP = b"PAR1", b"\x1f\x8b"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"7z\xbc\xaf": "a 7z archive",
    b"ARROW1": "an Arrow file",
    b"PARE": "an encrypted Parquet file",
    b"SQLite format 3": "an SQLite database",
    b"\x93NUMPY": "a NumPy array",
    b"Obj\x01": "an Avro file",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"%PDF": "a PDF file",
    b"<": "a web page or XML",
}
USABLE = "use JSON lines, a JSON list or Parquet"


@dataclass(frozen=True)
class Entry:
    """One line, list entry or Parquet row: its number, where the user finds it, and what it holds."""

    number: int
    place: str
    value: dict[str, Any] | Drop


class JsonObject(dict[str, Any]):
    """An object as it was read; `repeated` names the keys that stand in it twice with different values."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: set[str] = set()
        if len(pairs) != len(self):
            self.repeated = {key for key, value in pairs if value != self[key]}


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_INT_DIGITS else digits


DECODER = json.JSONDecoder(object_pairs_hook=JsonObject, parse_int=_integer, strict=False)


def entries(path: Path, columns: Collection[str] | None = None) -> Iterator[Entry]:
    """Yield the entries of a file. Of Parquet only `columns` are read, others are null; None reads all.

    Raises:
        BadData: the file is absent or cannot be read as a whole; the file, and the line where it is known, are named.
    """
    if path.is_dir():
        raise BadData(path, "is a folder; name the files in it.")
    if not path.is_file():
        raise BadData(path, "is not a regular file." if path.exists() else "the file does not exist.")
    try:
        with path.open("rb") as file:
            yield from _of_stream(path, file, columns)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadData(path, f"not a whole gzip file ({error}).") from None
    except UnicodeDecodeError as error:
        raise BadData(path, f"is not {error.encoding} text ({error.reason}); save it as UTF-8.") from None
    except OSError as error:
        raise BadData(path, f"cannot be read ({error.strerror or error}).") from None


def _of_stream(path: Path, file: IO[bytes], columns: Collection[str] | None) -> Iterator[Entry]:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if head.startswith(PARQUET):
        yield from _parquet(path, file, columns)
        return
    if head.startswith(GZIP):
        file = gzip.GzipFile(fileobj=file)
        head = file.read(HEAD_BYTES)
        file.seek(0)
        if head.startswith((GZIP, PARQUET)):
            raise BadData(path, "is packed in gzip once too often; unpack it with gunzip.")
    _refuse_other_formats(path, head)
    encoding = json.detect_encoding(head)
    if _is_lines(path, file, encoding):
        file.seek(0)
        yield from _json_lines(path, file, encoding)
    else:
        file.seek(0)
        yield from _json_values(path, _text(file, encoding))


def _refuse_other_formats(path: Path, head: bytes) -> None:
    if head.startswith(LFS_POINTER):
        raise BadData(path, "is a git-LFS pointer, not the data; run `git lfs pull`.")
    for signature, name in OTHER_FORMATS.items():
        if head.startswith(signature):
            raise BadData(path, f"is {name}; unpack or convert it: {USABLE}.")
    if head[257:262] == b"ustar":
        raise BadData(path, f"is a tar archive; unpack it: {USABLE}.")


def _text(file: IO[bytes], encoding: str) -> io.TextIOWrapper:
    """Decode a stream; half a surrogate pair in UTF-16 is left for the row's reader to refuse."""
    errors = "strict" if encoding.startswith("utf-8") else "surrogatepass"
    return io.TextIOWrapper(file, encoding, errors, newline="\n")


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
    if isinstance(value, Drop):
        if first.lstrip().startswith("["):
            return False
        file.seek(0)
        text = _text(file, encoding)
        try:
            value, _ = DECODER.raw_decode(text.read(MAX_ENTRY_CHARS).lstrip("\ufeff \t\r\n"))
        except (ValueError, RecursionError):
            return True
        finally:
            text.detach()
        return not isinstance(value, dict)
    if next(filled, None) is None:
        if isinstance(value, dict) and value and all(isinstance(column, dict) for column in value.values()):
            raise BadData(path, "holds columns, not rows; write it with orient='records'.")
        return not isinstance(value, list)
    return True


TOO_LONG = "a line that is too long"


def _lines(file: IO[bytes], encoding: str) -> Iterator[tuple[int, str | Drop]]:
    """Yield numbered lines; only \\n ends one. A line that is not UTF-8 is a Drop."""
    if not encoding.startswith("utf-8"):
        text = _text(file, encoding)
        try:
            for number in itertools.count(1):
                wide = text.readline(MAX_ENTRY_CHARS)
                if not wide:
                    return
                yield number, _bounded(wide, wide.endswith("\n"))
        finally:
            text.detach()
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


def _decoded(text: str) -> Any:
    """Return a JSON value, or the Drop of what is none."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        return Drop(rule="not JSON", detail=f"not JSON ({error.msg}, column {error.colno}): {text.strip()[:60]}")
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


def _object(value: Any) -> JsonObject | Drop:
    if isinstance(value, JsonObject | Drop):
        return value
    return Drop(rule="not a JSON object", detail=f"not a JSON object: {json.dumps(value)[:60]}")


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

    def value(self) -> Any:
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


def _parquet(path: Path, file: IO[bytes], columns: Collection[str] | None) -> Iterator[Entry]:
    import pyarrow
    import pyarrow.parquet

    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        names = parquet.schema_arrow.names
        wanted = names if columns is None else [name for name in names if name in columns]
        batches = parquet.iter_batches(BATCH_ROWS, columns=wanted) if wanted else ()
        rows = itertools.chain.from_iterable(map(_rows_of_batch, batches))
        unread = dict.fromkeys(name for name in names if name not in wanted)
        for number in range(1, parquet.metadata.num_rows + 1):
            row = next(rows) if wanted else {}
            yield Entry(number, f"{path}:{number}", row if isinstance(row, Drop) else {**unread, **row})
    except (pyarrow.ArrowException, OSError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadData(path, f"not a whole Parquet file ({told}).") from None


def _rows_of_batch(batch: Any) -> Iterator[dict[str, Any] | Drop]:
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):  # text that is not UTF-8, a date after the year 9999
        for place in range(batch.num_rows):
            try:
                (row,) = batch.slice(place, 1).to_pylist()
                yield row
            except (ValueError, OverflowError) as error:
                yield Drop(rule="a value that cannot be read", detail=str(error))
