"""A published tokenizer is loaded by `AutoTokenizer` beside an adapter, and encodes as the one that was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.gguf_files import SMOLLM2, packaged_gguf
from support.sample_adapters import SMOKE
from transformers import AutoTokenizer

from bilora.bases.base import open_base
from bilora.bases.tokenizer_files import tokenizer_files
from bilora.storage import write_bytes

TEXTS = ("def f(x):\n    return x + 1\n", " leading", "naïve “quotes” 12345", "<|endoftext|>after", "a  b\t\tc\n\n\n")
CHAT = [{"role": "system", "content": "You write."}, {"role": "user", "content": "Add 1 to x.\n"}]


@pytest.fixture(params=["smoke", "phi3", "smollm2"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The tokenizer of a folder, one that transformers takes for Llama's, and one of a GGUF file."""
    if request.param == "phi3":
        return request.getfixturevalue("phi3")
    if request.param == "smoke":
        return SMOKE.tokenizer()
    packaged_gguf()
    return open_base(SMOLLM2, tmp_path).tokenizer()


def test_auto_tokenizer_encodes_alike_in_a_folder_with_an_adapter(tokenizer: Any, tmp_path: Path) -> None:
    for name, data in tokenizer_files(tokenizer).items():
        write_bytes(tmp_path / "adapter" / name, data)
    write_bytes(tmp_path / "adapter" / "adapter_config.json", b'{"peft_type": "LORA"}')
    loaded = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert loaded(text, add_special_tokens=False)["input_ids"] == ids
        assert loaded.decode(ids) == tokenizer.decode(ids)
    for prompt in (True, False):
        rendered = [
            candidate.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=prompt)
            for candidate in (loaded, tokenizer)
        ]
        assert rendered[0] == rendered[1]
    assert (loaded.eos_token_id, loaded.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert loaded.padding_side == "left" and list(loaded("a")) == ["input_ids", "attention_mask"]


def test_equal_tokenizers_are_equal_bytes_without_a_path(tokenizer: Any, tmp_path: Path) -> None:
    files = tokenizer_files(tokenizer)
    assert files == tokenizer_files(tokenizer) and sorted(files) == ["tokenizer.json", "tokenizer_config.json"]
    config = json.loads(files["tokenizer_config.json"])
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast" and config["chat_template"]
    assert str(tmp_path) not in files["tokenizer_config.json"].decode()
    assert not {"backend", "is_local", "name_or_path"} & set(config)
