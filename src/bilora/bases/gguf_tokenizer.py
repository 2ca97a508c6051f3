"""Build the byte-level BPE tokenizer of a GGUF file as llama.cpp does, with the pre-tokenizer that `pre` names.

transformers ignores `pre` in GGUF files and splits every text as GPT-2 does. Sources: llama.cpp's `llama-vocab.cpp`,
and the tokenizers published with the models. To support another pre-tokenizer, add an entry to `PRE_TOKENIZERS` and
compare it with llama.cpp (tests/bases/test_gguf_tokenizer.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilora.errors import BadData

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

_CONTROL, _USER_DEFINED = 3, 4
"""The values of `token_type` in GGUF of tokens that are matched before a text is split."""
_WORDS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+"
_OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class PreTokenizer:
    """How a text is split before BPE merges the bytes of each part.

    Attributes:
        single_digits: whether every digit is a separate part.
        pattern: each match is a part; None for GPT-2's pattern.
        ignore_merges: whether a part in the vocabulary is one token even if no merges lead to it.
        adds_bos: whether texts begin with the BOS token if the file does not say.
    """

    single_digits: bool = False
    pattern: str | None = None
    ignore_merges: bool = False
    adds_bos: bool = False


PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "gpt-2": PreTokenizer(),
    "smollm": PreTokenizer(single_digits=True),
    "qwen2": PreTokenizer(pattern=rf"{_WORDS}|\p{{N}}|{_OTHERS}"),
    "llama-bpe": PreTokenizer(pattern=rf"{_WORDS}|\p{{N}}{{1,3}}|{_OTHERS}", ignore_merges=True, adds_bos=True),
}
"""The supported pre-tokenizers by their name in `tokenizer.ggml.pre`."""


def gguf_tokenizer(metadata: Mapping[str, Any], file: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a GGUF file, without a pad token.

    Args:
        metadata: the file's metadata.
        file: its path, for messages.

    Raises:
        BadData: the tokenizer is not byte-level BPE, or its pre-tokenizer is not supported.
    """
    from transformers import PreTrainedTokenizerFast

    tokens = metadata["tokenizer.ggml.tokens"]

    def token(kind: str) -> str | None:
        number = metadata.get(f"tokenizer.ggml.{kind}_token_id")
        return None if number is None else tokens[number]

    special = {f"{kind}_token": token(gguf) for kind, gguf in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"))}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_backend(metadata, file),
        model_max_length=metadata[f"{metadata['general.architecture']}.context_length"],
        clean_up_tokenization_spaces=False,
        **{name: value for name, value in special.items() if value is not None},
    )
    tokenizer.chat_template = metadata.get("tokenizer.chat_template")
    return tokenizer


def _backend(metadata: Mapping[str, Any], file: Path) -> tokenizers.Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors

    # 1) Check that the tokenizer is supported.
    model, pre = metadata.get("tokenizer.ggml.model"), str(metadata.get("tokenizer.ggml.pre"))
    if model != "gpt2":
        raise BadData(file, f"its tokenizer has the model {model!r}; only 'gpt2' (byte-level BPE) is supported.")
    if pre not in PRE_TOKENIZERS:
        raise BadData(file, f"its pre-tokenizer is {pre!r}; supported are {', '.join(PRE_TOKENIZERS)}.")
    pre_tokenizer = PRE_TOKENIZERS[pre]
    # 2) Add the vocabulary and the merges in the order of the file.
    tokens = metadata["tokenizer.ggml.tokens"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise BadData(file, "its tokenizer has two tokens with the same text; use another file.")
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=pre_tokenizer.ignore_merges))
    tokenizer.pre_tokenizer = _splitter(pre_tokenizer, vocabulary)
    tokenizer.decoder = decoders.ByteLevel()
    # 3) Add the tokens that are matched before a text is split.
    tokenizer.add_tokens(
        [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, kind in zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    # 4) Begin texts with the BOS token, if the file or the pre-tokenizer says so.
    if metadata.get("tokenizer.ggml.add_bos_token", pre_tokenizer.adds_bos):
        bos = tokens[metadata["tokenizer.ggml.bos_token_id"]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocabulary[bos])]
        )
    return tokenizer


def _splitter(pre_tokenizer: PreTokenizer, vocabulary: Mapping[str, int]) -> tokenizers.pre_tokenizers.PreTokenizer:
    from tokenizers import Regex, pre_tokenizers

    splitters: list[pre_tokenizers.PreTokenizer] = []
    if pre_tokenizer.single_digits:
        splitters.append(pre_tokenizers.Digits(individual_digits=True))
    if pre_tokenizer.pattern is not None:
        splitters.append(pre_tokenizers.Split(Regex(pre_tokenizer.pattern), behavior="isolated"))
    splitters.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre_tokenizer.pattern is None))
    # Bytes without a token are removed, and the text is not merged across them.
    if absent := sorted(set(pre_tokenizers.ByteLevel.alphabet()) - vocabulary.keys()):
        splitters.append(pre_tokenizers.Split(Regex(f"[{''.join(absent)}]"), behavior="removed"))
    return pre_tokenizers.Sequence(splitters)
