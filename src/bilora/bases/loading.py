"""One loader decides how the base and its tokenizer come into memory, and says what it did."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilora.bases.prompt import check_template
from bilora.errors import BadData, NotReady, Unreachable
from bilora.inference.memory import keep_freed_memory
from bilora.params import Base
from bilora.storage import sha256_json, sha256_tree

NO_MODEL = "there is no model here; `base.id` must name a model folder or a hub id."


@dataclass(frozen=True)
class Loaded:
    """A base in memory. `mode` says device, precision and quantisation in one line."""

    model: Any
    tokenizer: Any
    mode: str


IDENTITY = (".safetensors", ".json", ".jinja", ".model", "merges.txt", "vocab.txt")
"""Endings of a model folder's files that decide how it answers: its weights, configuration, tokenizer, templates."""


def base_revision(base: Base) -> str:
    """Return what pins the base: the hub commit, or the hash of the folder's files that decide how it answers."""
    return base.revision or folder_revision(base_files(base))


def base_files(base: Base) -> dict[str, str]:
    """Return the SHA-256 of each file that decides how the base answers; of none if a hub commit pins them.

    Raises:
        BadData: there is no model in the folder.
    """
    if base.revision is not None:
        return {}
    folder = Path(base.id)
    if not (folder / "config.json").is_file():
        raise BadData(folder, NO_MODEL)
    return {name: digest for name, digest in sha256_tree(folder).items() if name.endswith(IDENTITY)}


def folder_revision(digests: Mapping[str, str]) -> str:
    """Name a model folder by the SHA-256 of its files, of those that decide how it answers only."""
    return sha256_json({name: digest for name, digest in digests.items() if name.endswith(IDENTITY)})[:40]


def changed_files(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return the names of the files that decide how a base answers and whose SHA-256 differs, for a person."""
    names = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    return ", ".join(name for name in names if name.endswith(IDENTITY))


def load_tokenizer(base: Base) -> Any:
    """Load the base's tokenizer, padding on the left for generation.

    tokenizer.json is taken as it stands: AutoTokenizer of transformers 5.23 rebuilds Phi-3's as a
    Llama tokenizer, which encodes text after special tokens differently and fails 15 of its 47
    published vectors. The pad token is `<unk>`: Phi-3's own choice is the end token, which
    training would then mask.
    """
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(base.id, revision=base.revision)
    except OSError as error:
        raise _unreachable(base, error) from None
    if tokenizer.chat_template is None:
        raise BadData(base.id, "the tokenizer has no chat template; use an instruction-tuned base.")
    if tokenizer.unk_token is not None:
        tokenizer.pad_token = tokenizer.unk_token
    tokenizer.padding_side = "left"
    check_template(tokenizer)
    return tokenizer


def load_base(base: Base, *, training: bool = False) -> Loaded:
    """Load the base: safetensors only, never remote code.

    Args:
        training: load for training (NF4 when the params say so and CUDA is there, else 32-bit on
            CPU and 16-bit on CUDA); otherwise in `base.dtype`, the precision that is served, and with
            16-bit weights in the order that this CPU reads fastest.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from bilora.inference.torch.cpu_tuning import pack_linear_layers

    cuda = torch.cuda.is_available()
    if not cuda:
        keep_freed_memory()
    dtype = getattr(torch, base.dtype)
    extra: dict[str, Any] = {}
    mode: str = base.dtype
    if training and base.quantize == "nf4":
        if not cuda:
            raise BadData("base.quantize", "nf4 trains on CUDA only; set it to null on this machine.")
        if importlib.util.find_spec("bitsandbytes") is None:
            raise NotReady(
                'bitsandbytes is not installed. Run `pip install "bilora[gpu]"`, or set base.quantize: null.'
            )
        from transformers import BitsAndBytesConfig

        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16,
        )
        mode = "nf4"
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.id,
            revision=base.revision,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation="sdpa",
            device_map={"": 0} if cuda else None,
            **extra,
        )
    except OSError as error:
        raise _unreachable(base, error) from None
    model.eval()
    if not training and pack_linear_layers(model):
        mode += " packed for oneDNN"
    device = torch.cuda.get_device_name() if cuda else "cpu"
    return Loaded(model, load_tokenizer(base), f"{device}, {mode}")


def _unreachable(base: Base, error: OSError) -> Unreachable | BadData:
    reason = str(error).splitlines()[0][:200]
    if base.local and not (Path(base.id) / "config.json").is_file():
        return BadData(base.id, NO_MODEL)
    if base.local:
        return BadData(base.id, f"cannot be loaded ({reason}).")
    return Unreachable(
        f"{base.id} at {base.revision} could not be fetched ({reason}). Check the network, or use the nano profile."
    )


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return the ids that end an answer: those of the generation config and the chat's own end tokens."""
    return end_ids(model.generation_config, tokenizer)


def end_ids(generation: Any, tokenizer: Any) -> list[int]:
    """Return what `stop_ids` does for a base that is not in memory, from its generation config."""
    configured = generation.eos_token_id
    ids = set(configured if isinstance(configured, list) else [configured] if configured is not None else [])
    vocabulary = tokenizer.get_vocab()
    ids.update(vocabulary[token] for token in ("<|end|>", "<|assistant|>", "<|endoftext|>") if token in vocabulary)
    ids.add(tokenizer.eos_token_id)
    return sorted(ids)
