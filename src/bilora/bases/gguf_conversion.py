"""Convert a GGUF file once into a model folder: config, tokenizer, and the de-quantised weights in bfloat16."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.bases.gguf_file import GGUFFile, read_gguf
from bilora.bases.gguf_tokenizer import gguf_tokenizer
from bilora.bases.special_tokens import pad_token
from bilora.errors import BadData
from bilora.locks import exclusive_lock, sync_folder
from bilora.protocols import Progress, ProgressBars
from bilora.storage import sha256_file, sha256_json, sha256_tree, write_json, write_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONVERSION_VERSION = 1
"""Version of the conversion; increase it when the written files change."""
STORED_PRECISION = "bfloat16"
"""Precision of the stored weights, equal on all machines so that all have the same base."""
CHECKSUMS_FILE = "SHA256SUMS"
"""The file with the hashes of the folder's other files, in the format of sha256sum(1). It is written last."""


def conversion_identity(file_sha256: str) -> str:
    """Return the identity of the model folder: a hash of the GGUF file's hash, the conversion and the precision."""
    return sha256_json({"gguf": file_sha256, "conversion": CONVERSION_VERSION, "precision": STORED_PRECISION})[:40]


def convert_gguf(folder: Path, file: Callable[[], Path], name: str, progress_bars: ProgressBars) -> Path:
    """Convert a GGUF file into `folder` unless it is there unchanged, and return `folder`.

    Args:
        folder: in a cache; its name has to contain `conversion_identity` of the file.
        file: returns the GGUF file; called only if the folder has to be written.
        name: the base's name in the title of the progress bar.

    Raises:
        BadData: the file cannot be converted; no files remain.
        BiloraError: `file` raises it.
    """

    def write(source: GGUFFile, temporary: Path) -> None:
        _write_config_and_tokenizer(source, temporary)
        with progress_bars(f"De-quantising {name}", len(source.tensors)) as progress:
            _write_weights(source, temporary / "model.safetensors", progress)

    return _write_once(folder, file, write)


def convert_gguf_without_weights(folder: Path, file: Callable[[], Path]) -> Path:
    """Write only config and tokenizer into `folder` unless it is there unchanged, and return `folder`.

    Arguments and errors are those of `convert_gguf`.
    """
    return _write_once(folder, file, _write_config_and_tokenizer)


def _write_once(folder: Path, file: Callable[[], Path], write: Callable[[GGUFFile, Path], None]) -> Path:
    """Let `write` fill `folder` unless it is there unchanged; concurrent processes wait for each other."""
    if is_converted(folder):
        return folder
    source = file()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder.parent):
        if not is_converted(folder):  # another process may have written it meanwhile
            temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
            try:
                write(read_gguf(source), temporary)
                write_text(temporary / CHECKSUMS_FILE, _checksums(sha256_tree(temporary)))
                temporary.chmod(0o755)
                shutil.rmtree(folder, ignore_errors=True)
                temporary.replace(folder)
                sync_folder(folder.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write_config_and_tokenizer(file: GGUFFile, folder: Path) -> None:
    # 1) The tokenizer. Its pad token is replaced, because many files name the EOS token.
    tokenizer = gguf_tokenizer(file.metadata, file.path)
    if tokenizer.chat_template is None:
        raise BadData(file.path, "it has no chat template; use an instruction-tuned base.")
    tokenizer.name_or_path = str(file.path)
    tokenizer.pad_token = pad_token(tokenizer)
    tokenizer.save_pretrained(folder)
    # 2) The config with the same special tokens.
    special = _special_ids(file, tokenizer)
    write_json(folder / "config.json", file.config | special)
    write_json(folder / "generation_config.json", special)


def _special_ids(file: GGUFFile, tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if ids["eos_token_id"] is None:
        raise BadData(file.path, "its metadata names no EOS token (tokenizer.ggml.eos_token_id); use another file.")
    return {name: number for name, number in ids.items() if number is not None}


def _write_weights(file: GGUFFile, path: Path, progress: Progress) -> None:
    """Write the weights in bfloat16 as safetensors, with one of them in memory at a time.

    The format (github.com/huggingface/safetensors): the length of a JSON header in 8 bytes, the header with each
    tensor's type, shape and offsets, then the tensors. The safetensors library would need twice their memory.
    """
    import torch

    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, gguf_tensor in file.tensor_map().items():
        shape = [int(size) for size in reversed(file.tensors[gguf_tensor.name].shape)]
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as out:
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        for _, weights in file.weights():
            out.write(weights.to(torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes())
            progress(1)


def _checksums(digests: Mapping[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items() if name != CHECKSUMS_FILE)


def is_converted(folder: Path) -> bool:
    """Return whether a folder's files match its checksums; files are read again only if one was touched."""
    if not (folder / CHECKSUMS_FILE).is_file():
        return False
    stats = ((path.name, path.stat()) for path in sorted(folder.iterdir()))
    return _matches(folder, tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


@lru_cache
def _matches(folder: Path, stamps: tuple[tuple[str, int, int, int], ...]) -> bool:
    return _checksums(sha256_tree(folder)) == (folder / CHECKSUMS_FILE).read_text(encoding="utf-8", errors="replace")


def cached_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, which is read once per process unless its size or time changes."""
    stat = path.stat()
    return _sha256(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache
def _sha256(path: Path, stamp: tuple[int, int, int]) -> str:
    return sha256_file(path)
