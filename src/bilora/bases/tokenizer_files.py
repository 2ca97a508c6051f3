"""Save a tokenizer as files that are published with an adapter."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bilora.bases.tokenizer import Tokenizer
from bilora.storage import read_json, write_json

_CONFIG = "tokenizer_config.json"


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Return the files (name → bytes) from which `AutoTokenizer` loads an equal tokenizer.

    transformers 4 can read tokenizer_config.json too: the class name exists in both versions, the chat template and
    additional special tokens are under the keys of version 4, and `model_input_names` lacks `token_type_ids`, which
    decoders reject.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokenizer.save_pretrained(folder, save_jinja_files=False)
        config = read_json(folder / _CONFIG)
        for name in ("backend", "is_local", "local_files_only"):  # state of the process that loaded it
            config.pop(name, None)
        if extra := config.pop("extra_special_tokens", None):
            config["additional_special_tokens"] = extra
        config |= {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask"],
            "padding_side": tokenizer.padding_side,
        }
        write_json(folder / _CONFIG, config)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
