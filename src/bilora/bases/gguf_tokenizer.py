"""Build the tokenizer of a GGUF file as llama.cpp does: byte-level BPE, with texts split as the file's `pre` name says.

transformers' own reading of GGUF ignores that name and splits every text as GPT-2 does. Sources: llama.cpp's
`llama-vocab.cpp`, and the tokenizers that the models were published with. Another name is one more entry of
`PRE_TOKENIZERS`, after a comparison with llama.cpp (tests/bases/test_gguf_tokenizer.py).
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
"""GGUF's `token_type` of tokens that are matched in a text before it is split."""
_WORDS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+"
_OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class PreTokenizer:
    """How a text is split before BPE merges the bytes of each part.

    `single_digits`: every digit is a part of its own. `pattern`: one match is one part; None for GPT-2's.
    `ignore_merges`: a part that is a token is that token. `adds_bos`: whether a text begins with the BOS token where
    the file does not say so.
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
"""By the name in `tokenizer.ggml.pre`."""


def gguf_tokenizer(metadata: Mapping[str, Any], file: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer that a GGUF file describes, without a pad token.

    Args:
        metadata: of the file, by its keys.
        file: named in messages.

    Raises:
        BadData: the file has no such tokenizer, or another than the known ones.
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

    # 1) Refuse what is not known to be split as llama.cpp does it.
    model, pre = metadata.get("tokenizer.ggml.model"), str(metadata.get("tokenizer.ggml.pre"))
    if model != "gpt2":
        raise BadData(file, f"its tokenizer is of the model {model!r}; only byte-level BPE, 'gpt2', is read from GGUF.")
    if pre not in PRE_TOKENIZERS:
        raise BadData(file, f"its tokenizer splits texts as {pre!r}; known are {', '.join(PRE_TOKENIZERS)}.")
    chosen = PRE_TOKENIZERS[pre]
    # 2) The vocabulary and the merges, in the order of the file.
    tokens = metadata["tokenizer.ggml.tokens"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise BadData(file, "its tokenizer has two tokens of one text; take another file.")
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=chosen.ignore_merges))
    tokenizer.pre_tokenizer = _splitter(chosen, vocabulary)
    tokenizer.decoder = decoders.ByteLevel()
    # 3) Tokens that are matched before a text is split; the control tokens among them are no text.
    tokenizer.add_tokens(
        [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, kind in zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    # 4) The token that begins every text, where there is one.
    if metadata.get("tokenizer.ggml.add_bos_token", chosen.adds_bos):
        bos = tokens[metadata["tokenizer.ggml.bos_token_id"]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocabulary[bos])]
        )
    return tokenizer


def _splitter(chosen: PreTokenizer, vocabulary: Mapping[str, int]) -> tokenizers.pre_tokenizers.PreTokenizer:
    from tokenizers import Regex, pre_tokenizers

    splitters: list[pre_tokenizers.PreTokenizer] = []
    if chosen.single_digits:
        splitters.append(pre_tokenizers.Digits(individual_digits=True))
    if chosen.pattern is not None:
        splitters.append(pre_tokenizers.Split(Regex(chosen.pattern), behavior="isolated"))
    splitters.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=chosen.pattern is None))
    # A byte without a token is left out; what is before it and after it is not merged across it.
    if absent := sorted(set(pre_tokenizers.ByteLevel.alphabet()) - vocabulary.keys()):
        splitters.append(pre_tokenizers.Split(Regex(f"[{''.join(absent)}]"), behavior="removed"))
    return pre_tokenizers.Sequence(splitters)
