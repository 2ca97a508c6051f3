"""Entries of a file, whatever its name says: JSON lines, a JSON list or Parquet, plain or in gzip.

A line, list entry or Parquet row that cannot be read is a Drop in its place; a file that cannot be read
as a whole is BadData. Of any file no more than one entry, or one batch of Parquet rows, is held at a time.
"""

from __future__ import annotations

import gzip
import itertools
import json
import stat
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from bilora.errors import BadData
from bilora.records import Drop
from bilora.sources.json_entries import USABLE, Entry, json_entries
from bilora.system_errors import path_error

if TYPE_CHECKING:
    from pyarrow import RecordBatch

HEAD_BYTES = 512
BATCH_ROWS = 256

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


def entries(path: Path, columns: Collection[str] | None = None, *, root: Path = Path()) -> Iterator[Entry]:
    """Yield the entries of a file. Of Parquet only `columns` are read, others are null; None reads all.

    Args:
        path: the file, as entries and messages name it.
        root: the folder that a relative `path` belongs to.

    Raises:
        BadData: the file is absent or cannot be read as a whole; the file, and the line where it is known, are named.
    """
    try:
        mode = (root / path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise BadData(path, "is a folder; name the files in it.")
        if not stat.S_ISREG(mode):  # a pipe or a device may never end
            raise BadData(path, "is not a regular file.")
        with (root / path).open("rb") as file:
            yield from _of_stream(path, file, columns)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadData(path, f"not a whole gzip file ({error}).") from None
    except UnicodeDecodeError as error:
        raise BadData(path, f"is not {error.encoding} text ({error.reason}); save it as UTF-8.") from None
    except FileNotFoundError:
        raise BadData(path, "the file does not exist.") from None
    except OSError as error:
        raise path_error(path, error) from None


def _of_stream(path: Path, file: IO[bytes], columns: Collection[str] | None) -> Iterator[Entry]:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if head.startswith(PARQUET):
        yield from _parquet(path, file, columns)
        return
    if head.startswith(GZIP):
        file = cast(IO[bytes], gzip.GzipFile(fileobj=file))
        head = file.read(HEAD_BYTES)
        file.seek(0)
        if head.startswith((GZIP, PARQUET)):
            raise BadData(path, "is packed in gzip once too often; unpack it with gunzip.")
    _refuse_other_formats(path, head)
    yield from json_entries(path, file, json.detect_encoding(head))


def _refuse_other_formats(path: Path, head: bytes) -> None:
    if head.startswith(LFS_POINTER):
        raise BadData(path, "is a git-LFS pointer, not the data; run `git lfs pull`.")
    for signature, name in OTHER_FORMATS.items():
        if head.startswith(signature):
            raise BadData(path, f"is {name}; unpack or convert it: {USABLE}.")
    if head[257:262] == b"ustar":
        raise BadData(path, f"is a tar archive; unpack it: {USABLE}.")


def _parquet(path: Path, file: IO[bytes], columns: Collection[str] | None) -> Iterator[Entry]:
    import pyarrow
    import pyarrow.parquet

    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        names = parquet.schema_arrow.names
        wanted = names if columns is None else [name for name in names if name in columns]
        batches = parquet.iter_batches(BATCH_ROWS, columns=wanted) if wanted else ()
        rows = itertools.chain.from_iterable(map(_rows_of_batch, batches))
        for number in range(1, parquet.metadata.num_rows + 1):
            row = next(rows) if wanted else {}
            yield Entry(
                number, f"{path}:{number}", row if isinstance(row, Drop) else {name: row.get(name) for name in names}
            )
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadData(path, f"not a whole Parquet file ({reason}).") from None


def _rows_of_batch(batch: RecordBatch) -> Iterator[dict[str, object] | Drop]:
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):  # text that is not UTF-8, a date after the year 9999
        for place in range(batch.num_rows):
            yield _row_of_batch(batch, place)


def _row_of_batch(batch: RecordBatch, place: int) -> dict[str, object] | Drop:
    """Return one row; a Drop names its first value that Python cannot hold."""
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[place].as_py()
        except (ValueError, OverflowError) as error:
            return Drop(rule=f"`{name}` cannot be read", detail=f"`{name}` is a {column.type} that is none ({error})")
    return row
