"""An adapter and its tokenizer load in PEFT 0.13.2 as in the newest, weight by weight: `make test-old-peft`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkouts import ROOT
from support.random_adapters import write_random_adapter
from support.sample_adapters import SMOKE

from bilora.bases.tokenizer_files import tokenizer_files
from bilora.storage import sha256_bytes, write_bytes

OLD = ROOT / ".cache" / "old-peft"
TEXT = "def f(x):\n    return x + 1"
PROGRAM = f"""
import hashlib, json, sys, warnings
import peft
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoTokenizer

warnings.filterwarnings("error", message=".*(missing|unexpected).*")
folder, base = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
weights = {{
    name: hashlib.sha256(tensor.float().contiguous().numpy().tobytes()).hexdigest()
    for name, tensor in get_peft_model_state_dict(model).items()
}}
chat = [{{"role": "user", "content": "Why?"}}]
print(json.dumps({{
    "version": peft.__version__,
    "weights": weights,
    "scale": sorted({{one.scaling["default"] for one in model.modules() if isinstance(one, LoraLayer)}}),
    "ids": tokenizer({TEXT!r}, add_special_tokens=False)["input_ids"],
    "inputs": list(tokenizer({TEXT!r})),
    "chat": tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True),
}}))
"""


@pytest.mark.parametrize("version", ["0.13.2", None])
def test_every_weight_is_loaded_and_the_tokenizer_too(version: str | None, tmp_path: Path) -> None:
    import peft
    from safetensors.torch import load_file

    if version and not OLD.is_dir():
        pytest.skip("PEFT 0.13.2 is not installed: run `make test-old-peft`")
    folder = write_random_adapter(tmp_path / "adapter", SMOKE, ["qkv_proj", "down_proj"], seed=1)
    tokenizer = SMOKE.tokenizer()
    for name, data in tokenizer_files(tokenizer).items():
        write_bytes(folder / name, data)
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(SMOKE.folder())],
        env={**inherited, "HF_HUB_OFFLINE": "1"} | ({"PYTHONPATH": str(OLD)} if version else {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = json.loads(done.stdout.splitlines()[-1])
    written = load_file(folder / "adapter_model.safetensors")
    chat = [{"role": "user", "content": "Why?"}]
    assert loaded == {
        "version": version or peft.__version__,
        "weights": {name: sha256_bytes(tensor.numpy().tobytes()) for name, tensor in written.items()},
        "scale": [16.0],
        "ids": tokenizer(TEXT, add_special_tokens=False)["input_ids"],
        "inputs": ["input_ids", "attention_mask"],
        "chat": tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True),
    }
