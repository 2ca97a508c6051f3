"""Files that are never half-written, and hashes that say what was in them."""

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
    """Yield a temporary name beside `path`; rename it over `path` only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        error.filename = str(path.parent)  # what may not be written to; nobody knows the temporary name
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_file(path: Path, stage: str) -> Path:
    """Return `path`, a file or a folder, if it exists.

    Raises:
        MissingStep: it does not; `stage` makes it.
    """
    if not path.exists():
        raise MissingStep(path, stage)
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data`, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all. A lone surrogate becomes its escape."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def dump_json(value: object, *, indent: int | None = None) -> str:
    """Serialise with sorted keys, so equal values give equal bytes. NaN is refused."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, indent=indent, allow_nan=False)


def write_json(path: Path, value: object) -> None:
    """Write JSON with sorted keys and a final newline."""
    write_text(path, dump_json(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        BadData: the file is absent, cannot be read, or is not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # a number may have too many digits, or the nesting be too deep
        raise BadData(path, f"not JSON ({error}).", getattr(error, "lineno", None)) from None


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write JSON lines and return how many."""
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
    """Yield (line number, row) of a JSON-lines file, plain or .gz; blank lines are passed over.

    Raises:
        BadData: the file is absent, or a line is not a JSON object; file and line are named.
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
    """Write records as JSON lines and return how many."""
    return write_rows(path, (record.model_dump(mode="json") for record in records))


def read_records(path: Path, kind: type[_R]) -> Iterator[_R]:
    """Yield the records of a JSON-lines file.

    Raises:
        BadData: a line does not hold a `kind`; file, line and field are named.
    """
    for number, row in read_rows(path):
        yield _parsed(path, kind, row, number)


def read_record(path: Path, kind: type[_R]) -> _R:
    """Read a JSON file that holds one record.

    Raises:
        BadData: it is absent, or holds no `kind`; the field is named.
    """
    return _parsed(path, kind, read_json(path))


def _parsed(path: Path, kind: type[_R], value: object, line: int | None = None) -> _R:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise BadData(path, f"not a {kind.__name__}: {first_fault(error)}.", line) from None


def first_fault(error: ValidationError) -> str:
    """Return the place and message of a record's first fault."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: object) -> str:
    """SHA-256 of a value's canonical JSON."""
    return sha256_bytes(dump_json(value).encode())


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by POSIX path, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""All of an adapter that is hashed, judged and published; training state in the same folder is not."""


def adapter_sha256(folder: Path) -> str:
    """One name for an adapter's bytes: the hash of its two files' hashes.

    Raises:
        MissingStep: one of the two files is absent.
    """
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            raise MissingStep(folder / name, "train")
    return sha256_json({name: sha256_file(folder / name) for name in ADAPTER_FILES})
