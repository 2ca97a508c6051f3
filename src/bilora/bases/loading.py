"""Load a base and its tokenizer into memory, from safetensors and without remote code."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Literal

from bilora.bases.precision import Precision
from bilora.bases.prompt import check_template
from bilora.bases.special_tokens import pad_token, stop_ids
from bilora.bases.tokenizer import Tokenizer
from bilora.errors import BadData, NotReady

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class LoadedBase:
    """A base in memory. `mode` names device, precision and quantization in one line."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    mode: str

    @cached_property
    def stop_ids(self) -> list[int]:
        """The token ids that end a completion."""
        return stop_ids(self.tokenizer, self.model.generation_config)


def load_tokenizer(location: str, *, revision: str | None, name: str) -> Tokenizer:
    """Load a tokenizer that pads on the left, for generation.

    tokenizer.json is loaded unchanged: AutoTokenizer of transformers 5.23 rebuilds Phi-3's as a Llama tokenizer, which
    encodes text after special tokens differently from the published vectors (tests/training/test_encode.py).

    Args:
        location: a folder, or a hub id with its `revision`.
        name: the base's name in messages.

    Raises:
        BadData: there is no chat template, or it cannot be used.
        OSError: there is no tokenizer, or it cannot be downloaded.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer: Tokenizer = PreTrainedTokenizerFast.from_pretrained(location, revision=revision)
    tokenizer.name_or_path = name
    if tokenizer.chat_template is None:
        raise BadData(name, "the tokenizer has no chat template; use an instruction-tuned base.")
    tokenizer.padding_side = "left"
    check_template(tokenizer)
    tokenizer.pad_token = pad_token(tokenizer)
    return tokenizer


def load_model(
    location: str, *, revision: str | None, dtype: Precision, quantize: Literal["nf4"] | None
) -> tuple[PreTrainedModel, str]:
    """Load a model onto the GPU if there is one; return the model, and its device and precision in one line.

    Args:
        location: a folder, or a hub id with its `revision`.
        quantize: `nf4` loads a 4-bit copy for training (CUDA only).

    Raises:
        BadData, NotReady: it cannot be quantized on this machine.
        OSError: there are no weights, or they cannot be downloaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    cuda = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(
        location,
        revision=revision,
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        attn_implementation="sdpa",
        device_map={"": 0} if cuda else None,
        quantization_config=_nf4() if quantize == "nf4" else None,
    )
    model.eval()
    return model, f"{torch.cuda.get_device_name() if cuda else 'cpu'}, {quantize or dtype}"


def count_parameters(config: PretrainedConfig) -> int:
    """Return the number of parameters of a model with this config, without loading it."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def shared_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model's modules that shares its weights, so that layers can be replaced in one of them."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)


def _nf4() -> BitsAndBytesConfig:
    """Return the settings of a 4-bit copy for training (QLoRA, Dettmers et al. 2023)."""
    import torch
    from transformers import BitsAndBytesConfig

    if not torch.cuda.is_available():
        raise BadData("base.quantize", "nf4 trains on CUDA only; set it to null on this machine.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise NotReady('bitsandbytes is not installed. Run `pip install "bilora[gpu]"`, or set base.quantize: null.')
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16,
    )
