"""Stop, end-of-turn and pad tokens follow from tokenizer, generation config and template, whatever their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.checkouts import ROOT
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from bilora.bases.kinds.folder import FolderBase
from bilora.bases.prompt import encode_answer
from bilora.bases.special_tokens import end_of_turn, pad_token, stop_ids
from bilora.errors import BadData
from bilora.records import Message

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKING = CHATML.replace("+ m.content", "+ ('<think>\n\n</think>\n\n' if m.role == 'assistant' else '') + m.content")
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|header|>{{ m.role }}<|/header|>\n\n{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|header|>assistant<|/header|>\n\n{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}"
)
PLAIN = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n{% endfor %}### assistant:\n"
ONE_QUESTION = "{% if messages | length > 3 %}{{ raise_exception('one question only') }}{% endif %}" + CHATML
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def byte_level_tokenizer(template: str, *tokens: str, extra: tuple[str, ...] = (), **named: str) -> Any:
    """A byte-level tokenizer with these special tokens, numbered from 0; `extra` ones are added but not special."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_tokens([AddedToken(token, special=True) for token in tokens] + [AddedToken(token) for token in extra])
    backend.add_tokens([AddedToken(char) for char in sorted(pre_tokenizers.ByteLevel.alphabet())])
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **named)


def eos(ids: int | list[int] | None) -> GenerationConfig:
    return GenerationConfig(eos_token_id=ids)


def name(tokenizer: Any, token: int | None) -> str | None:
    return None if token is None else tokenizer.convert_ids_to_tokens(token)


def test_the_smoke_base_stops_where_it_always_did() -> None:
    opened = FolderBase.at(ROOT / "models" / "smoke")
    tokenizer = opened.tokenizer()
    stops = stop_ids(tokenizer, opened.generation_config())
    assert tokenizer.convert_ids_to_tokens(stops) == ["<|endoftext|>", "<|assistant|>", "<|end|>"]
    assert name(tokenizer, end_of_turn(tokenizer)) == "<|end|>"
    assert tokenizer.pad_token == "<unk>"


def test_phi_3_stops_where_its_generation_config_and_template_say(phi3: Any) -> None:
    published = [32000, 32001, 32007]  # eos_token_id of microsoft/Phi-3-mini-4k-instruct's generation_config.json
    assert stop_ids(phi3, eos(published)) == published
    assert phi3.convert_ids_to_tokens(stop_ids(phi3, eos(None))) == ["<|endoftext|>", "<|end|>"]
    assert phi3.pad_token == "<unk>"  # its own is <|endoftext|>


@pytest.mark.parametrize(
    ("template", "tokens", "end"),
    [
        (CHATML, CHATML_TOKENS, "<|im_end|>"),
        (THINKING, CHATML_TOKENS, "<|im_end|>"),
        (ONE_QUESTION, CHATML_TOKENS, "<|im_end|>"),
        (LLAMA_3, ("<|begin|>", "<|end_of_text|>", "<|header|>", "<|/header|>", "<|eot_id|>"), "<|eot_id|>"),
        (LLAMA_2, ("<s>", "</s>"), "</s>"),
        (PLAIN, ("<s>", "</s>"), None),
    ],
    ids=["ChatML", "thinking", "one question", "Llama 3", "Llama 2", "plain text"],
)
def test_the_end_of_a_turn_is_what_the_template_writes_after_an_answer(
    template: str, tokens: tuple[str, ...], end: str | None
) -> None:
    tokenizer = byte_level_tokenizer(
        template, *tokens, extra=("<think>", "</think>"), bos_token=tokens[0], eos_token=tokens[1]
    )
    assert name(tokenizer, end_of_turn(tokenizer)) == end
    expected = {tokens[1], end} - {None}
    assert set(tokenizer.convert_ids_to_tokens(stop_ids(tokenizer, eos(None)))) == expected
    assert set(stop_ids(tokenizer, eos(0))) == {0, *stop_ids(tokenizer, eos(None))}


def test_a_tokenizer_without_eos_stops_at_the_end_of_the_turn() -> None:
    assert stop_ids(byte_level_tokenizer(CHATML, *CHATML_TOKENS), eos(None)) == [2]


@pytest.mark.parametrize(
    ("tokens", "named", "pad"),
    [
        (CHATML_TOKENS, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, "<|endoftext|>"),  # as Qwen2
        (
            CHATML_TOKENS,  # as SmolLM2
            {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>"},
            "<|endoftext|>",
        ),
        (CHATML_TOKENS, {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}, "<|endoftext|>"),
        (CHATML_TOKENS, {"eos_token": "<|im_end|>"}, "<|endoftext|>"),
        (("<|im_end|>", "<|im_start|>", "<pad>"), {"eos_token": "<|im_end|>", "unk_token": "<|im_end|>"}, "<pad>"),
        (("<unk>", *CHATML_TOKENS), {"unk_token": "<unk>", "pad_token": "<|endoftext|>"}, "<unk>"),
    ],
)
def test_no_training_row_contains_the_pad_token(tokens: tuple[str, ...], named: dict[str, str], pad: str) -> None:
    tokenizer = byte_level_tokenizer(CHATML, *tokens, **named)
    assert pad_token(tokenizer) == pad
    messages = [Message(role="system", content="Be brief."), Message(role="user", content="Why?")]
    prompt, answer = encode_answer(tokenizer, messages, "So.", stop_ids(tokenizer, eos(None)))
    assert tokenizer.convert_tokens_to_ids(pad) not in [*prompt, *answer]
    assert name(tokenizer, answer[-1]) == "<|im_end|>"


def test_a_token_after_the_end_of_the_answer_may_pad() -> None:
    """As Phi-3 without `<unk>`: its template ends a chat with `<|endoftext|>`, but a row ends before it."""
    template = CHATML.replace("{% endif %}", "{% else %}{{ eos_token }}{% endif %}")
    tokenizer = byte_level_tokenizer(template, *CHATML_TOKENS, eos_token="<|endoftext|>")
    assert pad_token(tokenizer) == "<|endoftext|>"


def test_a_tokenizer_without_a_token_to_pad_with_is_one_sentence() -> None:
    with pytest.raises(BadData, match="none is left for padding"):
        pad_token(byte_level_tokenizer(CHATML, "<|im_start|>", "<|im_end|>", eos_token="<|im_end|>"))


def test_a_chatml_base_loads_with_its_own_tokens(tmp_path: Path) -> None:
    byte_level_tokenizer(CHATML, *CHATML_TOKENS, eos_token="<|im_end|>").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", "eos_token_id": 2}', encoding="utf-8")
    base = FolderBase.at(tmp_path)
    tokenizer = base.tokenizer()
    assert (tokenizer.pad_token, tokenizer.padding_side) == ("<|endoftext|>", "left")
    assert stop_ids(tokenizer, base.generation_config()) == [2]
