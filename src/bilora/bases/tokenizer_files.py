"""A tokenizer as files that are published beside an adapter."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bilora.bases.tokenizer import Tokenizer
from bilora.storage import read_json, write_json

_CONFIG = "tokenizer_config.json"


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Return the files (name → bytes) of which `AutoTokenizer` makes a tokenizer that encodes as this one does.

    The configuration is written so that transformers 4 reads it, too: the class has the name that both versions know,
    the chat template and the further special tokens stand where version 4 looks for them, and the names of the inputs
    leave out `token_type_ids`, which no decoder takes.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tokenizer.save_pretrained(folder, save_jinja_files=False)
        config = read_json(folder / _CONFIG)
        for name in ("backend", "is_local", "local_files_only"):  # of the process that loaded it
            config.pop(name, None)
        if further := config.pop("extra_special_tokens", None):
            config["additional_special_tokens"] = further
        config |= {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask"],
            "padding_side": tokenizer.padding_side,
        }
        write_json(folder / _CONFIG, config)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
