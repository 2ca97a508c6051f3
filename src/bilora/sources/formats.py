"""Read the entries of a file, whatever its name: JSON lines, a JSON list or Parquet, optionally in gzip.

A line, list entry or Parquet row that cannot be read is replaced by a Drop; a file that cannot be read as a whole
raises BadData. At most one entry, or one batch of Parquet rows, is in memory at a time.
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
from bilora.sources.json_entries import SUPPORTED_FORMATS, Entry, json_entries
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


def read_data_file(path: Path, columns: Collection[str] | None = None, *, root: Path = Path()) -> Iterator[Entry]:
    """Yield the entries of a file.

    Args:
        path: file, as entries and messages name it.
        columns: columns to read from Parquet, the others being null; None reads all.
        root: folder that a relative `path` refers to.

    Raises:
        BadData: the file is absent or cannot be read as a whole; the message names the file and, if known, the line.
    """
    try:
        mode = (root / path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise BadData(path, "is a folder; name the files in it.")
        if not stat.S_ISREG(mode):  # a pipe or a device may never end
            raise BadData(path, "is not a regular file.")
        with (root / path).open("rb") as file:
            yield from _stream_entries(path, file, columns)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadData(path, f"not a whole gzip file ({error}).") from None
    except UnicodeDecodeError as error:
        raise BadData(path, f"is not {error.encoding} text ({error.reason}); save it as UTF-8.") from None
    except FileNotFoundError:
        raise BadData(path, "the file does not exist.") from None
    except OSError as error:
        raise path_error(path, error) from None


def _stream_entries(path: Path, file: IO[bytes], columns: Collection[str] | None) -> Iterator[Entry]:
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
            raise BadData(path, "is compressed twice; decompress it once with gunzip.")
    _refuse_other_formats(path, head)
    yield from json_entries(path, file, json.detect_encoding(head))


def _refuse_other_formats(path: Path, head: bytes) -> None:
    if head.startswith(LFS_POINTER):
        raise BadData(path, "is a git-LFS pointer, not the data; run `git lfs pull`.")
    for signature, name in OTHER_FORMATS.items():
        if head.startswith(signature):
            raise BadData(path, f"is {name}; unpack or convert it: {SUPPORTED_FORMATS}.")
    if head[257:262] == b"ustar":
        raise BadData(path, f"is a tar archive; unpack it: {SUPPORTED_FORMATS}.")


def _parquet(path: Path, file: IO[bytes], columns: Collection[str] | None) -> Iterator[Entry]:
    import pyarrow
    import pyarrow.parquet

    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        names = parquet.schema_arrow.names
        selected = names if columns is None else [name for name in names if name in columns]
        batches = parquet.iter_batches(BATCH_ROWS, columns=selected) if selected else ()
        rows = itertools.chain.from_iterable(map(_rows_of_batch, batches))
        for number in range(1, parquet.metadata.num_rows + 1):
            row = next(rows) if selected else {}
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
        for index in range(batch.num_rows):
            yield _row_of_batch(batch, index)


def _row_of_batch(batch: RecordBatch, index: int) -> dict[str, object] | Drop:
    """Return one row, or a Drop that names its first value that Python cannot represent."""
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[index].as_py()
        except (ValueError, OverflowError) as error:
            return Drop(rule=f"`{name}` cannot be read", detail=f"`{name}` is not a valid {column.type} ({error})")
    return row
