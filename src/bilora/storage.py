"""Atomic writes, JSON and JSON Lines files, and SHA-256 digests."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from bilora.errors import BadData, MissingStep
from bilora.records import Record
from bilora.textfiles import read_text

_R = TypeVar("_R", bound=Record)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; if the block succeeds, rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        error.filename = str(path.parent)  # the user does not know the temporary file
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_file(path: Path, stage: str) -> Path:
    """Return `path`, a file or a folder that `stage` writes.

    Raises:
        MissingStep: it does not exist.
    """
    if not path.exists():
        raise MissingStep(path, stage)
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 atomically. A lone surrogate is escaped."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def dump_json(value: object, *, indent: int | None = None) -> str:
    """Return JSON with sorted keys, so that equal values give equal bytes. NaN is refused."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, indent=indent, allow_nan=False)


def write_json(path: Path, value: object) -> None:
    """Write JSON with sorted keys and a final newline."""
    write_text(path, dump_json(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        BadData: the file does not exist, cannot be read, or is not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also too many digits, or too deep nesting
        raise BadData(path, f"not JSON ({error}).", getattr(error, "lineno", None)) from None


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write rows as JSON Lines; return their number."""
    count = 0
    with atomic(path) as temporary, temporary.open("wb") as out:
        for row in rows:
            out.write((dump_json(dict(row)) + "\n").encode("utf-8", errors="backslashreplace"))
            count += 1
    return count


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield from file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadData(path, f"not a whole gzip file ({error}).") from None


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, row) of a JSON Lines file, uncompressed or .gz; blank lines are skipped.

    Raises:
        BadData: the file does not exist, or a line is not a JSON object.
    """
    if not path.is_file():
        raise BadData(path, "the file does not exist.")
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadData(path, f"not JSON ({error}).", number) from None
        if not isinstance(row, dict):
            raise BadData(path, "each line must be a JSON object.", number)
        yield number, row


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records as JSON Lines; return their number."""
    return write_rows(path, (record.model_dump(mode="json") for record in records))


def read_records(path: Path, kind: type[_R]) -> Iterator[_R]:
    """Yield the records of a JSON Lines file.

    Raises:
        BadData: a line is not a valid `kind`.
    """
    for number, row in read_rows(path):
        yield _parsed(path, kind, row, number)


def read_record(path: Path, kind: type[_R]) -> _R:
    """Read one record from a JSON file.

    Raises:
        BadData: the file does not exist or is not a valid `kind`.
    """
    return _parsed(path, kind, read_json(path))


def _parsed(path: Path, kind: type[_R], value: object, line: int | None = None) -> _R:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise BadData(path, f"not a {kind.__name__}: {first_fault(error)}.", line) from None


def first_fault(error: ValidationError) -> str:
    """Return the key and message of a record's first fault."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def sha256_bytes(data: bytes) -> str:
    """Return the hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    return sha256_bytes(dump_json(value).encode())


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder`, by POSIX path, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""The files of an adapter that are hashed and published; the training state in the same folder is not."""


def adapter_sha256(folder: Path) -> str:
    """Return the digest of an adapter: the SHA-256 of the digests of its two files.

    Raises:
        MissingStep: one of the two files does not exist.
    """
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            raise MissingStep(folder / name, "train")
    return sha256_json({name: sha256_file(folder / name) for name in ADAPTER_FILES})
